"""From painted pixels to a Sample: contrast, grain, what really changed, and the label."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from flawsmith import compose
from flawsmith.methods.classic.patches import is_grey
from flawsmith.methods.diffusion.appearance import AppearanceStats, match_contrast
from flawsmith.methods.diffusion.canvas import Canvas
from flawsmith.records import Sample

COARSE = 4.0  # px, s.d. of the blur: what is coarser stays as real defects have it where painting begins from them


def finish(
    canvas: Canvas, options: Any, strength: float, appearance: AppearanceStats | None, facts: dict[str, Any]
) -> Sample:
    """The photograph with what was painted, and the pixels that changed as the label.

    strength: how far contrast follows, 0 to 1: `appearance`'s, or the start's where it is of real texture. facts: what
    is told of the sample beside its window and scores.
    """
    request, view = canvas.request, canvas.area.slices
    normal = np.ascontiguousarray(request.normal.image[view])
    painted = canvas.pixels
    if is_grey(normal):  # a grey camera sees no colour
        painted = np.repeat(painted.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
    if canvas.real and canvas.start is not None:  # light and colour are real, and of this photograph
        painted = with_coarse(canvas.start, painted, canvas.mask, strength)
    elif appearance is not None:
        painted = match_contrast(normal, painted, canvas.mask, appearance, strength)
    if options.keep_grain:
        painted = with_grain(normal, painted, canvas.mask)
    painted = only_real_change(normal, painted, canvas.mask, options.threshold)
    limits = options.tolerance, options.min_visibility, options.min_share
    if request.severity is not None:
        painted = compose.at_severity(normal, painted, canvas.mask, request.severity, *limits)
    elif request.contrast != 1:
        painted = compose.strengthened(normal, painted, canvas.mask, request.contrast, *limits)
    done = compose.finish(normal, painted, canvas.mask, *limits)
    image = request.normal.image.copy()
    label = np.zeros(request.mask.shape, dtype=bool)
    info: dict[str, Any] = {"window": canvas.area.as_list(), "tiles": len(canvas.tiles), "scores": done.scores, **facts}
    if done.rejected:
        info["rejected"] = done.rejected
    else:
        image[view], label[view] = done.image, done.label
    return Sample(image, label, request.normal.category, request.defect_type, request.caption, info)


def with_grain(normal: np.ndarray, painted: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Add the grain that a few denoising steps leave out: the photograph's own, from another place of the window.

    Only as much as is missing, so that an image that has its grain keeps it. Edges of the place it is taken from are
    clipped away.
    """
    wanted, got = compose.noise_level(normal), compose.noise_level(painted, mask)
    if got >= wanted or wanted <= 0:
        return painted
    missing = float(np.sqrt(1 - (got / wanted) ** 2))
    grained = painted + missing * compose.borrowed_grain(compose.fine_texture(normal), wanted)
    return np.where(mask[..., None], np.clip(np.rint(grained), 0, 255).astype(np.uint8), painted)


def with_coarse(start: np.ndarray, painted: np.ndarray, mask: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """The painting with what is coarser than COARSE px taken from what it began from, inside the mask.

    start, painted: (h, w, 3) uint8; mask: (h, w) bool. A start that is hardly noised says the layout, and a small model
    lets its level and colour drift. In the manner of ILVR (Choi et al. 2021), which does so at every step.
    """
    apart = (start.astype(np.float32) - painted) * mask[..., None]
    blurred = [cv2.GaussianBlur(part, (0, 0), COARSE) for part in (apart, mask.astype(np.float32))]
    drift = strength * blurred[0] / np.maximum(blurred[1], 1e-3)[..., None]
    corrected = np.clip(np.rint(painted + drift), 0, 255).astype(np.uint8)
    return np.where(mask[..., None], corrected, painted)


def only_real_change(normal: np.ndarray, painted: np.ndarray, mask: np.ndarray, threshold: float) -> np.ndarray:
    """Put the photograph back where the painted surface merely differs in grain, with a soft passage.

    Change is judged on smoothed images against the local standard deviation of the photograph: a repainted texture
    is not a defect, and a label that counted it would teach the detector that texture is one. What change encloses, or
    nearly so, stays: the middle of a chip may be as bright as the surface and is still the chip.
    """
    difference = cv2.GaussianBlur(painted.astype(np.float32) - normal, (0, 0), 1.2)
    strength = np.abs(difference).max(axis=2)
    grey = cv2.cvtColor(normal, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean = cv2.GaussianBlur(grey, (0, 0), 6)
    deviation = np.sqrt(np.maximum(cv2.GaussianBlur(grey * grey, (0, 0), 6) - mean * mean, 0))
    limit = np.maximum(6.0, threshold * deviation)
    alpha = np.clip((strength - 0.6 * limit) / (0.4 * limit), 0, 1)
    alpha = cv2.GaussianBlur(np.maximum(alpha, _enclosed(alpha > 0.5)), (0, 0), 0.8) * mask
    return compose.blend(normal, painted, alpha)


def _enclosed(change: np.ndarray, gap: int = 4) -> np.ndarray:
    """Change (h, w) bool with its holes filled, and its bays narrower than twice `gap` pixels; (h, w) float32."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * gap + 1, 2 * gap + 1))
    padded = np.pad(change.astype(np.uint8), 2 * gap)  # closing must not lean on the window's border
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(closed, outlines, -1, 1, cv2.FILLED)
    return filled[2 * gap : -2 * gap, 2 * gap : -2 * gap].astype(np.float32)
