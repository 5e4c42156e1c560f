"""CutPaste: a patch of the photograph itself, colour-jittered, pasted where the mask allows.

Reference: Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization",
CVPR 2021, section 2.1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np
from pydantic import Field

from flawsmith import compose
from flawsmith.methods import base
from flawsmith.methods.classic.patches import is_grey, turned
from flawsmith.records import Request


class CutPasteOptions(base.Options):
    """Dials of `cutpaste`."""

    jitter: float = Field(0.1, ge=0, le=1, description="colour jitter, share of the value range (paper: 0.1)")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation of the patch in degrees (scar: 45)")


class CutPaste(base.Synthesizer):
    """Cut a region of the mask's shape elsewhere in the photograph and paste it into the mask."""

    name = "cutpaste"
    imitates = False
    Options: ClassVar[type[base.Options]] = CutPasteOptions

    def default_mask(self, defect_type: str) -> str:
        return "box"

    def paint(
        self,
        normal: np.ndarray,
        mask: np.ndarray,
        request: Request,
        area: compose.Window,
        rng: np.random.Generator,
        options: Any,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        photo = request.normal.image
        box = compose.mask_box(mask)
        height, width = box.shape
        # The source is any other place of the photograph, at least half a box away and not its twin: on artwork and
        # plain surfaces many places look exactly alike, and nothing would be seen. The most different one else.
        there = normal[box.slices]
        here = (area.top + box.top, area.left + box.left)
        best, best_score = (0, 0), -1.0
        for _ in range(16):
            top, left = (
                int(rng.integers(0, photo.shape[0] - height + 1)),
                int(rng.integers(0, photo.shape[1] - width + 1)),
            )
            away = min(1.0, max(abs(top - here[0]) / height, abs(left - here[1]) / width))
            difference = float(cv2.absdiff(photo[top : top + height, left : left + width], there).mean())
            if away + difference / 1000 > best_score:
                best, best_score = (top, left), away + difference / 1000
            if away >= 0.5 and difference >= 4:
                best = (top, left)
                break
        patch = photo[best[0] : best[0] + height, best[1] : best[1] + width]
        if options.rotate:
            angle = float(rng.uniform(-options.rotate, options.rotate))
            patch = turned(patch, angle)
        if options.jitter:
            channels = 1 if is_grey(photo) else 3  # a grey camera sees no coloured defect
            gain = 1 + rng.uniform(-options.jitter, options.jitter, size=channels) * 2
            shift = rng.uniform(-options.jitter, options.jitter, size=channels) * 255
            patch = np.clip(np.rint(patch * gain + shift), 0, 255).astype(np.uint8)
        painted = normal.copy()
        painted[box.slices] = patch
        return painted, {"source": [best[0], best[1], height, width]}
