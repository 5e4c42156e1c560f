"""Small images for a page, as WebP in strips, at the largest size that keeps the page light."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from flawsmith import compose, images

BUDGET = 30_000_000  # bytes of all images in a page, after base64
LEVELS = ((256, 80), (192, 76), (160, 72), (128, 66), (112, 60), (96, 54), (80, 46), (64, 40))  # (pixels, quality)
STRONG = 96  # grey levels of change at which the map's scale ends
Level = tuple[int, int]


def whole(image: np.ndarray, mask: np.ndarray, normal: np.ndarray | None, level: Level) -> str:
    """Three cells of the image's own shape beside each other: image, mask, change; base64 of a WebP."""
    flat = np.zeros(mask.shape, np.uint8) if normal is None else images.brightest(cv2.absdiff(image, normal))
    strength = np.clip(flat.astype(np.float32) * (255 / STRONG), 0, 255).astype(np.uint8)
    shown = [_small(image, level[0]), _small(_thick(mask.astype(np.uint8) * 255, level[0]), level[0])]
    heat = cv2.applyColorMap(_small(_thick(strength, level[0]), level[0]), cv2.COLORMAP_CIVIDIS)
    cells = [shown[0], cv2.cvtColor(shown[1], cv2.COLOR_GRAY2RGB), cv2.cvtColor(heat, cv2.COLOR_BGR2RGB)]
    return encode(np.concatenate(cells, axis=1), level)


def zoomed(parts: Sequence[np.ndarray], mask: np.ndarray, level: Level) -> str:
    """The square around the defect in each of `parts`, beside each other; base64 of a WebP."""
    view = compose.square_window(mask, minimum=48, context=1.8).slices
    return encode(np.concatenate([images.fit(part[view], level[0], background=128) for part in parts], axis=1), level)


def plain(image: np.ndarray, level: Level) -> str:
    """The image alone; base64 of a WebP."""
    return encode(_small(image, level[0]), level)


def encode(image: np.ndarray, level: Level) -> str:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, buffer = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, level[1]])
    return base64.b64encode(buffer.tobytes()).decode()


def _small(image: np.ndarray, side: int) -> np.ndarray:
    """Shrunk so that the longer side is `side`; never enlarged."""
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return image if scale == 1 else cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _thick(grey: np.ndarray, side: int) -> np.ndarray:
    """Thin lines made as wide as a pixel of the small image, so that shrinking does not wash them out."""
    step = round(max(grey.shape) / side)
    return cv2.dilate(grey, np.ones((step, step), np.uint8)) if step > 1 else grey


def choose(weigh: Sequence[Callable[[Level], int]], count: int, shared: int, budget: int = BUDGET) -> tuple[Level, int]:
    """The first level at which `count` images fit into the budget, and how many do (fewer only at the last level).

    weigh: for images evenly spaced over all of them, the bytes each takes at a level. `shared`: images shown besides,
    counted with a quarter of an image's bytes each.
    """
    sizes = {}
    for level in LEVELS:
        each = float(np.mean([one(level) for one in weigh])) if weigh else 0.0
        sizes[level] = each
        if each * (count + shared / 4) <= budget:
            return level, count
    return LEVELS[-1], int(budget / sizes[LEVELS[-1]])
