"""How much larger and stronger than the few real ones a type's new defects may be.

Eight defects of two parts say little of the next part's: that is a matter of statistics, and of no picture. Sides and
contrasts are taken as log-normal between parts, and what is not known of them is drawn from the predictive distribution
for a part that was not seen: Student's t, of a normal with unknown mean and variance (Gelman et al., Bayesian Data
Analysis, 3.3). With many parts nothing is added to what they show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import cv2
import numpy as np

from flawsmith.images import is_artwork
from flawsmith.masks.fitting import meets_edge
from flawsmith.records import Growth, Sample, hash_seed

SIDE, CONTRAST = 0.4, 0.3  # what is taken for their standard deviations before a real one is seen, of logarithms
PARTS = 3  # how many parts' worth that is taken
UPWARD = 0.8  # of the scale: how far the middle lies above the real ones'; a detector must not miss the grave ones
SMALLEST, LARGEST = (0.25, 0.3), (5.0, 3.0)  # factors of the side and of the contrast
WIDEST = 0.125  # of the photograph's side, to which a defect may grow: what is as large is not missed
SHORTEST = 0.5  # factor of a line's length: a shorter one would be none
REACH = 7  # pixels around a defect that are its surroundings
SIZING = frozenset({"size", "scale", "longer", "severity"})  # dials of masks by which a user says how large
SHOWN = 16  # real defects that are looked at


@dataclass(frozen=True)
class Spread:
    """What the real defects of a type leave open: scales of the logarithms of side and contrast, and t's freedom."""

    side: float
    contrast: float
    freedom: float

    def draw(self, seed: int) -> Growth:
        """The factors of one image; the same seed, the same."""
        t = np.random.default_rng(hash_seed(seed, "growth")).standard_t(self.freedom, 2) + UPWARD
        factors = np.exp(t * (self.side, self.contrast))
        side, contrast = np.clip(factors, SMALLEST, LARGEST)
        return Growth(round(float(side), 4), round(float(contrast), 4))


def fitting(growth: Growth, exemplar: Sample) -> Growth:
    """The growth of a defect that follows `exemplar`: to WIDEST of the photograph's side or its own, if that is more.

    Growth is for defects that are missed because they are small. The pixels of large ones would outweigh all others'.
    """
    own = side_of(exemplar)
    return growth if own == 0 else replace(growth, side=min(growth.side, max(1.0, WIDEST / own)))


def along(growth: Growth) -> Growth:
    """The growth of a line: what its area gains it gains in length. A crack that is twice as long is no wider."""
    return replace(growth, side=1.0, length=min(max(SHORTEST, growth.side**2), LARGEST[0]))


def side_of(sample: Sample) -> float:
    """The square root of the share of its photograph that a sample's mask covers, 0 to 1."""
    whole = sample.info.get("whole", sample.mask.size)  # pixels of a large photograph of which a part was kept
    return math.sqrt(np.count_nonzero(sample.mask) / whole)


def spread_of(exemplars: Iterable[Sample], parts: Sequence[str], growth: float = 1.0) -> Spread | None:
    """Of one type's real defects and the names of the physical parts that they are on; None of fewer than two.

    Whoever shows one defect wants that one imitated. growth: the share of what is open that may be used, 0 to 1.

    Defects that are cut out of their object show what lies behind it, whose brightness no defect changes: such types
    keep their contrast. So do black-and-white images, and defects on which it cannot be measured.
    """
    seen = [(sample, part) for sample, part in islice(zip(exemplars, parts, strict=False), SHOWN) if sample.mask.any()]
    if len(seen) < 2:
        return None
    names = [part for _, part in seen]
    sides = [0.5 * math.log(np.count_nonzero(sample.mask)) for sample, _ in seen]
    side, freedom = unknown(sides, names, SIDE)
    contrasts = [contrast_of(sample) for sample, _ in seen]
    fixed = float(np.mean([is_artwork(s.image) or meets_edge(s.mask, s.image) for s, _ in seen])) > 0.5
    contrast = 0.0 if fixed or 0 in contrasts else unknown([math.log(value) for value in contrasts], names, CONTRAST)[0]
    return Spread(round(growth * side, 4), round(growth * contrast, 4), freedom)


def unknown(values: Sequence[float], parts: Sequence[str], prior: float) -> tuple[float, float]:
    """Scale and degrees of freedom of what `values`, each of a named part, leave open of a part that was not seen.

    The predictive variance of a new part's mean, less the variance among the parts' means: that much is seen already,
    since every new defect follows one of the real ones. `prior`: the standard deviation assumed, with the weight of
    PARTS parts.
    """
    middle = np.array(
        [np.mean([v for v, p in zip(values, parts, strict=True) if p == part]) for part in sorted({*parts})]
    )
    count = len(middle)
    freedom = PARTS + count - 1
    predicted = (PARTS * prior**2 + count * middle.var()) / freedom * (1 + 1 / count)
    return math.sqrt(max(0.0, predicted - middle.var())), float(freedom)


def contrast_of(sample: Sample) -> float:
    """Root mean square difference of a defect to its surroundings' median grey level, as a share of that; 0 or more."""
    rows, columns = np.flatnonzero(sample.mask.any(axis=1)), np.flatnonzero(sample.mask.any(axis=0))
    view = tuple(slice(max(0, int(ends[0]) - REACH), int(ends[-1]) + REACH + 1) for ends in (rows, columns))
    mask, grey = sample.mask[view], sample.image[view].mean(axis=2)
    ring = cv2.dilate(mask.astype(np.uint8), np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)).astype(bool) & ~mask
    if not ring.any():
        return 0.0
    level = float(np.median(grey[ring]))
    return float(np.sqrt(np.mean((grey[mask] - level) ** 2))) / max(level, 8.0)
