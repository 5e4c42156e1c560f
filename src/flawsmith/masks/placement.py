"""Where a shape may sit: positions sampled on a reduced copy of the allowed area, light even at 100 megapixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np

from flawsmith.errors import FlawsmithError

Place = Literal["anywhere", "edge", "centre"]
REDUCED = 256  # longest side of the reduced copy
CANDIDATES = 64  # positions tried at once
ENOUGH = 0.97  # share of a shape on the allowed area that ends the search
SPREAD = 1 / 12  # of the photograph's sides: standard deviation of a `bell`
POINTS = 160  # pixels of a shape that are looked up instead of all of them


@dataclass(frozen=True)
class Ground:
    """The allowed area (H, W) bool of a photograph with what sampling needs, computed once.

    `small` is the area's box at 1/step; `frame` says where the box meets the photograph's top, bottom, left, right.
    """

    allowed: np.ndarray
    top: int
    left: int
    step: int
    small: np.ndarray
    frame: tuple[bool, bool, bool, bool]
    area: int
    heat: np.ndarray | None = None  # like `small`, float: how likely a centre is to lie there

    @classmethod
    def of(cls, allowed: np.ndarray, heat: np.ndarray | None = None) -> Ground:
        if allowed.ndim != 2 or allowed.dtype != bool:
            raise FlawsmithError(f"The allowed area must be (H, W) bool, got {allowed.shape} {allowed.dtype}.")
        rows, columns = np.flatnonzero(allowed.any(axis=1)), np.flatnonzero(allowed.any(axis=0))
        if not len(rows):
            raise FlawsmithError(
                "No pixel is allowed to change: the object was not found, or the region of interest does not meet it. "
                "Give a region of interest (--roi) that covers the part."
            )
        top, left = int(rows[0]), int(columns[0])
        cut = allowed[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
        step = max(1, math.ceil(max(cut.shape) / REDUCED))
        small: np.ndarray = np.ascontiguousarray(cut[::step, ::step])
        if step > 1 and small.mean() < 0.02:  # a thin region between the sampled pixels: any pixel of a block counts
            pad = [(0, -n % step) for n in cut.shape]
            blocks = np.pad(cut, pad)
            small = np.asarray(blocks.reshape(blocks.shape[0] // step, step, -1, step).any(axis=(1, 3)))
        bounds = (top, int(rows[-1]) + 1, left, int(columns[-1]) + 1)
        frame = (bounds[0] == 0, bounds[1] == allowed.shape[0], bounds[2] == 0, bounds[3] == allowed.shape[1])
        area = int(np.count_nonzero(allowed))
        if heat is None:
            return cls(allowed, top, left, step, small, frame, area)
        heat = np.asarray(heat)
        if heat.shape != allowed.shape or not np.isfinite(heat).all() or heat.min() < 0:
            raise FlawsmithError(
                f"The heat map must be {allowed.shape} numbers of 0 and more, like the photograph; it is {heat.shape}."
            )
        likely = heat[top : bounds[1], left : bounds[3]].astype(np.float64)
        likely = cv2.resize(likely, small.shape[::-1], interpolation=cv2.INTER_AREA) * small
        if likely.max(initial=0) <= 0:
            raise FlawsmithError(
                "The heat map is black wherever a defect may lie: paint bright where defects are likely, on the object."
            )
        return cls(allowed, top, left, step, small, frame, area, likely)

    @cached_property
    def depth(self) -> np.ndarray:
        """Distance to the area's edge in reduced pixels, like `small`, float32."""
        # The photograph's own border is an edge only where the area has no other: a surface fills the frame.
        framed = np.pad(self.small.astype(np.uint8), 1)
        if not self.small.all():
            framed[0], framed[-1] = self.frame[0], self.frame[1]
            framed[:, 0] |= self.frame[2]
            framed[:, -1] |= self.frame[3]
        return cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]

    @property
    def corner(self) -> np.ndarray:
        """Left and top of the area's box, (2,) float."""
        return np.array([self.left, self.top], dtype=float)

    @property
    def size(self) -> np.ndarray:
        """Width and height of the area's box, (2,) float."""
        return np.array(self.small.shape[::-1], dtype=float) * self.step

    def deep(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance to the area's edge in reduced pixels at points in photograph pixels; 0 beyond the area."""
        row = np.floor((y - self.top) / self.step).astype(np.int64)
        column = np.floor((x - self.left) / self.step).astype(np.int64)
        height, width = self.small.shape
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return np.where(inside, self.depth[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)], 0.0)

    def lookup(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether points in photograph pixels are allowed (on the reduced copy), same shape as x, bool."""
        row = np.floor((y - self.top) / self.step).astype(np.int64)
        column = np.floor((x - self.left) / self.step).astype(np.int64)
        height, width = self.small.shape
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return inside & self.small[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]

    def centres(self, rng: np.random.Generator, place: Place, reach: float, count: int = CANDIDATES) -> np.ndarray:
        """Sample `count` positions (x, y) float for a shape's centre; `reach` is half the shape's thickness."""
        deepest = float(self.depth.max())
        if self.heat is not None:
            chance = self.heat.ravel() / self.heat.sum()
            return self._points(rng.choice(len(chance), count, p=chance), rng)
        if place == "edge":
            pool = (self.depth > 0) & (self.depth <= max(1.5, min(0.8 * reach / self.step, 0.25 * deepest)))
        elif place == "centre":
            pool = self.depth >= 0.6 * deepest
        else:
            pool = self.small
        free = np.flatnonzero(pool)
        if not len(free):
            free = np.flatnonzero(self.small)
        return self._points(free[rng.integers(0, len(free), count)], rng)

    def _points(self, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A point (x, y) within each of these places (n,) of the reduced copy, (n, 2)."""
        rows, columns = np.divmod(places, self.small.shape[1])
        shift = rng.random((2, len(places)))
        x = self.left + (columns + shift[0]) * self.step
        y = self.top + (rows + shift[1]) * self.step
        return np.stack([x, y], axis=1)


def sample_points(mask: np.ndarray, count: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """About `count` pixels of a mask as (x, y), evenly taken in reading order."""
    # A mask of many megapixels is thinned first, or the list of its pixels would be larger than the photograph.
    step = max(1, int(math.sqrt(np.count_nonzero(mask) / 100_000)))
    thin = mask[::step, ::step]
    pixels = np.flatnonzero(thin)
    if not len(pixels):
        step, pixels, thin = 1, np.flatnonzero(mask), mask
    taken = pixels[np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(int)]
    rows, columns = np.divmod(taken, thin.shape[1])
    return columns * step, rows * step


def lay(
    shape: np.ndarray, ground: Ground, taken: np.ndarray | None, place: Place, rng: np.random.Generator
) -> tuple[int, int, float]:
    """Find (top, left) for a local mask (h, w) bool so that it lies on the ground and off `taken` (H, W) bool.

    Returns the position and the share of the shape that is usable there (0 when every try hit `taken`).
    """
    height, width = shape.shape
    x, y = sample_points(shape)
    middle = np.array([x.mean(), y.mean()])
    reach = math.sqrt(shape.sum() / math.pi)
    centres = ground.centres(rng, place, reach)
    if place != "edge" and ground.heat is None:
        # a shape nearly as large as the object fits only around its deepest point
        deepest = np.array(np.unravel_index(int(ground.depth.argmax()), ground.depth.shape))[::-1]
        centres[-1] = np.array([ground.left, ground.top]) + (deepest + 0.5) * ground.step
    corners = np.rint(centres - middle).astype(int)
    share = ground.lookup(corners[:, :1] + x[None, :], corners[:, 1:] + y[None, :]).mean(axis=1)
    enough = 0.5 if place == "edge" else ENOUGH
    order = np.concatenate([np.flatnonzero(share >= enough), np.argsort(-share)[:8]])
    for index in order[:24]:
        left, top = int(corners[index, 0]), int(corners[index, 1])
        if share[index] > 0 and (taken is None or not _touches(taken, top - 2, left - 2, height + 4, width + 4, shape)):
            return top, left, float(share[index])
    return 0, 0, 0.0


def _touches(taken: np.ndarray, top: int, left: int, height: int, width: int, shape: np.ndarray) -> bool:
    """Whether a shape with a margin of two pixels meets `taken`."""
    rows = slice(max(0, top), max(0, min(taken.shape[0], top + height)))
    columns = slice(max(0, left), max(0, min(taken.shape[1], left + width)))
    there = taken[rows, columns]
    if not there.any():
        return False
    wide = cv2.dilate(np.pad(shape.astype(np.uint8), 2), np.ones((5, 5), np.uint8))
    return bool((there & wide[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]).any())


def stamp(mask: np.ndarray, shape: np.ndarray, top: int, left: int, allowed: np.ndarray) -> int:
    """Set a local shape in the mask (H, W) where it is allowed, in place; the number of pixels set."""
    rows = slice(max(0, top), max(0, min(mask.shape[0], top + shape.shape[0])))
    columns = slice(max(0, left), max(0, min(mask.shape[1], left + shape.shape[1])))
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return 0
    part = shape[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    usable = part & allowed[rows, columns]
    count, parts, stats, _ = cv2.connectedComponentsWithStats(usable.astype(np.uint8), connectivity=8)
    if count > 2:  # clipped to pieces: keep the main one, crumbs are no defect
        usable = parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    mask[rows, columns] |= usable
    return int(usable.sum())


def bell(shape: tuple[int, ...], place: tuple[float, float]) -> np.ndarray:
    """A heat map (H, W) float32 around a place (x, y) in shares of the photograph's sides, nowhere 0."""
    rows, columns = (
        np.exp(-0.5 * (((np.arange(side) + 0.5) / side - middle) / SPREAD) ** 2)
        for side, middle in zip(shape, place[::-1], strict=True)
    )
    return (np.outer(rows, columns) + 1e-6).astype(np.float32)


def clear_of(allowed: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The allowed area (H, W) bool less what is within six pixels of a mask; all of it where nothing is left."""
    near = cv2.dilate(taken.astype(np.uint8), np.ones((13, 13), np.uint8)).astype(bool)
    rest = allowed & ~near
    return rest if np.count_nonzero(rest) >= 64 else allowed
