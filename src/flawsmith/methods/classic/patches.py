"""Patches of photographs as material: another place of the same image, turned and resized."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith import images


def take(
    photo: np.ndarray,
    shape: tuple[int, int],
    rng: np.random.Generator,
    resize: tuple[float, float] = (1.0, 1.0),
    flip: bool = False,
) -> tuple[np.ndarray, list[int]]:
    """Cut a patch (h, w, 3) uint8 of `shape` from a random place of a photograph (H, W, 3).

    The patch is cut `resize` times smaller or larger (drawn log-uniformly) and brought to the shape; a photograph
    too small for it is cut as large as it allows. Returns the patch and its source [top, left, height, width].
    """
    factor = float(np.exp(rng.uniform(np.log(resize[0]), np.log(resize[1]))))
    height, width = (
        max(1, min(round(side / factor), limit)) for side, limit in zip(shape, photo.shape[:2], strict=True)
    )
    top = int(rng.integers(0, photo.shape[0] - height + 1))
    left = int(rng.integers(0, photo.shape[1] - width + 1))
    patch = photo[top : top + height, left : left + width]
    if patch.shape[:2] != tuple(shape):
        patch = images.resize(patch, *shape)
    if flip and rng.random() < 0.5:
        patch = patch[:, ::-1]
    if flip and rng.random() < 0.5:
        patch = patch[::-1]
    return np.ascontiguousarray(patch), [top, left, height, width]


def take_different(
    photo: np.ndarray,
    there: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    resize: tuple[float, float] = (1.0, 1.0),
    flip: bool = False,
    tries: int = 8,
    mean_apart: bool = False,
) -> tuple[np.ndarray, list[int]]:
    """Of several patches, one that would be seen: its pixels under the mask differ from `there` (h, w, 3).

    On a plain product most places look alike, and a patch from a like place is no defect. The choice falls on one of
    the best quarter, by chance. `mean_apart` compares without the mean colour, for blending that matches colours.
    """
    step = max(1, max(mask.shape) // 64)
    view = (slice(None, None, step), slice(None, None, step))
    inside = mask[view] if mask[view].any() else np.ones_like(mask[view])
    old = there[view][inside].astype(np.float32)
    seeds = rng.integers(0, 2**63, tries)  # the chosen patch is cut again: a dozen large ones are not kept
    scores = []
    for seed in seeds:
        patch, _ = take(photo, mask.shape, np.random.default_rng(seed), resize, flip)
        gap = patch[view][inside] - old
        if mean_apart:
            gap = gap - gap.mean(axis=0)
        scores.append(float(np.abs(gap).mean()))
    order = np.argsort(scores)[::-1]
    chosen = seeds[order[int(rng.integers(0, max(1, tries // 4)))]]
    return take(photo, mask.shape, np.random.default_rng(chosen), resize, flip)


def turned(patch: np.ndarray, degrees: float) -> np.ndarray:
    """A patch (h, w, 3) turned around its middle, mirrored at its borders."""
    height, width = patch.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(patch, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)


def is_grey(photo: np.ndarray) -> bool:
    """Whether a photograph (H, W, 3) was taken by a grey camera: equal channels on a grid of its pixels."""
    seen = photo[:: max(1, photo.shape[0] // 64), :: max(1, photo.shape[1] // 64)]
    return bool((seen == seen[..., :1]).all())
