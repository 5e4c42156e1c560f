"""The commands: parse, build a configuration, call one function, print. Nothing heavy is imported until needed."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads must not steal the other core

try:
    import typer
except KeyboardInterrupt:  # this import is most of the start
    os._exit(130)

from flawsmith import __version__
from flawsmith.cli_evaluate import evaluate

app = typer.Typer(
    name="flawsmith",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help=(
        "Defect images with pixel-exact masks and captions, from photographs of good parts.\n\n"
        "Start with `flawsmith demo` (no download), then `flawsmith check DIR` on your own photographs."
    ),
)

STATUS_COLOUR = {"ok": "green", "note": "yellow", "problem": "red", "error": "red", "warning": "yellow"}


def _colour() -> bool | None:
    """False where NO_COLOR asks for plain text (rich knows it, click does not), None to look at the terminal."""
    return False if os.environ.get("NO_COLOR") else None


def _version(show: bool) -> None:
    if show:
        typer.echo(f"flawsmith {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["FLAWSMITH_DEBUG"] = "1"
    logging.getLogger("flawsmith").addHandler(_Say())
    logging.getLogger("flawsmith").setLevel(logging.INFO)


class _Say(logging.Handler):
    """What the library has to say while it works (estimates, smaller batches), above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        _notes([record.getMessage()])


def _notes(notes: Sequence[str]) -> None:
    for note in notes:
        typer.secho(f"Note: {note}", fg="yellow", err=True, color=_colour())


def _progress() -> Any:
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
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for key in rows[0]:
        table.add_column(key, overflow="fold")
    for row in rows:
        table.add_row(*["-" if value is None else str(value) for value in row.values()])
    console = Console()
    if not sys.stdout.isatty():  # a pipe has no width to fold to
        console.width = 160
    console.print(table)


@app.command()
def check(
    source: Annotated[str, typer.Argument(metavar="READER:DIR", help="Data set: mvtec_ad:DIR, folder:DIR, or DIR.")],
    category: Annotated[str | None, typer.Option(help="Only this category.")] = None,
    group_by: Annotated[str, typer.Option(help="Column of origin.csv that names the physical part.")] = "group",
) -> None:
    """Look at a data set: a summary, and findings with file, reason and fix.

    Exit code 2 when something would stop flawsmith (damaged files, masks of another size).

    Example: `flawsmith check mvtec_ad:data/bottle`
    """
    from flawsmith.datasets import check as checking

    with _progress() as bar:
        task = bar.add_task("checking", total=None)
        report = checking.check(
            source,
            category=category,
            group_by=group_by,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _table("Data set", report.rows)
    if not report.findings:
        typer.echo("No findings.")
    for finding in report.grouped():
        typer.secho(f"{finding.severity:8}", fg=STATUS_COLOUR.get(finding.severity, "blue"), nl=False, color=_colour())
        typer.echo(f"{finding.file}: {finding.reason}{f' Fix: {finding.fix}' if finding.fix else ''}")
    if any(finding.severity == "error" for finding in report.findings):
        raise typer.Exit(2)


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="A diffusion method, for example inpaint.")] = "inpaint",
    data: Annotated[
        str | None, typer.Option(metavar="READER:DIR", help="Good photographs and a few defects with masks.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same command again resumes.")] = None,
    category: Annotated[str | None, typer.Option(help="One category of the data set; default: all.")] = None,
    defect: Annotated[
        list[str] | None, typer.Option(help="Defect type to learn; repeat for several. Default: all with masks.")
    ] = None,
    shots: Annotated[int | None, typer.Option(help="Real defects per type. Default: the first third.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps per defect type. Default 500.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same weights.")] = None,
    backbone: Annotated[str | None, typer.Option(help="compact (shipped), a folder, or a hub id.")] = None,
    device: Annotated[str | None, typer.Option(help="Diffusion methods: cpu (default) or cuda.")] = None,
    memory: Annotated[int | None, typer.Option(help="GiB of the GPU to stay within: 8, 12, 16 or 24.")] = None,
    group_by: Annotated[str | None, typer.Option(help="Column of origin.csv that names the physical part.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="e.g. rank=8.")] = None,
    config: Annotated[Path | None, typer.Option(help="JSON or YAML file with the same settings.")] = None,
) -> None:
    """Learn your own defects from 4 to 30 pictures of each type, in minutes on a CPU.

    inpaint gives each type an adapter of a few MB; the papers' methods learn all types together. Learning another type
    later leaves the others alone.
    OUT/train holds metrics and previews.

    Example: `flawsmith train inpaint --data mvtec_ad:data/widget --defect crack --out runs/widget`
    """
    from flawsmith import config as configs
    from flawsmith.methods import METHODS
    from flawsmith.registry import resolve

    resolve(method, METHODS, "Method")  # says what to install where torch is missing
    from flawsmith import training

    values = {
        "method": method,
        "data": data,
        "out": out,
        "category": category,
        "defect": tuple(defect or ()),
        "shots": shots,
        "steps": steps,
        "seed": seed,
        "backbone": backbone,
        "device": device,
        "memory": memory,
        "group_by": group_by,
    }
    settings = configs.train_config(values, config, set_ or ())
    with _progress() as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int, line: dict[str, Any]) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            held_out = f", held out {line['held_out']:.4f}" if "held_out" in line else ""
            text = f"{what} loss {line['loss']:.4f}{held_out}" if held_out else None
            bar.update(tasks[what], completed=done, total=total, **({"description": text} if text else {}))

        card = training.train(settings, tell)
    for key, entry in card["learned"].items():
        typer.echo(f"{key}: {entry['steps']} steps, held-out loss {entry['held_out']:.4f} ({entry['stopped']})")
    typer.echo(f"Use it: flawsmith generate {settings.out} --normal {settings.data} -n 20 --out generated")


