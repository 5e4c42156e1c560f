"""Defects that reach the edge of their object reach an edge again where they are moved: a chip has no other place."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.masks.placement import Ground

TOUCHES = 4.0  # pixels between a defect and its object's edge, at most, where it reaches it
SMOOTH = 3.0  # reduced pixels over which the direction of an edge is taken


@dataclass(frozen=True)
class Rim:
    """Where a mask meets its object's edge: a point (2,) around the mask's middle, and the unit direction out (2,).

    The photograph's own border is an edge, too: a surface that fills the frame ends there.
    """

    point: np.ndarray
    outward: np.ndarray

    @staticmethod
    def of(ground: Ground, real: np.ndarray, mask: np.ndarray, middle: np.ndarray) -> Rim | None:
        """None where the `real` defect (H, W) bool lies clear of the edge of its object, `ground`.

        mask: (H, W) bool, the real one's new shape in its place, or itself; middle (2,): its middle as x and y.
        """
        view = slice(ground.top, None, ground.step), slice(ground.left, None, ground.step)
        height, width = ground.small.shape
        depth = cv2.distanceTransform(np.pad(ground.small.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        there, shape = (part[view][:height, :width] for part in (real, mask))
        if not (there & (depth > 0)).any() or depth[there & (depth > 0)].min() * ground.step > TOUCHES + ground.step:
            return None
        count, parts, stats, _ = cv2.connectedComponentsWithStats((shape & (depth > 0)).astype(np.uint8))
        if count < 2:
            return None
        rows, columns = np.nonzero(parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))
        least = depth[rows, columns] <= depth[rows, columns].min() + 0.5
        rows, columns = rows[least], columns[least]
        nearest = int(np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean())))
        row, column = int(rows[nearest]), int(columns[nearest])
        smooth = cv2.GaussianBlur(np.pad(depth, 8), (0, 0), SMOOTH)
        out = -np.array([part[row + 8, column + 8] for part in np.gradient(smooth)[::-1]])
        length = float(np.linalg.norm(out))
        if length < 1e-6:
            return None
        corner = np.array([ground.left, ground.top], dtype=float)
        return Rim(corner + np.array([column, row]) * ground.step - middle, out / length)

    def shifts(self, centres: np.ndarray, linear: np.ndarray, scales: np.ndarray, product: Ground) -> np.ndarray:
        """How far poses (K, 2) must move so that this point lies at the product's edge, along its own way out, (K, 2).

        linear (K, 2, 2) enlarges by `scales` (K,), turns and mirrors. 0 where that way meets no edge.
        """
        at = linear @ self.point + centres
        out = (linear @ self.outward) / scales[:, None]
        reach = max(product.small.shape)
        steps = np.arange(-reach, reach + 1) * product.step
        points = at[:, None] + steps[None, :, None] * out[:, None]
        inside = product.lookup(points[..., 0], points[..., 1])
        leaves = inside[:, :-1] & ~inside[:, 1:]
        away = np.where(leaves, np.abs(steps[1:])[None], np.inf)
        nearest = away.argmin(axis=1)
        far = np.where(leaves.any(axis=1), steps[1:][nearest], 0)
        return np.asarray(far[:, None] * out)
