"""NSA, natural synthetic anomalies: a patch of normal material, resized and joined by Poisson blending.

Reference: Schlueter et al., "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization",
ECCV 2022, section 3.1. There the patch comes from another normal image; here from the reference when it is a normal
photograph, else from another place of the same photograph.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from flawsmith import compose
from flawsmith.masks.options import Span, between
from flawsmith.methods import base
from flawsmith.methods.classic.patches import take_different
from flawsmith.methods.classic.poisson import seamless
from flawsmith.records import Request


class NSAOptions(base.Options):
    """Dials of `nsa`."""

    resize: Annotated[Span, between(0.05, 20)] = Field(
        default=(0.7, 1.3), description="enlargement of the patch (paper: 0.7 to 1.3)"
    )
    mixed: bool = Field(default=False, description="keep the stronger of both gradients at every pixel")
    flip: bool = Field(default=True, description="mirror half of the patches")
    tries: int = Field(default=12, ge=1, le=200, description="patches compared; a differing one is taken")


class NSA(base.Synthesizer):
    """Blend a resized patch of normal material into the mask without a seam."""

    name = "nsa"
    imitates = False
    Options: ClassVar[type[base.Options]] = NSAOptions

    def default_mask(self, defect_type: str) -> str:
        return "perlin"

    def paint(
        self,
        normal: np.ndarray,
        mask: np.ndarray,
        request: Request,
        area: compose.Window,
        rng: np.random.Generator,
        options: Any,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        reference = request.reference
        other = reference is not None and not reference.mask.any()
        photo = reference.image if reference is not None and other else request.normal.image
        # One pixel more all around where the window has it: the gradient across the border is the patch's, too.
        box = compose.mask_box(mask)
        top, left = max(0, box.top - 1), max(0, box.left - 1)
        view = (slice(top, min(mask.shape[0], box.bottom + 1)), slice(left, min(mask.shape[1], box.right + 1)))
        patch, source = take_different(
            photo, normal[view], mask[view], rng, options.resize, options.flip, options.tries, mean_apart=True
        )
        painted = normal.copy()
        joined = seamless(normal[view], patch, mask[view], options.mixed)
        painted[view] = np.clip(np.rint(joined), 0, 255).astype(np.uint8)
        return painted, {"source": source, "source_photo": "reference" if other else "normal"}
