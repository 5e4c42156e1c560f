"""Does the defect lie on the product, and where real defects of its type lie?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.quality.looks import Look
from flawsmith.records import Sample

THUMB = 16  # px, the side of the copies by which two photographs' poses are compared
ROUND = 0.95  # correlation of a copy with itself after a quarter turn from which on a product is round
POSED = 0.75  # correlation of the copies from which on a place in one photograph is that place in the other


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
    """Where real defects were: centres (n, 2) as shares of the photograph's height and width, and its copies (n, T)."""

    centres: np.ndarray
    copies: np.ndarray

    @classmethod
    def of(cls, references: Sequence[Sample]) -> Homes:
        """From whole photographs; those of which only a part was kept say nothing."""
        whole = [one for one in references if "whole" not in one.info]
        centres = np.array([centre(one.mask) for one in whole]).reshape(-1, 2)
        return cls(centres, np.array([copy_of(one.image) for one in whole]).reshape(-1, THUMB * THUMB))

    def alike(self, photograph: np.ndarray) -> bool:
        """Whether the product lies in a photograph (H, W, 3) as in those of the real defects."""
        return bool(len(self.copies)) and float((self.copies @ copy_of(photograph)).mean()) >= POSED

    def away(self, photograph: np.ndarray, mask: np.ndarray) -> float | None:
        """Distance of a mask's centre (H, W) bool to the nearest real one, in shares of the photograph's side.

        None where the product does not lie in this photograph (H, W, 3) as in those: then every place is as good. Of a
        round one, which looks the same when turned, only the distance from the middle counts.
        """
        if not self.alike(photograph):
            return None
        own = copy_of(photograph)
        there, here = self.centres - 0.5, centre(mask) - 0.5
        if float(own @ np.rot90(own.reshape(THUMB, THUMB)).ravel()) >= ROUND:
            return float(np.abs(np.linalg.norm(there, axis=1) - np.linalg.norm(here)).min())
        return float(np.linalg.norm(there - here, axis=1).min())


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
