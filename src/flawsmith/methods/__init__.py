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
    "copypaste": "flawsmith.methods.copypaste:CopyPaste",
    "cutpaste": "flawsmith.methods.cutpaste:CutPaste",
    "inpaint": "flawsmith.methods.latent:DiffusionSynthesizer",
    "nsa": "flawsmith.methods.nsa:NSA",
    "perlin": "flawsmith.methods.perlin:Perlin",
    "procedural": "flawsmith.methods.procedural:Procedural",
}


def load(name: str, **options: Any) -> Synthesizer:
    """Make the synthesizer called `name` (a key of METHODS or "package.module:Class") with the given config."""
    return resolve(name, METHODS, "Method")(**options)
