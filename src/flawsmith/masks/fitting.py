"""Moving a real defect's mask to another photograph, to a place whose surroundings look like its own.

A few hundred positions, turns, sizes and mirror images are tried at once. Each is judged by points only: how much of
the mask lies on the allowed area, and how well the ring around the mask matches the ring around its new place. Edges
need no rule of their own: a chip at a rim has a ring that is half background, which is found only at another rim, and
a ring cut by the frame of the photograph only at another frame.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from flawsmith import images
from flawsmith.errors import FlawsmithError
from flawsmith.masks.options import MINIMUM, MaskOptions, log_uniform
from flawsmith.masks.placement import Ground, sample_points
from flawsmith.masks.segment import foreground
from flawsmith.masks.warp import BEND_SHARE, Warp
from flawsmith.records import Sample

TRIES = 320
RING_POINTS = 160
FRAME_COST = 60.0  # grey levels charged for a ring point inside one photograph and beyond the other
COHERENT = 0.35  # above it a surface has a direction (grinding marks, tracks, a rim); 0 is none, 1 is stripes


def move(
    reference: Sample,
    ground: Ground,
    rng: np.random.Generator,
    options: MaskOptions = MaskOptions(),
    image: np.ndarray | None = None,
) -> tuple[np.ndarray, Warp]:
    """The reference's mask, warped and moved onto the ground: (H, W) bool inside `ground.allowed`, and its Warp.

    `image` (H, W, 3) uint8 is the photograph to fit; without it only the outline of the object is compared.
    """
    shape = ground.allowed.shape
    mask = _parts(reference.mask, options, rng)
    size = int(mask.sum())
    x, y = sample_points(mask)
    middle = np.array([x.mean(), y.mean()])
    extent = max(4.0, *(float(np.ptp(np.flatnonzero(mask.any(axis=axis)))) for axis in (0, 1)))
    seed = int(rng.integers(0, 2**31))

    if image is None:
        seen = np.repeat(foreground(reference.image)[..., None], 3, axis=2).astype(np.uint8) * 100
        target = np.repeat(ground.allowed[..., None], 3, axis=2).astype(np.uint8) * 100
    else:
        seen, target = reference.image, image
    ratio = math.sqrt(shape[0] * shape[1] / (mask.shape[0] * mask.shape[1]))
    # Photographs of about one resolution keep the defect's size in pixels; another resolution keeps its share.
    base = ratio if not 0.5 <= ratio <= 2 else 1.0
    for attempt in range(4):
        scales = (
            np.exp(rng.uniform(math.log(options.scale[0]), math.log(options.scale[1]), TRIES)) * base * 0.7**attempt
        )
        if options.size is not None:
            scales = np.full(TRIES, math.sqrt(log_uniform(rng, options.size) * ground.area / size) * 0.9**attempt)
        reach = math.sqrt(size / math.pi) * float(scales.mean())
        centres = ground.centres(rng, options.place, reach, TRIES)
        flips = np.where(rng.random(TRIES) < 0.5, -1.0, 1.0) if options.flip else np.ones(TRIES)
        turns = _turns(seen, target, middle, extent, centres, flips, rng, options, image is None)
        cos, sin = scales * np.cos(turns), scales * np.sin(turns)
        linear = np.stack([np.stack([cos * flips, -sin], -1), np.stack([sin * flips, cos], -1)], 1)  # (K, 2, 2)

        points = np.stack([x, y]) - middle[:, None]
        there = linear @ points + centres[:, :, None]  # (K, 2, n)
        share = ground.lookup(there[:, 0], there[:, 1]).mean(axis=1)
        cost = _ring_cost(mask, seen, target, linear, centres, middle) + 60 * (1 - share)
        good = share >= min(0.85, float(share.max()))
        best = float(cost[good].min())
        near = np.flatnonzero(good & (cost <= 1.15 * best + 2))  # equally plausible places: chance decides
        for index in rng.permutation(near)[:6]:
            offset = centres[index] - linear[index] @ middle
            (a, b), (c, d) = linear[index].tolist()
            warp = Warp(((a, b, float(offset[0])), (c, d, float(offset[1]))), options.bend, seed, extent)
            drawn = _drawn(mask, warp, ground.allowed)
            if drawn.sum() >= min(MINIMUM, max(1, 0.5 * size * warp.scale**2)):
                return drawn, warp
    raise FlawsmithError(
        f"No place was found for a reference mask of {size} pixels on an area of {ground.area} pixels: choose a "
        "smaller reference, a wider region of interest, or --set mask.size."
    )


def _parts(mask: np.ndarray, options: MaskOptions, rng: np.random.Generator) -> np.ndarray:
    """The mask, or as many of its connected parts as asked for, large ones first choice."""
    if options.count is None:
        return mask
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = int(rng.integers(options.count[0], options.count[1] + 1))
    if keep >= count - 1:
        return mask
    weights = stats[1:, cv2.CC_STAT_AREA].astype(float)
    chosen = rng.choice(np.arange(1, count), keep, replace=False, p=weights / weights.sum())
    return np.isin(parts, chosen)


def _drawn(mask: np.ndarray, warp: Warp, allowed: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    corners = np.array([[columns[i], rows[j], 1] for i in (0, -1) for j in (0, -1)], dtype=float)
    there = corners @ np.array(warp.matrix).T
    margin = warp.scale * (1 + warp.bend * BEND_SHARE * warp.extent) + 2
    left, top = np.floor(there.min(axis=0) - margin).astype(int)
    right, bottom = np.ceil(there.max(axis=0) + margin).astype(int)
    height, width = allowed.shape
    top, left, bottom, right = max(0, top), max(0, left), min(height, bottom), min(width, right)
    drawn = np.zeros(allowed.shape, dtype=bool)
    if bottom > top and right > left:
        view = (slice(top, bottom), slice(left, right))
        drawn[view] = warp.apply(mask, allowed.shape, (int(top), int(left), int(bottom), int(right))) & allowed[view]
    return drawn


def _turns(
    seen: np.ndarray,
    target: np.ndarray,
    middle: np.ndarray,
    extent: float,
    centres: np.ndarray,
    flips: np.ndarray,
    rng: np.random.Generator,
    options: MaskOptions,
    blind: bool,
) -> np.ndarray:
    """Angles (K,): as asked, or following the direction of the surface where it has one, else free."""
    count = len(flips)
    if options.rotate is not None:
        return np.radians(rng.uniform(-1, 1, count) * options.rotate)
    free = rng.uniform(-math.pi, math.pi, count)
    if blind:
        return free
    own, own_clear = _direction(seen, middle[None, :], extent)
    new, new_clear = _direction(target, centres, extent)
    mirrored = np.where(flips < 0, math.pi - own[0], own[0])
    along = new - mirrored + math.pi * rng.integers(0, 2, count) + np.radians(rng.normal(0, 4, count))
    return np.where((own_clear[0] >= COHERENT) & (new_clear >= COHERENT), along, free)


def _direction(image: np.ndarray, places: np.ndarray, extent: float) -> tuple[np.ndarray, np.ndarray]:
    """Direction of the surface (radians) and how clear it is (0 to 1) around places (n, 2), by the structure tensor."""
    small, step = _reduced(image)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    gx, gy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    side = int(np.clip(2 * extent / step, 9, 63)) | 1
    xx, yy, xy = (cv2.blur(product, (side, side)) for product in (gx * gx, gy * gy, gx * gy))
    column = np.clip((places[:, 0] / step).astype(int), 0, small.shape[1] - 1)
    row = np.clip((places[:, 1] / step).astype(int), 0, small.shape[0] - 1)
    difference, mixed, both = (xx - yy)[row, column], 2 * xy[row, column], (xx + yy)[row, column]
    return 0.5 * np.arctan2(mixed, difference), np.hypot(difference, mixed) / (both + 25.0)


def _reduced(image: np.ndarray) -> tuple[np.ndarray, float]:
    """A copy of at most 256 pixels and the step between its pixels."""
    step = max(1.0, max(image.shape[:2]) / 256)
    if step == 1.0:
        return image, 1.0
    return images.resize(image, max(1, round(image.shape[0] / step)), max(1, round(image.shape[1] / step))), step


def _ring_cost(
    mask: np.ndarray,
    seen: np.ndarray,
    target: np.ndarray,
    linear: np.ndarray,
    centres: np.ndarray,
    middle: np.ndarray,
) -> np.ndarray:
    """Mean difference in grey levels between the mask's ring and its K new rings, exposure apart; (K,)."""
    reach = int(np.clip(0.4 * math.sqrt(mask.sum()), 4, 60))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = rows[0] - reach - 1, columns[0] - reach - 1
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    framed = np.pad(cut, reach + 1).astype(np.uint8)
    distance = cv2.distanceTransform(1 - framed, cv2.DIST_L2, 3)
    x, y = sample_points((distance > 1.5) & (distance <= reach), RING_POINTS)
    points = np.stack([x + left, y + top]).astype(float)

    here, here_inside = _values(seen, points[0], points[1])
    there = linear @ (points - middle[:, None]) + centres[:, :, None]
    new, new_inside = _values(target, there[:, 0], there[:, 1])
    both = (here_inside[None] & new_inside)[..., None]
    count = np.maximum(both.sum(axis=1), 1)
    difference = np.where(both, new - here[None], 0.0)
    shift = difference.sum(axis=1) / count
    # A darker or brighter exposure is corrected when blending, so it costs half; a difference in pattern costs fully.
    pattern = (np.abs(np.where(both, difference - shift[:, None], 0.0)).sum(axis=1) / count).mean(axis=1)
    astray = (here_inside[None] != new_inside).mean(axis=1)
    return np.asarray(pattern + 0.5 * np.abs(shift).mean(axis=1) + FRAME_COST * astray)


def _values(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (..., 3) float32 of a slightly softened reduced copy at points in full pixels, and which are inside."""
    small, step = _reduced(image)
    small = cv2.blur(small, (3, 3))
    height, width = image.shape[:2]
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    column = np.clip((x / step).astype(int), 0, small.shape[1] - 1)
    row = np.clip((y / step).astype(int), 0, small.shape[0] - 1)
    return small[row, column].astype(np.float32), inside
