"""`flawsmith evaluate`: parse, build a configuration, call one function, print."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flawsmith.cli import terminal
from flawsmith.cli.options import Config, Device, GroupBy
from flawsmith.errors import FlawsmithError

COMPARED = frozenset(
    {
        *("KID", "near_copies", "image_AUROC", "pixel_AUROC", "pixel_AP", "pixel_AUPRO", "accuracy"),
        *("probe_AUC", "spectrum_dB"),
    }
)
SHOWN = frozenset(  # what stands on the terminal; the files hold every value
    {
        *("KID", "FID", "IS", "IC-FD", "coverage", "near_copies", "caption_retrieval", "duplicates", "refused_share"),
        *("label_IoU", "changed_outside_label", "visibility", "accuracy", "image_AUROC", "pixel_AUROC", "pixel_AP"),
        *("pixel_AUPRO", "pixel_AUsPRO", "pixel_F1Max", "pixel_IoU", "probe_AUC", "spectrum_dB"),
    }
)

MOST_JOBS = 8  # by default: each takes about 0.7 GB


def evaluate(
    generated: Annotated[
        str | None,
        typer.Argument(
            metavar="OUT", help="Folder of generated images to judge (READER:DIR where another tool made it)."
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Judge no folder, but whether generated defects help: train one network with and without them.",
        ),
    ] = False,
    real: Annotated[
        str | None, typer.Option(metavar="READER:DIR", help="Needed: good photographs, and real defects with masks.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Needed: folder of the results; the same command again resumes.")
    ] = None,
    category: Annotated[str | None, typer.Option(help="The category of the data set, where it holds several.")] = None,
    defect: Annotated[
        list[str] | None, typer.Option(help="Defect type to judge; repeat for several. Default: all.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Some of kid,fid,is,ic-lpips,prdc,clip,copies,realism,segmentation,classification,one-class. "
            "Default kid,ic-lpips,prdc,copies; with --compare segmentation. Labels are always judged."
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Vision model that compares images: a folder or hub id. Default compact, a smoke test only."),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            help="Real defects of each type to train on. Default: those the generator saw. With --compare a list: "
            "0,1,4,third (0 = none at all); default third."
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds of the networks trained, a run for each. Default 0; with --compare 0,1,2,3,4."),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            help="--compare: what to train on, with commas: real (no generated defects), METHOD, METHOD+METHOD, "
            "METHOD-or-METHOD (of each defect type the one that does better on validation images), "
            "NAME=FOLDER ({seed} in it is replaced). Default: real and every method."
        ),
    ] = None,
    ratios: Annotated[
        str | None,
        typer.Option(help="--compare: shares of generated among the defects trained on: 0.5,0.9. Default 0.5."),
    ] = None,
    images: Annotated[int | None, typer.Option(help="--compare: images per defect type and arm. Default 100.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="--compare: backbone of the diffusion methods, as generate takes it.")
    ] = None,
    support: Annotated[
        str | None,
        typer.Option(
            help="--compare: redrawn (default): every seed learns from other real defects. fixed: all from the first "
            "seed's, which tells smaller differences apart, on these defects alone."
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="--compare: networks trained at a time, each in a process of one thread. "
            f"Default: one per core, {MOST_JOBS} at most; 1 on a GPU.",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="leak-safe (default), or paper-protocol: as the papers, epoch chosen on the test set; an upper bound."
        ),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(help="Formats to write the trained segmenter in: onnx,openvino; each is checked against torch."),
    ] = None,
    group_by: GroupBy = None,
    seen: Annotated[
        Path | None,
        typer.Option(
            help="Text file, a hash or CATEGORY/GROUP a line: images the weights were pretrained on, never tested on."
        ),
    ] = None,
    device: Device = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PART.KEY=VALUE",
            help="A setting of a part: segmentation.steps=600; repeat for several. A wrong name lists the right ones.",
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Judge generated images against real ones, or ask whether they help a detector.

    Real defects that a method saw, their physical parts and their look-alikes are never tested on; an overlap is
    refused. Results are results.json, results.csv and results.md in --out, with the command and versions inside.
    Metrics of images say whether they look real and varied; only --compare says whether they help.

    Examples:

    `flawsmith evaluate out/painted --real mvtec_ad:data/widget --features models/dinov2-small --out results/painted`

    `flawsmith evaluate out/painted --real mvtec_ad:data/widget --metrics segmentation --export onnx --out results/line`

    `flawsmith evaluate --compare --real mvtec_ad:data/widget --arms real,copypaste,analogy --out results/help`
    """
    from flawsmith import config as configs

    values: dict[str, Any] = {
        "real": real,
        "out": out,
        "category": category,
        "defect": tuple(defect or ()),
        "metrics": _words(metrics, "--metrics"),
        "features": features,
        "seeds": _numbers(seeds, "--seeds"),
        "group_by": group_by,
        "seen": seen,
        "device": device,
    }
    compared = {"--arms": arms, "--ratios": ratios, "--images": images, "--backbone": backbone, "--jobs": jobs}
    compared["--support"] = support
    folder = {"OUT": generated, "--protocol": protocol, "--export": export}
    wrong = next((name for name, value in (folder if compare else compared).items() if value is not None), None)
    if wrong is not None:
        raise FlawsmithError(
            f"{wrong} does not go with --compare: name a folder as an arm, --arms real,NAME=FOLDER."
            if compare
            else f"{wrong} belongs to --compare: add --compare, or leave it out."
        )
    if not compare and generated is None and config is None:
        raise FlawsmithError("evaluate needs a folder of generated images: flawsmith evaluate OUT, or --compare.")
    if compare:
        chosen = tuple(int(one) if one.isdecimal() else one for one in _words(shots, "--shots") or ())
        values |= {
            "arms": _words(arms, "--arms"),
            "shots": chosen,
            "ratios": _numbers(ratios, "--ratios"),
            "images": images,
        }
        values |= {"backbone": backbone, "jobs": jobs, "support": support}
        model = configs.CompareConfig
    else:
        values |= {"generated": generated, "protocol": protocol, "export": _words(export, "--export")}
        values |= {"shots": (_numbers(shots, "--shots") or (None,))[0]}
        model = configs.EvaluateConfig  # type: ignore[assignment]
    settings = configs.load(model, values, config, set_ or ())
    if compare and "jobs" not in settings.model_fields_set and settings.device == "cpu":
        settings = settings.model_copy(update={"jobs": min(MOST_JOBS, os.cpu_count() or 1)})
    _run(settings, compare)


