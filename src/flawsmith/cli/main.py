"""The program: its commands, of which each imports nothing heavy until it runs, and how every one of them ends."""

from __future__ import annotations

import errno
import gc
import io
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads must not steal the other core

try:
    import typer
except KeyboardInterrupt:  # this import is most of the start
    os._exit(130)

from flawsmith import __version__, registry
from flawsmith.cli import terminal
from flawsmith.cli.captions import captions
from flawsmith.cli.check import check
from flawsmith.cli.evaluate import evaluate
from flawsmith.cli.export import export
from flawsmith.cli.generate import generate
from flawsmith.cli.options import READERS, WithRay
from flawsmith.cli.report import report
from flawsmith.cli.review import review
from flawsmith.cli.show import show
from flawsmith.cli.studio import studio
from flawsmith.cli.train import merge, train

app = typer.Typer(
    name="flawsmith",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help=(
        "Defect images with pixel-exact masks and captions, from photographs of good parts.\n\n"
        "Start with `flawsmith demo` (no download). On your own photographs: `check`, `generate` (`train` before it "
        "where you have a few real defects), `report`, `evaluate`, `export`; `studio` is all of it in a browser.\n\n"
        f"READER:DIR names a data set: {READERS}."
    ),
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"flawsmith {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the full traceback of an error; stands before the command.")
    ] = False,
) -> None:
    if debug:
        os.environ["FLAWSMITH_DEBUG"] = "1"
    logging.getLogger("flawsmith").addHandler(terminal.Notes())
    logging.getLogger("flawsmith").setLevel(logging.INFO)


def doctor() -> None:
    """Check this machine: Python, torch, GPU, optional parts, known traps; each with a remedy.

    Exit code 2 where something has to be mended.
    """
    from flawsmith import doctor as checking

    problems = 0
    for item in checking.checks():
        problems += item.status == "problem"
        terminal.say(f"{item.status:8}", terminal.COLOURS[item.status], nl=False)
        typer.echo(f"{item.name}: {item.detail}")
        if item.remedy:
            typer.echo(f"         -> {item.remedy}")
    if problems:
        raise typer.Exit(2)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the tour.")] = Path("demo"),
    n: Annotated[int, typer.Option("-n", min=11, max=10_000, help="How many images, in total.")] = 44,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same images.")] = 0,
    learned: Annotated[
        bool, typer.Option(help="Also paint with the diffusion model, minutes; needs the extra diffusion.")
    ] = True,
) -> None:
    """The tour without a download: paint defects on texture photographs and a rendered product.

    Ends with a contact sheet (normal | mask | defect | zoom) and a report to open in a browser.
    """
    from flawsmith import demo as tour
    from flawsmith.inputs import home

    with terminal.progress() as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int, facts: Mapping[str, Any]) -> None:
            method = what.partition(":")[0]
            if method not in tasks:
                tasks[method] = bar.add_task(method, total=total)
            bar.update(tasks[method], completed=done, total=total)

        made = tour.run(home(out), n, seed, tell, learned)
    for name, path in made.items():
        typer.echo(f"{name}: {path}")


COMMANDS = (check, captions, train, generate, review, evaluate, report, studio, show, export, merge, doctor, demo)
for command in COMMANDS:
    app.command(cls=WithRay if command is generate else None)(command)


def main() -> None:
    """Run a command; user errors end with one line and exit code 2, Ctrl-C with a word on resuming and 130."""
    from flawsmith.errors import FlawsmithError, out_of_memory
    from flawsmith.inputs import refuse_odd_name

    registry.own_process = True
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that this terminal cannot show is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        for argument in sys.argv[1:]:
            refuse_odd_name(argument, "Argument")
        code = app(standalone_mode=False)  # returns the code of a typer.Exit, and 130 for Ctrl-C
        sys.stdout.flush()  # here, where a closed pipe can still be answered
        if code == 130:
            _stopped()
        sys.exit(code if isinstance(code, int) else 0)
    except KeyboardInterrupt:
        _stopped()
    except FlawsmithError as error:
        if os.environ.get("FLAWSMITH_DEBUG"):
            raise
        if out_of_memory(error):  # in a part that failed, which its own message takes for damaged
            _unexpected(error)
        _fail(str(error))
    except BrokenPipeError:  # `flawsmith ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        _unexpected(error)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of a library in Rust; all else is a way to leave
            raise
        _unexpected(error)


def _fail(message: str, code: int = 2) -> NoReturn:
    terminal.say(f"flawsmith: {message}", "red", err=True)
    sys.exit(code)


def _resumes() -> bool:
    return bool({"generate", "train", "evaluate", "export", "demo", "captions"} & set(sys.argv[1:3]))


def _stopped() -> NoReturn:
    kept = " What was finished is kept; run the same command again to resume." if _resumes() else ""
    terminal.say(f"\nStopped.{kept}", "yellow", err=True)
    sys.stdout.flush()
    gc.collect()  # what other processes shared with this one is given back; os._exit would only leave it
    os._exit(130)  # Python itself would leave by the signal where it struck inside an import


def _unexpected(error: BaseException) -> NoReturn:
    from flawsmith.errors import out_of_memory

    # typer raises click's exceptions, from the click package or from its own copy of it: known by what they can do.
    if type(error).__name__ == "Abort":  # what older typer makes of Ctrl-C
        _stopped()
    if hasattr(error, "show") and hasattr(error, "exit_code"):
        error.show()
        sys.exit(error.exit_code)
    if os.environ.get("FLAWSMITH_DEBUG"):
        raise error
    if isinstance(error, OSError) and error.filename is not None:
        _fail(f"{error.filename}: {error.strerror}. Check the path, its permissions and the free space.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        _fail("no space left where the output goes: free some space and run the same command again.")
    if out_of_memory(error):
        kept = "What was finished is kept; the same command resumes." if _resumes() else ""
        _fail(f"not enough memory: close other programs, or take smaller images or batches. {kept}".rstrip())
    _fail(
        f"unexpected {type(error).__name__}: {error}. This is a fault of flawsmith: "
        "run again with `flawsmith --debug ...` and report the traceback.",
        code=1,
    )
