"""What all parts of a comparison share: its settings, its arms, the ledger, and what is named how in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith import __version__, images
from flawsmith.comparison.arms import Arm, Source, digest
from flawsmith.config import CompareConfig, overlay
from flawsmith.datasets.splits import few_shot
from flawsmith.evaluation import features
from flawsmith.evaluation.detectors import one_class
from flawsmith.evaluation.detectors.classification import ClassificationConfig
from flawsmith.evaluation.detectors.encoder import fingerprint
from flawsmith.evaluation.detectors.segmentation import SegmentationConfig
from flawsmith.evaluation.protocol import VALIDATION, Division, Real, use
from flawsmith.evaluation.results import Ledger, Value, as_values
from flawsmith.methods import METHODS
from flawsmith.records import Progress, Record
from flawsmith.registry import resolve

TOTAL = "networks"  # what progress over the whole comparison is called


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

    def shown(self, shots: int | str) -> list[Arm]:
        """The arms whose images are looked at: those of one that chooses are other arms'."""
        return [one for one in self.arms if self.fits(one, shots) and not one.chooses]

    def fits(self, one: Arm, shots: int | str) -> bool:
        """Whether an arm exists for this number of shots; without any, nothing that copies real defects does."""
        own = [m for m in one.methods if m not in one.folders]
        copies = any(resolve(m, METHODS, "Method").references != "none" for m in own)
        return bool(shots) or (bool(one.methods) and not copies)

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

    def count(self, more: int) -> None:
        self.done += more
        if self.progress and more:
            self.progress(TOTAL, self.done, self.total(), {})

    def values(self, part: str) -> list[Value]:
        return as_values(self.ledger[part]["values"])

    def counts(self, part: str) -> Path:
        """Where a network's counts of pixels and images are kept, for the bootstrap."""
        return self.config.out / "counts" / f"{hashlib.sha256(part.encode()).hexdigest()[:16]}.safetensors"

    def _identity(self, division: Division, support: list[Record], normals: list[Record], seed: int) -> str:
        """A hash of what decides the images, and of what they are judged by: other networks do not need new ones."""
        fields = json.loads(self.config.model_dump_json(include={"category", "group_by", "images"}))
        sides = (support, normals, division.validation, division.test)
        sha = cache(images.file_sha)  # one annotation file may hold the masks of all
        hashes = [[sha(path) for r in side for path in r.files] for side in sides]
        return digest([__version__, fields, hashes, seed], 16)
