"""Defects as annotation files describe them: polygons, run lengths, boxes, lines, small mask images.

Coordinates are continuous, as in COCO: the pixel in column x covers x to x + 1, and is inside where its centre is.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from flawsmith import images
from flawsmith.errors import FlawsmithError, short
from flawsmith.masks import boxes
from flawsmith.records import Region

Read = Callable[[], np.ndarray]
CORNERS = 72  # of an ellipse that becomes a polygon
LARGEST = 1e6  # pixels: no coordinate is further from the image than this


def numbers(given: Any, where: str, what: str, wanted: str) -> np.ndarray:
    """A list of finite numbers as (n,) float64. Raises FlawsmithError that begins with `where` and says `wanted`."""
    try:
        array = np.asarray(given)
    except (ValueError, TypeError, OverflowError):  # a ragged list
        array = np.asarray(None)
    if array.ndim == 1 and array.size and array.dtype.kind in "iuf":
        array = array.astype(np.float64)
        if np.isfinite(array).all() and np.abs(array).max() <= LARGEST:
            return array
    raise FlawsmithError(f"{where}: {what} is {short(given)}: give {wanted}, as finite numbers up to {LARGEST:.0f}.")


def ring(given: Any, where: str) -> np.ndarray:
    """[x1, y1, x2, y2, ...] of three points or more as (n, 2) float64. Raises FlawsmithError naming the place."""
    wanted = "[x1, y1, x2, y2, ...] of three points or more"
    flat = numbers(given, where, "a polygon", wanted)
    if len(flat) < 6 or len(flat) % 2:
        raise FlawsmithError(f"{where}: a polygon has {len(flat)} numbers: give {wanted}.")
    return flat.reshape(-1, 2)


def box(given: Any, where: str) -> tuple[float, float, float, float]:
    """[x, y, width, height] with a size above 0. Raises FlawsmithError naming the place."""
    wanted = "[x, y, width, height] in pixels, width and height above 0"
    flat = numbers(given, where, "the box", wanted)
    if len(flat) != 4 or not (flat[2:] > 0).all():
        raise FlawsmithError(f"{where}: the box is {short(given)}: give {wanted}.")
    return float(flat[0]), float(flat[1]), float(flat[2]), float(flat[3])


def refuse_outside(low: Sequence[float], high: Sequence[float], size: tuple[int, int], where: str) -> None:
    """Raise FlawsmithError where corners (x, y) of a region show that none of it lies in an image of (H, W)."""
    if high[0] <= 0 or high[1] <= 0 or low[0] >= size[1] or low[1] >= size[0]:
        raise FlawsmithError(
            f"{where}: it lies at x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}, all of it outside the "
            f"image of {size[1]} x {size[0]} pixels: correct the coordinates, or remove the entry."
        )


def ellipse(centre: Sequence[float], radii: Sequence[float], turned: float = 0.0) -> np.ndarray:
    """An ellipse around `centre` (x, y), `turned` clockwise by degrees, as a ring (CORNERS, 2) of (x, y)."""
    angles = np.linspace(0, 2 * math.pi, CORNERS, endpoint=False)
    return turn(np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], axis=1), turned) + np.asarray(centre)


def turn(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points (n, 2) of (x, y), y down, turned clockwise around the origin."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]))


def fill(rings: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The union of polygons (n, 2) of (x, y) as (H, W) bool: pixels whose centre is inside, by the even-odd rule."""
    mask = np.zeros((height, width), dtype=bool)
    for points in rings:
        ends = np.concatenate([points, np.roll(points, -1, axis=0)], axis=1)
        ends = np.where((ends[:, 1] > ends[:, 3])[:, None], ends[:, [2, 3, 0, 1]], ends)  # every edge goes down
        first = np.clip(np.ceil(ends[:, 1] - 0.5), 0, height).astype(np.int64)
        last = np.clip(np.ceil(ends[:, 3] - 0.5), 0, height).astype(np.int64)
        count = last - first  # rows whose centre the edge crosses
        if not count.any():
            continue
        edge = np.repeat(np.arange(len(ends)), count)
        rows = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        x0, y0, x1, y1 = ends[edge].T
        columns = np.clip(np.ceil(x0 + (rows + 0.5 - y0) / (y1 - y0) * (x1 - x0) - 0.5), 0, width).astype(np.int64)
        top, bottom = int(rows.min()), int(rows.max()) + 1
        left, right = int(columns.min()), int(columns.max())
        if left == right:
            continue
        shape = bottom - top, right - left + 1
        crossed = np.bincount((rows - top) * shape[1] + columns - left, minlength=shape[0] * shape[1]).reshape(shape)
        mask[top:bottom, left:right] |= (np.cumsum(crossed, axis=1) % 2).astype(bool)[:, :-1]
    return mask


