"""Dent, hole and chip: defects that are shapes in the surface."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.methods.procedural import colours
from flawsmith.methods.procedural.scene import (
    DefectParams,
    Scene,
    blur,
    clouds,
    edge,
    elsewhere,
    lit,
    mix,
    moved,
    relight,
    rough_inside,
    smooth_step,
)

Painted = tuple[np.ndarray, np.ndarray | None]


def bowl_of(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A bump (h, w) in 0..1 that is smooth like bent sheet: 0 and flat at the mask's edge, 1 in its middle.

    The distance map is blurred first, which rounds its ridges and the mask's corners off; what the blur left at the
    edge is taken away, so that the bump ends inside the mask.
    """
    radius = scene.radius
    if radius < 2:
        return edge(scene.inside, 1.0, radius)
    deep = blur(scene.inside, 0.3 * radius)
    rim = deep[(scene.inside > 0) & (scene.inside < 1.5)]
    start = float(rim.mean()) if len(rim) else 0.0
    wavy = 1 + 0.06 * clouds(scene.shape, 2 * radius, rng, octaves=1)
    top = max(float(deep.max()) - start, 1e-3)
    return smooth_step((deep * wavy - start) / (0.95 * top)) * edge(scene.inside, 2.5, radius)


def dent(scene: Scene, params: DefectParams, rng: np.random.Generator) -> Painted:
    """A bowl pressed into the surface: the texture stays, warped a little; only the light on it changes."""
    radius = scene.radius
    bowl = bowl_of(scene, rng).astype(np.float32)
    depth = max(radius, 1.5) * (0.06 + 0.36 * params.severity)
    image = _warped(scene.photo, bowl, 4 * depth) if radius >= 3 else scene.photo
    if params.colour:
        colour = colours.pigment(scene, params.colour, rng)
        tint = colours.absorbed(scene, colour, bowl * (0.35 + 0.4 * params.severity))
        image = image + (tint - scene.photo)
    # Little sky is seen from the bottom of a bowl: it is darker all over.
    image = image * (1 - (0.03 + 0.17 * params.severity) * bowl)[..., None]
    return lit(image, scene, -depth * bowl, 1.0, gloss=0.2), None


