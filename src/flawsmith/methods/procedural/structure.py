"""Missing part and bend: defects of what stands where."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith import compose
from flawsmith.methods.procedural import colours
from flawsmith.methods.procedural.relief import Painted, bowl_of
from flawsmith.methods.procedural.scene import (
    DefectParams,
    Scene,
    blur,
    clouds,
    edge,
    lit,
    mix,
    moved,
    rough_inside,
    smooth_step,
)


def membrane(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask's content continued smoothly from its surroundings, (h, w, 3) float32.

    Pyramid fill (Gortler et al., "The Lumigraph", 1996, pull-push): each level averages what is known, and coarse
    levels fill the gaps of finer ones; a few relaxation steps at the finest remove the blocks.
    """
    known = (~mask).astype(np.float32)
    if known.sum() < 1:
        return np.broadcast_to(image.mean(axis=(0, 1)), image.shape).astype(np.float32)
    levels: list[tuple[np.ndarray, np.ndarray]] = [(image * known[..., None], known)]
    while min(levels[-1][1].shape) > 1 and float(levels[-1][1].min()) <= 0:
        values, weights = levels[-1]
        height, width = (weights.shape[0] + 1) // 2, (weights.shape[1] + 1) // 2
        small = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
        share = cv2.resize(weights, (width, height), interpolation=cv2.INTER_AREA)
        full = np.minimum(share * 4, 1.0)
        levels.append((small * (full / np.maximum(share, 1e-6))[..., None], full))
    values, weights = levels.pop()
    filled = values / np.maximum(weights, 1e-6)[..., None]
    while levels:
        values, weights = levels.pop()
        up = cv2.resize(filled, (weights.shape[1], weights.shape[0]), interpolation=cv2.INTER_LINEAR)
        filled = values + up * (1 - weights)[..., None]
        for _ in range(4):
            filled = np.where(weights[..., None] > 0.5, filled, cv2.blur(filled, (3, 3)))
    return np.asarray(filled, np.float32)


