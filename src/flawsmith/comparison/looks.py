"""What a comparison says of the images themselves, arm by arm, with the anchors beside them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from flawsmith.comparison import anchors
from flawsmith.comparison.arms import Arm, Source
from flawsmith.evaluation import judge as judging
from flawsmith.evaluation.results import Value, as_values

if TYPE_CHECKING:
    from flawsmith.comparison.shared import Run


def metrics(whole: Run, identity: str, source: Source, seed: int, shots: int | str) -> list[Value]:
    """Generation metrics of every arm's images, and of the anchors: held-out defects, photographs untouched."""
    if whole.extractor is None or not whole.wanted:
        return []
    support, test = source.support, [r for r in source.division.test if not r.is_good]
    judge: judging.Judge | None = None
    values: list[Value] = []
    arms = [one for one in whole.shown(shots) if one.methods or support]
    extra = [("anchors", None)] if shots == whole.config.shots[0] else []  # the same for every number of shots
    for label, one in [*((one.label(shots), one) for one in arms), *extra]:
        judged = f"{','.join(whole.wanted)} {whole.extractor.hash}"
        name = f"{identity}/images {judged} {label}{source.stamp(one)}"
        if name not in whole.ledger:
            if whole.progress:
                whole.progress(f"seed {seed}, {label}: images", 0, 1, {})
            made = (source.images(one) if one.methods else support) if one else []
            judge = judge or judging.Judge(
                whole.extractor, support or source.division.support, test, whole.wanted, seed
            )
            # The arm of real defects alone shows what copying every one of them would score.
            found = judge.values(made, label) if one else _anchors(judge, source, arms, [r.group for r in test])
            whole.ledger.add(name, {"values": [asdict(value) for value in found]})
        values += as_values(whole.ledger[name]["values"])
    return values


def _anchors(judge: judging.Judge, source: Source, arms: list[Arm], parts: list[str]) -> list[Value]:
    values = anchors.held_out(judge, parts)
    painted = next((m for one in arms for m in one.methods if m not in one.folders), None)
    if painted is not None:
        roots = [source.data, source.data.parent]
        values += judge.values(anchors.untouched(source.out(painted), roots), "untouched")
    return values


def realism(whole: Run, identity: str, source: Source, seed: int, shots: int | str) -> list[Value]:
    """Whether a probe tells every arm's windows from held-out defects; and of the anchors."""
    if whole.extractor is None or "realism" not in whole.config.metrics:
        return []
    arms = [one for one in whole.shown(shots) if one.methods or source.support]
    looker = anchors.Realism(whole.extractor, source, seed)
    values: list[Value] = []
    for label, one in looker.rows([(one.label(shots), one) for one in arms]):
        name = f"{identity}/realism {whole.extractor.hash} {label}{source.stamp(one)}"
        if name not in whole.ledger:
            if whole.progress:
                whole.progress(f"seed {seed}, {label}: realism", 0, 1, {})
            found = looker.values(label, one)
            whole.ledger.add(name, {"values": [asdict(value) for value in found]})
        values += as_values(whole.ledger[name]["values"])
    return values
