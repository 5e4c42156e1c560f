"""`flawsmith check`: what is in a data set, what is wrong with it, and a repaired copy."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flawsmith.cli import terminal
from flawsmith.cli.options import READERS, Category, GroupBy

if TYPE_CHECKING:
    from flawsmith.datasets.check import Report

ON_SHEET = 12


def check(
    source: Annotated[str, typer.Argument(metavar="READER:DIR", help=f"Data set: {READERS}.")],
    category: Category = None,
    group_by: GroupBy = None,
    window: Annotated[
        int, typer.Option(min=16, help="To how many pixels your detector shrinks an image: tells what is too tiny.")
    ] = 256,
    fix: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Also write a repaired copy to this folder; the source stays.")
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write which images seem to show one part, as an origin.csv to look at."
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help=f"Also draw {ON_SHEET} masks on their images; those that were proposed, if any."
        ),
    ] = None,
    json_: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write summary and findings to this file.")
    ] = None,
) -> None:
    """Look at a data set: a summary, and findings with file, reason and fix.

    Nothing else is written without --fix, --groups, --sheet or --json. Exit code 2 when something would stop flawsmith
    (damaged files, masks of another size).

    Examples:

    `flawsmith check mvtec_ad:data/bottle`

    `flawsmith check data/parts --fix data/mended`
    """
    from flawsmith import datasets, images, inputs
    from flawsmith.datasets import check as checking
    from flawsmith.datasets import mend

    typer.echo(datasets.told(source))
    with terminal.progress() as bar:
        task = bar.add_task("checking", total=None)
        report = checking.check(
            source,
            category=category,
            group_by=group_by or "group",
            window=window,
            progress=lambda what, done, total, _: bar.update(task, completed=done, total=total),
        )
    terminal.table("Data set", report.rows)
    if report.licences:
        typer.echo(f"Licence: {', '.join(report.licences)}")
    if json_ is not None:
        content = {"source": source, **report.as_dict()}
        images.write_bytes(inputs.home(json_), (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    if not report.findings:
        typer.echo("No findings.")
    for finding in report.grouped():
        terminal.say(f"{finding.severity:8}", terminal.COLOURS.get(finding.severity, "blue"), nl=False)
        typer.echo(f"{finding.file}: {finding.reason}{f' Fix: {finding.fix}' if finding.fix else ''}")
    if sheet is not None:
        _draw(report, inputs.home(sheet))
    if groups is not None:
        changed = mend.write_groups(report, inputs.home(groups))
        typer.echo(
            f"Groups: {groups}, {changed} images joined to another's part. Look before you use it as origin.csv."
        )
    if fix is not None:
        with terminal.progress() as bar:
            task = bar.add_task("repairing", total=None)
            repairs = mend.mend(
                source,
                report,
                inputs.home(fix),
                lambda what, done, total, _: bar.update(task, completed=done, total=total),
            )
        shown: Counter[str] = Counter()
        for one in repairs:
            cause = one.what.partition(":")[0].partition(" ")[0]
            shown[cause] += 1
            if shown[cause] <= 5:
                typer.echo(f"repaired {one.file}: {one.what}")
        typer.echo(f"{len(repairs)} repairs, all in {fix / mend.REPAIRS}. The copy: flawsmith check {fix}")
        return
    if any(finding.severity == "error" for finding in report.findings):
        raise typer.Exit(2)


def _draw(report: Report, path: Path) -> None:
    """Masks as flawsmith reads them, evenly spaced over the data set; proposed ones where there are any."""
    from flawsmith import images
    from flawsmith.methods.samples import Samples

    marked = [record for record, facts in report.pairs if not record.is_good and facts.area]
    chosen = [record for record in marked if record.is_proposed] or marked
    if not chosen:
        typer.echo("No sheet: no mask could be read.")
        return
    step = -(-len(chosen) // ON_SHEET)
    shown = [replace(record.load(), caption=f"{record.name}: {record.defect_type}") for record in chosen[::step]]
    images.write_image(path, Samples(shown).sheet(len(shown)))
    what = "proposed masks" if chosen[0].is_proposed else "masks"
    typer.echo(f"Sheet: {path}, {len(shown)} of {len(chosen)} {what}.")
