"""One request while a model paints it: what is decided before, and how windows are pasted back.

Only what lies in the hole is ever pasted, so that the photograph stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from flawsmith import captions, compose, images
from flawsmith.diffusion.backbone import Backbone
from flawsmith.methods.diffusion import sketches
from flawsmith.methods.diffusion.tiles import reduction, tiles
from flawsmith.records import Request, Sample


@dataclass
class Canvas:
    """One request while it is painted: its region of the photograph and the square windows that cover the mask."""

    request: Request
    area: compose.Window
    pixels: np.ndarray  # (h, w, 3) uint8, the region, painted tile by tile
    mask: np.ndarray  # (h, w) bool
    tiles: list[compose.Window]  # inside the region
    start: np.ndarray | None = None  # (h, w, 3) uint8, what denoising begins from
    draft: np.ndarray | None = None  # (h, w, 3) uint8, a real defect laid in the hole, for a backbone that sees it
    exemplar: Sample | None = None  # whose contrast the defect takes: the reference, or a sketch where a name is all
    real: bool = False  # whether the start is the texture of real defects
    done: np.ndarray = field(init=False)  # (h, w) bool, what earlier tiles painted

    def __post_init__(self) -> None:
        self.done = np.zeros(self.mask.shape, dtype=bool)


def cut(request: Request, backbone: Backbone, options: Any, by_name: bool) -> Canvas:
    """The region and windows of a request, and what its painting begins from and leans on.

    by_name: whether the type's name alone says what to paint, so that a request without words or reference gets a
    sketch and that sketch's words.
    """
    size = backbone.size
    shrink = reduction(request.mask, size, options.max_reduction)
    area = (
        compose.Window(0, 0, *request.mask.shape)
        if options.window == "full"
        else compose.window(request.mask, round(size * shrink), options.context)
    )
    mask = request.mask[area.slices]
    pixels = request.normal.image[area.slices].copy()
    sketch = start = None
    wordless = by_name and not request.caption and request.reference is None
    if wordless or options.start == "painted":
        sketch = sketches.painted(request, area, pixels, mask)
        start = sketch.image if options.start == "painted" else None
    elif options.start == "reference":
        start = sketches.laid(request, area, pixels, mask)
    elif begins_real(request, options):
        start = sketches.analogous(request, area, pixels, mask)
    real = options.follows and start is not None
    if wordless and sketch is not None:
        request = replace(request, caption=sketch.caption)
    exemplar = request.reference or (sketch if wordless else None)
    windows = [area] if options.window == "full" else tiles(mask, size, options.context, shrink)
    draft = None
    if backbone.takes_drafts and options.draft != "none":
        draft = sketches.draft(options.draft, request, area, pixels, mask)
    return Canvas(request, area, pixels, mask, windows, start, draft, exemplar, real)


def begins_real(request: Request, options: Any) -> bool:
    """Whether a request's image begins from the texture of real defects.

    Not where its words are the user's own, and not what is said of each defect of its type; nor where they tell of a
    whole component, which has no texture of its own, unless a real one is carried whole.
    """
    if request.reference is None or not options.follows:
        return False
    if options.start == "analogy":
        return True
    own = captions.sentence(request.normal.category, request.defect_type)
    if request.caption not in ("", own, request.reference.caption):
        return False
    return request.whole or not captions.logical(request.caption or request.defect_type)


def paste(canvas: Canvas, turn: int, context: np.ndarray, window: np.ndarray, options: Any) -> None:
    """Lay one painted window (S, S, 3) back on its region, inside the hole only."""
    view = canvas.tiles[turn]
    height, width = view.shape
    side = max(height, width)
    target = canvas.pixels[view.slices]
    if side <= len(window) or not options.keep_grain:
        new = window if side == len(window) else images.resize(window, side, side)
        painted = new[:height, :width]
    else:
        residual = window.astype(np.float32) - context
        grown = cv2.resize(residual, (side, side), interpolation=cv2.INTER_CUBIC)[:height, :width]
        painted = np.clip(np.rint(target + grown), 0, 255).astype(np.uint8)
    hole = (canvas.mask & ~canvas.done)[view.slices]
    if len(canvas.tiles) > 1:  # leave a margin to the next tile, which then continues what this one painted
        edge = 0 if turn == len(canvas.tiles) - 1 else max(4, side // 16)
        inner, (rows, columns) = np.zeros(canvas.mask.shape, bool), canvas.mask.shape
        inner[_shrunk(view.top, view.bottom, edge, rows), _shrunk(view.left, view.right, edge, columns)] = True
        hole &= inner[view.slices]
    target[hole] = painted[hole]
    canvas.done[view.slices] |= hole


def _shrunk(start: int, end: int, edge: int, limit: int) -> slice:
    """start..end less an edge on both sides, but not at the region's own border (0, limit): no tile lies beyond it."""
    return slice(start + edge if start else 0, end - edge if end < limit else limit)
