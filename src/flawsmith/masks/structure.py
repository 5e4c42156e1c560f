"""Which defects keep their shape: those of the product's structure, and large ones.

A lead that is bent, cut or missing, a part in the wrong place: the shape is the product's, not the defect's own, and
there is no other to give it. This can be told where images are aligned, since the same place of good images then shows
what the defect replaced.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from flawsmith import images
from flawsmith.masks.growth import along, fitting, side_of
from flawsmith.masks.reshape import is_line
from flawsmith.masks.segment import foreground
from flawsmith.records import Growth, Sample

# Asked is more than `quality.places.POSED` asks, and neither serves both: cookies lie alike (small copies correlate by
# 0.80 of 0.75), but the place of a defect shows other edges in each (0.44 of 0.45).
REDUCED = 96  # longest side of the copy on which edges are compared
ALIGNED = 0.45  # correlation of two images' edges beside the defect; parts that lie anyhow reach 0.3
EDGES = 0.7  # of the object's mean edge strength, in good images where the defect is; a plain case or glass has 0.2-0.5
EXEMPLARS, GOODS = 4, 3  # that are looked at
LARGE = 0.25  # of the photograph's side: what is as large is an object, or shows less texture than a new shape needs


def following(family: str, growth: Growth, exemplar: Sample | None, asked: bool) -> tuple[str, Growth]:
    """Mask family and growth of one defect that follows `exemplar`: "whole" in place of "varied" where that is LARGE,
    unless the user `asked` for the family.

    What is carried whole does not grow, other defects as far as `growth.fitting` allows, and none without an exemplar.
    A line with a new shape grows along itself.
    """
    if family == "varied" and not asked and exemplar is not None and side_of(exemplar) >= LARGE:
        family = "whole"
    if exemplar is None or family == "whole":
        return family, Growth()
    growth = fitting(growth, exemplar)
    return family, along(growth) if family == "varied" and is_line(exemplar.mask) else growth


def is_structure(exemplars: Sequence[Sample], goods: Sequence[np.ndarray]) -> bool:
    """Whether defects of one type lie where good images (H, W, 3) uint8 of the product are full of edges.

    False where images are not aligned: surfaces, and parts that lie anyhow. Both thresholds hold in the mean over up to
    EXEMPLARS defects and GOODS images.
    """
    known = [_seen(image) for image in goods[:GOODS]]
    alike, strength = [], []
    for sample in [sample for sample in exemplars if sample.mask.any()][:EXEMPLARS]:
        own, _ = _seen(sample.image)
        mask = _small(sample.mask, own.shape)
        if mask.all():
            continue
        for edges, product in known:
            there = edges if edges.shape == own.shape else cv2.resize(edges, own.shape[::-1])
            on = product if edges.shape == own.shape else _small(product, own.shape)
            level, flat = float(there[on].mean()), min(float(own[~mask].std()), float(there[~mask].std()))
            if min(level, flat) > 0:  # an even image has no edges to compare
                alike.append(float(np.corrcoef(own[~mask], there[~mask])[0, 1]))
                strength.append(float(there[mask].mean()) / level)
    return bool(alike) and float(np.mean(alike)) >= ALIGNED and float(np.mean(strength)) >= EDGES


def _seen(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strength of the edges of an image (H, W, 3) uint8 and its object, both (h, w), on the reduced copy."""
    small, _ = images.reduced(image, REDUCED)
    grey = cv2.GaussianBlur(small.mean(axis=2).astype(np.float32), (0, 0), 1.0)
    edges = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return cv2.GaussianBlur(edges, (0, 0), 1.0), _small(foreground(image), edges.shape)


def _small(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return cv2.resize(mask.astype(np.uint8) * 255, shape[::-1], interpolation=cv2.INTER_AREA) > 0
