"""New shapes from real ones: stretched, sheared, bent, roughened, and mixed with another real shape of the type."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from flawsmith.masks.options import MINIMUM

NEW = 0.77  # intersection over union with the real shape, at most; the label may differ a little from the mask
TRIES = 6
REDUCED = 128  # longest side of a shape while it is drawn
THIN = 0.26  # half width over the square root of the area, below which a shape is a line: only bent and stretched


def is_line(mask: np.ndarray) -> bool:
    """Whether the largest connected part of a mask (H, W) bool is much longer than it is wide; False of none."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count == 1:
        return False
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    left, top, width, height, area = stats[largest]
    part = np.pad(parts[top : top + height, left : left + width] == largest, 1)
    return float(_distance(part).max()) < THIN * math.sqrt(area)


def reshape(
    mask: np.ndarray, rng: np.random.Generator, others: Sequence[np.ndarray] = (), longer: float = 1.0
) -> np.ndarray:
    """A shape like that of `mask` (H, W) bool but another, about the same place in its frame, (H, W) bool.

    A smooth map (stretch, shear, bends as long as the shape and half as long) carries the distance to the border;
    compact shapes are mixed with one of `others` and roughened as far as they are rough before the new border is drawn.
    Drawn again, stronger, while it is nearly the old shape or one of the others. A line gets `longer` by this factor.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    extent = max(4.0, float(rows[-1] - rows[0]), float(columns[-1] - columns[0]))
    thin = is_line(mask)
    longer = longer if thin else 1.0
    margin = int(0.5 * extent * max(1.0, 2 * longer - 1)) + 4
    view = (
        slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
        slice(max(0, columns[0] - margin), columns[-1] + margin + 1),
    )
    whole = mask[view]
    step = max(1.0, extent / REDUCED)  # a large shape is smooth enough to be drawn on a reduced copy
    size = max(1, round(whole.shape[1] / step)), max(1, round(whole.shape[0] / step))
    here = cv2.resize(whole.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) >= 128 if step > 1 else whole
    if not here.any():
        return mask
    extent /= step
    area = int(here.sum())
    field = _distance(here)
    rough = _roughness(here, float(field.max()))
    known = [cv2.resize(_cut(o).astype(np.uint8), None, fx=1 / step, fy=1 / step) > 0 for o in others]
    known = [other for other in known if 0.5 < other.sum() / area < 2]  # of another size is another shape
    best = here
    for attempt in range(TRIES):
        drawn = _drawn(field, here, area, extent, thin, rough, 1 + 0.15 * attempt, rng, [] if thin else others, longer)
        if 0.4 * min(1, longer) * area <= drawn.sum() <= 2.2 * longer * area and drawn.sum() >= min(MINIMUM, area):
            best = drawn
            if overlap(drawn, here) < NEW and all(overlap(drawn, other) < NEW for other in known):
                break
    if best is here:
        return mask
    result = np.zeros_like(mask)
    soft = cv2.resize(_distance(best), whole.shape[::-1], interpolation=cv2.INTER_LINEAR) if step > 1 else best
    result[view] = soft > 0
    return result


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two shapes laid on each other by their centroids, the second also turned by its axes
    and mirrored: the best of these.
    """
    side = 2 * int(max(_reach(one), _reach(other))) + 5
    first = _centred(one, side, 0.0, 1)
    turn = _axis(one) - _axis(other)
    best = 0.0
    for mirror in (1, -1):
        own = turn if mirror > 0 else _axis(one) + _axis(other)
        for angle in {0.0, own, own + math.pi}:
            second = _centred(other, side, angle, mirror)
            best = max(best, float((first & second).sum() / max(1, (first | second).sum())))
    return best


