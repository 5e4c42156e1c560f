"""Exemplars: real defects with their rings, turned to fit the new mask's surroundings and stacked in one source."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.compose import mask_box
from flawsmith.masks import Warp
from flawsmith.methods.analogy.guidance import signed_distance

RING = 12  # pixels around a defect that count as its surroundings
RAYS = 32  # directions in which surroundings are compared
TURNED = 0.12  # of the surroundings' contrast: chance likeness is no reason to turn
REACHES = (3.0, 8.0, 16.0)  # pixels outside the border at which they are


@dataclass(frozen=True)
class Exemplar:
    """A defect with its surroundings: `image` (h, w, 3) float32, `mask` and `seen` (h, w) bool, and where it was cut.

    `corner` is the place (x, y) in the photograph of the first pixel, of a defect that was not turned.
    """

    image: np.ndarray
    mask: np.ndarray
    seen: np.ndarray  # where it was photographed; elsewhere the image is mirrored
    corner: tuple[int, int]


def posed(
    image: np.ndarray, mask: np.ndarray, margin: int, scale: float = 1.0, degrees: float = 0.0, mirrored: bool = False
) -> Exemplar:
    """Cut a defect with `margin` pixels around it out of its image (H, W, 3) uint8, resized and turned."""
    box = mask_box(mask)
    middle = np.array([(box.left + box.right - 1) / 2, (box.top + box.bottom - 1) / 2])
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    linear = np.round(np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1 if mirrored else 1, 1]), 9)
    corners = np.array([[x, y] for x in (box.left, box.right - 1) for y in (box.top, box.bottom - 1)]) - middle
    reach = np.abs(corners @ linear.T).max(axis=0) + margin
    shift = np.rint(reach - linear @ middle) if scale == 1 and degrees % 90 == 0 else reach - linear @ middle
    (a, b), (c, d) = linear.tolist()
    warp = Warp(((a, b, float(shift[0])), (c, d, float(shift[1]))))
    size = (math.ceil(2 * reach[1]) + 1, math.ceil(2 * reach[0]) + 1)
    window = (0, 0, *size)
    seen = warp.apply(np.ones(mask.shape, dtype=bool), size, window)
    there = warp.apply(mask.astype(np.uint8) * 255, size, window) >= 128  # mirrored, too: the frame is no border
    return Exemplar(warp.apply(image, size, window).astype(np.float32), there, seen, (-int(shift[0]), -int(shift[1])))


def best_pose(
    image: np.ndarray, mask: np.ndarray, other: np.ndarray, its_mask: np.ndarray, light: float, square: bool = False
) -> tuple[float, bool]:
    """How to turn a defect (degrees) and whether to mirror it, so that its surroundings match those of a new mask.

    image (h, w, 3) uint8 with the new mask (h, w) bool; other, its_mask: the exemplar's. A turn moves the light, so it
    must pay: it costs up to 0.4 `light` of the contrast of the surroundings, and TURNED at least. `square`: quarter
    turns only.
    """
    here, there = profile(image, mask), profile(other, its_mask)
    if np.isnan(here).all() or np.isnan(there).all():
        return 0.0, False
    contrast = max(0.12 * float(np.nanmean(there)), float(np.nanstd(there)), 1e-3)  # of structure, not of grain
    best, pose = math.inf, (0.0, False)
    for mirrored in (False, True):
        flipped = there[(RAYS // 2 - np.arange(RAYS)) % RAYS] if mirrored else there
        for turn in range(0, RAYS, RAYS // 4 if square else 1):
            gap = (here - np.roll(flipped, turn, axis=0)).ravel()
            gap = gap[~np.isnan(gap)]
            degrees = 360 * turn / RAYS
            cost = float(np.abs(gap - np.median(gap)).mean()) / contrast if len(gap) >= RAYS // 2 else 1.0
            cost += light * 0.2 * (1 - math.cos(math.radians(degrees))) + TURNED * (turn > 0) + 0.1 * light * mirrored
            if cost < best - 1e-9:
                best, pose = cost, (degrees - 360 if degrees > 180 else degrees, mirrored)
    return pose


def profile(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Brightness around a mask by direction and distance, (RAYS, len(REACHES)) float; NaN beyond the photograph."""
    rows, columns = np.nonzero(mask)
    middle = np.array([columns.mean(), rows.mean()])
    angle = np.arctan2(rows - middle[1], columns - middle[0])
    bins = np.floor(angle / (2 * math.pi) * RAYS + 0.5).astype(int) % RAYS
    border = np.zeros(RAYS)
    np.maximum.at(border, bins, np.hypot(rows - middle[1], columns - middle[0]))
    border = np.where(border == 0, np.median(border), border)
    theta = 2 * math.pi * np.arange(RAYS) / RAYS
    away = border[:, None] + np.array(REACHES)
    x, y = middle[0] + away * np.cos(theta)[:, None], middle[1] + away * np.sin(theta)[:, None]
    grey = cv2.blur(image.mean(axis=2).astype(np.float32), (9, 9))
    height, width = grey.shape
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    found = grey[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].astype(np.float64)
    return np.where(inside & ~mask[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)], found, np.nan)


def thickness(mask: np.ndarray) -> float:
    """Pixels across a mask (h, w) bool at its widest."""
    return 2 * float(signed_distance(np.pad(mask, 1)).max())


def ring(mask: np.ndarray) -> np.ndarray:
    """The surroundings of a mask (h, w) bool, less the pixel beside it."""
    distance = signed_distance(mask)
    return np.asarray((distance < -1.5) & (distance > -RING))


def grown(mask: np.ndarray, by: int) -> np.ndarray:
    """A mask (h, w) bool with `by` pixels more on all sides."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * by + 1, 2 * by + 1), np.uint8)).astype(bool)
