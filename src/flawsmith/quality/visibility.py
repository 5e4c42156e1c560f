"""Is there anything to see? The change against the surface's own texture, at the scale at which a user looks."""

from __future__ import annotations

import numpy as np

from flawsmith.quality.looks import Look, blurred

SCALES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)  # px of blur: a mark in gravel shows only where the gravel blurs away
JUST = 1.0  # L*a*b* units: a difference that is just noticed side by side (CIE 1976)


def contrast(look: Look) -> float:
    """The change's root mean square over the texture's, at the scale where that is largest; 1 = as the texture.

    The texture is the photograph's own, in and around the label, without what is coarser than four times the scale.
    """
    change = look.lab - look.lab_before
    around = look.ring(0.0, float(np.clip(look.side, 8, 60))) | look.label
    best = 0.0
    for scale in SCALES:
        if scale > max(1.0, look.side / 2):
            break
        signal = np.sqrt(_power(blurred(change, scale)[look.label]))
        texture = blurred(look.lab_before, scale)
        texture = texture - blurred(texture, max(4 * scale, 6.0))
        best = max(best, float(signal / np.sqrt(_power(texture[around]) + JUST**2)))
    return best


def _power(colours: np.ndarray) -> float:
    """Mean squared length of (n, 3)."""
    return float(np.vdot(colours, colours)) / len(colours)


def seen(look: Look) -> float:
    """How well a defect is seen in the whole photograph: `contrast` times its side in per cent of the photograph's.

    Contrast and extent make up for each other (Ricco's and Piper's laws): a speck has to be darker than a stain.
    """
    return 100 * look.share * contrast(look)
