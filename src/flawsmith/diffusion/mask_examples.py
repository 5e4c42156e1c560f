"""What a mask model is trained on: real masks taken apart into shape, place and size, or whole; and both varied."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith import compose
from flawsmith.records import Sample

SIDE = 32  # of a shape's box in the model
MARGIN = 1.25  # the box's side over the shape's longest
REACH = 0.2  # of the box's side: distances beyond it are not told apart
WHOLE, NEAR = 64, 0.1  # the same two of a whole mask in its object's box


@dataclass(frozen=True)
class Example:
    """One real mask: its shape in its box, and where and how large it was."""

    name: str
    caption: str
    shape: np.ndarray  # (SIDE, SIDE) float32 in -1..1, signed distance to the outline: a hairline is seen from afar
    fill: float  # share of its box
    centre: tuple[float, float]  # of its box, relative to the object's box
    size: float  # longest side, over the square root of the photograph's area
    on_object: float
    aligned: bool  # the photograph shows an object, not a surface that fills it


@dataclass(frozen=True)
class WholeExample(Example):
    """One real mask, also with all its parts in the box of its object."""

    whole: np.ndarray  # (WHOLE, WHOLE) float32 in -1..1, signed distance to the outline, the box made a square
    share: float  # of the object's box


def example(name: str, sample: Sample, foreground: np.ndarray) -> Example:
    """The parts of one real mask; foreground (H, W) bool is the object in its photograph."""
    box, frame = compose.mask_box(sample.mask), compose.mask_box(foreground)
    longest = max(box.shape)
    part = sample.mask[box.slices].astype(np.uint8)
    grow = max(1, -(-2 * SIDE // longest))  # distances want pixels finer than the model's cells
    part = np.repeat(np.repeat(part, grow, 0), grow, 1)
    side = round(longest * grow * MARGIN)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - part.shape[0]) // 2, (side - part.shape[1]) // 2
    square[top : top + part.shape[0], left : left + part.shape[1]] = part
    height, width = sample.mask.shape
    centre = (
        ((box.top + box.bottom) / 2 - frame.top) / frame.shape[0],
        ((box.left + box.right) / 2 - frame.left) / frame.shape[1],
    )
    share = float((sample.mask & foreground).sum() / sample.mask.sum())
    shape = _distances(square, REACH, SIDE)
    aligned = bool(foreground.mean() < 0.97)
    return Example(
        name, sample.caption, shape, float(square.mean()), centre, longest / (height * width) ** 0.5, share, aligned
    )


def whole_example(name: str, sample: Sample, foreground: np.ndarray) -> WholeExample:
    """The same, and the whole mask; the object's box is made to hold it."""
    part = sample.mask[compose.mask_box(foreground | sample.mask).slices].astype(np.uint8)
    side = max(2 * WHOLE, *part.shape)
    square = cv2.resize(part, (side, side), interpolation=cv2.INTER_NEAREST)
    known = vars(example(name, sample, foreground))
    return WholeExample(**known, whole=_distances(square, NEAR, WHOLE), share=float(part.mean()))


def _distances(square: np.ndarray, reach: float, cells: int) -> np.ndarray:
    """Signed distance to the outline of (S, S) uint8 in units of reach * S, (cells, cells) float32 in -1..1."""
    away = cv2.distanceTransform(square, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - square, cv2.DIST_L2, 5)
    field = np.clip(away / (reach * len(square)), -1, 1).astype(np.float32)
    return np.asarray(cv2.resize(field, (cells, cells), interpolation=cv2.INTER_AREA))


def varied(rng: np.random.Generator, one: Example) -> np.ndarray:
    """A shape as another defect of the type might have it: mirrored, turned, stretched, bent; (SIDE, SIDE) float32."""
    shape = one.shape if one.aligned else np.rot90(one.shape, int(rng.integers(4)))
    shape = shape[:, ::-1] if rng.random() < 0.5 else shape
    return _bent(rng, shape, np.array([SIDE / 2, SIDE / 2]), 15, (0.85, 1.05))[0]


def varied_whole(rng: np.random.Generator, one: WholeExample) -> tuple[np.ndarray, float]:
    """A whole mask a little aside, turned, stretched, bent, (WHOLE, WHOLE) float32, and its share of the box.

    Never mirrored: what the caption says of its place stays true.
    """
    middle = np.argwhere(one.whole >= min(0.0, float(one.whole.max()))).mean(0)[::-1] + 0.5
    aside = rng.normal(0, 0.03 * WHOLE, 2)
    field, larger = _bent(rng, one.whole, middle, 8, (0.9, 1.1), aside)
    return field, one.share * larger


def _bent(
    rng: np.random.Generator,
    field: np.ndarray,
    middle: np.ndarray,
    turn: float,
    scale: tuple[float, float],
    aside: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, float]:
    """A field (S, S) turned by up to `turn` degrees about `middle` (x, y), scaled, stretched, moved `aside` and bent;
    and by how much an area in it has grown.
    """
    side = len(field)
    matrix = cv2.getRotationMatrix2D(tuple(middle), rng.uniform(-turn, turn), rng.uniform(*scale))
    matrix[:, :2] *= np.exp(rng.uniform(-0.15, 0.15, (2, 1)))
    matrix[:, 2] += middle + aside - matrix @ np.array([*middle, 1.0])
    y, x = np.mgrid[:side, :side].astype(np.float32)
    wave = 5 * side / SIDE
    bend = [cv2.GaussianBlur(rng.normal(size=field.shape).astype(np.float32), (0, 0), wave) for _ in range(2)]
    dx, dy = (1.5 * b / max(1e-6, float(np.abs(b).max())) for b in bend)
    inverse = cv2.invertAffineTransform(matrix).astype(np.float32)
    mapx, mapy = (inverse[i, 0] * x + inverse[i, 1] * y + inverse[i, 2] for i in range(2))
    bent = cv2.remap(
        np.ascontiguousarray(field), mapx + dx, mapy + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(bent), float(np.linalg.det(matrix[:, :2]))


def outline(field: np.ndarray, fill: float, side: int) -> np.ndarray:
    """A distance field (S, S) as a mask (side, side) bool that covers about `fill` of it, specks left out."""
    large = cv2.resize(np.ascontiguousarray(field), (side, side), interpolation=cv2.INTER_CUBIC)
    mask = large >= np.quantile(large, 1 - min(0.95, max(fill, 1 / large.size)))
    # a gap below a cell's size is no gap: the field cannot tell. Odd, since an even kernel moves the mask by a pixel
    cell = round(side / len(field)) // 2 * 2 + 1
    round_ = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (cell, cell))
    mask = cv2.morphologyEx(np.pad(mask.astype(np.uint8), cell), cv2.MORPH_CLOSE, round_)[cell:-cell, cell:-cell]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return np.asarray(np.isin(labels, 1 + np.flatnonzero(areas >= 0.1 * areas.max())))
