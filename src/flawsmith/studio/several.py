"""Several defects on one image: each is painted onto the image with those before it, clear of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from flawsmith.errors import FlawsmithError
from flawsmith.methods.base import Synthesizer
from flawsmith.methods.samples import Samples
from flawsmith.records import Sample, hash_seed

GAP = 13  # pixels across: how clear of another defect's label a mask is drawn
SEEDS = 2**53


def masks_of(
    mask: np.ndarray | str | None, parts: bool, defects: tuple[int, int], seed: int
) -> list[np.ndarray | str | None]:
    """Where the defects of an image may be: a painted mask, its connected parts, or a family as often as wanted.

    mask: painted (H, W) bool, a family, or None for the method's own choice. `parts`: every part of a painted mask is a
    defect of its own, the largest first. A painted mask has its own number of defects, whatever `defects` says.
    """
    if isinstance(mask, np.ndarray):
        if not parts:
            return [mask]
        count, found, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        order = sorted(range(1, count), key=lambda part: -int(stats[part, cv2.CC_STAT_AREA]))
        return [found == part for part in order]
    low, high = defects
    return [mask] * (low + hash_seed(seed, "defects") % (high - low + 1))


def make(
    method: Synthesizer,
    image: np.ndarray,
    masks: Sequence[np.ndarray | str | None],
    seed: int,
    roi: np.ndarray | None,
    given: dict[str, Any],
) -> Samples:
    """One image with a defect for each of `masks`, the same for the same seed; none where the first is refused.

    A further one that is refused, or finds no place, is left out, as `flawsmith generate --defects` does. The label is
    the union; `info["defects"]` tells of each.
    """
    made = method(image, masks[0], n=1, seed=seed, roi=roi, **given)
    if len(masks) == 1 or not made:
        return made
    whole: Sample = made[0]
    told = [_told(whole, seed)]
    for turn, mask in enumerate(masks[1:], start=1):
        own = hash_seed(seed, "defect", turn) % SEEDS
        clear = ~cv2.dilate(whole.mask.astype(np.uint8), np.ones((GAP, GAP), np.uint8)).astype(bool)
        try:
            more = method(whole.image, mask, n=1, seed=own, roi=clear if roi is None else clear & roi, **given)
        except FlawsmithError:
            if isinstance(mask, np.ndarray):
                raise
            break  # no room is left
        if more:
            told.append(_told(more[0], own))
            whole = replace(whole, image=more[0].image, mask=whole.mask | more[0].mask)
    return Samples([replace(whole, info={**whole.info, "defects": told})])


def _told(one: Sample, seed: int) -> dict[str, Any]:
    return {"seed": seed, "area": int(one.mask.sum()), "scores": one.info.get("scores", {})}
