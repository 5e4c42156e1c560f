"""Plates of even grey and grain, darker spots on them, and what a gate is asked of them."""

from __future__ import annotations

import numpy as np

from flawsmith.records import Request, Sample

SIDE = 128


def surface(grain: float = 2.0, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """An even grey surface with grain of this standard deviation, (side, side, 3) uint8."""
    noise = np.random.default_rng(seed).normal(0, grain, (side, side, 1))
    return np.repeat(np.clip(np.rint(140 + noise), 0, 255).astype(np.uint8), 3, axis=2)


def disc(radius: float, centre: tuple[int, int] = (SIDE // 2, SIDE // 2), side: int = SIDE) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray(np.hypot(rows - centre[0], columns - centre[1]) <= radius)


def darker(photo: np.ndarray, mask: np.ndarray, by: int) -> np.ndarray:
    return np.where(mask[..., None], np.clip(photo.astype(int) - by, 0, 255), photo).astype(np.uint8)


def asked(photo: np.ndarray, mask: np.ndarray, kind: str = "hole", **more: object) -> Request:
    return Request(Sample(photo, np.zeros(mask.shape, bool), "plate"), mask, kind, seed=1, **more)


def made(image: np.ndarray, mask: np.ndarray, kind: str = "hole") -> Sample:
    return Sample(image, mask, "plate", kind)