def run_lengths(counts: Any, where: str) -> np.ndarray:
    """COCO's run lengths, a list or its compressed text, as (n,) int64. Raises FlawsmithError naming the place."""
    if isinstance(counts, list):
        runs = counts
    elif isinstance(counts, str):
        runs = _decompress(counts, where)
    else:
        raise FlawsmithError(f"{where}: counts is {short(counts)}: give a list of run lengths, or COCO's text of them.")
    array = np.asarray(runs, dtype=object)
    if not all(type(run) is int and 0 <= run <= images.MAX_PIXELS for run in array):
        raise FlawsmithError(f"{where}: counts holds {short(runs)}: run lengths are whole numbers from 0.")
    return array.astype(np.int64)


def _decompress(text: str, where: str) -> list[int]:
    """Five bits a character, the sixth says that more follow; from the third run on, the difference to two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise FlawsmithError(f"{where}: counts {short(text)} is no run-length text of COCO: export it again.")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


@dataclass(frozen=True)
class Polygon(Region):
    """Rings (n, 2) of (x, y) in pixels, or in parts of the image's width and height where `relative`."""

    rings: tuple[np.ndarray, ...] = field(default=(), compare=False, repr=False)
    relative: bool = field(default=False, compare=False)

    def draw(self, size: tuple[int, int], read: Read) -> np.ndarray:
        height, width = size
        rings = [points * (width, height) for points in self.rings] if self.relative else self.rings
        return fill(rings, height, width)


@dataclass(frozen=True)
class RunLengths(Region):
    """COCO's runs of outside and inside in turn, down the columns; `counts` a list or text, `shape` (H, W)."""

    counts: Any = field(default=(), compare=False, repr=False)
    shape: tuple[int, int] = field(default=(0, 0), compare=False)

    def draw(self, size: tuple[int, int], read: Read) -> np.ndarray:
        runs = run_lengths(self.counts, str(self))
        if self.shape != size or runs.sum() != size[0] * size[1]:
            raise FlawsmithError(
                f"{self}: the run lengths are of {self.shape[1]} x {self.shape[0]} pixels and cover {runs.sum()}, the "
                f"image has {size[1]} x {size[0]}: export the annotation again at the image's size."
            )
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return flat.reshape(size[1], size[0]).T


def runs(path: Path, place: str, name: str, shape: dict[str, Any], size: tuple[int, int] | None) -> RunLengths:
    """COCO's {"counts", "size"} as a region. Raises FlawsmithError where it is none, or not of `size` (H, W)."""
    where = f"{path}, {place}"
    own = shape.get("size")
    whole = isinstance(own, list) and len(own) == 2 and all(type(one) is int and one > 0 for one in own)
    if not whole or (size is not None and tuple(own) != size):  # type: ignore[arg-type]
        wanted = f"[{size[0]}, {size[1]}], as its image" if size else "[height, width]"
        raise FlawsmithError(f"{where}: the run lengths' size is {short(own)}: it must be {wanted}.")
    height, width = own  # type: ignore[misc]
    counts = shape.get("counts")
    if height * width > images.MAX_PIXELS or run_lengths(counts, where).sum() != height * width:
        raise FlawsmithError(f"{where}: the run lengths do not cover {width} x {height} pixels: export them again.")
    return RunLengths(path, place, name, counts=counts, shape=(height, width))


def outlined(path: Path, entry: str, label: str, rings: Sequence[Any], size: tuple[int, int] | None) -> Polygon:
    """Polygons [x1, y1, ...] of one defect as a region. Raises FlawsmithError where one is none, or all lie outside."""
    where = f"{path}, {entry}"
    drawn = tuple(ring(points, where) for points in rings)
    if size:
        low, high = (
            np.min([one.min(axis=0) for one in drawn], axis=0),
            np.max([one.max(axis=0) for one in drawn], axis=0),
        )
        refuse_outside(low, high, size, where)
    return Polygon(path, entry, label, rings=drawn)


