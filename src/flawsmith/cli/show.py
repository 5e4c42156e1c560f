"""`flawsmith show`: what a generated folder or a trained run holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flawsmith.cli import terminal


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
            "steps": entry.get("steps", "-"),
            "held-out loss": f"{entry['held_out']:.4f}" if isinstance(entry.get("held_out"), float) else "-",
            "real defects seen": len(entry["support"]),
            "stopped": entry.get("stopped", "-"),
        }
        for key, entry in card.get("learned", {}).items()
    ]
    terminal.table("Learned", rows)
    terminal.table("Weights, apart from the backbone's", report.adapters(run))
    if card.get("options"):
        typer.echo(f"options: {card['options']}")
