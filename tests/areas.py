"""Areas that tests of masks draw on, and a reference whose mask they move."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.records import Sample


def disc(side: int = 256, radius: int = 110) -> np.ndarray:
    """A round object in the middle of a photograph, (side, side) bool."""
    y, x = np.ogrid[:side, :side]
    return np.asarray(np.hypot(y - side / 2, x - side / 2) < radius)


def parts(mask: np.ndarray) -> int:
    """Of how many connected parts a mask (H, W) bool is."""
    return int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0]) - 1


def a_reference(side: int = 160, radius: int = 12, at: tuple[int, int] = (60, 70)) -> Sample:
    """A bright spot with a dark core on a shaded grained ground, its mask the spot."""
    y, x = np.mgrid[:side, :side]
    away = np.hypot(y - at[1], x - at[0])
    rng = np.random.default_rng(0)
    grey = 90 + 0.2 * x + rng.normal(0, 2, (side, side)) + 90 * (away < radius) - 60 * (away < radius / 2)
    image = np.clip(np.repeat(grey[..., None], 3, axis=2), 0, 255).astype(np.uint8)
    return Sample(image, away < radius, defect_type="spot")
