"""`flawsmith train`, and `flawsmith merge` for what it made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flawsmith.cli import terminal
from flawsmith.cli.options import Backbone, Category, Config, Device, GroupBy, Memory


def train(
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="inpaint, anomalycontrol or anomalyxfusion.")
    ] = "inpaint",
    data: Annotated[
        str | None, typer.Option(metavar="READER:DIR", help="Needed: good photographs, and a few defects with masks.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Needed: folder of the run; the same command again resumes.")] = None,
    category: Category = None,
    defect: Annotated[
        list[str] | None, typer.Option(help="Defect type to learn; repeat for several. Default: all with masks.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="Real defects of each type to learn from. Default: the first third.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Optimiser steps at most, per type (inpaint) or for all together. Default 500, anomalyxfusion 600."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same weights. Default 0.")] = None,
    backbone: Backbone = None,
    device: Device = None,
    memory: Memory = None,
    group_by: GroupBy = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the training: rank=8; repeat for several. A wrong name lists the right ones.",
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Learn your own defects from 4 to 30 images of each type, in minutes on a CPU.

    inpaint makes an adapter of a few MB for each defect type; the papers' methods, anomalycontrol and anomalyxfusion,
    make one model of all of them. A type added to the run later leaves the others as they are. OUT/train holds metrics
    and previews. `accelerate launch -m flawsmith train ...` shares every batch between several GPUs or processes.

    Example: `flawsmith train inpaint --data mvtec_ad:data/widget --defect crack --out runs/widget`
    """
    from flawsmith import config as configs
    from flawsmith.diffusion.devices import refuse_device
    from flawsmith.methods import METHODS
    from flawsmith.registry import resolve

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
    settings = configs.load(configs.TrainConfig, values, config, set_ or ())
    refuse_device(settings.device)
    resolve(settings.method, METHODS, "Method")  # says what to install where torch is missing
    from flawsmith.training import run as training

    with terminal.one_of_many(), terminal.progress() as bar:
        tasks: dict[str, Any] = {}
        judged: dict[str, str] = {}
        forecast = terminal.Forecast(settings.method)

        def tell(what: str, done: int, total: int, facts: Mapping[str, Any]) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            forecast(what, done, total)
            if "held_out" in facts:
                judged[what] = f", held out {facts['held_out']:.4f}"
            text = f"{what}, loss {facts['loss']:.4f}{judged.get(what, '')}"
            bar.update(tasks[what], completed=done, total=total, description=text)

        card = training.train(settings, tell)
    with terminal.one_of_many():
        for key, entry in card["learned"].items():
            held_out = entry.get("held_out")  # of an entry that was there before, a stranger's word
            loss = f"held-out loss {held_out:.4f}" if isinstance(held_out, float) else "nothing held out"
            typer.echo(f"{key}: {entry.get('steps', '?')} steps, {loss} ({entry.get('stopped', 'it is not said why')})")
        typer.echo(f"Use it: flawsmith generate {settings.out} --normal {settings.data} -n 20 --out generated")


def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run with LoRA adapters.")],
    out: Annotated[Path, typer.Option(help="Folder for the merged backbone; must be empty.")],
    defect: Annotated[str | None, typer.Option(help="CATEGORY/DEFECT of the adapter, where there are several.")] = None,
) -> None:
    """Write a backbone with a run's LoRA adapter added into its weights, for tools that take no adapters.

    Example: `flawsmith merge runs/widget --defect widget/crack --out merged`
    """
    from flawsmith.inputs import home
    from flawsmith.methods.diffusion import runs

    typer.echo(f"{runs.merge(home(run), defect, home(out))} merged: {home(out)}")
