"""`flawsmith report`: folders and results as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flawsmith.cli import terminal


def report(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="OUT|RESULTS...", help="Generated folders and results of evaluate; several make one page."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    real: Annotated[
        str | None,
        typer.Option(
            metavar="READER:DIR",
            help="Real defects to compare with. Default: those of the data set that was painted on.",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page. Default: the folders' names.")] = None,
) -> None:
    """One self-contained HTML page about generated images, evaluations, or both.

    Images with filters and details, their nearest real defects, distributions real against generated, metrics with
    intervals and meanings, refusals with reasons, licences. It opens from disk and asks nothing of the network.

    Examples:

    `flawsmith report out/painted --out painted.html`

    `flawsmith report results/painted --out results.html`
    """
    from flawsmith.errors import FlawsmithError
    from flawsmith.inputs import home
    from flawsmith.report import generated, page

    out = home(out)
    if out.is_dir():
        raise FlawsmithError(
            f"--out {out} is a folder: name the HTML file to write, for example {out / 'report.html'}."
        )
    folders, results = generated.divide([home(target) for target in targets])
    if any(out.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise FlawsmithError(
            f"--out {out} lies inside a generated folder, which readers take for a data set: write it beside."
        )
    names = [folder.name for folder in [*folders, *results]]
    with terminal.progress() as bar:
        task = bar.add_task("images", total=None)
        notes = page.write(
            [(folder.name, folder) for folder in folders],
            out,
            results,
            title or f"flawsmith: {', '.join(dict.fromkeys(names))}",
            real,
            lambda what, done, total, _: bar.update(task, completed=done, total=total),
        )
    terminal.notes(notes)
    typer.echo(f"Report: {out} ({out.stat().st_size / 1e6:.1f} MB). Open it in a browser.")
