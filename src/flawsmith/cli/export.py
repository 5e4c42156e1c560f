"""`flawsmith export`: a generated folder or any readable data set in other tools' formats."""

from __future__ import annotations

from typing import Annotated

import typer

from flawsmith.cli import terminal
from flawsmith.cli.options import READERS, Category, GroupBy


def export(
    source: Annotated[
        str, typer.Argument(metavar="OUT", help=f"A generated folder, or a data set as READER:DIR: {READERS}.")
    ],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="Some of coco, yolo, yolo-seg, voc, labelme, datumaro, webdataset, hf-dataset, mvtec; commas between.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            help="Folder to write: itself for one format, a folder in it for each of many. webdataset also takes a "
            "URL, as s3://BUCKET/FOLDER (flawsmith[store])."
        ),
    ],
    merge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="READER:DIR",
            help="Join this data set; repeat for several. Generated images then only train, and so do the real ones "
            "they were made from.",
        ),
    ] = None,
    category: Category = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="part: divide by physical part; own: as the data set does. Default: own where it divides its defects."
        ),
    ] = None,
    val: Annotated[float, typer.Option(min=0, max=1, help="--split part: share for choosing settings.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="--split part: share for testing.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="--split part: another seed, another division.")] = 0,
    group_by: GroupBy = None,
) -> None:
    """Write a data set for other tools; run the same command again to resume.

    Images are copied as they are, defects as outlines that give the same pixels back; captions and origins stand in
    the format where it has room, and always in origin.csv.

    Examples:

    `flawsmith export out/painted --format coco,yolo-seg --out ready`

    `flawsmith export out/painted --merge mvtec_ad:data/widget --format yolo --out training`

    `flawsmith export out/painted --format webdataset --out s3://bucket/painted`
    """
    from flawsmith.datasets.exports import run as exports

    with terminal.progress() as bar:
        task = bar.add_task("exporting", total=None)
        done = exports.export(
            source,
            out,
            [word.strip() for word in format_.split(",") if word.strip()],
            merge=merge or (),
            category=category,
            split=split,
            val=val,
            test=test,
            seed=seed,
            group_by=group_by or "group",
            progress=lambda what, done, total, _: bar.update(task, completed=done, total=total),
        )
    terminal.table("Exported", done.rows)
    again = f" ({done.already} were already there)" if done.already else ""
    typer.echo(f"{done.images} images{again}: " + ", ".join(f"{key} in {at}" for key, at in done.places.items()))
    terminal.notes(done.notes)
