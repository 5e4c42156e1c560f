"""What a score means: the same figures of images that nobody generated. They stand beside the methods in every table.

"held-out": real defects against each other, one half of the physical parts against the other. "untouched": photographs
with the masks of generated defects and nothing painted; how much of a score the photograph alone earns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flawsmith import images
from flawsmith.comparison.arms import Arm, Source, parse
from flawsmith.evaluation.features import Extractor
from flawsmith.evaluation.judge import ALL, Judge
from flawsmith.evaluation.metrics import diversity, fidelity, realism
from flawsmith.evaluation.results import Value
from flawsmith.records import Record, Sample

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


class Realism:
    """The realism of one seed's images: held-out defects, looked at once, against every arm and two anchors.

    "copypaste" is an anchor where it is no arm and there is a real defect to copy; "untouched" are the photographs of
    the first arm that was painted here.
    """

    def __init__(self, extractor: Extractor, source: Source, seed: int) -> None:
        self.extractor, self.source, self.seed = extractor, source, seed
        self._held: realism.Side | None = None
        self._painted: Arm | None = None

    def rows(self, arms: list[tuple[str, Arm]]) -> list[tuple[str, Arm | None]]:
        """Labels and arms of the table's rows; None is `untouched`."""
        painted = [one for _, one in arms if any(method not in one.folders for method in one.methods)]
        pasted = parse("copypaste")
        alone = bool(self.source.support) and not any(one.methods == pasted.methods for _, one in arms)
        self._painted = painted[0] if painted else pasted if alone else None
        extra: list[tuple[str, Arm | None]] = [("copypaste", pasted)] if alone else []
        return [*arms, *extra, *([("untouched", None)] if self._painted else [])]

    def values(self, label: str, one: Arm | None) -> list[Value]:
        """A row's values; an arm without a method is real defects against other real defects."""
        division = self.source.division
        defects = [record for record in division.test if not record.is_good]
        if self._held is None:
            self._held = realism.look(self.extractor, defects, [realism.part_of(r) for r in defects])
        known = (*division.normals, *self.source.support, *division.test)
        parts = {images.file_sha(record.image): realism.part_of(record) for record in known}
        made: Sequence[Sample | Record]
        if one is None:
            assert self._painted is not None
            self.source.images(self._painted)
            method = next(method for method in self._painted.methods if method not in self._painted.folders)
            made, shas = realism.untouched(self.source.out(method), [self.source.data, self.source.data.parent])
            owners = [parts.get(sha, sha) for sha in shas]
        elif one.methods:
            made = self.source.images(one)
            owner: dict[Path, str] = {}
            for method in one.methods:
                folder = one.folders.get(method, "").replace("{seed}", str(self.seed))
                owner |= realism.photographs(Path(folder) if folder else self.source.out(method), parts)
            owners = [owner.get(record.image, "") for record in made]
        else:
            made = self.source.support
            owners = [realism.part_of(record) for record in made]
        side = realism.look(self.extractor, made, owners)
        return realism.judge(self._held, side, self.extractor.name, label, self.seed)


def untouched(out: Path, roots: Sequence[Path]) -> list[Sample]:
    """The photographs of a generated folder with its labels and nothing painted; those that are found under `roots`."""
    return realism.untouched(out, roots)[0]
