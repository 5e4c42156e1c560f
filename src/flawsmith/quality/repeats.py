"""Is it new? Two images of a run must differ, and a painted defect must not be a real one by heart."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from flawsmith import compose
from flawsmith.datasets.leaks import HASH_LIMIT, Print, fingerprint, near
from flawsmith.records import Request, Sample

SMALL = 32  # side of the copies that are compared


def print_of(sample: Sample) -> Print:
    """The fingerprint of a defect's window."""
    return fingerprint(sample.image[compose.square_window(sample.mask, SMALL, 1.3).slices].copy())


class Prints:
    """The fingerprints of a run's images of one type, to ask whether another one is like them."""

    def __init__(self) -> None:
        self._bits: list[int] = []
        self._prints: list[Print] = []

    def add(self, one: Print) -> None:
        self._bits.append(one.bits)
        self._prints.append(one)

    def alike(self, one: Print) -> bool:
        if not self._prints:
            return False
        apart = np.array(self._bits, np.uint64) ^ np.uint64(one.bits)
        bits = np.unpackbits(apart.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
        return bool(near([one], [self._prints[i] for i in np.flatnonzero(bits <= HASH_LIMIT)]))


def poses(references: Sequence[Sample]) -> np.ndarray:
    """Small windows of real defects, each turned by quarters and mirrored: vectors (8 n, P) of length 1 and mean 0."""
    rows = []
    for reference in references:
        shown = compose.square_window(reference.mask, SMALL, 1.1).slices
        small = _small(_grey(reference.image[shown]))
        turned = [np.rot90(small, turn) for turn in range(4)]
        rows += [_normed(one) for one in (*turned, *(np.fliplr(one) for one in turned))]
    return np.array(rows).reshape(-1, SMALL * SMALL)


def copied(sample: Sample, request: Request, real: np.ndarray) -> float:
    """Largest correlation of a defect's brightness with a real one's, -1 to 1; 1 is a copy in other light.

    Against the request's own reference laid under the mask where the request says how, and against `poses` of the
    real ones (n, P).
    """
    area = compose.square_window(sample.mask, SMALL, 1.1)
    own, inside = _grey(sample.image[area.slices]), sample.mask[area.slices]
    found = [-1.0]
    if request.reference is not None and request.warp is not None:
        box = (area.top, area.left, area.bottom, area.right)
        laid = request.warp.apply(request.reference.image, sample.mask.shape, box)
        found.append(float(_normed(own[inside]) @ _normed(_grey(laid)[inside])))
    if len(real):
        found.append(float((real @ _normed(_small(own))).max()))
    return max(found)


def _grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)


def _small(grey: np.ndarray) -> np.ndarray:
    return cv2.resize(grey, (SMALL, SMALL), interpolation=cv2.INTER_AREA)


def _normed(values: np.ndarray) -> np.ndarray:
    """As a vector of length 1 and mean 0; zeros where there is no contrast."""
    flat = values.ravel() - values.mean()
    size = float(np.linalg.norm(flat))
    return np.asarray(flat / size if size > 1e-3 else np.zeros_like(flat))
