"""A first guess of where the defect of a photograph is, without a model: for `--reference-mask auto`.

The one place that differs most from the colour around it is proposed, judged by how much the surface varies anyway;
where several do, nothing is. It works for a spot, pit or crack on an even surface seen from near, and is a proposal to
be looked at, which is why it is always written beside the output.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flawsmith import images
from flawsmith.errors import FlawsmithError
from flawsmith.masks.segment import foreground

REDUCED = 256  # longest side of the copy that is looked at
CLEAR = 6.0  # robust standard deviations from the surface that something must reach
LARGEST = 0.4  # of the object: more than that is no defect but another part of it
WIDE = 0.35  # width of the surroundings, in parts of the longest side
ALONE = 0.9  # share of all strangeness that the one proposed place must hold
SMALLEST = 6  # pixels of the reduced copy


def propose(image: np.ndarray) -> np.ndarray | None:
    """The likeliest defect in (H, W, 3) uint8 as (H, W) bool, or None where nothing clearly stands out."""
    height, width = image.shape[:2]
    small, step = images.reduced(image, REDUCED)
    if min(small.shape[:2]) < 16:
        return None
    inside = _inside(small)
    strange = _strangeness(small, inside)
    seeds = (strange > CLEAR) & inside
    if not seeds.any():
        return None
    # Grow from what is clearly strange into what is half as strange, and keep the place that weighs most.
    soft = ((strange > 0.5 * max(CLEAR, float(np.quantile(strange[seeds], 0.8)))) & inside).astype(np.uint8)
    soft = cv2.morphologyEx(soft, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(soft, connectivity=8)
    weight = np.bincount(parts.ravel(), weights=(strange * seeds).ravel(), minlength=count)
    weight[0] = 0
    strongest = int(weight.argmax())
    found = parts == strongest
    if stats[strongest, cv2.CC_STAT_AREA] < SMALLEST or found.sum() > LARGEST * inside.sum():
        return None
    # Several strange places, or one that runs out of the image, are the product's own shape more often than not.
    frame = np.concatenate([found[0], found[-1], found[:, 0], found[:, -1]])
    if weight[strongest] < ALONE * weight.sum() or frame.mean() > 0.15:
        return None
    outline, _ = cv2.findContours(found.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(found.shape, np.uint8), outline, -1, 1, cv2.FILLED)
    if step == 1:
        return filled.astype(bool)
    return np.asarray(cv2.resize(filled * 255, (width, height), interpolation=cv2.INTER_LINEAR) >= 128)


def _inside(small: np.ndarray) -> np.ndarray:
    """The object without its rim, where shading and the cut-out's blur are strange but no defects."""
    found = foreground(small).astype(np.uint8)
    if found.all():
        return found.astype(bool)
    side = max(3, round(0.03 * max(found.shape))) | 1
    inner = cv2.erode(found, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), borderValue=1).astype(bool)
    return inner if inner.any() else found.astype(bool)


def _strangeness(small: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """How far each pixel (h, w) float32 is from what surrounds it, in robust deviations of the surface.

    What surrounds it is a wide median, which keeps shading and the edges between two surfaces where they are, and in
    which anything narrower than half of it is gone.
    """
    lab = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), (0, 0), 0.8)
    wide = max(9, round(WIDE * max(small.shape))) | 1
    total = np.zeros(small.shape[:2], np.float32)
    for channel in cv2.split(lab):
        rest = channel.astype(np.float32) - cv2.medianBlur(channel, wide)
        spread = max(1.5, 1.4826 * float(np.median(np.abs(rest[inside]))))
        total += (rest / spread) ** 2
    return np.sqrt(total)


def write_proposal(photograph: Path, out: Path) -> tuple[Path, Path]:
    """Propose a mask for the photograph's defect and write `OUT-reference-mask.png` and, to look at,
    `OUT-reference.png` beside the output folder. Raises FlawsmithError where nothing stands out.
    """
    image = images.read_image(photograph)
    mask = propose(image)
    if mask is None or not mask.any():
        raise FlawsmithError(
            f"Nothing in {photograph} clearly stands out, so no mask can be proposed: paint one, a black image of "
            "the same size that is white on the defect, and give it as --reference-mask."
        )
    path = out.parent / f"{out.name}-reference-mask.png"
    shown = out.parent / f"{out.name}-reference.png"
    images.write_image(path, mask)
    images.write_image(shown, images.overlay(image, mask))
    return path, shown
