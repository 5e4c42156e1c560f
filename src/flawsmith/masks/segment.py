"""Finding the object in a photograph without any model."""

from __future__ import annotations

import numpy as np


def foreground(image: np.ndarray) -> np.ndarray:
    """Stub."""
    return np.ones(image.shape[:2], dtype=bool)
