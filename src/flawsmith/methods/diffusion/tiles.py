"""One request while a model paints it: square windows over its mask, pasted back so that the photograph stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from flawsmith import compose, images
from flawsmith.records import Request, Sample

THICK = 1 / 8  # of the window's side: how thick a mask is before its window may shrink
COARSE = 4.0  # px, s.d. of the blur: what is coarser stays as real defects have it where painting begins from them


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
    done: np.ndarray = field(init=False)  # (h, w) bool, what earlier tiles painted

    def __post_init__(self) -> None:
        self.done = np.zeros(self.mask.shape, dtype=bool)


def reduction(mask: np.ndarray, size: int, largest: float) -> float:
    """How much a window over this mask (h, w) bool may shrink to a model's `size`, 1 to `largest`.

    What is thinner than an eighth of the window does not shrink: at 128 px a crack 4 px wide would be 2 px under the
    noise that painting begins with, and came out as a row of beads. At its own scale it stays a line.
    """
    return float(np.clip(_thickness(mask) / (size * THICK), 1.0, largest))


def _thickness(mask: np.ndarray) -> float:
    """Diameter in pixels of the largest disc in a mask (h, w) bool."""
    return 2 * float(cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3).max())


def tiles(mask: np.ndarray, size: int, context: float, max_reduction: float) -> list[compose.Window]:
    """Square windows that together cover a mask (h, w) bool, none reduced by more than `max_reduction`.

    A mask that fits one window gets one. A long or large one is walked in overlapping windows, so that a crack keeps
    its width in pixels: shrunk cracks become faint and broken. What a window paints of a mask is up to .8 of its side
    where the mask has surroundings at its flanks, no thicker than a quarter of the window, else .6.
    """
    whole = compose.square_window(mask, size, context)
    largest = round(size * max_reduction)
    if max(whole.shape) <= largest:
        return [whole]
    rest, found = mask.copy(), []
    core = round(largest * (0.8 if _thickness(mask) <= largest / 4 else 0.6))
    while rest.any():
        rows, columns = np.nonzero(rest)
        # The next tile starts at the first uncovered pixel along the longer direction, and centres on what it meets.
        if np.ptp(rows) >= np.ptp(columns):
            first = rows.min()
            near = columns[rows < first + core]
            place = (first + core // 2, int(np.median(near)))
        else:
            first = columns.min()
            near = rows[columns < first + core]
            place = (int(np.median(near)), first + core // 2)
        piece = np.zeros_like(mask)
        top, left = max(0, place[0] - core // 2), max(0, place[1] - core // 2)
        piece[top : top + core, left : left + core] = rest[top : top + core, left : left + core]
        if not piece.any():  # a gap in the mask: take the uncovered pixel itself
            piece[rows[0], columns[0]] = True
        found.append(compose.square_window(piece, largest, 1.0))
        rest &= ~piece
    return found


def resized(
    image: np.ndarray, mask: np.ndarray, view: compose.Window, size: int, keep: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """A window at the model's size: (S, S, 3) uint8 and (S, S) bool, padded by reflection where not square.

    A reduced mask keeps every cell it touched, so that no thin line vanishes.
    """
    part, hole = image[view.slices], mask[view.slices]
    side = max(part.shape[:2])
    if part.shape[0] != part.shape[1]:
        pad = ((0, side - part.shape[0]), (0, side - part.shape[1]))
        mode: Any = "symmetric" if min(part.shape[:2]) * 2 >= side else "edge"
        part, hole = np.pad(part, (*pad, (0, 0)), mode=mode), np.pad(hole, pad)
    if side == size:
        return np.ascontiguousarray(part), hole.copy()
    small = images.resize(part, size, size)
    if side > size:
        share = cv2.resize(hole.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        return small, share > (1e-6 if keep else 0.25) if hole.any() else share > 1
    return small, images.resize_mask(hole, size, size)


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
