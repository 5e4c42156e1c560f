"""The contrast of a painted defect, brought to that of the reference it was painted after."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith import compose
from flawsmith.diffusion import tensors
from flawsmith.records import Sample


@dataclass(frozen=True)
class AppearanceStats:
    """What is kept of a real defect: few enough numbers for a run's card, and no image. All are shares of the level
    of the surroundings continued into it: 0.3 of brightness is 30 % lighter or darker.
    """

    light: float  # root mean square of the relief's brightness
    rest: float  # of its colour's departure from the curve
    curve: list[list[float]]  # (K, 3): mean colour in classes of equal size, from the darkest to the brightest


def appearance_of(reference: Sample) -> AppearanceStats:
    """Measure a reference, whose mask is not empty."""
    shown = compose.square_window(reference.mask, 64, 1.5).slices
    _, relief = _relief(reference.image[shown], reference.image[shown], reference.mask[shown])
    light, colour = _parts(relief[reference.mask[shown]])
    curve = _curve(light[:, 0], colour)
    return AppearanceStats(_size(light), _size(colour - _along(curve, light[:, 0])), curve.round(5).tolist())


def match_contrast(
    normal: np.ndarray, painted: np.ndarray, mask: np.ndarray, appearance: AppearanceStats, strength: float
) -> np.ndarray:
    """Give the painted defect a reference's contrast, by at most a factor of 3 up and 2 down, and its colours.

    normal, painted: (h, w, 3) uint8; mask: (h, w) bool, not empty; strength: 0 (as painted) to 1.
    Contrast is the root mean square of the difference to the surroundings continued smoothly into the defect, over
    their level, since light multiplies. A denoiser fitted on eight images says less than it saw where the mask is
    smaller than theirs: blowholes of 5 px came out with a third of their darkness. Only what is coarser than the grain
    is scaled, in the manner of Reinhard et al. 2001 (colour transfer), the spread alone: mean and sign are the
    painter's. Its large holes are mottled in all colours; there, colour goes with brightness as in the reference, whose
    glints may be yellow and whose depths grey (Welsh et al. 2002, by rank), and of the painter's own colour as much is
    left as the reference departs from that rule.
    """
    around, found = _relief(painted, normal, mask)
    light, colour = _parts(found[mask])
    gain = float(np.clip(appearance.light / max(_size(light), 1e-4), 0.5, 3.0)) ** strength
    left = min(1.0, appearance.rest / max(_size(colour), 1e-4))
    hue = _along(np.asarray(appearance.curve, np.float32), light[:, 0])
    change = np.zeros_like(found)
    change[mask] = (gain - 1) * light + strength * (hue + (left - 1) * colour)
    scaled = painted.astype(np.float32) + change * around
    return np.where(mask[..., None], np.clip(np.rint(scaled), 0, 255).astype(np.uint8), painted)


def _size(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _curve(light: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """(K, 3), K at most 16: the mean of colour (N, 3) in classes of equal size, in order of light (N,)."""
    order = np.argsort(light, kind="stable")
    return np.stack([colour[part].mean(0) for part in np.array_split(order, min(16, len(order)))])


def _along(curve: np.ndarray, light: np.ndarray) -> np.ndarray:
    """The curve's colour (N, 3) at the rank of each pixel's light (N,)."""
    rank = (np.argsort(np.argsort(light, kind="stable"), kind="stable") + 0.5) / len(light)
    middles = (np.arange(len(curve)) + 0.5) / len(curve)
    return np.stack([np.interp(rank, middles, channel) for channel in curve.T], axis=1).astype(np.float32)


def _parts(relief: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a relief (N, 3): brightness, the same in all channels, and colour, the rest."""
    light = np.repeat(relief.mean(axis=1, keepdims=True), 3, axis=1)
    return light, relief - light


def _relief(image: np.ndarray, surface: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The level (h, w, 3) of the surface continued into the mask, and how the image departs from it, as a share of
    that level, smoothed over a pixel inside the mask and 0 outside.
    """
    height, width = mask.shape
    level = tensors.continued(surface, mask) + 24.0
    inside = mask[..., None].astype(np.float32)
    relief = cv2.GaussianBlur((image + 24.0 - level) / level * inside, (0, 0), 1.0)
    weight = cv2.GaussianBlur(inside, (0, 0), 1.0)
    return level, relief / np.maximum(weight.reshape(height, width, 1), 1e-3) * inside
