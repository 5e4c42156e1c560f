"""AU-sPRO, MVTec LOCO's own score: a defect that may be marked in many places counts as found from a few pixels on.

A missing screw may be marked anywhere in its compartment. Whoever marks as many pixels as a screw has found it whole:
sPRO is the mean over the defects of min(marked / saturation threshold, 1), and AU-sPRO its area against the false
positive rate up to 0.05, over 0.05. Reference: Bergmann et al., "Beyond Dents and Scratches", IJCV 2022, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flawsmith import images
from flawsmith.evaluation.detectors.segmentation import Judged
from flawsmith.evaluation.metrics import scores
from flawsmith.records import GOOD, Record

LIMIT = 0.05  # of the false positive rate: the middle one of the reference's five


def regions(record: Record, size: tuple[int, int]) -> list[tuple[np.ndarray, float]]:
    """The defects of a record at a detector's scale (h, w), their saturation scaled with their area."""
    found = []
    for region, enough in record.saturated(images.image_size(record.image)):
        share = images.resize(region.astype(np.float32), *size)
        small = share > min(0.25, float(share.max()) / 2)
        found.append((small, enough * float(small.sum()) / float(region.sum())))
    return found


def table(judged: Judged, test: Sequence[Record]) -> dict[str, dict[str, float | None]]:
    """pixel_AUsPRO -> defect type -> value, and "all"; nothing where no record says how it saturates.

    `test` are the records that were judged, in the same order.
    """
    if not any(record.saturation for record in test):
        return {}
    tallies: dict[str, scores.Tally] = {}
    for levels, mask, kind, record in zip(judged.levels, judged.masks, judged.types, test, strict=True):
        own = regions(record, mask.shape) if kind != GOOD else []
        tallies[kind] = tallies.get(kind, scores.empty()) + scores.tally(levels, mask, own)
    good = tallies.pop(GOOD, scores.empty())
    found = {kind: (one + good).aupro(LIMIT) for kind, one in tallies.items()}
    return {"pixel_AUsPRO": {**found, "all": sum(tallies.values(), good).aupro(LIMIT)}}
