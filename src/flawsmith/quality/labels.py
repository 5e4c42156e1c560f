"""Does the label say what changed? It is mended where it does not, shrunk where it says too much."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith import compose

GAP = 5  # px: the change is closed over gaps of two pixels, as `compose.finish` does
HOLE = 0.01  # of the label: a larger place without any change is no defect


def agreement(normal: np.ndarray, image: np.ndarray, label: np.ndarray, tolerance: float) -> float:
    """Intersection over union of a label (h, w) bool and what changed by more than `tolerance` grey levels; 0 to 1."""
    changed = compose.changed_region(normal, image, tolerance)
    union = int(np.count_nonzero(changed | label))
    return float(np.count_nonzero(changed & label) / union) if union else 0.0


def shrunk(normal: np.ndarray, image: np.ndarray, label: np.ndarray, tolerance: float) -> np.ndarray:
    """A label (h, w) bool without its large places in which nothing changed; never larger."""
    changed = (compose.changed_region(normal, image, tolerance) & label).astype(np.uint8)
    near = cv2.morphologyEx(
        np.pad(changed, GAP), cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (GAP, GAP))
    )[GAP:-GAP, GAP:-GAP].astype(bool)
    count, parts, stats, _ = cv2.connectedComponentsWithStats((label & ~near).astype(np.uint8), connectivity=4)
    large = stats[1:, cv2.CC_STAT_AREA] > max(16.0, HOLE * np.count_nonzero(label))
    return np.asarray(label & ~np.concatenate([[False], large])[parts]) if count > 1 else label
