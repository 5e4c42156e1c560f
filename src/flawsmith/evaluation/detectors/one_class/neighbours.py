"""The mathematics of a one-class detector: how far a patch is from every normal one, in channels that are weighed.

Reference: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022 (memory, greedy coreset,
nearest neighbour). Ours: a weight per channel, which can be learnt from defects.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

SMOOTH = 64  # an anomaly map is smoothed by a Gaussian whose s.d. is its side over this: 4 px at 256


@dataclass(frozen=True)
class Patches:
    """An image as the detector sees it: rows of features, the mask at the map's scale, the type ("good" without)."""

    rows: Tensor  # (G * G, C) float16, a row per cell of the grid
    widths: tuple[int, ...]  # channels of each map, C in all
    mask: np.ndarray  # (S, S) bool
    kind: str

    @property
    def grid(self) -> int:
        return int(len(self.rows) ** 0.5)


@dataclass(frozen=True)
class Detector:
    """A memory of normal patches and a weight per channel; `middle` is the median of the held-out normals' maps."""

    memory: Tensor  # (M, C) float32
    weights: Tensor  # (C,), not negative
    middle: float = 1.0

    def squared(self, rows: Tensor) -> Tensor:
        """Squared difference of every channel to the nearest normal patch: (N, C) -> (N, C)."""
        known = rows.float()
        return (known - self.memory[nearest(known, self.memory, self.weights)]) ** 2

    def distances(self, seen: Patches) -> np.ndarray:
        """The smoothed map (S, S) float32 of weighted distances of an image."""
        found = (self.squared(seen.rows) @ self.weights).sqrt().reshape(seen.grid, seen.grid)
        side = len(seen.mask)
        large = cv2.resize(found.cpu().numpy(), (side, side), interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.GaussianBlur(large, (0, 0), side / SMOOTH))

    def scored(self, seen: Patches) -> np.ndarray:
        """The anomaly map in [0, 1): d / (d + middle), so that half of a normal image lies below 0.5."""
        distance = self.distances(seen)
        return distance / (distance + self.middle)


def nearest(rows: Tensor, memory: Tensor, weights: Tensor) -> Tensor:
    """The row of `memory` (M, C) with the least weighted squared distance to each of `rows` (N, C): (N,) int64."""
    scaled = memory * weights
    return ((memory * scaled).sum(1) - 2 * rows @ scaled.T).argmin(1)


def coreset(rows: Tensor, count: int) -> Tensor:
    """`count` of the rows (N, C), each the farthest from those before it, starting at row 0: indices (K,), K <= N."""
    chosen = [0]
    distance = torch.full((len(rows),), torch.inf, device=rows.device)
    norms = (rows**2).sum(1)
    while len(chosen) < min(count, len(rows)):
        last = rows[chosen[-1]]
        distance = torch.minimum(distance, norms - 2 * rows @ last + last @ last)
        distance[chosen[-1]] = -torch.inf
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen)


def tune(squared: np.ndarray, truth: np.ndarray, share: np.ndarray, weights: np.ndarray, pull: float) -> np.ndarray:
    """Weights (C,) under which defect patches are far from normal ones, by logistic regression; not negative.

    squared (N, C): squared differences to the nearest normal patch; truth (N,): is it a defect; share (N,): the rows'
    weights, each side adds up to a half; weights (C,): those without defects. The logit is b + sum over c of
    v_c s w_c squared_c, with s from a fit of all v_c = 1, and `pull` x mean (v_c - 1)^2 is added to the loss. The sum
    of the weights stays what it was; where defects are nearer than normal patches (s = 0) nothing is changed.
    """

    def fit(z: np.ndarray, start: np.ndarray, held: float) -> np.ndarray:
        def loss(p: np.ndarray) -> tuple[float, np.ndarray]:
            logit = z @ p[:-1] + p[-1]
            # -log p of the truth, and its slope (p - truth)
            value = share @ (np.logaddexp(0, logit) - truth * logit)
            slope = share * (0.5 * (1 + np.tanh(logit / 2)) - truth)
            off = p[:-1] - 1
            own = np.append(z.T @ slope + 2 * held * off / len(off), slope.sum())
            return float(value + held * np.mean(off**2)), own

        bounds = [(0.0, None)] * len(start) + [(None, None)]
        return np.asarray(minimize(loss, np.append(start, 0.0), jac=True, method="L-BFGS-B", bounds=bounds).x[:-1])

    distance = squared @ weights
    unit = max(float(np.median(distance)), 1e-12)
    scale = float(fit((distance / unit)[:, None], np.ones(1), 0.0)[0]) / unit
    if scale <= 0:
        return weights
    found = weights * fit(squared * (weights * scale), np.ones(len(weights)), pull)
    return found * (weights.sum() / found.sum()) if found.sum() > 0 else weights
