"""`flawsmith evaluate --compare`: does it help? Arms that differ only in where their generated defects come from.

Per seed the real data is divided anew by physical part; every arm of the seed gets the same support, the same initial
weights, the same number of steps and the same normal images. A method reads a data set on disk that holds nothing
but the support and the training normals, so that nothing else can leak. Validation and test are the same for every
number of shots. Reference: docs/evaluation.md, "Does it help?".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith import __version__, images
from flawsmith.comparison import choice, looks, verdict
from flawsmith.comparison import plan as planned
from flawsmith.comparison.arms import (
    REAL,
    Arm,
    Source,
    check_choices,
    check_settings,
    digest,
    materialise,
    parse,
)
from flawsmith.comparison.tasks import Outcome, Task, run, run_all
from flawsmith.config import CompareConfig, overlay
from flawsmith.datasets.lock import PARTIAL, Lock
from flawsmith.datasets.splits import few_shot
from flawsmith.diffusion.devices import refuse_device
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation import features, misses, results
from flawsmith.evaluation import judge as judging
from flawsmith.evaluation.detectors import frozen, heads, one_class
from flawsmith.evaluation.detectors.classification import ClassificationConfig
from flawsmith.evaluation.detectors.encoder import fingerprint
from flawsmith.evaluation.detectors.segmentation import SegmentationConfig
from flawsmith.evaluation.protocol import VALIDATION, Division, Real, read_real, use
from flawsmith.evaluation.results import Ledger, Value, as_values
from flawsmith.evaluation.run import LOOKING, check_metrics, fingerprints
from flawsmith.methods import METHODS
from flawsmith.records import Progress, Record, under
from flawsmith.registry import resolve

TOTAL = "networks"  # what progress over the whole comparison is called
BASELINES = (REAL, "copypaste")  # what an arm must beat to be said to help
BY_TEXT = ("perlin", "cutpaste", "procedural")  # the same without any real defect


def compare(
    config: CompareConfig,
    command: str = "",
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> tuple[list[Value], list[str]]:
    """Run every missing part and write results.json, .csv and .md to `config.out`: (values, verdict sentences).

    `announce` is told the plan first: what is there, what is to be trained, how long that takes. A killed run loses the
    part it was in; the same command resumes. Raises FlawsmithError for a leak, an unknown arm or
    setting, before anything slow.
    """
    check_metrics(config.metrics)
    refuse_device(config.device)
    arms = [parse(text) for text in config.arms]
    check_settings(config, arms)
    check_choices(arms, config.metrics)
    segmenting = heads.settings_of(
        config.segmentation, config.features if "segmentation" in config.metrics else "compact", config.device
    )
    classifying = frozen.settings_of(config.classification, config.features, config.device)
    detecting = overlay(one_class.OneClassConfig(config.features, device=config.device), config.one_class, "One-class")
    encoders = fingerprints(config.metrics, classifying, detecting)
    wanted = sorted(set(config.metrics) & set(judging.METRICS))
    looks = set(config.metrics) & LOOKING
    extractor = features.load(config.features).to(config.device) if looks else None
    real = read_real(config)
    divisions = {seed: divide(real, config.drawn(seed)) for seed in config.seeds}
    with Lock(config.out):
        ledger = Ledger(config.out)
        whole = Run(config, arms, segmenting, classifying, detecting, encoders, wanted, extractor, ledger, progress)
        if announce:
            announce(planned.plan(whole, divisions))
        values: list[Value] = []
        notes: list[str] = []
        for seed in config.seeds:  # outermost, so that a stopped comparison holds whole pairs
            for shots in config.shots:
                values += whole.part(divisions[seed], seed, shots, notes)
        values += choice.by_validation(whole, notes)
        if config.support == "fixed" and len(config.seeds) > 1:
            notes.append(
                "All seeds learn from one support: the intervals do not speak of other real defects to learn from."
            )
        notes = list(dict.fromkeys(notes))
        sentences = whole.verdicts()
        about = {
            "command": command,
            "config": json.loads(config.model_dump_json(exclude={"out"})),
            "protocol": "leak-safe",
            "extractors": {
                e.name: e.describe() for e in ([extractor, extractor.at(judging.CLOSE)] if extractor else [])
            },
            "verdicts": sentences,
            "leaks": [],
            "notes": notes,
            "tested": misses.tested(divisions.values()),
        }
        if "segmentation" in config.metrics:
            misses.write(config.out, whole.missed)
        told = [*sentences, *(f"Note: {note}" for note in notes)]
        results.write(config.out, values, about, ["", *(f"- {sentence}" for sentence in told)])
    return results.with_means(values), told


def divide(real: Real, seed: int) -> Division:
    """The division of one seed: a third of the physical parts is what shots are taken from, whatever their number."""
    return use(few_shot(real.records, rule="group", seed=seed + 1, validation=VALIDATION), real)


def support_of(division: Division, shots: int | str, seed: int) -> list[Record]:
    """The real defects of an arm: none, `shots` of each type, or the whole third."""
    if shots == 0:
        return []
    pool = [record for record in division.support if record.masks]
    if shots == "third":
        return pool
    return list(few_shot(pool, int(shots), rule="group", seed=seed + 1).support)


@dataclass
class Run:
    """What all parts of a comparison share."""

    config: CompareConfig
    arms: list[Arm]
    segmenting: SegmentationConfig
    classifying: ClassificationConfig
    detecting: one_class.OneClassConfig
    encoders: dict[str, str]  # metric -> hash of the encoder it stands on
    wanted: list[str]
    extractor: features.Extractor | None
    ledger: Ledger
    progress: Progress | None
    scored: dict[tuple[int | str, str, float | str], dict[int, str]] = field(default_factory=dict)  # seed -> part
    alone: dict[tuple[int | str, str, float | str], dict[int, str]] = field(default_factory=dict)  # the same, one-class
    missed: list[dict[str, Any]] = field(default_factory=list)  # what every segmenter misses of validation
    done: int = 0

    def total(self) -> int:
        """How many networks will be trained, all seeds, shots and shares together."""
        each = sum(
            len(self.shares(one, shots)) for shots in self.config.shots for one in self.arms if self.fits(one, shots)
        )
        return (
            each
            * len(self.config.seeds)
            * len({"segmentation", "classification", one_class.NAME} & set(self.config.metrics))
        )

    def shares(self, one: Arm, shots: int | str) -> tuple[float, ...]:
        """The shares of generated defects; without generated or without real ones there is nothing to share."""
        if one.methods and shots:
            return self.config.ratios
        return (1.0,) if one.methods else (0.0,)

    def begin(self, division: Division, seed: int, shots: int | str) -> tuple[str, Source, list[Record]]:
        """The identity of one seed and number of shots, where its images come from, and its normal photographs."""
        drawn = self.config.drawn(seed)
        support = support_of(division, shots, drawn)
        order = np.random.default_rng(drawn).permutation(len(division.normals))[: self.config.normals]
        normals = [division.normals[i] for i in sorted(order)]
        identity = self._identity(division, support, normals, seed)
        folder = self.config.out / "work" / f"seed{seed}-{shots}-{identity[:8]}"
        return identity, Source(self.config, folder, folder, division, support, seed, self.progress), normals

    def part(self, division: Division, seed: int, shots: int | str, notes: list[str]) -> list[Value]:
        """All arms of one seed and number of shots."""
        identity, source, normals = self.begin(division, seed, shots)
        support, types = source.support, division.types
        if shots not in (0, "third"):
            for kind in types:
                count = sum(record.defect_type == kind for record in support)
                if count < int(shots):
                    notes.append(f"seed {seed}: {kind} offers {count} of {shots} shots, a third of it being set aside.")
        source.data = materialise(source.folder, support, normals)
        values = looks.metrics(self, identity, source, seed, shots) + looks.realism(self, identity, source, seed, shots)
        asked: list[tuple[Arm, float, Task]] = []
        for chooses in (False, True):  # those that choose ask what the others' networks said
            turn: list[tuple[Arm, float, Task]] = []
            for one in (one for one in self.arms if one.chooses == chooses):
                if not self.fits(one, shots):
                    if one.name not in BASELINES:
                        notes.append(f"{one.name} needs real defects and has no arm without any.")
                    continue
                for share in self.shares(one, shots):
                    chosen = self._choice(identity, one, source, shots, share, notes) if chooses else None
                    tasks = self._tasks(identity, one, source, normals, shots, share, chosen)
                    turn += [(one, share, task) for task in tasks]
            self._train([task for *_, task in turn])
            asked += turn
        notes += self._left_out(identity, source)
        for one, share, task in asked:
            values += self.values(task.part)
            self.missed += self.ledger[task.part].get("misses", [])
            if task.what != "classification":
                told = self.scored if task.what == "segmentation" else self.alone
                told.setdefault((shots, one.name, share), {})[seed] = task.part
        return values

    def shown(self, shots: int | str) -> list[Arm]:
        """The arms whose images are looked at: those of one that chooses are other arms'."""
        return [one for one in self.arms if self.fits(one, shots) and not one.chooses]

    def fits(self, one: Arm, shots: int | str) -> bool:
        """Whether an arm exists for this number of shots; without any, nothing that copies real defects does."""
        own = [m for m in one.methods if m not in one.folders]
        copies = any(resolve(m, METHODS, "Method").references != "none" for m in own)
        return bool(shots) or (bool(one.methods) and not copies)

    def _choice(
        self, identity: str, one: Arm, source: Source, shots: int | str, share: float, notes: list[str]
    ) -> dict[str, str]:
        """The method of each defect type; a pure function of the networks that the part's name tells."""
        alone = {}
        for method in one.methods:
            own = next(other for other in self.arms if other.name == method)
            named = {what: part for what, _, part in self.named(identity, own, source, shots, share)}
            alone[method] = self.values(named["segmentation"])
        found = choice.chosen(source.division.types, alone)
        notes.append(f"seed {source.seed}, {one.label(shots, share)}: {choice.sentence(found)}.")
        return found

    def _tasks(
        self,
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
        for _, config, part in self.named(identity, one, source, shots, share):
            made = source.images(one, chosen) if part not in self.ledger else []
            sides = [tuple(side) for side in (real, made, normals, division.validation, division.test)]
            found.append(Task(part, label, config, *sides))
        return found

    def named(
        self, identity: str, one: Arm, source: Source, shots: int | str, share: float
    ) -> list[tuple[str, Any, str]]:
        """What is trained for one arm and share, with its settings and its name in the ledger."""
        label, found = one.label(shots, share), []
        for what, base in (
            ("segmentation", self.segmenting),
            ("classification", self.classifying),
            (one_class.NAME, self.detecting),
        ):
            if what not in self.config.metrics:
                continue
            own = {"device": "", "weights": self.encoders.get(what, "")}
            own |= {"encoder": fingerprint(self.segmenting.encoder)} if what == "segmentation" else {}
            config = overlay(base, {"seed": source.seed, "synthetic": float(share)}, what.capitalize())
            part = f"{identity}/{what}/{label}{source.stamp(one)} {digest({**asdict(config), **own})}"
            found.append((what, config, part))
        return found

    def _left_out(self, identity: str, source: Source) -> list[str]:
        """A note per method whose images looked like judged ones; a resumed run knows them from the ledger."""
        found = []
        for one in (one for one in self.arms if not one.chooses):
            name = f"{identity}/left out {one.name}{source.stamp(one)}"
            count = sum(source.left_out.get(method, 0) for method in one.methods)
            if count and name not in self.ledger:
                self.ledger.add(name, {"values": [], "count": count})
            if name in self.ledger:
                count = self.ledger[name]["count"]
                found.append(
                    f"seed {source.seed}, {one.name}: {count} images that look like a test image are left out."
                )
        return found

    def _train(self, tasks: Sequence[Task]) -> None:
        """Train what the ledger lacks and enter it; a killed run loses the networks it was training."""
        left = [task for task in tasks if task.part not in self.ledger]
        self._count(len(tasks) - len(left))
        if self.config.jobs > 1 and len(left) > 1:
            for task, outcome in run_all(left, self.config.jobs):
                self._enter(task, outcome)
            return
        for task in left:
            self._enter(task, run(task, under(self.progress, f"seed {task.config.seed}, {task.label}: {task.what}")))

    def _enter(self, task: Task, outcome: Outcome) -> None:
        if outcome.scored is not None:
            # before the ledger: a line never promises what is not there
            outcome.scored.save(self._counts(task.part), self.config.out / PARTIAL)
        missed = {"misses": outcome.misses} if task.what == "segmentation" else {}
        self.ledger.add(task.part, {"values": [asdict(value) for value in outcome.values], **missed})
        self._count(1)

    def _count(self, more: int) -> None:
        self.done += more
        if self.progress and more:
            self.progress(TOTAL, self.done, self.total(), {})

    def values(self, part: str) -> list[Value]:
        return as_values(self.ledger[part]["values"])

    # -- what the bootstrap needs --------------------------------------------------------------------------------------

    def _counts(self, part: str) -> Path:
        return self.config.out / "counts" / f"{hashlib.sha256(part.encode()).hexdigest()[:16]}.safetensors"

    def _scored(self, part: str) -> verdict.Scored:
        path = self._counts(part)
        try:
            return verdict.Scored.load(path)
        except (OSError, ValueError, KeyError) as error:
            raise FlawsmithError(
                f"{path} is missing or damaged: remove {self.ledger.path} and compare again."
            ) from error

    def verdicts(self) -> list[str]:
        """One sentence per arm: what it adds over the arms it must beat, for every number of shots and share."""
        return [*self._verdicts(self.scored), *(f"One-class, {text}" for text in self._verdicts(self.alone))]

    def _verdicts(self, scored: dict[tuple[int | str, str, float | str], dict[int, str]]) -> list[str]:
        sentences = []
        by_name = {one.name: one for one in self.arms}
        for (shots, name, share), own in scored.items():
            against: dict[str, verdict.Difference] = {}
            for other in BASELINES if shots else BY_TEXT:
                found = scored.get((shots, other, 0.0 if other == REAL else share), {})
                both = sorted(own.keys() & found.keys())
                if both and name not in (other, REAL):
                    sides = [[self._scored(side[seed]) for seed in both] for side in (own, found)]
                    against[other] = verdict.compare(sides[0], sides[1])
            if against:
                sentences.append(f"{by_name[name].label(shots, share)}: {verdict.claim(against)}")
        return sentences

    def _identity(self, division: Division, support: list[Record], normals: list[Record], seed: int) -> str:
        """A hash of what decides the images, and of what they are judged by: other networks do not need new ones."""
        fields = json.loads(self.config.model_dump_json(include={"category", "group_by", "images"}))
        sides = (support, normals, division.validation, division.test)
        sha = cache(images.file_sha)  # one annotation file may hold the masks of all
        hashes = [[sha(path) for r in side for path in r.files] for side in sides]
        return digest([__version__, fields, hashes, seed], 16)
