"""What the commands share on the terminal: coloured lines, notes, the progress bar, tables."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import typer

COLOURS = {"ok": "green", "note": "yellow", "problem": "red", "error": "red", "warning": "yellow"}  # of a status
EVERY = 15.0  # seconds between two lines of progress where there is no terminal


def say(text: str, colour: str, err: bool = False, nl: bool = True) -> None:
    """A line in colour where the terminal has some; plain where NO_COLOR is set (rich knows it, click does not)."""
    typer.secho(text, fg=colour, err=err, nl=nl, color=False if os.environ.get("NO_COLOR") else None)


def notes(texts: Sequence[str]) -> None:
    for text in texts:
        say(f"Note: {text}", "yellow", err=True)


@contextlib.contextmanager
def one_of_many() -> Iterator[None]:
    """Of several processes that a launcher started for one command the first one speaks; of errors all tell."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    with nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


class Notes(logging.Handler):
    """What the library has to say while it works (estimates, smaller batches), above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        notes([record.getMessage()])


@dataclass
class Task:
    """One thing that is being done: from `base` at time `begun` it has come to `completed`."""

    description: str
    total: float | None
    begun: float
    base: float | None = None
    completed: float = 0.0
    told: bool = False  # since the last line


class Lines:
    """Progress as plain lines on stderr, one every EVERY seconds, for files, notebooks and pipes.

    Called as rich's Progress is. A thread of its own writes, so that a long silent step is heard of, too.
    """

    speed_estimate_period = 0.0  # rich's; here the whole time counts

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.begun = clock, clock()
        self.tasks: list[Task] = []
        self._last = 0  # the task that was updated last
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Lines:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def add_task(self, description: str, total: float | None = None) -> int:
        self.tasks.append(Task(description, total, self.clock()))
        return len(self.tasks) - 1

    def update(
        self, task: int, *, completed: float, total: float | None = None, description: str | None = None
    ) -> None:
        one = self.tasks[task]
        if one.base is None or (total is not None and total != one.total):
            one.base, one.begun = completed, self.clock()
        one.completed, one.told, self._last = completed, True, task
        one.total = one.total if total is None else total
        one.description = description or one.description

    def reset(self, task: int, *, total: float | None = None, description: str | None = None) -> None:
        self.tasks[task] = Task(description or self.tasks[task].description, total, self.clock())

    def line(self) -> str:
        """What was worked on since the last line; what is known of it where nothing was."""
        shown = [one for one in self.tasks if one.told] or self.tasks[self._last : self._last + 1]
        for one in shown:
            one.told = False
        return "; ".join(self._words(one) for one in shown) or f"preparing, {duration(self.clock() - self.begun)}"

    def _words(self, one: Task) -> str:
        spent = self.clock() - one.begun
        if one.total is None or one.base is None:
            return f"{one.description}: {duration(spent)}"
        text = f"{one.description}: {one.completed:g}/{one.total:g}"
        if one.completed > one.base:
            left = spent * (one.total - one.completed) / (one.completed - one.base)
            text += f", {duration(left)} left"
        return text

    def _write(self) -> None:
        while not self._done.wait(EVERY):
            with contextlib.suppress(OSError, ValueError):  # nobody listens any more
                typer.echo(self.line(), err=True)


def duration(seconds: float) -> str:
    """Seconds in words: 45 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class Forecast:
    """Says once how long a fit will take, by its own first steps."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.clock = name, clock
        self.begun: dict[str, tuple[float, int] | None] = {}  # when which step was done; None once it is said

    def __call__(self, what: str, done: int, total: int) -> None:
        """To be told of every step; the first is left out, since it also warms up."""
        first = self.begun.setdefault(what, (self.clock(), done))
        if first is None:
            return
        spent, steps = self.clock() - first[0], done - first[1]
        if steps < 5 or (steps < 20 and spent < 3):
            return
        self.begun[what] = None
        left = total - first[1] + 1
        typer.echo(
            f"{self.name}, {what}, at most {left} {'steps' if left == total else 'more steps'}: "
            f"about {duration(left * spent / steps)} on this machine ({spent / steps:.2g} s per step)",
            err=True,
        )


def progress() -> Any:
    """rich's Progress on stderr, so that stdout holds results only; lines where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        return Lines()
    return Progress(
        TextColumn("{task.description}", markup=False),  # a name may hold brackets
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
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
