"""Is there anything to see? The change against the surface's own texture, at the scale at which a user looks."""

from __future__ import annotations

import math

import cv2
import numpy as np

from flawsmith.quality.looks import Look, blurred

SCALES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)  # px of blur: a mark in gravel shows only where the gravel blurs away
COARSE, WIDE = 2.0, 128  # scales from which on, and windows of which a reduced copy is looked at, in px
JUST = 1.0  # L*a*b* units: a difference that is just noticed side by side (CIE 1976)


def contrast(look: Look) -> float:
    """The change's root mean square over the texture's, at the scale where that is largest; 1 = as the texture.

    The texture is the photograph's own, in and around the label, without what is coarser than four times the scale.
    """
    around = look.ring(0.0, float(np.clip(look.side, 8, 60))) | look.label
    label, after, before, step = look.label, look.lab, look.lab_before, 1
    best = 0.0
    for scale in SCALES:
        if scale > max(1.0, look.side / 2):
            break
        if scale >= COARSE * step and min(label.shape) >= WIDE and label[::2, ::2].any():
            step *= 2  # what is blurred needs fewer pixels
            label, around = (np.ascontiguousarray(part[::2, ::2]) for part in (label, around))
            size = label.shape[::-1]
            after, before = (cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (after, before))
        sigma = math.sqrt(scale**2 - (step**2 - 1) / 12) / step  # the reduction blurs, too
        if scale <= 1:  # others ask for these, too
            soft = look.before.soft(scale)
            change = look.soft(scale) - soft
        else:
            change, soft = blurred(after - before, sigma), blurred(before, sigma)
        signal = np.sqrt(_power(change, label))
        texture = soft - blurred(soft, max(4 * scale, 6.0) / step)
        best = max(best, float(signal / np.sqrt(_power(texture, around) + JUST**2)))
    return best


def _power(colours: np.ndarray, where: np.ndarray) -> float:
    """Mean squared length of colours (h, w, 3) float32 in a mask (h, w) bool."""
    return float(cv2.norm(colours, cv2.NORM_L2SQR, where.view(np.uint8))) / np.count_nonzero(where)


def seen(look: Look) -> float:
    """How well a defect is seen in the whole photograph: `contrast` times its side in per cent of the photograph's.

    Contrast and extent make up for each other (Ricco's and Piper's laws): a speck has to be darker than a stain.
    """
    return 100 * look.share * contrast(look)