def _warped(photo: np.ndarray, bowl: np.ndarray, strength: float) -> np.ndarray:
    """The texture pulled towards the bowl's middle, as it looks on a slope; (h, w, 3)."""
    down = cv2.Sobel(bowl, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    across = cv2.Sobel(bowl, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    rows, columns = np.mgrid[: photo.shape[0], : photo.shape[1]].astype(np.float32)
    pull = min(strength, 10.0)
    return np.asarray(
        cv2.remap(photo, columns - pull * across, rows - pull * down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    )


def hole(scene: Scene, params: DefectParams, rng: np.random.Generator) -> Painted:
    """A pit with steep walls: dark inside, the wall facing the light is lit, the other throws its shadow."""
    radius = scene.radius
    inside = rough_inside(scene, rng, 0.1)
    open_ = edge(inside, 1.0 + 1.2 * params.softness, radius).astype(np.float32)
    wall = float(np.clip(0.28 * radius, 0.8, 6.0))
    floor = smooth_step(inside / wall)
    uneven = clouds(scene.shape, max(3.0, 0.6 * radius), rng, octaves=4, rough=0.6)
    share = colours.strength(params.severity)
    colour = colours.pigment(scene, params.colour or "dark", rng, share)
    tone = colour * (elsewhere(scene) * (1 + 0.14 * uneven * min(1.0, radius / 6)))[..., None]
    x, y, _ = scene.light
    if radius >= 1.5:
        # The near wall's shadow: all points from which the way to the light leaves the opening.
        reach = float(np.clip((0.3 + 0.6 * params.severity) * radius, 1.0, 16.0))
        shadow = 1 - moved(open_, (-x * reach, -y * reach))
        tone = tone * (1.22 - (0.3 + 0.4 * params.severity) * blur(shadow, max(0.6, 0.22 * reach)))[..., None]
        # The walls are still the surface's own material.
        skin = scene.level * (0.75 * share + (1 - share))
        tone = mix(tone, np.broadcast_to(skin, tone.shape), 0.55 * (1 - floor))
    height = blur((-wall * (0.7 + 0.9 * share) * floor).astype(np.float32), max(0.5, 0.2 * wall))
    shade, glint = relight(height, scene.light)
    tone = tone * (1 + 0.8 * (1 - 0.6 * floor) * (shade - 1))[..., None]
    image = mix(scene.photo, np.clip(tone, 0, 255), open_)
    rim = np.exp(-(((inside - 0.8) / 0.8) ** 2)) * (inside > 0)
    surface = max(float(colours.luminance(scene.level)), 0.3 * scene.white)
    bright = min(1.0, max(0.0, (radius - 1.5) / 3))
    image = image + (surface * bright * 0.6 * share * rim * np.clip(shade - 1 + glint, 0, 1.2))[..., None]
    return image, open_


def chip(scene: Scene, params: DefectParams, rng: np.random.Generator) -> Painted:
    """A flake broken out: rough, faceted fresh material below a sharp edge."""
    radius = scene.radius
    inside = rough_inside(scene, rng, 0.12, max(3.0, 0.5 * radius))
    open_ = edge(inside, 0.9 + 0.7 * params.softness, radius).astype(np.float32)
    height = _facets(scene, rng) * (0.15 + 0.75 * params.severity)
    # The grain of a break: steps and hackles at all sizes down to a pixel.
    rough = float(rng.uniform(0.15, 1.2)) * (0.3 + 0.8 * params.severity)  # from a clean cleavage to a torn break
    height += (
        rough
        * clouds(scene.shape, float(np.clip(0.3 * radius, 3.0, 8.0)), rng, octaves=3, rough=0.7)
        * min(0.05 * radius, 0.4)
    )
    height = height * open_
    step = np.clip(inside / max(1.0, min(2.5, 0.3 * radius)), 0, 1).astype(np.float32)
    height -= step * (0.3 + 2.8 * params.severity)
    share = colours.strength(params.severity)
    colour = colours.pigment(scene, params.colour, rng, share)
    if not params.colour:
        colour = colour * (1 + share * float(rng.choice([-0.35, 0.25])))
    # Fresh material is less tinted than the skin that covered it.
    if params.colour not in colours.CHROMATIC:
        colour = colour + 0.35 * (colours.luminance(colour) - colour)
    mottle = clouds(scene.shape, max(3.0, 0.8 * radius), rng, octaves=3)
    body = np.broadcast_to(colour, scene.photo.shape) * (elsewhere(scene) * (1 + 0.08 * mottle))[..., None]
    body = lit(body, scene, blur(height.astype(np.float32), 0.5), 0.9, gloss=0.06 + 0.7 * float(rng.random()) ** 4)
    return mix(scene.photo, np.clip(body, 0, 255), open_ * (0.88 + 0.1 * params.severity)), open_


def _facets(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A rough bowl (h, w) float32 in pixels made of planes that meet in creases: the highest plane everywhere."""
    count = int(np.clip(3 + scene.radius / 6, 3, 8))
    rows, columns = np.nonzero(scene.mask)
    chosen = rng.integers(len(rows), size=count)
    warp = clouds(scene.shape, max(6.0, 0.8 * scene.radius), rng, octaves=2) * 0.1 * scene.radius
    y = np.arange(scene.shape[0], dtype=np.float32)[:, None] + warp
    x = np.arange(scene.shape[1], dtype=np.float32)[None] + warp
    angles, slopes = rng.uniform(0, 2 * np.pi, size=count), rng.uniform(0.15, 0.85, size=count)
    planes = [
        (x - columns[pick]) * np.float32(np.cos(angle) * slope) + (y - rows[pick]) * np.float32(np.sin(angle) * slope)
        for pick, angle, slope in zip(chosen, angles, slopes, strict=True)
    ]
    return np.asarray(np.maximum.reduce(planes), np.float32)
