"""Square windows over a mask, at a model's size."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from flawsmith import compose, images

THICK = 1 / 8  # of the window's side: how thick a mask is before its window may shrink


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
