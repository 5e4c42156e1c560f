"""How the arms of a comparison stand to each other, once its networks are trained."""

from __future__ import annotations

from flawsmith.comparison import verdict
from flawsmith.comparison.arms import REAL
from flawsmith.comparison.shared import Run
from flawsmith.errors import FlawsmithError

BASELINES = (REAL, "copypaste")  # what an arm must beat to be said to help
BY_TEXT = ("perlin", "cutpaste", "procedural")  # the same without any real defect


def _scored(whole: Run, part: str) -> verdict.Scored:
    path = whole.counts(part)
    try:
        return verdict.Scored.load(path)
    except (OSError, ValueError, KeyError) as error:
        raise FlawsmithError(f"{path} is missing or damaged: remove {whole.ledger.path} and compare again.") from error


def verdicts(whole: Run) -> list[str]:
    """One sentence per arm: what it adds over the arms it must beat, for every number of shots and share."""
    return [*_verdicts(whole, whole.scored), *(f"One-class, {text}" for text in _verdicts(whole, whole.alone))]


def _verdicts(whole: Run, scored: dict[tuple[int | str, str, float | str], dict[int, str]]) -> list[str]:
    sentences = []
    by_name = {one.name: one for one in whole.arms}
    for (shots, name, share), own in scored.items():
        against: dict[str, verdict.Difference] = {}
        for other in BASELINES if shots else BY_TEXT:
            found = scored.get((shots, other, 0.0 if other == REAL else share), {})
            both = sorted(own.keys() & found.keys())
            if both and name not in (other, REAL):
                sides = [[_scored(whole, side[seed]) for seed in both] for side in (own, found)]
                against[other] = verdict.compare(sides[0], sides[1])
        if against:
            sentences.append(f"{by_name[name].label(shots, share)}: {verdict.claim(against)}")
    return sentences
