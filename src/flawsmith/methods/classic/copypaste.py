"""CopyPaste: a real defect, cut by its mask, matched to its new surroundings and laid on a good part.

The strong simple baseline of this package: the pixels are real, so the defect is; what can go wrong is the seam.
Exposure and shading are matched by comparing the ring around the defect with the ring around its new place, which lie
on each other because mask and pixels go through one Warp.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from flawsmith import compose
from flawsmith.images import is_artwork
from flawsmith.masks import Warp
from flawsmith.masks.placement import sample_points
from flawsmith.methods import base
from flawsmith.methods.classic.poisson import seamless
from flawsmith.records import Request


class CopyPasteOptions(base.FollowingOptions):
    """Dials of `copypaste`."""

    blend: Literal["feather", "poisson", "hard"] = Field(default="feather", description="how the border is joined")
    feather: float = Field(default=1.5, ge=0, le=50, description="width of the soft border in pixels, inside the mask")
    match: float = Field(
        default=1.0, ge=0, le=1, description="how far light and contrast follow the surroundings; 0 = as photographed"
    )
    brightness: float = Field(default=0.02, ge=0, le=0.5, description="random brightness change, share of 255")
    contrast: float = Field(default=0.1, ge=0, le=0.9, description="random change of the defect's contrast")


class CopyPaste(base.Synthesizer):
    """Lay a few-shot defect on a normal photograph; refuses without a reference."""

    name = "copypaste"
    copies = True
    Options: ClassVar[type[base.Options]] = CopyPasteOptions
    references = "one"

    def paint(
        self,
        normal: np.ndarray,
        mask: np.ndarray,
        request: Request,
        area: compose.Window,
        rng: np.random.Generator,
        options: Any,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        reference = request.reference
        assert reference is not None  # it needs one
        warp = request.warp or fit(reference.mask, request.mask)
        box = (area.top, area.left, area.bottom, area.right)
        shape = request.mask.shape
        carried = warp.apply(reference.image, shape, box)
        defect = warp.apply(reference.mask, shape, box)
        seen = warp.apply(np.ones(reference.mask.shape, dtype=bool), shape, box)
        artwork = is_artwork(normal) and is_artwork(carried)
        if artwork:  # binary images: no level between, no exposure to match, no soft border
            carried = np.where(carried >= 128, np.uint8(255), np.uint8(0))
        gain, shading = match_surroundings(carried, normal, defect | mask, seen, options.match)
        matched = carried * (gain * shading)
        if not artwork:
            matched = _vary(matched, normal, defect | mask, rng, options)

        inside = mask & seen
        if request.warp is None:  # a mask of the user's own may be wider than the defect
            inside &= defect | _ring(defect, 0, 3)
        if options.blend == "hard" or artwork:
            return compose.blend(normal, matched, inside.astype(np.float32)), _facts(warp, gain)
        if options.blend == "poisson":
            return _rounded(seamless(normal, matched, inside)), _facts(warp, gain)
        thickness = float(cv2.distanceTransform(np.pad(inside, 1).astype(np.uint8), cv2.DIST_L2, 5).max())
        # A hair crack has no room for a wide border: at most a third of its half width.
        alpha = compose.feather(inside, min(options.feather, thickness / 3))
        return compose.blend(normal, matched, alpha), _facts(warp, gain)


def match_surroundings(
    carried: np.ndarray, normal: np.ndarray, defect: np.ndarray, seen: np.ndarray, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Gain (3,) and smooth shading (h, w, 3), both factors, that turn the carried surroundings into the normal ones.

    carried, normal: (h, w, 3) uint8, aligned; defect: (h, w) bool, never looked at; seen: (h, w) bool, where the
    reference was photographed. The gain is the robust ratio of exposures, one factor with a small tint per channel;
    what remains is shading, carried into the defect from its ring. Factors, not offsets: light multiplies, so the dark
    of a hole stays dark. Pixels that differ by structure (another track, another edge) are outliers and change nothing.
    """
    height, width = defect.shape
    size = math.sqrt(max(1.0, float(defect.sum())))
    ring = _ring(defect, 2, float(np.clip(0.5 * size, 5, 40))) & seen
    if strength == 0 or int(ring.sum()) < 12:
        return np.ones(3), np.ones((height, width, 3))
    old, new = carried[ring].astype(np.float64), normal[ring].astype(np.float64)
    bright = (old.max(axis=1) > 8) & (new.max(axis=1) > 8)
    gain = np.ones(3)
    if bright.mean() > 0.5:  # black says nothing about exposure
        overall = float(np.median(new[bright].mean(axis=1) / np.maximum(old[bright].mean(axis=1), 1)))
        held = 8.0  # grey levels: a dark channel's ratio is mostly noise
        tint = np.median((new[bright] + held * overall) / (old[bright] + held), axis=0) / max(overall, 0.05)
        gain = np.clip(overall, 0.4, 2.5) * np.clip(tint, 0.85, 1.18)
    gain = gain**strength
    gap = new - old * gain
    middle = np.median(gap, axis=0)
    spread = 1.4826 * np.median(np.abs(gap - middle), axis=0)
    alike = (np.abs(gap - middle) <= 2.5 * spread + 6).all(axis=1)
    weight = np.zeros((height, width), dtype=np.float32)
    weight[ring] = alike
    gaps = np.zeros((height, width, 3), dtype=np.float32)
    gaps[ring] = gap * alike[:, None]
    average = gap[alike].mean(axis=0) if alike.any() else middle
    field = np.clip(_spread(gaps, weight, max(2.0, 0.35 * size), average), -60, 60)
    level = np.maximum((old * gain)[alike].mean(axis=0) if alike.any() else 128.0, 24.0)
    return gain, np.clip(1 + strength * field / level, 0.5, 2.0)


