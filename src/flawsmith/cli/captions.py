"""`flawsmith captions`: a sentence for every defect, in a table to be edited."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from flawsmith.cli import terminal
from flawsmith.cli.options import READERS, Category, Device


def captions(
    source: Annotated[str, typer.Argument(metavar="READER:DIR", help=f"Data set: {READERS}.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table to write, .csv or .jsonl. What stands in it stays. As captions.csv in the data set's folder it "
            "is read with the data set.",
        ),
    ] = None,
    given: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Table of captions, .csv or .jsonl, that win over all others."),
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Describe every defect again that --from does not name.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Describe with this image-to-text model instead (transformers, a folder)."),
    ] = None,
    device: Device = None,
    category: Category = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also draw the shown images with their captions.")
    ] = None,
    count: Annotated[int, typer.Option("-n", min=1, max=200, help="Captions to show.")] = 12,
) -> None:
    """Captions of a data set's defects: its own, and where it has none, what can be measured.

    A measured one says number, contrast, size, shape, colour and place.

    Without --out this is a preview, and nothing is written. To edit: write the table, change it, and leave it in the
    data set's folder as captions.csv; the same command again keeps what you wrote and adds what is missing.

    Examples:

    `flawsmith captions mvtec_ad:data/widget`

    `flawsmith captions mvtec_ad:data/widget --out data/widget/captions.csv`
    """
    from flawsmith import datasets, images
    from flawsmith.captions.measured import caption
    from flawsmith.datasets import captioning
    from flawsmith.inputs import home
    from flawsmith.methods.samples import Samples

    typer.echo(datasets.told(source))
    records = datasets.read_source(source, category)
    describe = caption
    if model is not None:
        from flawsmith.captioner import Captioner

        describe = Captioner.from_pretrained(home(Path(model)), device or "cpu")
    with terminal.progress() as bar:
        task = bar.add_task("describing", total=None)
        found = captioning.write_captions(
            records,
            home(out) if out else None,
            given=home(given) if given else None,
            describe=describe,
            anew=anew,
            progress=lambda what, done, total, _: bar.update(task, completed=done, total=total),
        )
    shown = found[:: max(1, -(-len(found) // count))]
    rows = [{"image": one.record.name, "from": one.source, "caption": one.record.caption or None} for one in shown]
    terminal.table(f"Captions, {len(rows)} of {len(found)}", rows)
    if sheet is not None:
        page = Samples(one.record.load() for one in shown).sheet(len(shown), 256)
        images.write_image(home(sheet), page)
        typer.echo(f"Sheet: {sheet}")
    counted = Counter(one.source for one in found)
    names = {"own": "of the data set", "table": "of a table", "described": "described"}
    typer.echo(f"{len(found)} captions: " + ", ".join(f"{n} {names[key]}" for key, n in counted.items()) + ".")
    if out is None:
        typer.echo("Nothing is written without --out.")
    else:
        typer.echo(
            f"Written to {out}: edit it there; captions.csv or captions.jsonl in the data set's folder are read."
        )
