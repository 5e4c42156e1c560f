"""Whether a defect is a line: a crack, a scratch, a hair."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from flawsmith.records import Sample

THIN = 12.0  # pixels across, at most
LONG = 5.0  # length over width, at least
MOST = 0.75  # of a type's real defects that are lines, where the type is one of lines


def is_thin(mask: np.ndarray) -> bool:
    """Whether a mask (h, w) bool is a line: narrow, and much longer than it is wide."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)
    width = 2 * (float(depth.max()) - 0.5)
    if width > THIN:
        return False
    count = int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0]) - 1
    return float(mask.sum()) / max(width, 1.5) ** 2 >= LONG * min(count, 8)


def are_lines(exemplars: Iterable[Sample]) -> bool:
    """Whether a type is one of lines, by its real defects.

    They keep their real shapes, which bending renews enough: texture synthesised along new lines taught a detector
    less than real ones carried elsewhere (cracks of magnetic tiles, in each of five divisions).
    """
    thin = [is_thin(sample.mask) for sample in exemplars if sample.mask.any()]
    return bool(thin) and sum(thin) / len(thin) >= MOST
