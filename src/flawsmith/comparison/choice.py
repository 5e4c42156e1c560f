"""What validation images decide: the share of generated defects, and which method suits which defect type.

The latter is an arm such as "copypaste-or-analogy".
Methods are good at different types: a texture can be synthesised in a new shape, a lead that is cut off cannot. Test
images have no say in the choice, and each seed makes its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from flawsmith.comparison.arms import BY_VALIDATION
from flawsmith.evaluation.detectors.downstream import CHOSEN_BY
from flawsmith.evaluation.results import MEAN, Value

if TYPE_CHECKING:
    from flawsmith.comparison.shared import Run


def chosen(types: Sequence[str], alone: Mapping[str, Sequence[Value]]) -> dict[str, str]:
    """Defect type -> the method whose own networks have the highest validation pixel AP on it, in their mean.

    alone: of each method the values of the networks that learned from its images, of one seed or of several. Of equals
    the first method is taken, also where validation has no defect of a type.
    """

    def told(method: str, kind: str) -> float:
        found = [v.value for v in alone[method] if v.type == kind and v.key.startswith(f"{CHOSEN_BY}/")]
        return float(np.mean([number for number in found if number is not None] or [0.0]))

    return {kind: max(alone, key=lambda method: told(method, kind)) for kind in types}


def sentence(choice: Mapping[str, str]) -> str:
    """The choice in words: "analogy for break; copypaste for blowhole, crack"."""
    methods = sorted(set(choice.values()))
    return "; ".join(f"{m} for {', '.join(kind for kind in choice if choice[kind] == m)}" for m in methods)


def over_seeds(whole: Run, types: Sequence[str]) -> list[str]:
    """What to make for a detector of one's own: the choice by the validation images of all seeds together.

    Returns a sentence for every arm that chooses, number of shots and share; none where there is one seed, whose own
    note says it.
    """
    if len(whole.config.seeds) < 2:
        return []
    said = []
    for one in (one for one in whole.arms if one.chooses):
        for shots in whole.config.shots:
            for share in whole.shares(one, shots) if whole.fits(one, shots) else ():
                parts = {method: whole.scored[shots, method, share].values() for method in one.methods}
                alone = {method: [v for part in found for v in whole.values(part)] for method, found in parts.items()}
                said.append(f"{one.label(shots, share)}, all seeds together: {sentence(chosen(types, alone))}.")
    return said


def by_validation(whole: Run, notes: list[str]) -> list[Value]:
    """For every arm of several shares one more row: the share whose validation scores are best in the mean of all
    seeds, the same for each of them.

    Test images are not asked; of equal scores the first share is taken. Where a seed has no validation defect,
    the arm has no such row and `notes` says so.
    """
    values: list[Value] = []
    for one in whole.arms:
        for shots in whole.config.shots:
            shares = [share for share in whole.shares(one, shots) if (shots, one.name, share) in whole.scored]
            if len(shares) < 2:
                continue
            label, liked = one.label(shots, BY_VALIDATION), []
            for share in shares:
                found = [
                    value for part in whole.scored[shots, one.name, share].values() for value in whole.values(part)
                ]
                liked.append([v.value for v in found if v.key.startswith(f"{CHOSEN_BY}/") and v.type == MEAN])
            if any(number is None for row in liked for number in row):
                notes.append(f"{label}: a seed has no real defect to choose the share by.")
                continue
            best = shares[int(np.argmax(np.mean(np.array(liked, float), axis=1)))]
            taken = whole.scored[shots, one.name, best]
            values += [replace(value, method=label) for part in taken.values() for value in whole.values(part)]
            whole.scored[shots, one.name, BY_VALIDATION] = taken
            notes.append(f"{label}: validation chose {best:g}.")
    return values
