"""Missing part and bend: defects of what stands where."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.methods.painter import colours
from flawsmith.methods.painter.scene import Look, Scene, blur, clouds, edge, lit, mix, rough_inside, smooth_step


def membrane(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask's content continued smoothly from its surroundings, (h, w, 3) float32.

    Pyramid fill (Gortler et al., "The Lumigraph", 1996, pull-push): each level averages what is known, and coarse
    levels fill the gaps of finer ones; a few relaxation steps at the finest remove the blocks.
    """
    known = (~mask).astype(np.float32)
    if known.sum() < 1:
        return np.broadcast_to(picture.mean(axis=(0, 1)), picture.shape).astype(np.float32)
    levels: list[tuple[np.ndarray, np.ndarray]] = [(picture * known[..., None], known)]
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

    The best of some patches from elsewhere in the window, the one whose border fits best, corrected by a membrane so
    that it joins without a seam; a plain membrane where no patch fits inside the window.
    """
    wide = cv2.dilate(scene.mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    ring = wide & ~scene.mask
    plain = membrane(scene.photo, wide)
    if not ring.any():
        return plain
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
    for _ in range(24):
        shift = int(rng.integers(low[0], high[0] + 1)), int(rng.integers(low[1], high[1] + 1))
        # Half of the source must be other pixels than the target, or the part would be copied onto itself.
        sample = scene.mask[inner[0][::7] + shift[0], inner[1][::7] + shift[1]]
        if sample.mean() > 0.1:
            continue
        error = float(np.abs(scene.photo[around[0] + shift[0], around[1] + shift[1]] - wanted).mean())
        if error < cost:
            best, cost = shift, error
    if best is None or cost > 45:
        return plain
    patch = np.roll(scene.photo, (-best[0], -best[1]), axis=(0, 1))
    return patch + membrane(scene.photo - patch, wide)


def missing_part(scene: Scene, look: Look, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The surroundings continued over the region, with a sunken footprint where nothing else tells of the loss."""
    open_ = edge(scene.inside, 1.5 + look.softness, scene.radius)
    without = fill(scene, rng)
    picture = mix(scene.photo, without, open_)
    seen = float(np.abs(without - scene.photo).mean(axis=2)[scene.mask].mean())
    # A part that stood out leaves its place empty; on an even surface only the socket shows what is missing.
    footprint = float(np.clip((26 - seen) / 26, 0, 1)) if seen < 26 else 0.25 * float(rng.random())
    inside = rough_inside(scene, rng, 0.06)
    floor = smooth_step(inside / float(np.clip(0.12 * scene.radius, 1.0, 3.0)))
    drop = footprint * (0.25 + 0.45 * look.severity)
    mottle = clouds(scene.shape, max(4.0, 0.8 * scene.radius), rng, octaves=3)
    picture = picture * (1 - drop * floor * (1 + 0.12 * mottle))[..., None]
    height = -blur(floor.astype(np.float32), 0.7) * footprint * (1.5 + 2.5 * look.severity)
    picture = lit(picture, scene, height, 0.8, gloss=0.12)
    if look.colour:
        tint = colours.absorbed(scene, colours.pigment(scene, look.colour, rng), floor * (0.3 + 0.5 * look.severity))
        picture = picture + (tint - scene.photo)
    return picture, np.zeros(scene.shape, np.float32)


def bend(scene: Scene, look: Look, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The region pushed or twisted: its texture slides along a smooth field, and the fold it makes takes the light."""
    radius = scene.radius
    hold = smooth_step(scene.inside / max(1.0, 0.9 * radius)).astype(np.float32)
    hold = blur(hold, max(0.5, 0.15 * radius)) * edge(scene.inside, 2.0, radius)
    rows, columns = np.mgrid[: scene.shape[0], : scene.shape[1]].astype(np.float32)
    middle_x = float((columns * scene.mask).sum() / scene.mask.sum())
    middle_y = float((rows * scene.mask).sum() / scene.mask.sum())
    angle = float(rng.uniform(0, 2 * np.pi))
    reach = radius * (0.25 + 0.5 * look.severity)
    turn = float(rng.choice([-1.0, 1.0])) * (0.15 + 0.45 * look.severity) * float(rng.uniform(0.3, 1.0))
    move_x = hold * (np.cos(angle) * reach) + turn * hold * -(rows - middle_y)
    move_y = hold * (np.sin(angle) * reach) + turn * hold * (columns - middle_x)
    moved = cv2.remap(
        scene.photo,
        (columns - move_x).astype(np.float32),
        (rows - move_y).astype(np.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    )
    across = (columns - middle_x) * np.cos(angle) + (rows - middle_y) * np.sin(angle)
    crease = np.tanh(across / max(1.0, 0.35 * radius)) * hold
    height = blur(crease.astype(np.float32), 0.8) * radius * (0.15 + 0.4 * look.severity)
    picture = np.clip(moved, 0, 255)
    if look.colour:
        tint = colours.absorbed(scene, colours.pigment(scene, look.colour, rng), hold * (0.3 + 0.5 * look.severity))
        picture = picture + (tint - scene.photo)
    return lit(picture, scene, height, 0.8, gloss=0.2), np.zeros(scene.shape, np.float32)
