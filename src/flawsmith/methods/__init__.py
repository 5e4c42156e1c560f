"""The table of methods, and the one way to a synthesizer. Listing the table imports nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flawsmith.errors import FlawsmithError, unknown
from flawsmith.methods.base import Synthesizer, read_card
from flawsmith.registry import resolve

METHODS = {
    "analogy": "flawsmith.methods.analogy.synthesizer:Analogy",
    "anomalycontrol": "flawsmith.methods.anomalycontrol.synthesizer:AnomalyControl",
    "anomalyxfusion": "flawsmith.methods.anomalyxfusion.synthesizer:AnomalyXFusion",
    "copypaste": "flawsmith.methods.classic.copypaste:CopyPaste",
    "cutpaste": "flawsmith.methods.classic.cutpaste:CutPaste",
    "inpaint": "flawsmith.methods.diffusion.synthesizer:DiffusionSynthesizer",
    "nsa": "flawsmith.methods.classic.nsa:NSA",
    "perlin": "flawsmith.methods.classic.perlin:Perlin",
    "procedural": "flawsmith.methods.procedural.synthesizer:Procedural",
}


def load(
    method: str | Path,
    *,
    backbone: str | None = None,
    device: str | None = None,
    memory: int | None = None,
    runtime: str | None = None,
    **options: Any,
) -> Synthesizer:
    """The synthesizer behind a name of METHODS, the folder of a trained run, or "package.module:Class".

    `backbone`, `device`, `memory` and `runtime` belong to diffusion methods; `options` are the method's own dials. A
    run's card names a method of METHODS, never a module to import. Raises FlawsmithError for an unknown name, option
    or setting.
    """
    name = str(method)
    told = {"device": device, "memory": memory, "runtime": runtime}
    place = {key: value for key, value in told.items() if value is not None}
    if name not in METHODS and (Path(name) / "card.json").is_file():
        if backbone is not None:
            raise FlawsmithError(f"{name} was trained on its own backbone: leave --backbone out.")
        called = read_card(Path(name))["method"]
        if called not in METHODS:
            raise unknown("Method", called, METHODS, f"in {Path(name) / 'card.json'}")
        made: Synthesizer = resolve(called, METHODS, "Method").from_pretrained(name, **place)
        made.options = made.parse_options(options, made.options)
        return made
    if name not in METHODS and ":" not in name:
        raise unknown("Method", name, METHODS, "and is no checkpoint folder (card.json)")
    kind = resolve(name, METHODS, "Method")
    given = {**({} if backbone is None else {"backbone": backbone}), **place}
    if given and kind.learns == "nothing":
        raise FlawsmithError(f"Method {name!r} uses no diffusion model: leave --{next(iter(given))} out.")
    fresh: Synthesizer = kind(**given, **options)
    return fresh
