"""Is it new? Two images of a run must differ, and a painted defect must not be a real one by heart."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from flawsmith import compose
from flawsmith.datasets.leaks import GREY_LIMIT, HASH_LIMIT, Print, fingerprint, popcount
from flawsmith.records import Request, Sample

SMALL = 32  # side of the copies that are compared
FIELDS = 8  # a side of a brief fingerprint
RECENT = 16_384  # images of a type that a new one is compared with


def print_of(sample: Sample) -> Print:
    """The fingerprint of a defect's window."""
    return fingerprint(sample.image[compose.square_window(sample.mask, SMALL, 1.3).slices].copy())


def brief(one: Print) -> str:
    """A fingerprint's hash and the means of its 8 x 8 fields, 72 bytes as hexadecimal digits: what a manifest holds."""
    return one.bits.to_bytes(8, "big").hex() + _fields(one).tobytes().hex()


class Prints:
    """The last RECENT brief fingerprints of a run's images of one type, to ask which are like another.

    Of each 80 bytes, and a question takes the same time however long the run is.
    """

    def __init__(self) -> None:
        self._bits = np.empty(RECENT, np.uint64)
        self._fields = np.empty((RECENT, FIELDS * FIELDS), np.uint8)
        self._index = np.empty(RECENT, np.int64)
        self._count = 0

    def add(self, index: int, text: str) -> None:
        """Note image number `index` by its `brief`. Raises ValueError for a text that is none."""
        raw, place = bytes.fromhex(text), self._count % RECENT
        self._fields[place] = np.frombuffer(raw[8:], np.uint8)
        self._bits[place], self._index[place] = int.from_bytes(raw[:8], "big"), index
        self._count += 1

    def maybe(self, one: Print) -> list[int]:
        """The images that may be like it, of which few are not: the whole fingerprints have the last word."""
        count = min(self._count, RECENT)
        close = np.flatnonzero(popcount(self._bits[:count] ^ np.uint64(one.bits)) <= HASH_LIMIT)
        apart = self._fields[close].astype(np.float32) - _fields(one)
        apart -= apart.mean(axis=1, keepdims=True)
        limit = GREY_LIMIT + 1  # both were rounded by at most half a grey level
        return [int(i) for i in self._index[close[(apart**2).mean(axis=1) <= limit**2]]]


def _fields(one: Print) -> np.ndarray:
    """(64,) uint8: the means of a thumbnail's fields; they differ less than its pixels do."""
    side = len(one.thumb) // FIELDS
    return one.thumb.reshape(FIELDS, side, FIELDS, side).mean(axis=(1, 3)).round().astype(np.uint8).ravel()


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
