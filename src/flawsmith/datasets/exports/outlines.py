"""Masks to polygons that give the same pixels back.

A polygon runs through the middles of the sides between a pixel that belongs to the mask and one that does not. No
pixel's centre is on it, so that rounding to a few digits changes nothing, and slanted edges need no stairs.
"""

from __future__ import annotations

import cv2
import numpy as np


def components(mask: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """The connected parts of (H, W) bool, corners touching: (top, left, the part cut out as bool), from the top."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    found = []
    for number in range(1, count):
        left, top, width, height = (int(value) for value in stats[number, :4])
        found.append((top, left, parts[top : top + height, left : left + width] == number))
    return found


def polygon(part: np.ndarray) -> np.ndarray:
    """One connected part (h, w) bool as one closed polygon (n, 2) of (x, y), holes cut out along a bridge.

    A bridge is a line that goes to the hole and comes back on itself: it covers nothing.
    """
    from skimage.measure import find_contours  # half a second to import

    contours = find_contours(np.pad(part.astype(np.float32), 1), 0.5, fully_connected="high")
    rings = [_straight(contour[:-1, ::-1] - 0.5) for contour in contours]
    rings.sort(key=lambda ring: -abs(_area(ring)))  # the outline is the largest, what follows are holes
    return join(rings)


def join(rings: list[np.ndarray]) -> np.ndarray:
    """Several polygons (n, 2) as one, each tied on by a bridge where it comes nearest to what is already joined."""
    whole = rings[0]
    for ring in rings[1:]:
        distance = ((whole[:, None] - ring[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(int(distance.argmin()), distance.shape)
        loop = np.roll(ring, -int(there), axis=0)
        whole = np.concatenate([whole[: here + 1], loop, loop[:1], whole[here:]])
    return whole


def _straight(ring: np.ndarray) -> np.ndarray:
    """The ring without points in the middle of a straight line."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9
    return ring[turns]


def _area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