def _drawn(
    field: np.ndarray,
    here: np.ndarray,
    area: int,
    extent: float,
    thin: bool,
    rough: float,
    strength: float,
    rng: np.random.Generator,
    others: Sequence[np.ndarray],
    longer: float,
) -> np.ndarray:
    rows, columns = np.nonzero(here)
    middle = np.array([columns.mean(), rows.mean()])
    stretch = longer * float(np.exp(np.clip(rng.normal(0, 0.16 if not thin else 0.25), -0.35, 0.35) * strength))
    angle = _axis(here) if thin else rng.uniform(0, math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shear = np.array([[1.0, rng.normal(0, 0.12) * strength], [0.0, 1.0]])
    inverse = np.linalg.inv(turn @ np.diag([stretch, 1 if thin else 1 / stretch]) @ shear @ turn.T)
    y, x = (line.astype(np.float64) for line in np.ogrid[: here.shape[0], : here.shape[1]])
    dx, dy = x - middle[0], y - middle[1]
    at_x, at_y = (inverse[i, 0] * dx + inverse[i, 1] * dy + middle[i] for i in (0, 1))
    for share, weight in ((2.0, 0.07), (0.9, 0.02 if thin else 0.06 * rough)):
        at_x = at_x + weight * strength * extent * _waves(dx, dy, share * extent, rng)
        at_y = at_y + weight * strength * extent * _waves(dx, dy, share * extent, rng)
    bent = cv2.remap(
        field, at_x.astype(np.float32), at_y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if not thin:
        if others and rng.random() < 0.6:
            other = _like(_cut(others[int(rng.integers(len(others)))]), area, here.shape, middle)
            share = rng.uniform(0.2, 0.5)
            bent = (1 - share) * bent + share * _distance(other)
        depth = float(field.max())
        for share, weight in ((2.5, 0.1 + 0.25 * rough), (0.8, 0.03 + 0.2 * rough)):
            bent = bent + weight * strength * depth * _waves(dx, dy, max(3.0, share * depth), rng)
    drawn = bent > 0
    count, parts, stats, _ = cv2.connectedComponentsWithStats(drawn.astype(np.uint8), connectivity=8)
    if count > 2:
        sizes = stats[1:, cv2.CC_STAT_AREA]
        drawn = np.concatenate([[False], sizes >= 0.04 * sizes.max()])[parts]
    return np.asarray(drawn)


def _roughness(mask: np.ndarray, depth: float) -> float:
    """How much of a shape is notches and teeth narrower than a third of it, 0 to 1: a smooth shape stays smooth."""
    side = 2 * max(1, round(0.35 * depth)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    padded = np.pad(mask.astype(np.uint8), side, mode="edge")
    filled, worn = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc), cv2.morphologyEx(padded, cv2.MORPH_OPEN, disc)
    return float(np.clip(2.5 * (int(filled.sum()) - int(worn.sum())) / max(1, int(padded.sum())), 0, 1))


def _distance(mask: np.ndarray) -> np.ndarray:
    """Pixels to the border, (h, w) float32: positive inside, negative outside; the frame is no border."""
    padded = np.pad(mask, 1, mode="edge").astype(np.uint8)
    inside, outside = (cv2.distanceTransform(part, cv2.DIST_L2, 5) for part in (padded, 1 - padded))
    return np.asarray((np.minimum(inside, 1e4) - np.minimum(outside, 1e4))[1:-1, 1:-1], np.float32)


def _waves(x: np.ndarray, y: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random surface (h, w) of about unit deviation and the given wavelength; x (1, w), y (h, 1)."""
    total = np.zeros(np.broadcast(x, y).shape)
    for _ in range(4):
        angle, phase = rng.uniform(0, 2 * math.pi, 2)
        pace = 2 * math.pi / (length * rng.uniform(0.7, 1.4))
        along, across = pace * math.cos(angle) * x, pace * math.sin(angle) * y + phase
        total += np.sin(along) * np.cos(across) + np.cos(along) * np.sin(across)  # a sine of each line, not each pixel
    return total / math.sqrt(2)


def _like(mask: np.ndarray, area: int, shape: tuple[int, ...], middle: np.ndarray) -> np.ndarray:
    """Another shape, brought to this area and place."""
    rows, columns = np.nonzero(mask)
    scale = math.sqrt(area / len(rows))
    shift = middle - scale * np.array([columns.mean(), rows.mean()])
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    moved = cv2.warpAffine(mask.astype(np.uint8) * 255, matrix, shape[::-1], flags=cv2.INTER_LINEAR)
    return np.asarray(moved >= 128)


def _cut(mask: np.ndarray) -> np.ndarray:
    """The box of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _reach(mask: np.ndarray) -> float:
    rows, columns = np.nonzero(mask)
    return float(np.hypot(rows - rows.mean(), columns - columns.mean()).max())


def _axis(mask: np.ndarray) -> float:
    """Direction of the longest axis in radians."""
    rows, columns = np.nonzero(mask)
    if len(rows) < 2:
        return 0.0
    spread = np.cov(np.stack([columns, rows]).astype(float))
    return 0.5 * math.atan2(2 * float(spread[0, 1]), float(spread[0, 0] - spread[1, 1]))


def _centred(mask: np.ndarray, side: int, angle: float, mirror: int) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    cos, sin = math.cos(angle), math.sin(angle)
    linear = np.array([[cos, -sin * mirror], [sin, cos * mirror]])
    shift = side / 2 - linear @ np.array([columns.mean(), rows.mean()])
    if side > 512:  # a shape of megapixels is compared on a reduced copy
        linear, shift, side = linear * 512 / side, shift * 512 / side, 512
    moved = cv2.warpAffine(mask.astype(np.uint8) * 255, np.column_stack([linear, shift]), (side, side))
    return np.asarray(moved >= 128)
