"""Does the defect lie on the product, where real defects of its type lie, and on what they lie?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith import compose
from flawsmith.masks.segment import foreground
from flawsmith.quality.looks import Look, lab
from flawsmith.records import Sample

THUMB = 16  # px, the side of the copies by which two photographs' poses are compared
ROUND = 0.95  # correlation of a copy with itself after a quarter turn from which on a product is round
POSED = 0.75  # correlation of the copies from which on a place in one photograph is that place in the other
COPY = 192  # px, the side of the copies on which the ground of defects is compared
ENOUGH, LEVELS = 400, 21  # pixels of a defect's ground that are asked, quantiles of their colours that are compared
BOUND, MANY_BOUND = 0.04, 12  # shares of the side from the edge; real defects that must lie no farther for all to
SOLID = 0.3  # 4 pi area / perimeter^2: cracks and scratches, which may begin anywhere, have less


def beside(look: Look) -> float:
    """The share of the change that lies beside the product, 0 to 1; 0 where the product fills the photograph.

    The change, not the label: a piece broken off at the edge shows background on background there, which is right.
    """
    if look.product is None or look.normal is None:
        return 0.0
    if look.product[look.label].all():
        return 0.0
    change = np.linalg.norm(look.lab[look.label] - look.lab_before[look.label], axis=1)
    whole = float(change.sum())
    return float(change[~look.product[look.label]].sum() / whole) if whole > 0 else 0.0


@dataclass(frozen=True)
class Homes:
    """Where real defects were: centres (n, 2) as shares of the photograph's height and width, its copies (n, T), their
    masks as indices of pixels of a COPY x COPY image, and the largest distance to the product's edge, None where not
    all lie there.
    """

    centres: np.ndarray
    copies: np.ndarray
    masks: tuple[np.ndarray, ...] = ()
    bound: float | None = None

    @classmethod
    def of(cls, references: Sequence[Sample]) -> Homes:
        """From whole photographs; those of which only a part was kept say nothing."""
        whole = [one for one in references if "whole" not in one.info]
        centres = np.array([centre(one.mask) for one in whole]).reshape(-1, 2)
        copies = np.array([copy_of(one.image) for one in whole]).reshape(-1, THUMB * THUMB)
        return cls(centres, copies, tuple(_pixels(one.mask) for one in whole), _bound(whole))

    def away(self, photograph: np.ndarray, mask: np.ndarray) -> float | None:
        """Distance of a mask's centre (H, W) bool to the nearest real one, in shares of the photograph's side.

        None where the product does not lie in this photograph (H, W, 3) as in those: then every place is as good. Of a
        round one, which looks the same when turned, only the distance from the middle counts.
        """
        own = copy_of(photograph)
        if not len(self.copies) or float((self.copies @ own).mean()) < POSED:
            return None
        there, here = self.centres - 0.5, centre(mask) - 0.5
        if _is_round(own):
            return float(np.abs(np.linalg.norm(there, axis=1) - np.linalg.norm(here)).min())
        return float(np.linalg.norm(there - here, axis=1).min())

    def alike(self) -> bool:
        """Whether the product lies alike in all of its photographs, and is not round."""
        alike = len(self.copies) > 0 and float((self.copies @ self.copies.T).mean()) >= POSED
        return alike and not all(map(_is_round, self.copies))

    def strange(self, photograph: np.ndarray, mask: np.ndarray) -> float:
        """How far the colours under a mask (H, W) bool are from those where real defects lay, in L*a*b* units.

        Of one photograph (H, W, 3), which shows what they covered, since products lie alike: only to be asked where
        `away` is. The least mean distance of quantiles over the three channels (the earth mover's, in each).
        """
        small = lab(cv2.resize(photograph, (COPY, COPY), interpolation=cv2.INTER_AREA)).reshape(-1, 3)
        own = _colours(small[_pixels(mask)])
        return min(float(np.abs(own - _colours(small[there])).mean()) for there in self.masks)

    def off_edge(self, mask: np.ndarray, product: np.ndarray) -> float | None:
        """How much farther a mask (H, W) bool lies from the edge of the product (H, W) bool than real ones do.

        In shares of the photograph's side; 0 of thin ones, None where not all real ones lie at the edge.
        """
        if self.bound is None:
            return None
        return max(0.0, to_edge(mask, product) - self.bound) if _is_solid(mask) else 0.0


def to_edge(mask: np.ndarray, product: np.ndarray) -> float:
    """From a mask (H, W) bool to the nearest pixel beside the product (H, W) bool or the photograph, over its side."""
    frame = _to_frame(mask)
    if frame == 0 or product.all():
        return frame
    gap = cv2.distanceTransform((product | mask).astype(np.uint8), cv2.DIST_L2, 5)[mask].min() - 1
    return min(frame, float(gap) / math.sqrt(mask.size))


def _to_frame(mask: np.ndarray) -> float:
    box, (height, width) = compose.mask_box(mask), mask.shape
    return min(box.top, box.left, height - box.bottom, width - box.right) / math.sqrt(mask.size)


def _bound(references: Sequence[Sample]) -> float | None:
    """The largest gap between real defects and the edge; None where not all of many lie there."""
    gaps: list[float] = []
    for one in references if len(references) >= MANY_BOUND else ():
        gaps.append(_to_frame(one.mask))
        if gaps[-1] > BOUND:  # what is the product takes longer
            gaps[-1] = to_edge(one.mask, foreground(one.image))
        if gaps[-1] > BOUND:
            return None
    return max(gaps, default=None)


def _is_round(copy: np.ndarray) -> bool:
    return float(copy @ np.rot90(copy.reshape(THUMB, THUMB)).ravel()) >= ROUND


def _is_solid(mask: np.ndarray) -> bool:
    outlines, _ = cv2.findContours(np.pad(mask.astype(np.uint8), 1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    around = sum(cv2.arcLength(one, True) for one in outlines)
    return bool(4 * np.pi * np.count_nonzero(mask) >= SOLID * around**2)


def _pixels(mask: np.ndarray) -> np.ndarray:
    """A mask's pixels on a COPY x COPY image, as indices: one to ENOUGH of them, evenly spaced."""
    small = cv2.resize(mask.astype(np.uint8) * 255, (COPY, COPY), interpolation=cv2.INTER_AREA).ravel()
    found = np.flatnonzero(small >= min(128, int(small.max())))
    return np.asarray(found[np.linspace(0, len(found) - 1, min(len(found), ENOUGH)).astype(int)])


def _colours(values: np.ndarray) -> np.ndarray:
    """Quantiles (LEVELS, 3) of colours (n, 3)."""
    picked = np.linspace(0, len(values) - 1, LEVELS).astype(int)
    return np.asarray(np.sort(values, axis=0)[picked])


def centre(mask: np.ndarray) -> np.ndarray:
    """A mask's centre (2,) as shares of its height and width."""
    rows, columns = mask.sum(axis=1), mask.sum(axis=0)
    return np.array(
        [float(np.arange(len(sums)) @ sums) / max(1, int(sums.sum())) / len(sums) for sums in (rows, columns)]
    )


def copy_of(photograph: np.ndarray) -> np.ndarray:
    """A small grey copy of a photograph as a vector (T,) of length 1 and mean 0."""
    small = cv2.resize(photograph, (THUMB, THUMB), interpolation=cv2.INTER_AREA).mean(axis=2).ravel()
    small = small - small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6))
