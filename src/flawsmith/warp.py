"""Warp: the one map that carries a reference's mask and its pixels to the photograph, so that they always agree."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from flawsmith.errors import FlawsmithError

BEND_SHARE = 0.1  # displacement at bend 1, as a share of `extent`; the map stays one-to-one (slope below 0.9)


@dataclass(frozen=True)
class Warp:
    """Affine map plus an optional smooth elastic bend.

    `matrix` takes a reference pixel (x, y) to the photograph, 2 rows of 3. `bend` (0 to 1) displaces smoothly by up
    to a tenth of `extent` (the defect's size in reference pixels), with waves drawn from `bend_seed`.
    """

    matrix: tuple[tuple[float, float, float], tuple[float, float, float]] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    bend: float = 0.0
    bend_seed: int = 0
    extent: float = 64.0

    @property
    def scale(self) -> float:
        """Enlargement of lengths."""
        (a, b, _), (c, d, _) = self.matrix
        return math.sqrt(abs(a * d - b * c))

    def moved(self, right: float, down: float) -> Warp:
        """The same warp, shifted in the photograph."""
        (a, b, x), (c, d, y) = self.matrix
        return Warp(((a, b, x + right), (c, d, y + down)), self.bend, self.bend_seed, self.extent)

    def source(self, window: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Where the pixels of a window (top, left, bottom, right) come from: x and y in the reference, (h, w) float64.

        Every value depends on the pixel alone, not on the window, so that any two windows agree.
        """
        (a, b, e), (c, d, f) = self.matrix
        determinant = a * d - b * c
        if abs(determinant) < 1e-9:
            raise FlawsmithError(f"Warp matrix {self.matrix} cannot be inverted: it flattens the reference.")
        top, left, bottom, right = window
        column = np.arange(left, right, dtype=np.float64)[None, :] - e
        row = np.arange(top, bottom, dtype=np.float64)[:, None] - f
        to_x, to_y = (d / determinant, -b / determinant), (-c / determinant, a / determinant)
        x = to_x[0] * column + to_x[1] * row
        y = to_y[0] * column + to_y[1] * row
        if not self.bend:
            return x, y
        rng = np.random.default_rng(self.bend_seed)
        amplitude = self.bend * BEND_SHARE * self.extent / 1.5
        bent = []
        for plain in (x, y):
            moved = plain
            for weight, low, high in ((1.0, 0.9, 1.6), (0.5, 0.5, 0.9)):
                angle, phase = rng.uniform(0, 2 * math.pi, 2)
                pace = 2 * math.pi / (self.extent * rng.uniform(low, high))
                kx, ky = pace * math.cos(angle), pace * math.sin(angle)
                # sin(along + across) split into products of one row and one column: no sine per pixel.
                along = (kx * to_x[0] + ky * to_y[0]) * column
                across = (kx * to_x[1] + ky * to_y[1]) * row + phase
                moved = moved + amplitude * weight * (np.sin(along) * np.cos(across) + np.cos(along) * np.sin(across))
            bent.append(moved)
        return bent[0], bent[1]

    def apply(self, array: np.ndarray, shape: tuple[int, ...], window: tuple[int, int, int, int]) -> np.ndarray:
        """Carry a reference array to a window (top, left, bottom, right) of a photograph of the given shape.

        array: (H, W) bool, or (H, W) or (H, W, C) uint8 or float32. A mask is interpolated and cut at one half, and
        False beyond the reference; other arrays are interpolated (cubic, linear for float) and mirrored beyond it.
        The window may reach beyond the photograph. Returns (bottom - top, right - left[, C]) of the same type.
        """
        x, y = self.source(window)
        height, width = array.shape[:2]
        beyond = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
        # To the 32nd of a pixel, which single precision holds: the same from whatever window.
        x, y = (np.rint(_mirror(v, n) * 32) / 32 for v, n in ((x, width), (y, height)))
        # Shrinking: soften first, or fine lines would flicker in and out.
        sigma = 0.45 * math.sqrt(1 / self.scale**2 - 1) if self.scale < 0.7 else 0.0
        # Only the part of the reference that is used is touched: references may be large.
        margin = 4 + math.ceil(4 * sigma)
        left, right = max(0, int(x.min()) - margin), min(width, int(x.max()) + margin + 2)
        top, bottom = max(0, int(y.min()) - margin), min(height, int(y.max()) + margin + 2)
        part = array[top:bottom, left:right]
        mask = array.dtype == bool
        part = part.astype(np.float32) if mask else np.ascontiguousarray(part)
        if sigma:
            part = cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        flow = (x - left).astype(np.float32), (y - top).astype(np.float32)
        cubic = cv2.INTER_CUBIC if part.dtype == np.uint8 else cv2.INTER_LINEAR
        if np.array_equal(flow[0], np.rint(flow[0])) and np.array_equal(flow[1], np.rint(flow[1])):
            cubic = cv2.INTER_NEAREST  # whole pixels: the exact values
        carried = cv2.remap(part, flow[0], flow[1], cubic, borderMode=cv2.BORDER_REPLICATE)
        return (carried >= 0.5) & ~beyond if mask else np.asarray(carried)

    def to_json(self) -> str:
        """One line of JSON for the manifest."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Warp:
        """The inverse of `to_json`. Raises FlawsmithError when the text is not a warp."""
        try:
            given = json.loads(text)
            (a, b, e), (c, d, f) = given["matrix"]
            matrix = ((float(a), float(b), float(e)), (float(c), float(d), float(f)))
            return cls(matrix, float(given["bend"]), int(given["bend_seed"]), float(given.get("extent", 64.0)))
        except (ValueError, KeyError, TypeError) as error:
            raise FlawsmithError(f"{text[:80]!r} is not a warp: {error}.") from error


def _mirror(values: np.ndarray, length: int) -> np.ndarray:
    """Fold coordinates into 0..length - 1 by reflection at the outermost pixels."""
    if length == 1:
        return np.zeros_like(values)
    if values.min() >= 0 and values.max() <= length - 1:
        return values
    folded = np.mod(values, 2 * (length - 1))
    return np.minimum(folded, 2 * (length - 1) - folded)
