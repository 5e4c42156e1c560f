"""Rendered surfaces to paint defects on, so that the backbone learns to continue more than three real
materials.

Each function draws one size x size x 3 uint8 image from a random generator; `render` picks one, adds light
and sensor grain.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

__all__ = ["SURFACES", "render"]


def _noise(rng: np.random.Generator, size: int, scale: float | tuple[float, float], octaves: int = 1) -> np.ndarray:
    """Smooth noise (size, size), zero mean, unit deviation; `scale` in pixels (down, across)."""
    total = np.zeros((size, size), np.float32)
    down, across = (scale, scale) if isinstance(scale, (int, float)) else scale
    for octave in range(octaves):
        shape = tuple(max(2, round(size / max(1.0, s / 2**octave)) + 2) for s in (down, across))
        coarse = rng.standard_normal(shape).astype(np.float32)
        total += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return (total - total.mean()) / (total.std() + 1e-6)


def _colour(
    rng: np.random.Generator, saturation: tuple[float, float] = (0, 0.9), value: tuple[float, float] = (0.15, 0.95)
) -> np.ndarray:
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(*value)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]


def _tone(base: np.ndarray, grey: np.ndarray, depth: float) -> np.ndarray:
    """A colour modulated by a zero-mean pattern."""
    return base * (1 + depth * grey[..., None])


def _turn(rng: np.random.Generator, image: np.ndarray, free: bool = True) -> np.ndarray:
    angle = rng.uniform(0, 180) if free else rng.normal(0, 4)
    size = image.shape[0]
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, rng.uniform(1.0, 1.3))
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def brushed_metal(rng: np.random.Generator, size: int) -> np.ndarray:
    lines = _noise(rng, size, (rng.uniform(1, 2), rng.uniform(30, 120))) + 0.5 * _noise(
        rng, size, (rng.uniform(2, 5), size)
    )
    image = _tone(_colour(rng, (0, 0.15), (0.3, 0.85)), lines, rng.uniform(0.03, 0.12))
    glare = np.exp(-(((np.arange(size) / size - rng.random()) / rng.uniform(0.1, 0.5)) ** 2))[:, None, None]
    return _turn(rng, (image + rng.uniform(0, 0.3) * glare).astype(np.float32))


def smooth_plastic(rng: np.random.Generator, size: int) -> np.ndarray:
    return _tone(
        _colour(rng), _noise(rng, size, rng.uniform(40, 200)) + 0.2 * _noise(rng, size, 2), rng.uniform(0.01, 0.08)
    )


def weave(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(np.float32)
    wobble = _noise(rng, size, 30) * rng.uniform(0, 1.5)
    period = rng.uniform(4, 16)
    warp, weft = (
        np.sin(2 * np.pi * (x + wobble) / period),
        np.sin(2 * np.pi * (y + wobble) / period * rng.uniform(0.8, 1.2)),
    )
    over = np.sign(np.sin(np.pi * (x + wobble) / period) * np.sin(np.pi * (y + wobble) / period))
    pattern = np.where(over > 0, np.abs(warp), np.abs(weft)) - 0.6
    two = _colour(rng), _colour(rng)
    share = (over > 0)[..., None] if rng.random() < 0.3 else np.ones((size, size, 1))
    return _turn(
        rng, (_tone(two[0], pattern, 0.35) * share + _tone(two[1], pattern, 0.35) * (1 - share)).astype(np.float32)
    )


def wood(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    rings = np.sin(
        2 * np.pi * rng.uniform(4, 14) * (x + 0.08 * _noise(rng, size, (size, size / 3)) + rng.uniform(-0.2, 0.2) * y)
    )
    fibre = _noise(rng, size, (rng.uniform(20, 60), 1.5))
    hue = np.array([0.62, 0.42, 0.25]) * rng.uniform(0.5, 1.5) + rng.normal(0, 0.03, 3)
    return _turn(rng, _tone(hue, 0.5 * rings + 0.5 * fibre, rng.uniform(0.08, 0.2)).astype(np.float32))


def concrete(rng: np.random.Generator, size: int) -> np.ndarray:
    grain = 0.6 * _noise(rng, size, rng.uniform(20, 80), 4) + 0.7 * _noise(rng, size, rng.uniform(1, 3))
    image = _tone(_colour(rng, (0, 0.2), (0.25, 0.8)), grain, rng.uniform(0.05, 0.16))
    pores = _noise(rng, size, rng.uniform(3, 7)) > rng.uniform(2.3, 3.2)
    return np.where(pores[..., None], image * 0.6, image)


def leather(rng: np.random.Generator, size: int) -> np.ndarray:
    points = rng.random((max(30, int((size / rng.uniform(5, 14)) ** 2)), 2)) * size
    canvas = np.full((size, size), 255, np.uint8)
    canvas[np.clip(points[:, 1].astype(int), 0, size - 1), np.clip(points[:, 0].astype(int), 0, size - 1)] = 0
    distance = cv2.distanceTransform(canvas, cv2.DIST_L2, 5)
    pattern = cv2.GaussianBlur((distance - distance.mean()) / (distance.std() + 1e-6), (0, 0), rng.uniform(0.6, 1.5))
    return _tone(_colour(rng, (0.1, 0.8), (0.15, 0.7)), -pattern + 0.3 * _noise(rng, size, 50), rng.uniform(0.08, 0.2))


def speckle(rng: np.random.Generator, size: int) -> np.ndarray:
    image = np.tile(_colour(rng), (size, size, 1))
    for _ in range(int(rng.integers(2, 5))):
        spots = _noise(rng, size, rng.uniform(1.5, 8)) > rng.uniform(0.8, 2.0)
        image = np.where(spots[..., None], _colour(rng), image)
    return cv2.GaussianBlur(image.astype(np.float32), (0, 0), rng.uniform(0.5, 1.2))


def tiles(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(np.float32)
    height, width, joint = rng.uniform(30, 120), rng.uniform(30, 120), rng.uniform(2, 7)
    shift = (y // height) * width * rng.choice([0, 0.5])
    gap = ((y % height) < joint) | (((x + shift) % width) < joint)
    face = _tone(_colour(rng), _noise(rng, size, 60, 3), rng.uniform(0.02, 0.1))
    image = np.where(gap[..., None], _colour(rng, (0, 0.3)), face)
    return cv2.GaussianBlur(_turn(rng, image.astype(np.float32), free=rng.random() < 0.4), (0, 0), 0.8)


def gradient(rng: np.random.Generator, size: int) -> np.ndarray:
    ramp = np.linspace(-1, 1, size, dtype=np.float32)[:, None] * np.ones(size, np.float32)
    return _turn(rng, _tone(_colour(rng, value=(0.4, 0.8)), ramp, rng.uniform(0.1, 0.4)).astype(np.float32))


def grid(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(np.float32)
    period, wire = rng.uniform(12, 40), rng.uniform(0.2, 0.5)
    bars = ((x % period) < wire * period) | ((y % period) < wire * period)
    shade = 1 + 0.3 * np.where(bars, np.cos(2 * np.pi * x / period) * np.cos(2 * np.pi * y / period), 0)
    image = (
        np.where(bars[..., None], _colour(rng, (0, 0.3), (0.4, 0.9)), _colour(rng, value=(0.05, 0.5)))
        * shade[..., None]
    )
    return cv2.GaussianBlur(_turn(rng, image.astype(np.float32)), (0, 0), 0.9)


def machined(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(np.float32)
    centre = rng.uniform(-size, 2 * size, 2)
    radius = np.hypot(x - centre[0], y - centre[1])
    line = rng.standard_normal(int(4 * size)).astype(np.float32)
    line = cv2.GaussianBlur(line[None], (0, 0), rng.uniform(0.6, 2))[0]
    pattern = np.interp(radius.ravel() % (4 * size - 1), np.arange(4 * size), line / line.std()).reshape(size, size)
    return _tone(_colour(rng, (0, 0.2), (0.25, 0.8)), pattern + 0.5 * _noise(rng, size, 60), rng.uniform(0.04, 0.14))


def edge(rng: np.random.Generator, size: int) -> np.ndarray:
    """Two surfaces meeting at a straight or curved edge: parts have borders, and defects touch them."""
    first, second = (SURFACES[k](rng, size) for k in rng.choice([k for k in SURFACES if k != "edge"], 2))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3) / size
    u, v = (
        (x - size / 2) * np.cos(angle) + (y - size / 2) * np.sin(angle),
        (y - size / 2) * np.cos(angle) - (x - size / 2) * np.sin(angle),
    )
    side = 1 / (
        1 + np.exp(-np.clip((u + bend * v**2 + rng.uniform(-size / 4, size / 4)) / rng.uniform(0.5, 2), -30, 30))
    )
    rim = np.exp(-(((side - 0.5) * 4) ** 2)) * rng.uniform(-0.25, 0.25)
    return first * side[..., None] + second * (1 - side[..., None]) + rim[..., None]


SURFACES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "brushed_metal": brushed_metal,
    "smooth_plastic": smooth_plastic,
    "weave": weave,
    "wood": wood,
    "concrete": concrete,
    "leather": leather,
    "speckle": speckle,
    "tiles": tiles,
    "gradient": gradient,
    "grid": grid,
    "machined": machined,
    "edge": edge,
}


def render(rng: np.random.Generator, size: int = 160) -> tuple[np.ndarray, str]:
    """A surface (size, size, 3) uint8 with uneven light, focus and grain, and its name."""
    name = str(rng.choice(list(SURFACES)))
    image = SURFACES[name](rng, size).astype(np.float32)
    if rng.random() < 0.6:
        image = _tone(image, _noise(rng, size, rng.uniform(size / 2, 2 * size)), rng.uniform(0.02, 0.15))
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.3))
    if rng.random() < 0.25:
        image = image.mean(2, keepdims=True).repeat(3, 2)  # many inspection cameras are grey
    image = image + rng.normal(0, rng.uniform(0.002, 0.03), image.shape)
    return np.clip(image * 255, 0, 255).astype(np.uint8), name
