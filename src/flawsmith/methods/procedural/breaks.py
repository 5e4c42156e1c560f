"""Broken off: a chip or a missing part at the object's outline, where the background shows instead of a pit."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.methods.procedural import colours
from flawsmith.methods.procedural.relief import Painted
from flawsmith.methods.procedural.scene import DefectParams, Scene, blur, clouds, mix, smooth_step
from flawsmith.methods.procedural.structure import membrane


def opens(scene: Scene, background: np.ndarray) -> bool:
    """Whether the mask lies on the object's outline: enough of its border is background, (h, w) bool."""
    wide = cv2.dilate(scene.mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    ring = wide & ~scene.mask
    if not ring.any() or background[scene.mask].mean() > 0.6 or (~background & ~scene.mask).sum() < 16:
        return False
    return float(background[ring].mean()) > 0.18


def broken_off(scene: Scene, params: DefectParams, background: np.ndarray, rng: np.random.Generator) -> Painted:
    """The object ends inside the mask: a ragged edge, a strip of fracture face, then the background with a soft shadow.

    background: (h, w) bool, True where the photograph shows what is behind the object.
    """
    rest = ~background & ~scene.mask
    # The found outline lies a pixel or two outside the true one: slivers between mask and background are no part.
    part = cv2.morphologyEx(rest.astype(np.uint8), cv2.MORPH_OPEN, np.ones((7, 7), np.uint8)).astype(bool)
    part = part if part.any() else rest
    away = cv2.distanceTransform((~part).astype(np.uint8), cv2.DIST_L2, 5).astype(np.float32)
    reach = float(np.clip(0.25 * scene.radius, 1.0, 7.0))
    ragged = away - reach * np.clip(0.6 + 0.6 * clouds(scene.shape, max(4.0, scene.radius), rng, 4, 0.6), 0, 2)
    ragged = ragged - 0.35 * scene.radius * (1 - params.severity)  # a lesser break goes less deep
    open_ = smooth_step((ragged - 0.5) / (1.0 + params.softness)).astype(np.float32)
    behind = _background(scene, background, rng)
    # What stands above the background keeps light from it close by.
    thick = float(np.clip((0.06 + 0.12 * rng.random()) * scene.radius, 1.0, 6.0))
    shade = 1 - 0.4 * np.exp(-np.maximum(ragged - thick, 0) / max(2.0, thick))
    gone = open_ * ~background
    image = mix(scene.photo, behind * shade[..., None], gone)
    # The fracture face: the object's own material, lit by where it looks to.
    smooth = blur(ragged, 1.2)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    x, y, _ = scene.light
    facing = np.clip(x * across + y * down, -1, 1)
    near = part & cv2.dilate(scene.mask.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
    own = scene.photo[near if near.any() else part].mean(axis=0)
    material = (
        colours.pigment(scene, params.colour, rng) if params.colour else 0.7 * own + 0.12 * colours.luminance(own)
    )
    grit = clouds(scene.shape, 4.0, rng, 3, 0.7)
    face = material * ((1 + 0.45 * facing) * (1 + 0.1 * grit))[..., None]
    width = thick * np.clip(1 + 0.5 * clouds(scene.shape, max(5.0, scene.radius), rng, 2), 0.2, 2)
    strip = open_ * (1 - smooth_step((ragged - width) / 1.2)) * ~background
    image = mix(image, np.clip(face, 0, 255), strip)
    return image, np.maximum(gone, strip)


def _background(scene: Scene, background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The background continued under the object, (h, w, 3): its slow part by a membrane, its texture from a patch."""
    sure = cv2.erode(background.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    sure = sure if sure.any() else background
    weight = sure.astype(np.float32)
    soft = blur(scene.photo * weight[..., None], 2.0) / np.maximum(blur(weight, 2.0), 1e-3)[..., None]
    slow = membrane(soft, ~sure)
    rows, columns = np.nonzero(scene.mask & ~background)
    height, width = scene.shape
    best, most = (0, 0), 0.0
    for _ in range(24):
        shift = int(rng.integers(-height + 1, height)), int(rng.integers(-width + 1, width))
        y, x = rows[::5] + shift[0], columns[::5] + shift[1]
        fits = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        share = float(sure[y[fits], x[fits]].sum()) / len(y)
        if share > most:
            best, most = shift, share
    if most < 0.5:
        return slow
    detail = np.where(sure[..., None], scene.photo - soft, 0)
    return np.asarray(slow + np.roll(detail, (-best[0], -best[1]), axis=(0, 1)))
