"""What a score means: the same figures of images that nobody generated. They stand beside the methods in every table.

"held-out": real defects against each other, one half of the physical parts against the other. "untouched": photographs
with the masks of generated defects and nothing painted; how much of a score the photograph alone earns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flawsmith import images, inputs
from flawsmith.datasets.writer import MANIFEST, read_manifest
from flawsmith.evaluation.judge import ALL, Judge
from flawsmith.evaluation.metrics import diversity, fidelity, labels
from flawsmith.evaluation.results import Value
from flawsmith.records import Sample

HALVES = 20


def held_out(judge: Judge, parts: Sequence[str]) -> list[Value]:
    """KID and pairwise distance of the judge's real defects among themselves; `parts` names what each one shows."""
    owner, values = np.array(parts), []
    for region, seen in judge.truth.items():
        for kind in [*dict.fromkeys(seen.types.tolist()), ALL]:
            rows = seen.rows(kind)
            key = f"{judge.extractor.name}/{region}"
            line = Value("", None, kind, "held-out", judge.seed, len(rows), len(rows))
            if "kid" in judge.metrics:
                found = _halves(seen.features.pooled[rows], owner[rows])
                reason = "" if found else "too few physical parts to halve"
                mean, spread = (float(np.mean(found)), float(np.std(found))) if found else (None, None)
                values.append(replace(line, key=f"KID/{key}", value=mean, spread=spread, reason=reason))
            if "ic-lpips" in judge.metrics:
                distance = diversity.mean_pairwise(diversity.distances(seen.map_rows(kind)))
                reason = "" if distance is not None else "fewer than two held-out defects"
                values.append(replace(line, key=f"pairwise-FD/{key}", value=distance, reason=reason))
    return values


def _halves(features: np.ndarray, owner: np.ndarray) -> list[float]:
    """KID of one half of the parts against the other, for up to HALVES random halvings."""
    parts, rng, found = sorted(set(owner.tolist())), np.random.default_rng(0), []
    for _ in range(HALVES if len(parts) > 1 else 0):
        first = np.isin(owner, rng.permutation(parts)[: len(parts) // 2])
        if 2 <= first.sum() <= len(first) - 2:
            found.append(fidelity.kid(features[first], features[~first]))
    return found


def untouched(out: Path, roots: Sequence[Path]) -> list[Sample]:
    """The photographs of a generated folder with its labels and nothing painted; those that are found under `roots`."""
    found = []
    for line in read_manifest(out):
        normal = labels.photograph(roots, line) if line["status"] == "kept" else None
        if normal is not None:
            mask = images.read_mask(inputs.inside(out, line["mask"], MANIFEST))
            found.append(Sample(normal, mask, line["category"], line["defect_type"]))
    return found