def boxed(path: Path, entry: str, label: str, given: Any, size: tuple[int, int] | None) -> Box:
    """[x, y, width, height] in pixels as a region. Raises FlawsmithError where it is none, or lies outside."""
    where = f"{path}, {entry}"
    place = box(given, where)
    if size:
        refuse_outside(place[:2], (place[0] + place[2], place[1] + place[3]), size, where)
    return Box(path, entry, label, place=place)


@dataclass(frozen=True)
class RowRuns(Region):
    """CVAT's runs of outside and inside in turn, along the rows of a box (left, top, width, height) in pixels."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64), compare=False, repr=False)
    place: tuple[int, int, int, int] = field(default=(0, 0, 0, 0), compare=False)

    def draw(self, size: tuple[int, int], read: Read) -> np.ndarray:
        left, top, width, height = self.place
        part = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts).reshape(height, width)
        return stamped(part, top, left, size)


@dataclass(frozen=True)
class Box(Region):
    """A box (x, y, width, height) in pixels, or in parts of the image where `relative`: its mask is proposed."""

    place: tuple[float, float, float, float] = field(default=(0, 0, 0, 0), compare=False)
    relative: bool = field(default=False, compare=False)
    proposed: bool = field(default=True, compare=False)

    def draw(self, size: tuple[int, int], read: Read) -> np.ndarray:
        height, width = size
        scale = np.array([width, height, width, height] if self.relative else [1, 1, 1, 1], dtype=float)
        x, y, wide, high = np.array(self.place) * scale
        left, top = int(np.clip(np.floor(x + 0.5), 0, width)), int(np.clip(np.floor(y + 0.5), 0, height))
        right, bottom = (
            int(np.clip(np.ceil(x + wide - 0.5), 0, width)),
            int(np.clip(np.ceil(y + high - 0.5), 0, height)),
        )
        mask = np.zeros(size, dtype=bool)
        if right > left and bottom > top:
            area = slice(top, bottom), slice(left, right)
            mask[area] = boxes.within(read(), (top, left, bottom, right))
        return mask


@dataclass(frozen=True)
class Line(Region):
    """A line through points (n, 2) of (x, y) in pixels, three pixels wide: how wide the defect is, nobody said."""

    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)), compare=False, repr=False)
    proposed: bool = field(default=True, compare=False)

    def draw(self, size: tuple[int, int], read: Read) -> np.ndarray:
        canvas = np.zeros(size, dtype=np.uint8)
        cv2.polylines(canvas, [np.floor(self.points).astype(np.int32)], False, 1, thickness=3)
        return canvas.astype(bool)


@dataclass(frozen=True)
class Stamp(Region):
    """A small mask image inside the annotation (LabelMe): PNG as base64 text, its corner at `left`, `top`."""

    png: str = field(default="", compare=False, repr=False)
    left: int = field(default=0, compare=False)
    top: int = field(default=0, compare=False)

    def draw(self, size: tuple[int, int], read: Read) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(base64.b64decode(self.png, validate=True))) as opened:
                if opened.width * opened.height > images.MAX_PIXELS:
                    raise ValueError("it is too large")
                part = np.asarray(opened.convert("L")) > 0
        except (OSError, SyntaxError, ValueError, binascii.Error, UnidentifiedImageError) as error:
            raise FlawsmithError(f"{self}: its mask is no PNG ({error}): export the annotation again.") from error
        return stamped(part, self.top, self.left, size)


def stamped(part: np.ndarray, top: int, left: int, size: tuple[int, int]) -> np.ndarray:
    """A small mask (h, w) bool laid with its corner at `top`, `left` into one of `size`; what is beyond is cut off."""
    mask = np.zeros(size, dtype=bool)
    down, right = max(0, top), max(0, left)
    part = part[down - top :, right - left :][: max(0, size[0] - down), : max(0, size[1] - right)]
    mask[down : down + part.shape[0], right : right + part.shape[1]] = part
    return mask
