"""`flawsmith check` and `flawsmith show`: what a folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flawsmith.cli import terminal
from flawsmith.cli.options import READERS, Category, GroupBy


def check(
    source: Annotated[str, typer.Argument(metavar="READER:DIR", help=f"Data set: {READERS}.")],
    category: Category = None,
    group_by: GroupBy = None,
    json_: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write summary and findings to this file.")
    ] = None,
) -> None:
    """Look at a data set: a summary, and findings with file, reason and fix.

    Nothing else is written. Exit code 2 when something would stop flawsmith (damaged files, masks of another size).

    Example: `flawsmith check mvtec_ad:data/bottle`
    """
    from flawsmith import datasets, images, inputs
    from flawsmith.datasets import check as checking

    typer.echo(datasets.told(source))
    with terminal.progress() as bar:
        task = bar.add_task("checking", total=None)
        report = checking.check(
            source,
            category=category,
            group_by=group_by or "group",
            progress=lambda what, done, total, _: bar.update(task, completed=done, total=total),
        )
    terminal.table("Data set", report.rows)
    if json_ is not None:
        content = {"source": source, **report.as_dict()}
        images.write_bytes(inputs.home(json_), (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    if not report.findings:
        typer.echo("No findings.")
    for finding in report.grouped():
        terminal.say(f"{finding.severity:8}", terminal.COLOURS.get(finding.severity, "blue"), nl=False)
        typer.echo(f"{finding.file}: {finding.reason}{f' Fix: {finding.fix}' if finding.fix else ''}")
    if any(finding.severity == "error" for finding in report.findings):
        raise typer.Exit(2)


def show(
    target: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A generated folder, or the folder of a trained run.")
    ],
    sheet: Annotated[
        Path | None, typer.Option(help="Where to write the contact sheet. Default: FOLDER-sheet.png.")
    ] = None,
    count: Annotated[int, typer.Option("-n", min=1, max=200, help="Images on the sheet.")] = 12,
) -> None:
    """Show what a folder holds: a table, and a contact sheet (normal | mask | defect | zoom).

    Of a trained run: what it has learned from how many images, and its files; no sheet.

    Example: `flawsmith show out/painted --sheet painted.png`; for a page with filters, `flawsmith report`.
    """
    from flawsmith import images, report
    from flawsmith.datasets.writer import read_manifest
    from flawsmith.errors import FlawsmithError
    from flawsmith.inputs import home

    target = home(target)
    card = target / "card.json"
    if card.is_file():
        if sheet:
            raise FlawsmithError(
                f"{target} is a trained run and holds no images: leave --sheet out, or generate with it "
                f"(`flawsmith generate {target} ...`) and show that folder."
            )
        _show_run(target)
        return
    lines = read_manifest(target)
    terminal.table(str(target), report.statistics(lines))
    for reason in sorted({line["reason"] for line in lines if line["status"] != "kept"}):
        typer.echo(f"refused: {reason}")
    beside = target.parent / f"{target.name}-sheet.png"  # inside, readers would take it for a sample
    path = home(sheet) if sheet else beside
    images.write_image(path, report.sheet(target, count))
    typer.echo(f"Contact sheet: {path}")


def _show_run(run: Path) -> None:
    from flawsmith import report
    from flawsmith.methods.base import read_card

    card = read_card(run)
    typer.echo(
        f"{run}: {card['method']} on backbone {card.get('backbone', '-')}, flawsmith {card.get('flawsmith', '-')}"
    )
    rows = [
        {
            "defect": key,
            "file": entry["file"],
            "steps": entry["steps"],
            "held-out loss": "-" if entry["held_out"] is None else f"{entry['held_out']:.4f}",
            "real defects seen": len(entry["support"]),
            "stopped": entry["stopped"],
        }
        for key, entry in card.get("learned", {}).items()
    ]
    terminal.table("Learned", rows)
    terminal.table("Weights, apart from the backbone's", report.adapters(run))
    if card.get("options"):
        typer.echo(f"options: {card['options']}")
