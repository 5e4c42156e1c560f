"""Dent, hole and chip: defects that are shapes in the surface."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.methods.painter import colours
from flawsmith.methods.painter.scene import (
    Look,
    Scene,
    blur,
    clouds,
    edge,
    lit,
    mix,
    relight,
    rough_inside,
    smooth_step,
)


def dent(scene: Scene, look: Look, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bowl pressed into the surface: the texture stays, warped a little; only the light on it changes."""
    radius = scene.radius
    wavy = scene.inside * (1 + 0.12 * clouds(scene.shape, max(4.0, 1.5 * radius), rng, octaves=2))
    bowl = smooth_step(wavy / max(1.0, 0.85 * radius)).astype(np.float32)
    bowl = blur(bowl, max(0.5, 0.22 * radius)) * edge(scene.inside, 3.0, radius)
    depth = radius * (0.28 + 0.62 * look.severity)
    height = -depth * bowl
    picture = _warped(scene.photo, bowl, 0.5 * depth)
    if look.colour:
        tint = colours.absorbed(scene, colours.pigment(scene, look.colour, rng), bowl * (0.3 + 0.4 * look.severity))
        picture = picture + (tint - scene.photo)
    # Little sky is seen from the bottom of a bowl: it is darker all over.
    picture = picture * (1 - (0.06 + 0.16 * look.severity) * bowl)[..., None]
    return lit(picture, scene, height, 0.9, gloss=0.22), np.zeros(scene.shape, np.float32)


def _warped(photo: np.ndarray, bowl: np.ndarray, strength: float) -> np.ndarray:
    """The texture pulled towards the bowl's middle, as it looks on a slope; (h, w, 3)."""
    down = cv2.Sobel(bowl, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    across = cv2.Sobel(bowl, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    rows, columns = np.mgrid[: photo.shape[0], : photo.shape[1]].astype(np.float32)
    pull = min(strength, 4.0) * 2
    return np.asarray(
        cv2.remap(photo, columns - pull * across, rows - pull * down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    )


def hole(scene: Scene, look: Look, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A pit with steep walls: dark inside, the wall facing the light is lit, the other in shadow, the rim shines."""
    radius = scene.radius
    inside = rough_inside(scene, rng, 0.16)
    open_ = edge(inside, 1.6 + look.softness, radius)
    wall = float(np.clip(0.3 * radius, 0.8, 7.0))
    depth = 0.5 + 0.5 * look.severity
    floor = smooth_step(inside / wall)
    uneven = clouds(scene.shape, max(3.0, 0.5 * radius), rng, octaves=4, rough=0.6)
    height = blur((-wall * (0.8 + 1.2 * depth) * floor).astype(np.float32), max(0.5, 0.2 * wall))
    rim = np.exp(-(((inside - 0.9) / 0.9) ** 2)) * (inside > 0)
    colour = colours.pigment(scene, look.colour or "dark", rng)
    tone = colours.opaque(scene, colour, 0.0) * (1 + 0.16 * uneven * min(1.0, radius / 5))[..., None]
    # Deeper is darker; seen from the light's side the near wall throws its shadow over part of the floor.
    rows, columns = np.mgrid[: scene.shape[0], : scene.shape[1]].astype(np.float32)
    middle = np.array([(columns * scene.mask).sum(), (rows * scene.mask).sum()]) / scene.mask.sum()
    x, y, _ = scene.light
    towards = ((columns - middle[0]) * x + (rows - middle[1]) * y) / max(2.0, radius)
    tone = tone * np.clip(1.06 - 0.3 * depth * np.tanh(towards) - 0.14 * floor, 0.35, 1.5)[..., None]
    cover = open_ * (0.62 + 0.36 * look.severity)
    picture = mix(scene.photo, tone, cover * (0.35 + 0.65 * floor))
    shade, glint = relight(height, scene.light)
    steep = open_ * (1 - 0.5 * floor)
    picture = picture * (1 + 0.7 * steep * (shade - 1))[..., None]
    surface = max(float(colours.luminance(scene.level)), 0.25 * scene.white)
    bright = 0.0 if look.colour in {"black", "dark"} and radius < 3 else 1.0
    picture = picture + (surface * bright * 0.5 * (rim + 0.4 * steep) * np.clip(shade - 1 + glint, 0, 1.2))[..., None]
    return picture, cover


def chip(scene: Scene, look: Look, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A flake broken out: flat facets of fresh, rough material behind a sharp edge."""
    radius = scene.radius
    inside = rough_inside(scene, rng, 0.14, max(3.0, 0.4 * radius))
    open_ = edge(inside, 1.2 + 0.6 * look.softness, radius)
    slope_x, slope_y, which = _facets(scene, rng)
    x, y, z = scene.light
    strength = 0.35 + 0.5 * look.severity
    length = np.sqrt(1 + strength**2 * (slope_x**2 + slope_y**2))
    facet = (z - strength * (x * slope_x + y * slope_y)) / (length * z)
    facet = blur(facet.astype(np.float32), 0.6)
    grit = clouds(scene.shape, 3.5, rng, octaves=2)
    colour = colours.pigment(scene, look.colour or "bright", rng)
    if look.colour in {"bright", "white", "grey", ""}:
        # Fresh material is paler and less tinted than the skin that covered it.
        colour = colour + 0.35 * (colours.luminance(colour) - colour)
    tones = 1 + rng.normal(0, 0.06, size=64).astype(np.float32)[which]
    body = colours.opaque(scene, colour, 0.25) * (facet * tones * (1 + 0.06 * grit))[..., None]
    cover = open_ * (0.5 + 0.48 * look.severity)
    picture = mix(scene.photo, np.clip(body, 0, 255), cover)
    cut = np.clip(inside / 2.2, 0, 1).astype(np.float32)
    height = -blur(cut, 0.7) * (1.0 + 2.2 * look.severity)
    relit = lit(picture, scene, height, 0.75, gloss=0.3)
    return mix(scene.photo, relit, np.clip(open_ * 1.6, 0, 1)), cover


def _facets(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slopes (h, w), (h, w) and number (h, w) of the plane that lies deepest at each pixel: a faceted bowl."""
    count = int(np.clip(3 + scene.radius / 5, 4, 10))
    rows, columns = np.nonzero(scene.mask)
    chosen = rng.integers(len(rows), size=count)
    tops = rows[chosen].astype(np.float32), columns[chosen].astype(np.float32)
    warp = clouds(scene.shape, max(6.0, 0.6 * scene.radius), rng, octaves=3) * 0.12 * scene.radius
    y = np.arange(scene.shape[0], dtype=np.float32)[:, None]
    x = np.arange(scene.shape[1], dtype=np.float32)[None]
    best = np.full(scene.shape, np.inf, np.float32)
    which = np.zeros(scene.shape, np.int64)
    stretch = rng.uniform(0.6, 1.6, size=count)
    for index in range(count):
        distance = np.hypot(y - tops[0][index], (x - tops[1][index]) * stretch[index]) + warp * (index % 3 - 1)
        nearer = distance < best
        best = np.where(nearer, distance, best)
        which = np.where(nearer, index, which)
    angles = rng.uniform(0, 2 * np.pi, size=count)
    slopes = rng.uniform(0.2, 1.0, size=count)
    return (
        (np.cos(angles) * slopes).astype(np.float32)[which],
        (np.sin(angles) * slopes).astype(np.float32)[which],
        which,
    )
