"""`flawsmith generate`: parse, build a configuration, call one function, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flawsmith.cli import terminal
from flawsmith.cli.options import Backbone, Category, Config, Device, GroupBy, Memory, Runtime

if TYPE_CHECKING:
    from flawsmith.generation.run import Summary


def generate(
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD",
            help="procedural, analogy, copypaste, cutpaste, nsa, perlin, inpaint, anomalycontrol, or a trained run's "
            "folder.",
        ),
    ],
    normal: Annotated[
        str | None,
        typer.Option(
            metavar="READER:DIR",
            help="Needed: good photographs; for analogy and copypaste, also a few defects with masks.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Needed: folder to write; the same command again resumes.")] = None,
    category: Category = None,
    defect: Annotated[
        list[str] | None,
        typer.Option(
            help="Defect type to make; repeat for several. Default: all that the method or the data set knows."
        ),
    ] = None,
    n: Annotated[int | None, typer.Option("-n", help="How many images, in total. Default 20.")] = None,
    per_defect: Annotated[
        bool | None, typer.Option("--per-defect", help="Make -n images of each defect type, not in total.")
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE=W,TYPE=W", help="Shares of the defect types among the images: crack=3,hole=1. Default: equal."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same images. Default 0.")] = None,
    prompt: Annotated[
        str | None, typer.Option(help='Caption; methods that read words paint it: "long thin rusty scratch".')
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            help="blob, box, polygon, perlin, scratch, crack, spots, reference (a real mask, moved), whole (the same, "
            "with all that is in it), varied (a new shape like it), component (a part of the product), learned (by a "
            "trained run), or a mask image. Default: what suits method and defect."
        ),
    ] = None,
    severity: Annotated[
        str | None,
        typer.Option(
            metavar="S|LOW,HIGH",
            help="How strong and large: 0 (barely visible) to 1; two numbers draw between them. Default: the method's.",
        ),
    ] = None,
    match: Annotated[
        float | None,
        typer.Option(
            help="analogy, copypaste: how far the defect's light and contrast follow the new surroundings, from 0 (as "
            "photographed in the reference) to 1. Default 1."
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="A|LOW,HIGH", help="Share of the object that a defect covers: 0.01,0.05.")
    ] = None,
    elongation: Annotated[
        str | None, typer.Option(metavar="E|LOW,HIGH", help="Long side over short side, at least 1.")
    ] = None,
    place: Annotated[
        str | None, typer.Option(help="anywhere, edge (near the object's outline) or centre. Default: anywhere.")
    ] = None,
    roi: Annotated[
        Path | None, typer.Option(help="Image of the photographs' size, white where defects may sit.")
    ] = None,
    heat: Annotated[
        Path | None, typer.Option(help="Grey image: the brighter, the likelier a defect's centre lies there.")
    ] = None,
    defects: Annotated[
        str | None,
        typer.Option(metavar="K|LOW,HIGH", help="Defects of an image, each with an id in instances/. Default 1."),
    ] = None,
    combine: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE=K,TYPE=K",
            help="Several types in one image: crack=1,hole=2 paints one crack and two holes on each. Such images are "
            "of the type combined, to which --mix may give a share; each defect keeps its own type and id.",
        ),
    ] = None,
    from_misses: Annotated[
        Path | None,
        typer.Option(
            metavar="RESULTS",
            help="Make more of what a detector missed: folder of `flawsmith evaluate --metrics segmentation`. Decides "
            "shares of types, sizes, places and severity where you give none.",
        ),
    ] = None,
    untouched: Annotated[
        float | None, typer.Option(help="Share of untouched photographs among the images, in train/good. Default 0.")
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL|FILE.json",
            help="strict, normal, off, or limits of your own (flawsmith review --refit): refuse what nobody would see "
            "or believe and paint it anew; the refused ones stand in refused/. Default normal.",
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="Frozen vision model (folder or hub id) that the gate also asks; needs flawsmith[diffusion]."
        ),
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(
            help="Model of images and texts (CLIP; folder or hub id) by which the gate refuses an image that painting "
            "brought no nearer to its caption. Needs flawsmith[diffusion]."
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Photograph of one defect to imitate; with --reference-mask.")
    ] = None,
    reference_mask: Annotated[
        Path | None,
        typer.Option(help="Image that is white on the defect in --reference; auto proposes one: look at it."),
    ] = None,
    reference_text: Annotated[str | None, typer.Option(help="What --reference shows, in words.")] = None,
    adapter_scale: Annotated[
        float | None, typer.Option(help="anomalycontrol: how much the reference counts; 0 = not at all. Default 1.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="Real defects of each type that the method may see. Default: the first third.")
    ] = None,
    group_by: GroupBy = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of the method (steps=20) or a dial of the mask (mask.size=[0.01,0.05]); "
            "repeat for several. A wrong name lists the right ones.",
        ),
    ] = None,
    config: Config = None,
    backbone: Backbone = None,
    device: Device = None,
    memory: Memory = None,
    runtime: Runtime = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images that a diffusion method paints together. Default 8.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Processes that paint, for methods without a neural network; the same bytes for any number. Default: "
            "one per core where there are hundreds of images to make."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Paint with Ray actors, each with the whole method: alone on this machine, auto for the cluster that "
            "runs here, or its HOST:PORT. The same bytes. --set actors=8, actor_cpus=2, actor_gpus=1. Needs "
            "flawsmith[ray].",
        ),
    ] = None,
    with_normals: Annotated[
        bool | None,
        typer.Option("--with-normals", help="Also copy the photographs painted on to train/good: a whole data set."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, stop before any image.")
    ] = False,
) -> None:
    """Make defect images with exact masks and captions.

    Outside its saved mask every image equals the photograph byte for byte. The folder is MVTec layout plus prompt/,
    manifest.jsonl (one line per image) and generate.json. Run the same command again to resume.

    Example: `flawsmith generate procedural --normal folder:photos -n 100 --out out/painted`
    """
    from flawsmith import config as configs
    from flawsmith import datasets
    from flawsmith.diffusion.devices import refuse_device
    from flawsmith.generation import run as generation
    from flawsmith.generation.blocks import Blocks
    from flawsmith.generation.executors import jobs as jobs_of

    values = {
        "method": method,
        "normal": normal,
        "out": out,
        "category": category,
        "defect": tuple(defect or ()),
        "n": n,
        "per_defect": per_defect,
        "mix": configs.by_type(mix, "--mix", "list of shares"),
        "combine": configs.by_type(combine, "--combine", "list of numbers"),
        "seed": seed,
        "prompt": prompt,
        "mask": mask,
        "roi": roi,
        "heat": heat,
        "severity": _span(severity, "--severity"),
        "defects": _span(defects, "--defects"),
        "untouched": untouched,
        "from_misses": from_misses,
        "gate": gate,
        "features": features,
        "words": words,
        "reference": reference,
        "reference_mask": reference_mask,
        "reference_text": reference_text,
        "shots": shots,
        "group_by": group_by,
        "backbone": backbone,
        "device": device,
        "memory": memory,
        "runtime": runtime,
        "batch_size": batch_size,
        "jobs": jobs,
        "ray": ray,
        "with_normals": with_normals,
    }
    own = {"adapter_scale": adapter_scale, "match": match}
    options = [f"options.{key}={value}" for key, value in own.items() if value is not None]
    dials = {"size": _span(size, "--size"), "elongation": _span(elongation, "--elongation"), "place": place}
    masks = [f"mask.{key}={value}" for key, value in dials.items() if value is not None]
    settings = configs.load(configs.GenerateConfig, values, config, [*masks, *(set_ or ()), *options])
    settings = settings.gated()
    refuse_device(settings.device)
    said = datasets.told(settings.normal)
    terminal.notes([said] if ": " in said else [])  # nobody named the reader
    if dry_run:
        made, synthesizer, loader = generation.prepare(settings)
        typer.echo(settings.model_dump_json(indent=2))
        pairs = ", ".join(f"{category}/{defect}" for category, defect in made.description["types"])
        typer.echo(f"{len(made.jobs)} images of {pairs}; {len(made.support)} real defects may be seen.")
        count = jobs_of(Blocks(made, loader, synthesizer, None), len(made.jobs))
        by = f"Ray actors ({settings.ray})" if settings.ray else "one process"
        typer.echo(f"Painted by {count} worker processes." if count > 1 else f"Painted by {by}.")
        terminal.notes(made.notes)
        return
    with terminal.progress() as bar:
        task = bar.add_task(settings.method, total=None)
        summary = generation.run(
            settings, lambda what, done, total, _: bar.update(task, completed=done, total=total, description=what)
        )
    again = f" ({summary.resumed} were already there)" if summary.resumed else ""
    typer.echo(f"{summary.kept} images in {summary.out}{again}.")
    if summary.rejected:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in summary.reasons.items())
        terminal.say(f"{summary.rejected} refused after all redraws: {reasons}.", "yellow")
    _account(summary)
    terminal.notes(summary.notes)
    typer.echo(f"Look at them: flawsmith show {summary.out}")


def _span(text: str | None, option: str) -> list[float] | None:
    """One number or two with a comma between, as low and high."""
    from flawsmith.errors import FlawsmithError, short

    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
        if len(numbers) > 2:
            raise ValueError
    except ValueError:
        raise FlawsmithError(f"{option} {short(text)} is no number: give one, or two with a comma between.") from None
    whole = [int(number) if number.is_integer() else number for number in numbers]
    return [whole[0], whole[-1]]


def _account(summary: Summary) -> None:
    """What the gate refused, per type and check, and what made the images good that were kept after all."""
    if not summary.refused:
        return
    typer.echo(f"The gate refused {sum(summary.refused.values())} attempts ({summary.out / 'refused'}):")
    types = dict.fromkeys(kind for kind, _ in summary.refused)
    for kind in types:
        found = ", ".join(f"{check} {n}" for (name, check), n in summary.refused.items() if name == kind)
        typer.echo(f"  {kind}: {found}")
    for what, count in summary.changed.items():
        typer.echo(f"  {count} images are good after another {what}.")
