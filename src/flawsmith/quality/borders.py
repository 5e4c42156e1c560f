"""Does the border betray the defect? Lines of the surface that end at it, and lines of the defect that are cut off."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.quality.looks import Look, blurred, slopes

REACH = 3.0  # px beside the border at which lines are looked for
SLACK = np.arange(-4.0, 5.0)[:, None]  # px along the border by which a line may be displaced and still goes on
NOISE, MOST = 1.0, 15.0  # L*a*b* units per px: weaker lines are texture, stronger ones count no more


def broken_lines(look: Look) -> tuple[float, float]:
    """(of the surface, of the defect): how much of the lines that meet the border does not go on behind it.

    A line is a gradient along the border, just outside or just inside it; it goes on where the other side has the same
    one within a few pixels. In L*a*b* units, summed along the border and divided by the defect's side, so that a seam
    all around a large patch counts as it strikes the eye.
    """
    x, y, inwards = _border(look)
    if len(x) < 8:
        return 0.0, 0.0
    gradients = slopes(look.soft(1.0))
    along = np.stack([-inwards[1], inwards[0]])

    def lines(reach: float, shifts: np.ndarray) -> np.ndarray:
        """Gradients along the border, (s, n, C), at `reach` inwards and each of `shifts` (s, 1) along."""
        px, py = x + reach * inwards[0] + shifts * along[0], y + reach * inwards[1] + shifts * along[1]
        found = [_at(slope, px, py) * part[:, None] for slope, part in zip(gradients, along, strict=True)]
        return np.asarray(found[0] + found[1])

    found = []
    for own in (-REACH, REACH):
        (here,) = lines(own, np.zeros((1, 1)))
        strength = np.linalg.norm(here, axis=1)
        there = np.einsum("snc,nc->sn", lines(-own, SLACK), here)
        goes_on = np.clip(np.max(there, axis=0) / np.maximum(strength, 1e-3), 0, None)
        found.append(float(np.clip(strength - goes_on - NOISE, 0, MOST).sum()) / look.side)
    return found[0], found[1]


def _border(look: Look) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The label's border pixels (n,), (n,) that are clear of the frame, and the direction inwards (2, n)."""
    smooth = blurred(np.clip(look.distance, -50, 50), 1.5)
    slope = np.stack(slopes(smooth))
    length = np.linalg.norm(slope, axis=0)
    edge = look.label & ~cv2.erode(look.label.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1).astype(bool)
    edge[:5], edge[-5:], edge[:, :5], edge[:, -5:] = False, False, False, False
    rows, columns = np.nonzero(edge & (length > 0.3))
    return columns.astype(float), rows.astype(float), slope[:, rows, columns] / length[rows, columns]


def _at(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values (h, w, C) at points (s, n), between pixels linearly: (s, n, C)."""
    points = x.astype(np.float32), y.astype(np.float32)
    found = cv2.remap(values, *points, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found.reshape(*x.shape, -1))


def edges_made(look: Look) -> float:
    """The contrast of new edges at the border over the change inside it; about 0 for a veil that has no outline."""
    border = np.abs(look.distance) <= 1.6
    if not border.any():  # the label fills the photograph
        return 0.0
    change = np.linalg.norm(look.lab[look.label] - look.lab_before[look.label], axis=1).mean()
    steps = [_gradient(one.soft(1.0), border).mean() for one in (look, look.before)]
    return float((steps[0] - steps[1]) / max(float(change), 1e-3))


def _gradient(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Length of the gradient over all channels, per px, at the pixels of a mask, (n,)."""
    parts = [slope[where] for slope in slopes(values)]
    return np.asarray(np.sqrt(sum(np.einsum("nc,nc->n", part, part) for part in parts)))
