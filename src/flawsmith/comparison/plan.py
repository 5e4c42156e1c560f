"""The plan of a comparison, for people, before it starts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from flawsmith.evaluation.detectors import expected
from flawsmith.evaluation.protocol import Division

if TYPE_CHECKING:
    from flawsmith.comparison.shared import Run


def plan(whole: Run, divisions: dict[int, Division]) -> str:
    """What there is to do, for people: networks, how many of them are there already, and how long the others take.

    A network's time is the mean of those that this results folder holds, or else that of a few steps.
    """
    left, known = 0, []
    for (seed, division), shots in itertools.product(divisions.items(), whole.config.shots):
        identity, source, normals = whole.begin(division, seed, shots)
        for one in (one for one in whole.arms if whole.fits(one, shots)):
            for share in whole.shares(one, shots):
                for what, _, part in whole.named(identity, one, source, shots, share):
                    left += part not in whole.ledger
                    found = whole.values(part) if part in whole.ledger else []
                    known += [v.value for v in found if v.key == f"seconds/{what}" and v.value is not None]
    axes = [one.name for one in whole.arms], divisions, whole.config.shots, whole.config.ratios
    names = zip(("arms", "seeds", "shots", "shares"), (", ".join(map(str, axis)) for axis in axes), strict=True)
    told = f"Plan: {'; '.join(f'{name} {axis}' for name, axis in names)}: {whole.total()} networks"
    if not left:
        return f"{told}, all of them there."
    each = float(np.mean(known)) if known else None
    if each is None and "segmentation" in whole.config.metrics:
        made = whole.config.images * len(division.types) if any(one.methods for one in whole.arms) else 0
        judged = len(division.test) + len(division.validation) * (1 + whole.segmenting.looks)
        defects = [record for record in division.support if record.masks]
        sizes = len(source.support), made, len(normals)
        each = expected.seconds(whole.segmenting, sizes, judged, defects, normals)
    there = f", {whole.total() - left} of them there" if left < whole.total() else ""
    if each is None:
        return f"{told}{there}."
    minutes = left * each / whole.config.jobs / 60
    return (
        f"{told}{there}. Training takes about {minutes:.0f} minutes ({each:.0f} s a network, {whole.config.jobs} "
        "at a time); making the images comes on top, minutes for each method that is fitted."
    )
