"""A defect whose shape is the product's (a bent or cut lead) must look like the real one that it is the shape of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import cv2
import numpy as np

from flawsmith import compose
from flawsmith.masks.structure import is_structure
from flawsmith.quality.looks import blurred, lab
from flawsmith.records import Request, Sample

OTHERS = 5  # images of other types that are asked
SOFT = 1.5  # px of blur: the picture is compared, not its grain
LEAST = 2.0  # L*a*b* units: no real defect is taken to differ less from the good product


def structural(references: Mapping[str, Sequence[Sample]], kind: str) -> bool:
    """Whether real defects of a type are of the product's structure, in the eyes of most images of its other types.

    These show the product there; one may show a defect in that place. Few are asked, a type in turn.
    """
    rest = [samples for name, samples in references.items() if name != kind]
    others = [one.image for several in zip_longest(*rest) for one in several if one is not None][:OTHERS]
    found = [is_structure(references[kind], [image]) for image in others]
    return sum(found) > len(found) / 2


def unlike(sample: Sample, request: Request) -> float | None:
    """How far a defect is from the reference laid under it, over how far that is from the good product.

    Root mean squares in L*a*b*, of both blurred; the reference's light is brought to the photograph's. About 0 is
    the same, 1 as far as a good product. None where the request does not say how the reference lies.
    """
    if request.reference is None or request.warp is None:
        return None
    area = compose.square_window(sample.mask, 32, 1.1)
    box = (area.top, area.left, area.bottom, area.right)
    laid = request.warp.apply(request.reference.image, sample.mask.shape, box)
    shown, own, before = (
        blurred(lab(np.ascontiguousarray(one)), SOFT)
        for one in (laid, sample.image[area.slices], request.normal.image[area.slices])
    )
    label = sample.mask[area.slices]
    ring = cv2.dilate(label.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool) & ~label
    light = np.median(before[ring], axis=0) - np.median(shown[ring], axis=0) if ring.any() else np.zeros(3)
    wanted = shown[label] + light
    return _rms(own[label] - wanted) / max(_rms(wanted - before[label]), LEAST)


def _rms(colours: np.ndarray) -> float:
    return float(np.sqrt(np.square(colours).sum(axis=1).mean()))
