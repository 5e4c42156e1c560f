"""What denoising may lean on beside words: a defect laid or painted in place by a classic."""

from __future__ import annotations

import numpy as np

from flawsmith import compose
from flawsmith.diffusion import tensors
from flawsmith.methods.analogy.synthesizer import Analogy
from flawsmith.methods.base import Synthesizer
from flawsmith.methods.classic.copypaste import CopyPaste
from flawsmith.methods.procedural.synthesizer import Procedural
from flawsmith.records import Request, Sample


def laid(request: Request, area: compose.Window, normal: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """The reference's defect laid on the region as `copypaste` would: (h, w, 3) uint8, or None without a reference.

    normal (h, w, 3) uint8 and mask (h, w) bool are `area` of the request's image and mask.
    """
    return _referred(CopyPaste(brightness=0.0), request, area, normal, mask)


def analogous(request: Request, area: compose.Window, normal: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """The texture of real defects in the mask as `analogy` paints it; arguments and result as those of `laid`."""
    return _referred(Analogy(), request, area, normal, mask)


def draft(how: str, request: Request, area: compose.Window, normal: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """As `laid` ("laid") or `analogous` ("analogy"), but on the smooth continuation of what is around the hole: what
    the reference does not cover tells nothing of the pixels that were there, in training as in painting.
    """
    bare = np.clip(np.rint(tensors.continued(normal, mask)), 0, 255).astype(np.uint8)
    bare = np.where(mask[..., None], bare, normal)
    return (laid if how == "laid" else analogous)(request, area, bare, mask)


def _referred(
    painter: Synthesizer, request: Request, area: compose.Window, normal: np.ndarray, mask: np.ndarray
) -> np.ndarray | None:
    if request.reference is None or not request.reference.mask.any():
        return None
    rng = np.random.default_rng(request.seed)
    return painter.paint(normal, mask, request, area, rng, painter.options)[0]


def painted(request: Request, area: compose.Window, normal: np.ndarray, mask: np.ndarray) -> Sample:
    """What `procedural` paints for the same words: a defect of the right place, kind and colour on the region, and a
    caption that is true of it (the request's own where it has one).

    Raises FlawsmithError when neither the type's name nor the caption says a kind.
    """
    painter = Procedural()
    rng = np.random.default_rng(request.seed)
    image, told = painter.paint(normal, mask, request, area, rng, painter.options)
    return Sample(image, mask, request.normal.category, request.defect_type, told["caption"])
