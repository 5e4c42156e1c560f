"""Does the border betray the defect? Lines of the surface that end at it, and lines of the defect that are cut off."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.quality.looks import Look, blurred

REACH = 3.0  # px beside the border at which lines are looked for
SLACK = range(-4, 5)  # px along the border by which a line may be displaced and still goes on
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
    smooth = blurred(look.lab, 1.0)
    channels = [np.ascontiguousarray(smooth[..., c]) for c in range(3)]
    slopes = [[cv2.Sobel(one, cv2.CV_32F, *d) / 8 for d in ((1, 0), (0, 1))] for one in channels]
    along = np.stack([-inwards[1], inwards[0]])

    def lines(reach: float, shift: float) -> np.ndarray:
        """Gradients along the border, (n, 3), at `reach` inwards and `shift` along."""
        px, py = x + reach * inwards[0] + shift * along[0], y + reach * inwards[1] + shift * along[1]
        return np.stack([_at(sx, px, py) * along[0] + _at(sy, px, py) * along[1] for sx, sy in slopes], axis=1)

    found = []
    for own in (-REACH, REACH):
        here = lines(own, 0)
        strength = np.linalg.norm(here, axis=1)
        there = [np.einsum("nc,nc->n", lines(-own, shift), here) for shift in SLACK]
        goes_on = np.clip(np.max(there, axis=0) / np.maximum(strength, 1e-3), 0, None)
        found.append(float(np.clip(strength - goes_on - NOISE, 0, MOST).sum()) / look.side)
    return found[0], found[1]


def _border(look: Look) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The label's border pixels (n,), (n,) that are clear of the frame, and the direction inwards (2, n)."""
    smooth = blurred(np.clip(look.distance, -50, 50), 1.5)
    slope = np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(smooth, cv2.CV_32F, 0, 1) / 8])
    length = np.linalg.norm(slope, axis=0)
    edge = look.label & ~cv2.erode(look.label.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1).astype(bool)
    edge[:5], edge[-5:], edge[:, :5], edge[:, -5:] = False, False, False, False
    rows, columns = np.nonzero(edge & (length > 0.3))
    return columns.astype(float), rows.astype(float), slope[:, rows, columns] / length[rows, columns]


def _at(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values (h, w) at points (n,), between pixels linearly."""
    points = x.astype(np.float32)[None], y.astype(np.float32)[None]
    return np.asarray(cv2.remap(values, *points, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0])


def edges_made(look: Look) -> float:
    """The contrast of new edges at the border over the change inside it; about 0 for a veil that has no outline."""
    border = np.abs(look.distance) <= 1.6
    if not border.any():  # the label fills the photograph
        return 0.0
    change = np.linalg.norm(look.lab[look.label] - look.lab_before[look.label], axis=1).mean()
    steps = [_gradient(blurred(values, 1.0), border).mean() for values in (look.lab, look.lab_before)]
    return float((steps[0] - steps[1]) / max(float(change), 1e-3))


def _gradient(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Length of the gradient over all channels, per px, at the pixels of a mask, (n,)."""
    parts = [cv2.Sobel(values, cv2.CV_32F, *d)[where] / 8 for d in ((1, 0), (0, 1))]
    return np.asarray(np.sqrt(sum(np.einsum("nc,nc->n", part, part) for part in parts)))
