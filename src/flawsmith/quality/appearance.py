"""How a defect looks against its surroundings, in a few numbers; how far that is from real ones and from nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from flawsmith.quality.looks import Look, blurred, slopes

FLOOR = 0.12  # the least spread of a number among references that is believed
TYPICAL = 0.5  # distance of a good defect to real ones, where there are none to ask


def appearance(look: Look) -> np.ndarray:
    """(12,) float: quantiles of brightness against the ring around it, colour, contrast and spread in tens of L*a*b*
    units; then logarithms: fine and middle texture over the ring's, the border's edge over the ring's, fine and middle
    texture themselves.
    """
    light = np.ascontiguousarray(look.lab[..., 0])
    ring, level, inside = look.beside, look.level, look.lab[look.label]
    soft = np.ascontiguousarray(look.soft(1.0)[..., 0])
    fine, middle = light - soft, soft - blurred(light, 4.0)
    rms = [[_rms(band, where) for where in (look.label, ring)] for band in (fine, middle)]
    slope = cv2.magnitude(*slopes(light))
    edge = look.label & (look.distance <= 1.0)
    there = _mean(slope, edge if edge.any() else look.label)
    textures = [np.log(own + 0.3) - np.log(other + 0.3) for own, other in rms]
    hue = inside[:, 1:].mean(axis=0) - level[1:] if look.channels == 3 else np.zeros(2)
    return np.array(
        [
            *((np.quantile(inside[:, 0], (0.1, 0.5, 0.9)) - level[0]) / 10),
            *(hue / 10),
            float(np.linalg.norm(inside - level, axis=1).mean()) / 10,
            float(inside[:, 0].std()) / 10,
            *textures,
            np.log(there + 0.3) - np.log(_mean(slope, ring) + 0.3),
            *(np.log(own + 0.3) for own, _ in rms),
        ]
    )


def _rms(values: np.ndarray, where: np.ndarray) -> float:
    """Root mean square of values (h, w) float32 in a mask (h, w) bool."""
    return float(cv2.norm(values, cv2.NORM_L2, where.view(np.uint8))) / math.sqrt(np.count_nonzero(where))


def _mean(values: np.ndarray, where: np.ndarray) -> float:
    """Mean of values (h, w) float32 in a mask (h, w) bool; many times faster than indexing."""
    return float(cv2.mean(values, where.view(np.uint8))[0])


def spread_of(rows: Sequence[np.ndarray]) -> np.ndarray:
    """The usual spread (12,) of each number among real defects, robust; FLOOR where there are too few to tell."""
    if len(rows) < 4:
        return np.full(12, 0.5)
    found = np.asarray(rows)
    return np.maximum(1.4826 * np.median(np.abs(found - np.median(found, axis=0)), axis=0), FLOOR)


def distances(one: np.ndarray, others: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Root mean square distance (n,) of an appearance (12,) to others (n, 12), in spreads."""
    return np.asarray(np.sqrt(np.square((others - one) / spread).mean(axis=1)))


def nearest(own: np.ndarray, real: np.ndarray, spread: np.ndarray) -> float:
    """Mean distance of an appearance (12,) to the two nearest real ones of (n, 12), n > 0, in spreads."""
    return float(np.sort(distances(own, real, spread))[:2].mean())


def veil(own: np.ndarray, before: np.ndarray, real: np.ndarray, spread: np.ndarray) -> float:
    """0 to 1: how much nearer an appearance is to the unpainted surface's than to real defects; 0.5 is halfway.

    own, before: (12,), of the image and of the photograph under the same label; real: (n, 12), n may be 0.
    """
    near = nearest(own, real, spread) if len(real) else TYPICAL
    away = float(distances(own, before[None], spread)[0])
    return near / (near + away + 1e-6)