def _spread(gaps: np.ndarray, weight: np.ndarray, sigma: float, average: np.ndarray) -> np.ndarray:
    """Carry values (h, w, 3) known where weight (h, w) is set everywhere: close by their own, far away `average`.

    Normalised convolution; on a reduced copy when sigma is large, since the result is smooth.
    """
    height, width = weight.shape
    step = max(1, int(sigma / 4))
    small = (max(1, width // step), max(1, height // step))
    if step > 1:
        gaps, weight = (cv2.resize(part, small, interpolation=cv2.INTER_AREA) for part in (gaps, weight))
    little = 1e-3 * float(weight.mean()) + 1e-9
    blurred = cv2.GaussianBlur(gaps, (0, 0), sigma / step, borderType=cv2.BORDER_CONSTANT)
    share = cv2.GaussianBlur(weight, (0, 0), sigma / step, borderType=cv2.BORDER_CONSTANT)
    field = ((blurred + little * average) / (share + little)[..., None]).astype(np.float32)
    return cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR) if step > 1 else field


def _vary(
    matched: np.ndarray, normal: np.ndarray, defect: np.ndarray, rng: np.random.Generator, options: Any
) -> np.ndarray:
    """Small changes of brightness and of the defect's contrast against its new surroundings."""
    contrast = 1 + options.contrast * rng.uniform(-1, 1)
    brightness = 255 * options.brightness * rng.uniform(-1, 1)
    if contrast == 1 and brightness == 0:
        return matched
    ring = _ring(defect, 0, 5)
    level = np.median(normal[ring if ring.any() else np.ones_like(ring)], axis=0)
    return np.asarray(level + (matched - level) * contrast + brightness)


def fit(source: np.ndarray, target: np.ndarray) -> Warp:
    """The warp that lays one mask (H, W) bool on another by centroid, principal axes and area; flips by overlap.

    Axes are stretched against each other by at most 1.5, so that a round defect does not become a line.
    """
    (xs, ys), (xt, yt) = sample_points(source, 20_000), sample_points(target, 20_000)
    old, new = np.array([xs.mean(), ys.mean()]), np.array([xt.mean(), yt.mean()])
    old_axes, old_sides = _axes(xs, ys)
    new_axes, new_sides = _axes(xt, yt)
    area = math.sqrt(np.count_nonzero(target) / np.count_nonzero(source))
    stretch = np.clip(new_sides / old_sides / area, 1 / 1.5, 1.5)
    stretch = area * stretch / math.sqrt(float(stretch.prod()))
    picked = np.linspace(0, len(xs) - 1, min(len(xs), 800)).astype(int)
    points = np.stack([xs[picked], ys[picked]], axis=1) - old
    best, best_share = Warp(), -1.0
    for first in (1.0, -1.0):
        for second in (1.0, -1.0):
            linear = new_axes @ np.diag(stretch * [first, second]) @ old_axes.T
            there = np.rint(points @ linear.T + new).astype(int)
            on = (there >= 0).all(axis=1) & (there[:, 0] < target.shape[1]) & (there[:, 1] < target.shape[0])
            share = float(target[there[on, 1], there[on, 0]].sum()) / len(points)
            if share > best_share + 1e-9:
                shift = new - linear @ old
                (a, b), (c, d) = linear.tolist()
                best, best_share = Warp(((a, b, float(shift[0])), (c, d, float(shift[1])))), share
    return best


def _axes(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal axes (2, 2) as columns and standard deviations (2,) of pixels; a pixel itself counts."""
    spread = np.cov(np.stack([x, y]).astype(float), bias=True) + np.eye(2) / 12
    values, vectors = np.linalg.eigh(spread)
    return vectors, np.sqrt(values)


def _ring(mask: np.ndarray, near: float, far: float) -> np.ndarray:
    """Pixels outside the mask, more than `near` and at most `far` pixels from it; none when the mask is empty."""
    if not mask.any():
        return np.zeros_like(mask)
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    return np.asarray((distance > near) & (distance <= far))


def _rounded(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _facts(warp: Warp, gain: np.ndarray) -> dict[str, Any]:
    return {"warp": warp.to_json(), "gain": [round(float(value), 3) for value in gain]}
