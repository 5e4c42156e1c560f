"""What the commands share on the terminal: coloured lines, notes, the progress bar, tables."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

COLOURS = {"ok": "green", "note": "yellow", "problem": "red", "error": "red", "warning": "yellow"}  # of a status


def say(text: str, colour: str, err: bool = False, nl: bool = True) -> None:
    """A line in colour where the terminal has some; plain where NO_COLOR is set (rich knows it, click does not)."""
    typer.secho(text, fg=colour, err=err, nl=nl, color=False if os.environ.get("NO_COLOR") else None)


def notes(texts: Sequence[str]) -> None:
    for text in texts:
        say(f"Note: {text}", "yellow", err=True)


class Notes(logging.Handler):
    """What the library has to say while it works (estimates, smaller batches), above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        notes([record.getMessage()])


def progress() -> Any:
    """rich's Progress on stderr, so that stdout holds results only."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),  # a name may hold brackets
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Rows with the same keys as a table on stdout; nothing where there are none."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return
    shown = Table(title=title, title_justify="left")
    for key in rows[0]:
        shown.add_column(key, overflow="fold")
    for row in rows:
        shown.add_row(*["-" if value is None else str(value) for value in row.values()])
    console = Console(markup=False, emoji=False)
    if not sys.stdout.isatty():  # a pipe has no width to fold to
        console.width = 160
    console.print(shown)
