"""The contrast of a painted defect, brought to that of the reference it was painted after."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from flawsmith import compose, tensors
from flawsmith.records import Sample


def match_contrast(
    normal: np.ndarray, painted: np.ndarray, mask: np.ndarray, reference: Sample, strength: float
) -> np.ndarray:
    """Give the painted defect the contrast of the reference: of brightness by at most a factor of 3 up and 2 down, of
    colour by at most 3 up and any down, so that tints the reference has not are taken out.

    normal, painted: (h, w, 3) uint8; mask: (h, w) bool, not empty, nor the reference's; strength: 0 (as painted) to 1.
    Contrast is the root mean square of the difference to the surroundings continued smoothly into the defect, over
    their level, since light multiplies. A denoiser fitted on eight pictures says less than it saw where the mask is
    smaller than theirs: blowholes of 5 px came out with a third of their darkness. Only what is coarser than the grain
    is scaled. In the manner of Reinhard et al. 2001 (colour transfer), the spread alone: its mean and sign are the
    painter's.
    """
    around, found = _relief(painted, normal, mask)
    shown = compose.square_window(reference.mask, 64, 1.5).slices
    _, wanted = _relief(reference.image[shown], reference.image[shown], reference.mask[shown])
    scaled = painted.astype(np.float32)
    for low, part, goal in zip((0.5, 0.0), _parts(found), _parts(wanted), strict=True):
        size, aim = (float(np.sqrt(np.square(r).mean())) for r in (part[mask], goal[reference.mask[shown]]))
        gain = float(np.clip(aim / max(size, 1e-4), low, 3.0)) ** strength
        scaled += (gain - 1) * part * around
    return np.where(mask[..., None], np.clip(np.rint(scaled), 0, 255).astype(np.uint8), painted)


def _parts(relief: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a relief (h, w, 3): brightness, the same in all channels, and colour, the rest."""
    light = np.repeat(relief.mean(axis=2, keepdims=True), 3, axis=2)
    return light, relief - light


def _relief(picture: np.ndarray, surface: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The level (h, w, 3) of the surface continued into the mask, and how the picture departs from it, as a share of
    that level, smoothed over a pixel inside the mask and 0 outside.
    """
    height, width = mask.shape
    side = 32 * -(-max(height, width) // 32)
    pad = ((0, side - height), (0, side - width))
    known = torch.from_numpy(np.pad(surface.astype(np.float32), (*pad, (0, 0)), mode="edge")).permute(2, 0, 1)[None]
    hole = torch.from_numpy(np.pad(mask.astype(np.float32), pad))[None, None]
    level = tensors.smooth_fill(known, hole)[0].permute(1, 2, 0).numpy()[:height, :width] + 24.0
    inside = mask[..., None].astype(np.float32)
    relief = cv2.GaussianBlur((picture + 24.0 - level) / level * inside, (0, 0), 1.0)
    weight = cv2.GaussianBlur(inside, (0, 0), 1.0)
    return level, relief / np.maximum(weight.reshape(height, width, 1), 1e-3) * inside
