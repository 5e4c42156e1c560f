"""`generate --from-misses RESULTS`: from what a detector missed of validation to what a run makes more of.

Every image aims at one missed defect of its type, drawn by how much of it was missed: its size is drawn near that
one's, its centre around that one's where products lie alike, so that over a run sizes and places follow the density of
the missed ones. What the user sets by a dial stays the user's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as settings

from flawsmith import images, inputs
from flawsmith.config import SETTINGS, Amount, GenerateConfig, Share
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.generation.turns import Turns
from flawsmith.quality.places import POSED, copy_of
from flawsmith.records import Record, Target

FILE, RESULTS = "misses.jsonl", "results.json"
NEAR = 1.25  # factor by which a size may differ from the missed defect's
SLIGHT = 0.05  # missed share below which a defect counts as found whole
# weight of a type that is not missed over that of the most missed one: a detector forgets what never comes
LEAST = 0.1
FAINT = 10.8  # grey levels of severity 0, see `compose.at_severity`
LOOKED_AT = 6  # good photographs that are compared to know whether products lie alike


@settings(frozen=True, config=SETTINGS)
class Missed:
    """One validation defect, over all arms and seeds: see `evaluation.misses.of`."""

    type: str
    image: str
    sha: str
    found: Share
    size: Annotated[float, Field(gt=0, le=1)]
    contrast: Amount
    place: tuple[Share, Share]

    @property
    def missed(self) -> float:
        return 1 - self.found


@dataclass(frozen=True)
class Aim:
    """What a run is to make more of: weights of the defect types, and by type what its images aim at, in turns."""

    mix: Mapping[str, float]
    targets: Mapping[str, list[tuple[Target, float]]]
    told: list[str]
    seen: Mapping[str, str]

    @cached_property
    def turns(self) -> dict[str, Turns]:
        return {kind: Turns([weight for _, weight in found]) for kind, found in self.targets.items() if found}

    def target(self, kind: str, turn: int) -> Target | None:
        """What image number `turn` of a type aims at; None of a type of which nothing was missed."""
        return self.targets[kind][self.turns[kind].at(turn)[0]][0] if kind in self.turns else None

    def aims(self, what: str) -> bool:
        """Whether any image aims at a "place" or a "severity"."""
        return any(getattr(target, what) is not None for found in self.targets.values() for target, _ in found)

    def describe(self) -> dict[str, Any]:
        """What generate.json records: the words, the weights, and the images that it was planned by, with hashes."""
        return {"told": self.told, "mix": dict(self.mix), "seen": dict(self.seen)}


def aim(
    config: GenerateConfig, pairs: Sequence[tuple[str, str]], known: Sequence[str], normals: Sequence[Record]
) -> Aim | None:
    """Read the misses and decide; None where the configuration names none.

    pairs: (category, defect type) that can be made. known: the types of the data set. normals: its good photographs.
    Raises FlawsmithError for a folder without misses, with types of another data set, or that names a test image.
    """
    if config.from_misses is None:
        return None
    if len({category for category, _ in pairs}) > 1:
        raise FlawsmithError("--from-misses is about one product, and the data set holds several: name a --category.")
    if config.mask == "learned" or (config.mask is not None and Path(config.mask).is_file()):
        raise FlawsmithError(
            f"--from-misses draws masks of the missed sizes, --mask {config.mask} has its own: leave out one."
        )
    found = read(config.from_misses)
    types = [kind for _, kind in pairs]
    for kind in dict.fromkeys(one.type for one in found):
        if kind not in types and kind not in known:
            raise unknown("Defect", kind, types, f"of {config.from_misses / FILE} is not made here: another data set?")
    rows = {kind: [one for one in found if one.type == kind] for kind in types}
    share = {kind: float(np.mean([one.missed for one in own])) for kind, own in rows.items() if own}
    most = max(share.values(), default=0.0)
    if most <= SLIGHT:
        raise FlawsmithError(f"{config.from_misses} says that no validation defect of {', '.join(types)} was missed.")
    mix = {kind: round(max(share.get(kind, 0.0), LEAST * most), 3) for kind in types}
    if config.mix:
        mix = {kind: config.mix[kind] for kind in types}
    alike = likeness(normals)
    placed = alike >= POSED and config.heat is None and "place" not in config.mask_options
    targets, faint = {}, []
    for kind, own in rows.items():
        severity = None if config.severity is not None else strength(own)
        if severity is not None:
            faint.append(f"{kind} ({severity[0]:.2f} to {severity[1]:.2f})")
        targets[kind] = [
            (
                Target(
                    one.image,
                    None if "size" in config.mask_options else (one.size / NEAR, min(1.0, one.size * NEAR)),
                    one.place if placed else None,
                    severity,
                ),
                round(one.missed, 2),
            )
            for one in own
            if one.missed > SLIGHT
        ]
    told = _told(share, mix, rows, placed, alike, faint)
    return Aim(mix, targets, told, {one.image: one.sha for own in rows.values() for one in own})


def strength(found: Sequence[Missed]) -> tuple[float, float] | None:
    """The severities at which defects as contrasted as the found ones of a type become as faint as the missed ones.

    None where the missed ones are not fainter. Severity's path from FAINT to the contrast as painted is geometric.
    """
    sides = [[one.contrast for one in found if (one.found < 0.5) == missed] for missed in (True, False)]
    if not all(sides):
        return None
    missed, seen = (max(float(np.median(side)), FAINT) for side in sides)
    if missed >= 0.9 * seen:
        return None
    middle = 0.5 * float(np.log(missed / FAINT) / np.log(seen / FAINT))
    return round(max(0.0, middle - 0.1), 4), round(min(0.5, middle + 0.1), 4)


def likeness(normals: Sequence[Record]) -> float:
    """How alike products lie: the mean correlation of small copies of a few good photographs, at most 1; 0 of one."""
    step = max(1, len(normals) // LOOKED_AT)
    copies = [copy_of(images.read_image(record.image)) for record in normals[::step][:LOOKED_AT]]
    return float(np.mean([a @ b for a, b in combinations(copies, 2)])) if len(copies) > 1 else 0.0


def read(results: Path) -> list[Missed]:
    """The validation defects of a results folder, each once: what was found of it is the mean over arms and seeds.

    Raises FlawsmithError naming file and line for what is missing, damaged, or names a test image.
    """
    path, rows = results / FILE, dict[str, list[Missed]]()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        tested = set(inputs.parse_json((results / RESULTS).read_text(encoding="utf-8"))["tested"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FlawsmithError(
            f"{results} holds no misses ({FILE} and {RESULTS}): run flawsmith evaluate with --metrics segmentation "
            f"there first ({error})."
        ) from error
    adapter = TypeAdapter(Missed)
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            one = adapter.validate_json(json.dumps({key: row[key] for key in Missed.__dataclass_fields__}))
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise FlawsmithError(f"{path}, line {number} is damaged: evaluate again ({_first(error)}).") from error
        if one.sha in tested:
            raise FlawsmithError(
                f"{path}, line {number}: {one.image} is a test image, and what is planned by it could not be judged on "
                "it. Where seeds divide the data anew, compare with --support fixed, or with one seed."
            )
        rows.setdefault(one.sha, []).append(one)
    if not rows:
        raise FlawsmithError(
            f"{path} is empty: no real defect was left for validation. Evaluate with more real defects."
        )
    means = {sha: float(np.mean([one.found for one in own])) for sha, own in rows.items()}
    return [_with(own[0], means[sha]) for sha, own in rows.items()]


def _with(one: Missed, found: float) -> Missed:
    return Missed(one.type, one.image, one.sha, min(1.0, found), one.size, one.contrast, one.place)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def _told(
    share: Mapping[str, float],
    mix: Mapping[str, float],
    rows: Mapping[str, Sequence[Missed]],
    placed: bool,
    alike: float,
    faint: Sequence[str],
) -> list[str]:
    """What was decided, in words."""
    total = sum(mix.values())
    missed = ", ".join(f"{kind} {part:.0%}" for kind, part in share.items())
    shares = ", ".join(f"{kind} {weight / total:.0%}" for kind, weight in mix.items())
    count = sum(map(len, rows.values()))
    spans = []
    for kind, own in rows.items():
        sizes = [one.size for one in own if one.missed > SLIGHT]
        spans += [f"{kind} {min(sizes):.2g} to {max(sizes):.2g} of the object"] if sizes else []
    where = (
        "centres around theirs"
        if placed
        else f"places are left alone (products lie differently: {alike:.2f} of {POSED:g}, or you named a place)"
    )
    return [
        f"Missed of {count} validation defects: {missed}. Shares of the images: {shares}.",
        f"Sizes are drawn near those of missed defects: {'; '.join(spans)}; {where}.",
        *([f"Missed defects are fainter than found ones, so severity is lower: {', '.join(faint)}."] if faint else []),
    ]