@app.command()
def generate(
    method: Annotated[
        str, typer.Argument(help="copypaste, cutpaste, nsa, perlin, procedural, or a trained run's folder.")
    ],
    normal: Annotated[
        str | None,
        typer.Option(metavar="READER:DIR", help="Photographs of good parts (and, for copypaste, a few real defects)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; the same command again resumes.")] = None,
    category: Annotated[str | None, typer.Option(help="One category of the data set; default: all.")] = None,
    defect: Annotated[
        list[str] | None, typer.Option(help="Defect type to make; repeat for several. Default: all known.")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", help="How many pictures, in total. Default 20.")] = None,
    per_defect: Annotated[bool | None, typer.Option("--per-defect", help="Count -n for each defect type.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same pictures.")] = None,
    prompt: Annotated[str | None, typer.Option(help='What to paint, e.g. "long thin rusty scratch".')] = None,
    mask: Annotated[
        str | None,
        typer.Option(help="Mask family (blob box polygon perlin scratch crack spots reference) or a mask picture."),
    ] = None,
    roi: Annotated[Path | None, typer.Option(help="Picture that is white where defects may sit.")] = None,
    reference: Annotated[Path | None, typer.Option(help="One photograph of a defect to imitate.")] = None,
    reference_mask: Annotated[
        Path | None, typer.Option(help="The defect's mask in --reference; auto proposes one, to be looked at.")
    ] = None,
    reference_text: Annotated[str | None, typer.Option(help="What --reference shows.")] = None,
    adapter_scale: Annotated[
        float | None, typer.Option(help="anomalycontrol: how much the reference counts. Default 1.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="Real defects per type the method may see. Default: the first third.")
    ] = None,
    group_by: Annotated[str | None, typer.Option(help="Column of origin.csv that names the physical part.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A method option, or a mask dial: mask.size=[0.01,0.05]."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="JSON or YAML file with the same settings.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Diffusion methods: compact (shipped), a folder, or a hub id.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Diffusion methods: cpu (default) or cuda.")] = None,
    memory: Annotated[int | None, typer.Option(help="GiB of the GPU to stay within: 8, 12, 16 or 24.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per block. Default 8.")] = None,
    with_normals: Annotated[
        bool | None, typer.Option("--with-normals", help="Also copy the good photographs used to train/good.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop before any picture.")] = False,
) -> None:
    """Make defect pictures with exact masks and captions.

    Outside its saved mask every picture equals the photograph byte for byte. The folder is MVTec layout plus prompt/,
    manifest.jsonl (one line per picture) and generate.json. Run the same command again to resume.

    Example: `flawsmith generate procedural --normal folder:photos -n 100 --out out/painted`
    """
    from flawsmith import config as configs
    from flawsmith import generation

    values = {
        "method": method,
        "normal": normal,
        "out": out,
        "category": category,
        "defect": tuple(defect or ()),
        "n": n,
        "per_defect": per_defect,
        "seed": seed,
        "prompt": prompt,
        "mask": mask,
        "roi": roi,
        "reference": reference,
        "reference_mask": reference_mask,
        "reference_text": reference_text,
        "shots": shots,
        "group_by": group_by,
        "backbone": backbone,
        "device": device,
        "memory": memory,
        "batch_size": batch_size,
        "with_normals": with_normals,
    }
    scale = [] if adapter_scale is None else [f"options.adapter_scale={adapter_scale}"]
    settings = configs.generate_config(values, config, [*(set_ or ()), *scale])
    if dry_run:
        made, _, _ = generation.prepare(settings)
        typer.echo(settings.model_dump_json(indent=2))
        pairs = ", ".join(f"{category}/{defect}" for category, defect in made.description["types"])
        typer.echo(f"{len(made.jobs)} pictures of {pairs}; {len(made.support)} real defects may be seen.")
        _notes(made.notes)
        return
    with _progress() as bar:
        task = bar.add_task(settings.method, total=None)
        summary = generation.run(
            settings, lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
        )
    again = f" ({summary.resumed} were already there)" if summary.resumed else ""
    typer.echo(f"{summary.kept} pictures in {summary.out}{again}.")
    if summary.rejected:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in summary.reasons.items())
        typer.secho(f"{summary.rejected} refused after all redraws: {reasons}.", fg="yellow", color=_colour())
    _notes(summary.notes)
    typer.echo(f"Look at them: flawsmith show {summary.out}")


app.command()(evaluate)


@app.command()
def show(
    target: Annotated[Path, typer.Argument(help="A generated folder or a trained run.")],
    sheet: Annotated[Path | None, typer.Option(help="Where to write the contact sheet (PNG).")] = None,
    page: Annotated[Path | None, typer.Option(help="Also write an HTML page.")] = None,
    count: Annotated[int, typer.Option("-n", min=1, max=200, help="Pictures on the sheet.")] = 12,
) -> None:
    """Show what a folder holds: a table, and a contact sheet (normal | mask | defect | zoom).

    Example: `flawsmith show out/painted --page painted.html`
    """
    from flawsmith import images, report
    from flawsmith.datasets.writer import read_manifest

    card = target / "card.json"
    if card.is_file():
        _show_run(target)
        return
    lines = read_manifest(target)
    _table(str(target), report.statistics(lines))
    for reason in sorted({line["reason"] for line in lines if line["status"] != "kept"}):
        typer.echo(f"refused: {reason}")
    path = sheet or target.parent / f"{target.name}-sheet.png"  # beside: inside, readers would take it for a sample
    images.write_image(path, report.sheet(target, count))
    typer.echo(f"Contact sheet: {path}")
    if page is not None:
        report.page([(target.name, target)], page, f"flawsmith: {target.name}", count)
        typer.echo(f"Page: {page}")


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
            "held-out loss": f"{entry['held_out']:.4f}",
            "real defects seen": len(entry["support"]),
            "stopped": entry["stopped"],
        }
        for key, entry in card.get("learned", {}).items()
    ]
    _table("Learned", rows)
    _table("Weights, apart from the backbone's", report.adapters(run))
    if card.get("options"):
        typer.echo(f"options: {card['options']}")