def _run(settings: Any, compare: bool) -> None:
    """Import what is needed, saying what to install where it is missing; run with progress; print."""
    from flawsmith.diffusion.devices import refuse_device
    from flawsmith.registry import resolve

    refuse_device(settings.device)
    table = {"evaluate": "flawsmith.evaluation.run:evaluate", "compare": "flawsmith.comparison.run:compare"}
    function = resolve("compare" if compare else "evaluate", table, "Command")
    command = shlex.join(["flawsmith", *sys.argv[1:]])
    with terminal.progress() as bar:
        bar.speed_estimate_period = 7200.0  # an arm takes minutes; the default forgets after 30 seconds
        tasks: dict[bool, Any] = {}
        shown = ""

        def tell(what: str, done: int, total: int, facts: Mapping[str, Any]) -> None:
            """One line for the whole comparison, one for what is being done now."""
            nonlocal shown
            whole = compare and what == "networks"
            if whole not in tasks:
                tasks[whole] = bar.add_task(what, total=total)
            if not whole and what != shown:
                bar.reset(tasks[whole], total=total, description=what)
                shown = what
            bar.update(tasks[whole], completed=done, total=total)

        values, sentences = function(
            settings, command, tell, *([lambda line: typer.echo(line, err=True)] if compare else [])
        )
    terminal.table(str(settings.out), _rows(values, COMPARED if compare else SHOWN))
    for sentence in sentences if compare else ():
        typer.echo(sentence)
    terminal.notes([] if compare else sentences)
    typer.echo(f"All values: {settings.out / 'results.md'} (and results.json, results.csv)")


def _rows(values: Any, names: frozenset[str]) -> list[dict[str, Any]]:
    """What fits a terminal: one number per key and arm, over the defect types' mean where every arm has one."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}  # key -> type -> arm -> a value per seed
    for one in values:
        if one.key.split("/")[0] in names and one.type in ("mean", "all", ""):
            numbers = found.setdefault(one.key, {}).setdefault(one.type, {}).setdefault(one.method, [])
            numbers += [] if one.value is None else [one.value]
    rows = []
    for key, types in found.items():
        kind = max(types, key=lambda name: (len(types[name]), name == "mean"))
        for arm, numbers in types[kind].items():
            text = f"{sum(numbers) / len(numbers):.4g}" if numbers else None
            rows.append({"key": key, "arm": arm or "-", "types": kind or "-", "value": text, "seeds": len(numbers)})
    return rows


def _words(text: str | None, name: str) -> tuple[str, ...] | None:
    """ "a, b" -> ("a", "b"); None stays None. An option without a word is refused: its default is no surprise."""
    if text is None:
        return None
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise FlawsmithError(f"{name} {text!r} names nothing: name something, or leave {name} out for its default.")
    return words


def _numbers(text: str | None, name: str) -> tuple[float | int, ...] | None:
    words = _words(text, name)
    if words is None:
        return None
    try:
        return tuple(int(word) if word.isdecimal() else float(word) for word in words)
    except ValueError:
        raise FlawsmithError(f"{name} {text!r} is not a list of numbers: write for example {name} 0,1,2.") from None
