"""What the detector says of images, and from where on it calls them defective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from flawsmith.evaluation.detectors import segmentation
from flawsmith.evaluation.detectors.one_class.neighbours import Detector, Patches
from flawsmith.evaluation.metrics import scores
from flawsmith.records import GOOD

QUANTILES = {"image": 0.95, "pixel": 0.995}  # of held-out normals: the thresholds that need no defect


def judge(detector: Detector, seen: Sequence[Patches]) -> segmentation.Judged:
    """Score images; an image's score is the maximum of its smoothed map."""
    found = segmentation.Judged([], [], [], [])
    for one in seen:
        anomaly = detector.scored(one)
        found.levels.append(scores.levels(anomaly))
        found.masks.append(one.mask)
        found.image_scores.append(float(anomaly.max()))
        found.types.append(one.kind)
    return found


def by_normals(held: segmentation.Judged) -> tuple[float, int]:
    """Thresholds that need no defect: (of images, level of pixels), high quantiles of held-out normal images."""
    tally = segmentation.pooled(held)
    passed = np.cumsum(tally.negatives) <= (1 - QUANTILES["pixel"]) * tally.negatives.sum()
    return float(np.quantile(held.image_scores, QUANTILES["image"])), int(passed.sum()) - 1


def by_defects(held: segmentation.Judged, defects: segmentation.Judged) -> tuple[float, int]:
    """Thresholds of the best F1, (of images, level of pixels): defects against held-out normal images.

    Images of both sides weigh the same, so that their numbers do not decide; pixels as they are.
    """
    own = np.array([*held.image_scores, *defects.image_scores])
    side = np.repeat([False, True], [len(held.image_scores), len(defects.image_scores)])
    tally = scores.count(own, side)
    even = replace(tally, positives=tally.positives * (tally.negatives.sum() / tally.positives.sum()))
    best = even.f1max()
    pixels = (segmentation.pooled(held) + segmentation.pooled(defects)).f1max()
    assert best is not None and pixels is not None
    return float(np.unique(own)[::-1][best[1]]), pixels[1]


def f1(judged: segmentation.Judged, threshold: float) -> dict[str, float | None]:
    """F1 of images whose score reaches the threshold, per defect type (and all good ones) and "all"."""
    found: dict[str, float | None] = {}
    above, kinds = np.array(judged.image_scores) >= threshold, np.array(judged.types)
    for kind in [*(k for k in dict.fromkeys(judged.types) if k != GOOD), "all"]:
        truth = kinds != GOOD if kind == "all" else kinds == kind
        raised = int((above & (truth | (kinds == GOOD))).sum())
        found[kind] = 2 * int((above & truth).sum()) / (raised + int(truth.sum())) if truth.any() else None
    return found
