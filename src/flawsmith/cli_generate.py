"""`flawsmith generate`: parse, build a configuration, call one function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flawsmith import cli_terminal as terminal


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
    from flawsmith.devices import refuse_device

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
    refuse_device(settings.device)
    if dry_run:
        made, _, _ = generation.prepare(settings)
        typer.echo(settings.model_dump_json(indent=2))
        pairs = ", ".join(f"{category}/{defect}" for category, defect in made.description["types"])
        typer.echo(f"{len(made.jobs)} pictures of {pairs}; {len(made.support)} real defects may be seen.")
        terminal.notes(made.notes)
        return
    with terminal.progress() as bar:
        task = bar.add_task(settings.method, total=None)
        summary = generation.run(
            settings, lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
        )
    again = f" ({summary.resumed} were already there)" if summary.resumed else ""
    typer.echo(f"{summary.kept} pictures in {summary.out}{again}.")
    if summary.rejected:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in summary.reasons.items())
        terminal.say(f"{summary.rejected} refused after all redraws: {reasons}.", "yellow")
    terminal.notes(summary.notes)
    typer.echo(f"Look at them: flawsmith show {summary.out}")
