"""One seed and number of shots of a comparison: images are made and looked at, networks trained, all entered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from flawsmith.comparison import choice, looks
from flawsmith.comparison.arms import Arm, Source, materialise
from flawsmith.comparison.shared import Run
from flawsmith.comparison.standing import BASELINES
from flawsmith.comparison.tasks import Outcome, Task, run, run_all
from flawsmith.datasets.lock import PARTIAL
from flawsmith.evaluation.protocol import Division
from flawsmith.evaluation.results import Value
from flawsmith.records import Record, under


def part(whole: Run, division: Division, seed: int, shots: int | str, notes: list[str]) -> list[Value]:
    """All arms of one seed and number of shots."""
    identity, source, normals = whole.begin(division, seed, shots)
    support, types = source.support, division.types
    if shots not in (0, "third"):
        for kind in types:
            count = sum(record.defect_type == kind for record in support)
            if count < int(shots):
                notes.append(f"seed {seed}: {kind} offers {count} of {shots} shots, a third of it being set aside.")
    source.data = materialise(source.folder, support, normals)
    values = looks.metrics(whole, identity, source, seed, shots) + looks.realism(whole, identity, source, seed, shots)
    asked: list[tuple[Arm, float, Task]] = []
    for chooses in (False, True):  # those that choose ask what the others' networks said
        turn: list[tuple[Arm, float, Task]] = []
        for one in (one for one in whole.arms if one.chooses == chooses):
            if not whole.fits(one, shots):
                if one.name not in BASELINES:
                    notes.append(f"{one.name} needs real defects and has no arm without any.")
                continue
            for share in whole.shares(one, shots):
                chosen = _choice(whole, identity, one, source, shots, share, notes) if chooses else None
                tasks = _tasks(whole, identity, one, source, normals, shots, share, chosen)
                turn += [(one, share, task) for task in tasks]
        _train(whole, [task for *_, task in turn])
        asked += turn
    notes += _left_out(whole, identity, source)
    for one, share, task in asked:
        values += whole.values(task.part)
        whole.missed += whole.ledger[task.part].get("misses", [])
        if task.what != "classification":
            told = whole.scored if task.what == "segmentation" else whole.alone
            told.setdefault((shots, one.name, share), {})[seed] = task.part
    return values


def _choice(
    whole: Run, identity: str, one: Arm, source: Source, shots: int | str, share: float, notes: list[str]
) -> dict[str, str]:
    """The method of each defect type; a pure function of the networks that the part's name tells."""
    alone = {}
    for method in one.methods:
        own = next(other for other in whole.arms if other.name == method)
        named = {what: part for what, _, part in whole.named(identity, own, source, shots, share)}
        alone[method] = whole.values(named["segmentation"])
    found = choice.chosen(source.division.types, alone)
    notes.append(f"seed {source.seed}, {one.label(shots, share)}: {choice.sentence(found)}.")
    return found


def _tasks(
    whole: Run,
    identity: str,
    one: Arm,
    source: Source,
    normals: list[Record],
    shots: int | str,
    share: float,
    chosen: dict[str, str] | None,
) -> list[Task]:
    """The networks of one arm and share; images are made for those that the ledger does not hold."""
    label, division = one.label(shots, share), source.division
    real = [] if share == 1 and one.methods else source.support
    found = []
    for _, config, part in whole.named(identity, one, source, shots, share):
        made = source.images(one, chosen) if part not in whole.ledger else []
        sides = [tuple(side) for side in (real, made, normals, division.validation, division.test)]
        found.append(Task(part, label, config, *sides))
    return found


def _left_out(whole: Run, identity: str, source: Source) -> list[str]:
    """A note per method whose images looked like judged ones; a resumed run knows them from the ledger."""
    found = []
    for one in (one for one in whole.arms if not one.chooses):
        name = f"{identity}/left out {one.name}{source.stamp(one)}"
        count = sum(source.left_out.get(method, 0) for method in one.methods)
        if count and name not in whole.ledger:
            whole.ledger.add(name, {"values": [], "count": count})
        if name in whole.ledger:
            count = whole.ledger[name]["count"]
            found.append(f"seed {source.seed}, {one.name}: {count} images that look like a test image are left out.")
    return found


def _train(whole: Run, tasks: Sequence[Task]) -> None:
    """Train what the ledger lacks and enter it; a killed run loses the networks it was training."""
    left = [task for task in tasks if task.part not in whole.ledger]
    whole.count(len(tasks) - len(left))
    if whole.config.jobs > 1 and len(left) > 1:
        for task, outcome in run_all(left, whole.config.jobs):
            _enter(whole, task, outcome)
        return
    for task in left:
        _enter(whole, task, run(task, under(whole.progress, f"seed {task.config.seed}, {task.label}: {task.what}")))


def _enter(whole: Run, task: Task, outcome: Outcome) -> None:
    if outcome.scored is not None:
        # before the ledger: a line never promises what is not there
        outcome.scored.save(whole.counts(task.part), whole.config.out / PARTIAL)
    missed = {"misses": outcome.misses} if task.what == "segmentation" else {}
    whole.ledger.add(task.part, {"values": [asdict(value) for value in outcome.values], **missed})
    whole.count(1)
