"""Real masks taken apart into shape, place and size, and the shapes varied: what a mask model is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith import compose
from flawsmith.records import Sample

SIDE = 32  # of a shape's box in the model
MARGIN = 1.25  # the box's side over the shape's longest
REACH = 0.2  # of the box's side: distances beyond it are not told apart


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
    away = cv2.distanceTransform(square, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - square, cv2.DIST_L2, 5)
    field = np.clip(away / (REACH * side), -1, 1).astype(np.float32)
    height, width = sample.mask.shape
    centre = (
        ((box.top + box.bottom) / 2 - frame.top) / frame.shape[0],
        ((box.left + box.right) / 2 - frame.left) / frame.shape[1],
    )
    share = float((sample.mask & foreground).sum() / sample.mask.sum())
    shape = cv2.resize(field, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    aligned = bool(foreground.mean() < 0.97)
    return Example(
        name, sample.caption, shape, float(square.mean()), centre, longest / (height * width) ** 0.5, share, aligned
    )


def varied(rng: np.random.Generator, one: Example) -> np.ndarray:
    """A shape as another defect of the type might have it: mirrored, turned, stretched, bent; (SIDE, SIDE) float32."""
    shape = one.shape if one.aligned else np.rot90(one.shape, int(rng.integers(4)))
    shape = shape[:, ::-1] if rng.random() < 0.5 else shape
    matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), rng.uniform(-15, 15), rng.uniform(0.85, 1.05))
    matrix[:, :2] *= np.exp(rng.uniform(-0.15, 0.15, (2, 1)))
    matrix[:, 2] += SIDE / 2 - matrix @ np.array([SIDE / 2, SIDE / 2, 1.0])
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    bend = [cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)).astype(np.float32), (0, 0), 5) for _ in range(2)]
    dx, dy = (1.5 * b / max(1e-6, float(np.abs(b).max())) for b in bend)
    inverse = cv2.invertAffineTransform(matrix).astype(np.float32)
    mapx, mapy = (inverse[i, 0] * x + inverse[i, 1] * y + inverse[i, 2] for i in range(2))
    return np.asarray(
        cv2.remap(np.ascontiguousarray(shape), mapx + dx, mapy + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )


def outline(shape: np.ndarray, fill: float, side: int) -> np.ndarray:
    """A distance field (SIDE, SIDE) as a mask (side, side) bool that covers about `fill` of it, specks left out."""
    large = cv2.resize(np.ascontiguousarray(shape), (side, side), interpolation=cv2.INTER_CUBIC)
    mask = large >= np.quantile(large, 1 - min(0.95, max(fill, 1 / large.size)))
    # a gap below a cell's size is no gap: the field cannot tell. Odd, since an even kernel moves the mask by a pixel
    cell = round(side / SIDE) // 2 * 2 + 1
    round_ = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (cell, cell))
    mask = cv2.morphologyEx(np.pad(mask.astype(np.uint8), cell), cv2.MORPH_CLOSE, round_)[cell:-cell, cell:-cell]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return np.asarray(np.isin(labels, 1 + np.flatnonzero(areas >= 0.1 * areas.max())))
