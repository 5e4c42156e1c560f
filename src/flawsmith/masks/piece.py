"""A real mask that is to be laid elsewhere, as points, and what its surroundings look like at home."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from flawsmith.masks.options import MaskOptions
from flawsmith.masks.placement import sample_points
from flawsmith.masks.scene import Surroundings

RING_POINTS = 144  # at most


@dataclass(frozen=True)
class Piece:
    """A mask that is to be laid, as points around its middle, and what its surroundings look like at home."""

    middle: np.ndarray  # (2,) x and y of the mask's middle in its own photograph
    inner: np.ndarray  # (2, n) points of the mask
    ring: np.ndarray  # (2, m) points around it
    colours: np.ndarray  # (m, 3) of the ring in the reference
    framed: np.ndarray  # (m,) bool, whether a ring point lies inside the reference
    extent: float  # the longer side of the mask's box
    size: int  # pixels of the mask

    @staticmethod
    def of(mask: np.ndarray, real: np.ndarray, home: Surroundings) -> Piece:
        """From a mask (H, W) bool; where its shape is new, colours are taken beside the `real` defect."""
        x, y = sample_points(mask)
        middle = np.array([x.mean(), y.mean()])
        ring = _ring(mask) - middle[:, None]
        outside = ring + middle[:, None] if mask is real else _beside(real, ring + middle[:, None])
        colours, framed = home.colour(outside[0], outside[1])
        extent = max(4.0, *(float(np.ptp(np.flatnonzero(mask.any(axis=axis)))) for axis in (0, 1)))
        inner = np.stack([x, y]) - middle[:, None]
        return Piece(middle, inner, ring, colours, framed, extent, int(np.count_nonzero(mask)))


def parts(mask: np.ndarray, options: MaskOptions, rng: np.random.Generator) -> np.ndarray:
    """The mask, or as many of its connected parts as asked for; large ones are likelier."""
    if options.count is None:
        return mask
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = int(rng.integers(options.count[0], options.count[1] + 1))
    if keep >= count - 1:
        return mask
    weights = stats[1:, cv2.CC_STAT_AREA].astype(float)
    chosen = rng.choice(np.arange(1, count), keep, replace=False, p=weights / weights.sum())
    return np.isin(parts, chosen)


def _ring(mask: np.ndarray) -> np.ndarray:
    """Points (2, n) around the mask, also beyond the photograph's frame."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    step = max(1, max(cut.shape) // 512)
    cut = cut[::step, ::step]
    reach = int(np.clip(0.4 * math.sqrt(max(1, cut.sum())), 4, 60))
    distance = cv2.distanceTransform(1 - np.pad(cut, reach + 1).astype(np.uint8), cv2.DIST_L2, 3)
    x, y = sample_points((distance > 1.5) & (distance <= reach), RING_POINTS)
    return np.stack([(x - reach - 1) * step + columns[0], (y - reach - 1) * step + rows[0]]).astype(np.float64)


def _beside(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (2, n), those on or beside a mask moved to the nearest pixel that is clear of it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = max(0, int(rows[0]) - 8), max(0, int(columns[0]) - 8)
    part = mask[top : int(rows[-1]) + 9, left : int(columns[-1]) + 9]
    clear = ~cv2.dilate(part.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    if not clear.any():
        return points
    nearest = ndimage.distance_transform_edt(~clear, return_distances=False, return_indices=True)
    x, y = np.rint(points[0]).astype(int) - left, np.rint(points[1]).astype(int) - top
    inside = (x >= 0) & (x < part.shape[1]) & (y >= 0) & (y < part.shape[0])
    moved = points.copy()
    moved[0, inside] = nearest[1][y[inside], x[inside]] + left
    moved[1, inside] = nearest[0][y[inside], x[inside]] + top
    return moved
