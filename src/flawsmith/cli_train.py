"""`flawsmith train`, and `flawsmith merge` for what it made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flawsmith import cli_terminal as terminal


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
    from flawsmith.devices import refuse_device
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
    settings = configs.train_config(values, config, set_ or ())
    refuse_device(settings.device)
    resolve(settings.method, METHODS, "Method")  # says what to install where torch is missing
    from flawsmith import training

    with terminal.progress() as bar:
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
