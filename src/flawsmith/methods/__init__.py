"""The table of methods. Listing it imports nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flawsmith.registry import resolve

if TYPE_CHECKING:
    from flawsmith.methods.base import Synthesizer

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


def load(name: str, **options: Any) -> Synthesizer:
    """Make the synthesizer called `name` (a key of METHODS or "package.module:Class") with the given config."""
    return resolve(name, METHODS, "Method")(**options)
