"""A photograph reduced for looking things up: colours at points and the direction of the surface."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from flawsmith import images

REDUCED = 256  # longest side of the copy that colours are taken from
COHERENT = 0.15  # above it a surface has a direction (grinding marks, tracks, a rim); 0 is none, 1 is stripes

Lookup = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Surroundings:
    """Softened colours and directions of an (H, W, 3) uint8 photograph or (H, W) bool area, at points in its pixels."""

    def __init__(self, image: np.ndarray) -> None:
        self.height, self.width = image.shape[:2]
        self.step = max(1.0, max(self.height, self.width) / REDUCED)
        size = max(1, round(self.height / self.step)), max(1, round(self.width / self.step))
        if image.ndim == 2:  # an area instead of a photograph: its outline is all there is to see
            image = cv2.cvtColor(images.resize_mask(image, *size).astype(np.uint8) * 100, cv2.COLOR_GRAY2RGB)
        elif self.step > 1:
            image = images.resize(image, *size)
        self.small = cv2.blur(image, (3, 3))
        self.colours = self.small.astype(np.float32).reshape(-1, 3)

    def colour(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours (..., 3) float32 at points, and which of them lie inside the photograph."""
        inside = (x > -0.5) & (x < self.width - 0.5) & (y > -0.5) & (y < self.height - 0.5)
        height, width = self.small.shape[:2]
        column = np.clip((x / self.step).astype(np.int32), 0, width - 1)
        row = np.clip((y / self.step).astype(np.int32), 0, height - 1)
        return self.colours[row * width + column], inside

    def direction(self, places: np.ndarray, extent: float) -> tuple[np.ndarray, np.ndarray]:
        """Direction of the surface (radians) and its clearness (0 to 1) around places (n, 2), by structure tensor."""
        grey, step, side = self._grey(extent)
        gx, gy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
        # A share of the whole photograph's direction decides where a place has none of its own.
        tensor = (cv2.blur(product, (side, side)) + 0.25 * product.mean() for product in (gx * gx, gy * gy, gx * gy))
        xx, yy, xy = tensor
        column = np.clip((places[:, 0] / step).astype(np.int32), 0, grey.shape[1] - 1)
        row = np.clip((places[:, 1] / step).astype(np.int32), 0, grey.shape[0] - 1)
        difference, mixed = (xx - yy)[row, column], 2 * xy[row, column]
        # The 25 keeps the noise of an empty surface from being taken for a direction.
        clear = np.hypot(difference, mixed) / ((xx + yy)[row, column] + 25.0)
        return 0.5 * np.arctan2(mixed, difference), clear

    def alike(
        self, colours: np.ndarray, brighter: float, extent: float, allowed: Lookup, rng: np.random.Generator, count: int
    ) -> np.ndarray:
        """Places (count, 2) whose surroundings have the brightness and contrast of `colours` (n, 3), as far as any do.

        `brighter` is added first: the difference of exposure. Whatever its direction, a rim is found among rims and
        a plain surface among plain ones; random places on artwork or a product hardly ever hit the few that fit.
        """
        grey, step, side = self._grey(extent)
        values = colours.mean(axis=-1) + brighter
        flat = grey.astype(np.float32)
        mean, square = cv2.blur(flat, (side, side)), cv2.blur(flat * flat, (side, side))
        contrast = np.sqrt(np.maximum(square - mean * mean, 0))
        apart = np.abs(mean - values.mean()) + 2 * np.abs(contrast - values.std())
        rows, columns = np.divmod(np.arange(grey.size), grey.shape[1])
        free = np.flatnonzero(allowed((columns + 0.5) * step, (rows + 0.5) * step))
        if not len(free):
            return np.empty((0, 2))
        best = free[np.argpartition(apart.ravel()[free], len(free) // 12)[: len(free) // 12 + 1]]
        picked = best[rng.integers(0, len(best), count)]
        spot = np.stack([picked % grey.shape[1], picked // grey.shape[1]], axis=1)
        return np.asarray((spot + rng.random((count, 2))) * step)

    def _grey(self, extent: float) -> tuple[np.ndarray, float, int]:
        """A grey copy of at most 128 pixels, its step, and the side of a box about a defect of this extent."""
        grey, half = cv2.cvtColor(self.small, cv2.COLOR_RGB2GRAY), 1
        if max(grey.shape) > 128:
            fy, fx = (0.5 if side > 1 else 1.0 for side in grey.shape)  # a line of pixels stays one
            grey, half = cv2.resize(grey, None, fx=fx, fy=fy, interpolation=cv2.INTER_AREA), 2
        step = self.step * half
        return grey, step, int(np.clip(1.6 * extent / step, 7, 41)) | 1


def turns(
    old: Surroundings,
    new: Surroundings,
    middle: np.ndarray,
    extent: float,
    centres: np.ndarray,
    flips: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Angles (K,) that follow the direction of the surface where both photographs have one, else any angle."""
    free = rng.uniform(-math.pi, math.pi, len(flips))
    own, own_clear = old.direction(middle[None, :], extent)
    there, there_clear = new.direction(centres, extent)
    mirrored = np.where(flips < 0, math.pi - own[0], own[0])
    half_turns = math.pi * rng.integers(0, 2, len(flips))
    along = there - mirrored + half_turns + np.radians(rng.normal(0, 4, len(flips)))
    return np.where((own_clear[0] >= COHERENT) & (there_clear >= COHERENT), along, free)
