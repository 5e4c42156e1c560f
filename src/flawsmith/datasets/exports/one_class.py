"""The division for detectors that learn good images only: generated defects choose thresholds, real ones test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flawsmith.datasets.exports import dividing
from flawsmith.datasets.exports.item import SPLITS
from flawsmith.datasets.exports.sources import Sources, is_seen
from flawsmith.errors import FlawsmithError
from flawsmith.records import Record


def divide(found: Sources, val: float, test: float, seed: int) -> dict[Path, str]:
    """Image -> train, val or test; an image that is left out belongs to none of them.

    train: real good images. val: the share `val` of the good images' parts, those that were painted on first, with the
    generated defects painted on them; and what the data set itself has for validation. test: the data set's own test
    images, or by part the share `test` of every type, without parts that a generator has seen. Generated defects on
    photographs that train are left out, since the detector would know every pixel around the defect.

    Raises FlawsmithError where no good image is left to train, or none of the generated ones validates.
    """
    made = [record for record in found.records if record.image in found.lines]
    real = [record for record in found.records if record.image not in found.lines]
    units = dividing.parts(real)
    seen = {record.image for unit in units if any(is_seen(one, found) for one in unit) for record in unit}
    if any(record.split != "train" for record in real):
        side = {record.image: SPLITS.get(record.split, "train") for record in real}
    else:
        side = dividing.by_part(real, 0.0, test, seed, frozenset(seen))
    good = [record for record in real if record.is_good and side[record.image] == "train"]
    side |= dict.fromkeys(_held_out(good, val, seed, {record.image for record in found.normals.values()}), "val")
    chosen = {
        record.image: side[record.image]
        for record in real
        if not (side[record.image] == "train" and not record.is_good)
        and not (side[record.image] == "test" and record.image in seen)
    }
    for record in made:
        normal = found.normals.get(record.image)
        if normal is None or chosen.get(normal.image) == "val":
            chosen[record.image] = "val"
    _refuse_empty(found, made, chosen)
    return chosen


def _held_out(good: Sequence[Record], val: float, seed: int, painted: set[Path]) -> list[Path]:
    """The share `val` of good images, by part, painted ones first; one part at least is left to train."""
    units = dividing.parts(good)
    units = [units[number] for number in np.random.default_rng(seed).permutation(len(units))]
    units.sort(key=lambda unit: not any(record.image in painted for record in unit))
    held: list[Path] = []
    for unit in units[:-1]:
        if len(held) + len(unit) / 2 <= val * len(good):
            held += [record.image for record in unit]
    return held


def _refuse_empty(found: Sources, made: Sequence[Record], chosen: dict[Path, str]) -> None:
    roots = ", ".join(map(str, found.roots))
    if not any(side == "train" for side in chosen.values()):
        raise FlawsmithError(
            f"No good image of {roots} is left to train: a one-class detector learns good images only. Name a data set "
            "that has some, or give smaller shares of val and test."
        )
    used = sum(record.image in chosen for record in made)
    if made and not used:
        raise FlawsmithError(
            f"None of the {len(made)} generated images of {roots} was painted on the good images that are held out for "
            "validation: raise val, or generate more."
        )
    if used < len(made):
        found.notes.append(
            f"{used} of {len(made)} generated images validate; the others were painted on images that train or test."
        )
