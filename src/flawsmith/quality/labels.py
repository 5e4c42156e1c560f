"""Does the label say what changed? It is mended where it does not, shrunk where it says too much."""

from __future__ import annotations

import cv2
import numpy as np

GAP = 5  # px: the change is closed over gaps of two pixels, as `compose.finish` does
HOLE = 0.01  # of the label: a larger place without any change is no defect


def agreement(changed: np.ndarray, label: np.ndarray) -> float:
    """Intersection over union of a label and what changed (`compose.changed_region`), both (h, w) bool; 0 to 1."""
    union = int(np.count_nonzero(changed | label))
    return float(np.count_nonzero(changed & label) / union) if union else 0.0


def shrunk(changed: np.ndarray, label: np.ndarray) -> np.ndarray:
    """A label (h, w) bool without its large places in which nothing `changed` (h, w) bool; never larger."""
    inside = np.pad((changed & label).astype(np.uint8), GAP)
    near = cv2.morphologyEx(inside, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (GAP, GAP)))[
        GAP:-GAP, GAP:-GAP
    ].astype(bool)
    count, parts, stats, _ = cv2.connectedComponentsWithStats((label & ~near).astype(np.uint8), connectivity=4)
    large = stats[1:, cv2.CC_STAT_AREA] > max(16.0, HOLE * np.count_nonzero(label))
    return np.asarray(label & ~np.concatenate([[False], large])[parts]) if count > 1 else label
