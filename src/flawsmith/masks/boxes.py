"""A first guess of which pixels in a box are the defect, without a model: for data sets that mark defects by boxes.

Colours inside the box are cut apart from those around it. A box is drawn tightly, so that what is found must reach
across it; where it does not, an ellipse is proposed. Reference: Rother et al., "GrabCut", SIGGRAPH 2004.
"""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith import images

REDUCED = 96  # longest side of the copy that is cut
WIDE = 0.4  # width of the surroundings, in parts of the box's longer side
ACROSS = 0.8  # share of the box's width and height that a defect must reach over
LEAST = 0.2  # share of the box that it must fill
SMALL = 16  # pixels of a box in the copy that are too few to tell
ROUNDS = 3


def within(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The likeliest defect in a box (top, left, bottom, right) of (H, W, 3) uint8: bool of the box's size, never empty.

    A proposal to be looked at: boxes say where a defect is, not which pixels it has. The same pixels every time.
    """
    top, left, bottom, right = box
    height, width = bottom - top, right - left
    grow = max(4, round(WIDE * max(height, width)))
    up, start = max(0, top - grow), max(0, left - grow)
    view = image[up : bottom + grow, start : right + grow]
    small, step = images.reduced(view, REDUCED)
    small = np.ascontiguousarray(small)
    rows, columns = _span(top - up, bottom - up, step), _span(left - start, right - start, step)
    labels = np.full(small.shape[:2], cv2.GC_BGD, dtype=np.uint8)
    labels[rows, columns] = cv2.GC_PR_FGD
    if labels[rows, columns].size < SMALL or not (labels == cv2.GC_BGD).any():
        return ellipse(height, width)
    cv2.setRNGSeed(0)  # GrabCut begins with random centres of OpenCV's own generator
    cv2.grabCut(small, labels, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = cv2.morphologyEx((labels[rows, columns] & 1).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    outline, _ = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(found), outline, -1, 1, cv2.FILLED)
    reach = np.flatnonzero(filled.any(axis=1)), np.flatnonzero(filled.any(axis=0))
    across = [
        len(ends) > 0 and ends[-1] - ends[0] + 1 >= ACROSS * n for ends, n in zip(reach, filled.shape, strict=True)
    ]
    if not all(across) or filled.mean() < LEAST:
        return ellipse(height, width)
    return np.asarray(cv2.resize(filled * 255, (width, height), interpolation=cv2.INTER_LINEAR) >= 128)


def _span(begin: int, end: int, step: float) -> slice:
    first = round(begin / step)
    return slice(first, max(first + 1, round(end / step)))


def ellipse(height: int, width: int) -> np.ndarray:
    """The ellipse that touches all four sides of a box, (height, width) bool."""
    rows, columns = np.mgrid[:height, :width]
    down, along = 2 * (rows + 0.5) / height - 1, 2 * (columns + 0.5) / width - 1
    return np.asarray(down**2 + along**2 <= 1.1)
