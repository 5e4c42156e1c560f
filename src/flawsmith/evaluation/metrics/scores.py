"""Scores of anomaly maps against masks. Names follow anomalib; definitions follow docs/evaluation.md.

Everything is computed from a `Tally`: how many defect and normal pixels lie at each score level. Tallies of images
add up, so that a test set of any size fits in memory, and a bootstrap over images is a weighted sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

LEVELS = 65536  # of an anomaly map's logit between -SPAN and SPAN; the metrics move by about 1e-4 for it
SPAN = 16.0
FPR_LIMIT = 0.3  # AUPRO is integrated up to here
POOL = 21  # side of the window whose mean, at its highest, is an image's score


@dataclass(frozen=True)
class Tally:
    """Counts per score level, the highest score first.

    positives, negatives: (L,) pixels (or images) in defects and elsewhere. overlap: (L,) the share of each defect
    region that lies at the level, summed over the regions; `regions`: how many there are. Add with `+`.
    """

    positives: np.ndarray
    negatives: np.ndarray
    overlap: np.ndarray
    regions: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.positives + other.positives,
            self.negatives + other.negatives,
            self.overlap + other.overlap,
            self.regions + other.regions,
        )

    @property
    def defined(self) -> bool:
        """Whether there are positives and negatives; without, every score below is None."""
        return bool(self.positives.sum() and self.negatives.sum())

    def auroc(self) -> float | None:
        """Area under the ROC curve: the share of (defect, normal) pairs in the right order, ties half."""
        if not self.defined:
            return None
        before = np.cumsum(self.positives) - self.positives / 2
        return float((self.negatives * before).sum() / (self.positives.sum() * self.negatives.sum()))

    def ap(self) -> float | None:
        """Average precision, the step sum over recall (scikit-learn's): what the papers print."""
        if not self.defined:
            return None
        precision, _ = self._curve()
        return float((self.positives / self.positives.sum() * precision).sum())

    def aupr(self) -> float | None:
        """Area under the precision-recall curve by trapezoids (anomalib's); larger than AP where points are few."""
        if not self.defined:
            return None
        precision, recall = self._curve()
        used = self.positives + self.negatives > 0
        precision, recall = np.append(1.0, precision[used]), np.append(0.0, recall[used])
        return float((np.diff(recall) * (precision[1:] + precision[:-1]) / 2).sum())

    def f1max(self) -> tuple[float, int] | None:
        """The largest F1 over all thresholds, and the level that reaches it (this level and all above are defect)."""
        if not self.defined:
            return None
        found = np.cumsum(self.positives + self.negatives)
        f1 = 2 * np.cumsum(self.positives) / (found + self.positives.sum())
        best = int(f1.argmax())
        return float(f1[best]), best

    def iou(self, level: int) -> float | None:
        """Intersection over union of the defects and everything at `level` or above."""
        if not self.positives.sum():
            return None
        hit = self.positives[: level + 1].sum()
        return float(hit / (self.positives.sum() + self.negatives[: level + 1].sum()))

    def aupro(self, limit: float = FPR_LIMIT) -> float | None:
        """Area under the mean overlap of defect regions against the false positive rate up to `limit`, over `limit`.

        Regions are 8-connected; between thresholds the curve is straight. Bergmann et al., IJCV 2021, section 5.3.
        """
        if not self.defined or not self.regions:
            return None
        rate = np.append(0.0, np.cumsum(self.negatives) / self.negatives.sum())
        overlap = np.append(0.0, np.cumsum(self.overlap) / self.regions)
        inside = rate <= limit
        end = int(inside.sum())
        x, y = rate[:end], overlap[:end]
        if end < len(rate) and x[-1] < limit:
            share = (limit - rate[end - 1]) / (rate[end] - rate[end - 1])
            x = np.append(x, limit)
            y = np.append(y, overlap[end - 1] + share * (overlap[end] - overlap[end - 1]))
        return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / limit)

    def _curve(self) -> tuple[np.ndarray, np.ndarray]:
        hits = np.cumsum(self.positives)
        found = hits + np.cumsum(self.negatives)
        precision = np.divide(hits, found, out=np.ones_like(hits, dtype=float), where=found > 0)
        return precision, hits / self.positives.sum()


def empty() -> Tally:
    """The tally of no image."""
    return Tally(np.zeros(LEVELS), np.zeros(LEVELS), np.zeros(LEVELS))


def count(scores: np.ndarray, truth: np.ndarray) -> Tally:
    """Exact counts, one level per distinct score: scores (N,) float, truth (N,) bool. Knows no regions."""
    scores, truth = np.ravel(scores), np.ravel(truth).astype(bool)
    levels, place = np.unique(-scores.astype(np.float64), return_inverse=True)
    tallied = [np.bincount(place[side], minlength=len(levels)).astype(float) for side in (truth, ~truth)]
    return Tally(tallied[0], tallied[1], np.zeros(len(levels)))


def levels(scores: np.ndarray) -> np.ndarray:
    """The level, 0 (highest) to LEVELS - 1, uint16, of scores in [0, 1], evenly spaced in the logit."""
    with np.errstate(divide="ignore"):
        logit = np.log(scores.astype(np.float64)) - np.log1p(-scores.astype(np.float64))
    return np.clip((SPAN - logit) * (LEVELS / (2 * SPAN)), 0, LEVELS - 1).astype(np.uint16)


def tally(found: np.ndarray, mask: np.ndarray, saturated: Sequence[tuple[np.ndarray, float]] | None = None) -> Tally:
    """Counts of one image: its `levels` (H, W) uint16 against its mask (H, W) bool.

    saturated: its regions, each (H, W) bool and the pixels from which on it counts as found whole (sPRO, Bergmann et
    al., IJCV 2022, section 5); without, they are the mask's 8-connected parts, which need all their pixels.
    """
    sides = [np.bincount(found[side], minlength=LEVELS).astype(float) for side in (mask, ~mask)]
    if saturated is not None:
        overlap: np.ndarray = np.zeros(LEVELS)
        for region, enough in saturated:
            hit = np.cumsum(np.bincount(found[region], minlength=LEVELS))
            overlap += np.diff(np.minimum(hit / enough, 1.0), prepend=0.0)
        return Tally(sides[0], sides[1], overlap, float(len(saturated)))
    number, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    sizes = np.bincount(regions.ravel(), minlength=number).astype(float)
    overlap = np.bincount(found[mask], weights=1 / sizes[regions[mask]], minlength=LEVELS)
    return Tally(sides[0], sides[1], overlap, number - 1.0)


def image_score(scores: np.ndarray) -> float:
    """An image's score: the maximum of its anomaly map (H, W) averaged over 21 x 21 pixels, the papers' rule."""
    pooled = cv2.boxFilter(scores.astype(np.float32), -1, (POOL, POOL), borderType=cv2.BORDER_CONSTANT)
    return float(pooled.max())


def auroc(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """`Tally.auroc` of scores (N,) and truth (N,) bool, exactly; None without positives or negatives."""
    return count(scores, truth).auroc()


def paired_bootstrap(differences: Sequence[float], draws: int = 10_000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of paired differences and its 95 % percentile interval over resampled pairs: (mean, low, high).

    For many independent pairs. For a handful of seeds it is far too narrow: see verdict.py.
    """
    values = np.asarray(differences, dtype=float)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def probability(level: int) -> float:
    """The lowest score in [0, 1] of a level: scores of at least this are at the level or above."""
    return float(1 / (1 + np.exp(2 * SPAN * (level + 1) / LEVELS - SPAN)))
