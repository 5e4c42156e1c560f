"""The painters of `procedural`, one per kind; families by file: lines, relief, surface, structure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flawsmith.methods.procedural import lines, relief, structure, surface
from flawsmith.methods.procedural.scene import DefectParams, Scene

Painter = Callable[[Scene, DefectParams, np.random.Generator], tuple[np.ndarray, np.ndarray | None]]

PAINTERS: dict[str, Painter] = {
    "scratch": lines.scratch,
    "crack": lines.crack,
    "dent": relief.dent,
    "hole": relief.hole,
    "chip": relief.chip,
    "stain": surface.stain,
    "spots": surface.spots,
    "fibre": lines.fibre,
    "discolouration": surface.discolouration,
    "missing_part": structure.missing_part,
    "bend": structure.bend,
}
