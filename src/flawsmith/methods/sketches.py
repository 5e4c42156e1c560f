"""What denoising may begin from instead of noise: a defect laid or painted in place by a classic."""

from __future__ import annotations

import numpy as np

from flawsmith import compose
from flawsmith.methods.copypaste import CopyPaste
from flawsmith.methods.procedural import Procedural
from flawsmith.records import Request


def _laid(request: Request, area: compose.Window, normal: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """The reference's defect laid on the region as `copypaste` would, or None without a reference."""
    if request.reference is None or not request.reference.mask.any():
        return None
    paste = CopyPaste(brightness=0.0)
    rng = np.random.default_rng(request.seed)
    return paste.paint(normal, mask, request, area, rng, paste.options)[0]


def _painted(request: Request, area: compose.Window, normal: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What `procedural` paints for the same words: a sketch with the right place, kind and colour."""
    painter = Procedural()
    rng = np.random.default_rng(request.seed)
    return painter.paint(normal, mask, request, area, rng, painter.options)[0]


SKETCHES = {"reference": _laid, "painted": _painted}