def fill(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """What might lie under the mask if the part were not there, (h, w, 3) float32.

    Of some patches elsewhere in the window, the one whose border fits best, brought to the local brightness by a
    membrane; a plain membrane with the photograph's grain where the window holds no other place.
    """
    wide = cv2.dilate(scene.mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    ring = wide & ~scene.mask
    soft = blur(scene.photo, 2.0)
    if not ring.any():
        return soft
    rows, columns = np.nonzero(wide)
    height, width = scene.shape
    low = (-rows.min(), -columns.min())
    high = (height - 1 - rows.max(), width - 1 - columns.max())
    where = np.nonzero(ring)
    step = max(1, len(where[0]) // 160)
    around = where[0][::step], where[1][::step]
    wanted = scene.photo[around]
    inner = np.nonzero(scene.mask)
    best, cost = None, np.inf
    for _ in range(32):
        shift = int(rng.integers(low[0], high[0] + 1)), int(rng.integers(low[1], high[1] + 1))
        # The source must be other pixels than the target, or the part would be copied onto itself.
        if scene.mask[inner[0][::7] + shift[0], inner[1][::7] + shift[1]].mean() > 0.05:
            continue
        error = float(np.abs(scene.photo[around[0] + shift[0], around[1] + shift[1]] - wanted).mean())
        if error < cost:
            best, cost = shift, error
    if best is None:
        fine = scene.photo - blur(scene.photo, 1.0)
        # The blur carries the part's own colour out of the mask: the membrane starts beyond its reach.
        clear = cv2.dilate(wide.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
        return membrane(soft, wide if clear.all() else clear) + compose.borrowed_grain(fine, scene.noise)
    patch = np.roll(scene.photo, (-best[0], -best[1]), axis=(0, 1))
    # The mismatch is known where neither image shows the part and the roll did not wrap round the window.
    valid = ~(wide | np.roll(wide, (-best[0], -best[1]), axis=(0, 1)))
    y, x = np.arange(height)[:, None] + best[0], np.arange(width)[None] + best[1]
    valid &= (y >= 0) & (y < height) & (x >= 0) & (x < width)
    # Only its slow part is corrected: a membrane through single pixels would draw streaks.
    weight = valid.astype(np.float32)
    mismatch = blur((scene.photo - patch) * weight[..., None], 2.0) / np.maximum(blur(weight, 2.0), 1e-3)[..., None]
    return np.asarray(patch + membrane(mismatch, ~valid))


def missing_part(scene: Scene, params: DefectParams, rng: np.random.Generator) -> Painted:
    """The surroundings continued over the region, with a sunken footprint where nothing else tells of the loss."""
    open_ = edge(scene.inside, 1.5 + 1.5 * params.softness, scene.radius)
    without = fill(scene, rng)
    image = mix(scene.photo, without, open_)
    seen = float(np.abs(blur(without - scene.photo, 2.0)).mean(axis=2)[scene.mask].mean())
    # A part that stood out leaves its place empty; on an even surface only the socket shows what is missing.
    footprint = float(np.clip((40 - seen) / 30, 0.3 * float(rng.random()), 1))
    inside = rough_inside(scene, rng, 0.06)
    floor = smooth_step(inside / float(np.clip(0.12 * scene.radius, 1.0, 3.0))).astype(np.float32)
    drop = footprint * (0.08 + 0.56 * params.severity) * (0.2 if params.colour else 1.0)
    mottle = clouds(scene.shape, max(4.0, 0.8 * scene.radius), rng, octaves=3)
    image = image * (1 - drop * floor * (1 + 0.12 * mottle))[..., None]
    x, y, _ = scene.light
    reach = float(np.clip(0.22 * scene.radius, 1.0, 6.0))
    shadow = blur(1 - moved(floor, (-x * reach, -y * reach)), max(0.6, 0.3 * reach)) * floor
    image = image * (1 - footprint * (0.12 + 0.43 * params.severity) * shadow)[..., None]
    # The edge of the socket is higher here and lower there.
    height = -blur(floor, max(0.8, scene.lens)) * footprint * (0.3 + 1.6 * params.severity)
    height = height * np.clip(0.8 + 0.4 * clouds(scene.shape, max(6.0, scene.radius), rng, octaves=1), 0.2, 1.5)
    image = lit(image, scene, height, 0.8, gloss=0.06)
    if params.colour:
        tint = colours.absorbed(
            scene, colours.pigment(scene, params.colour, rng), floor * (0.5 + 0.5 * params.severity)
        )
        image = image + (tint - scene.photo)
    return image, None


def bend(scene: Scene, params: DefectParams, rng: np.random.Generator) -> Painted:
    """The region pushed or twisted: its texture slides along a smooth field, and the fold it makes takes the light."""
    radius = scene.radius
    hold = bowl_of(scene, rng).astype(np.float32)
    rows, columns = np.mgrid[: scene.shape[0], : scene.shape[1]].astype(np.float32)
    middle_x = float((columns * scene.mask).sum() / scene.mask.sum())
    middle_y = float((rows * scene.mask).sum() / scene.mask.sum())
    angle = float(rng.uniform(0, 2 * np.pi))
    # The slope of the bump is at most 1.6 / radius: below a reach of 0.6 radius the field does not fold over.
    reach = radius * (0.2 + 0.35 * params.severity)
    turn = float(rng.choice([-1.0, 1.0])) * (0.15 + 0.4 * params.severity) * float(rng.uniform(0.3, 1.0))
    move_x = hold * (np.cos(angle) * reach) + turn * hold * -(rows - middle_y)
    move_y = hold * (np.sin(angle) * reach) + turn * hold * (columns - middle_x)
    image = cv2.remap(
        scene.photo,
        (columns - move_x).astype(np.float32),
        (rows - move_y).astype(np.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    )
    across = ((columns - middle_x) * np.cos(angle) + (rows - middle_y) * np.sin(angle)) / max(1.0, radius)
    # One fold across the push: a ridge in front, a valley behind.
    fold = across * np.exp(-2.5 * across * across) * hold + 0.3 * hold
    height = fold.astype(np.float32) * max(radius, 2.0) * (0.1 + 0.65 * params.severity)
    image = np.clip(image, 0, 255)
    if params.colour:
        tint = colours.absorbed(
            scene, colours.pigment(scene, params.colour, rng), hold * (0.45 + 0.5 * params.severity)
        )
        image = image + (tint - scene.photo)
    return lit(image, scene, height, 0.9, gloss=0.2), None