@app.command()
def merge(
    run: Annotated[Path, typer.Argument(help="A trained run with LoRA adapters.")],
    out: Annotated[Path, typer.Option(help="Folder for the merged backbone.")],
    defect: Annotated[str | None, typer.Option(help="CATEGORY/DEFECT of the adapter, where there are several.")] = None,
) -> None:
    """Write a backbone with a run's LoRA adapter added into its weights, for tools that take no adapters.

    Example: `flawsmith merge runs/widget --defect widget/crack --out merged`
    """
    from flawsmith.methods import runs

    typer.echo(f"{runs.merge(run, defect, out)} merged: {out}")


@app.command()
def doctor() -> None:
    """Check this machine: Python, torch, GPU, optional parts, known traps; each with a remedy."""
    from flawsmith import doctor as checking

    problems = 0
    for item in checking.checks():
        problems += item.status == "problem"
        typer.secho(f"{item.status:8}", fg=STATUS_COLOUR[item.status], nl=False, color=_colour())
        typer.echo(f"{item.name}: {item.detail}")
        if item.remedy:
            typer.echo(f"         -> {item.remedy}")
    if problems:
        raise typer.Exit(2)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the tour.")] = Path("demo"),
    n: Annotated[int, typer.Option("-n", min=11, max=10_000, help="Painted pictures.")] = 44,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """The tour without a download: paint defects on texture photographs and a rendered product.

    Ends with a contact sheet (normal | mask | defect | zoom) and a short HTML page.
    """
    from flawsmith import demo as tour

    with _progress() as bar:
        tasks: dict[str, Any] = {}

        def tell(method: str, done: int, total: int) -> None:
            if method not in tasks:
                tasks[method] = bar.add_task(method, total=total)
            bar.update(tasks[method], completed=done, total=total)

        made = tour.run(out, n, seed, tell)
    for name, path in made.items():
        typer.echo(f"{name}: {path}")


def main() -> None:
    """Run a command; user errors end with one line and exit code 2, Ctrl-C with a word on resuming and 130."""
    from flawsmith.errors import FlawsmithError

    try:
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
        _fail(str(error))
    except BrokenPipeError:  # `flawsmith ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        _unexpected(error)


def _fail(message: str, code: int = 2) -> NoReturn:
    typer.secho(f"flawsmith: {message}", fg="red", err=True, color=_colour())
    sys.exit(code)


def _stopped() -> NoReturn:
    resumes = bool({"generate", "demo", "evaluate"} & set(sys.argv[1:3]))
    word = (
        "Whole pictures and finished parts are kept; run the same command again to resume."
        if resumes
        else "Nothing was changed."
    )
    typer.secho(f"\nStopped. {word}", fg="yellow", err=True, color=_colour())
    sys.stdout.flush()
    os._exit(130)  # Python itself would leave by the signal where it struck inside an import


def _unexpected(error: Exception) -> NoReturn:
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
    if isinstance(error, MemoryError):
        _fail("not enough memory: close other programs, or cut the photographs into tiles.")
    _fail(
        f"unexpected {type(error).__name__}: {error}. This is a fault of flawsmith: "
        "run again with `flawsmith --debug ...` and report the traceback.",
        code=1,
    )
