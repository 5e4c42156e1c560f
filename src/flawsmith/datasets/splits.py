"""Which real defects a method may see (support) and which it is judged on (test): by physical part, never leaking."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from flawsmith import images
from flawsmith.datasets import tree
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.records import Record

RULES = ("first-third", "stratified", "group")

Unit = list[Record]  # the images of one physical part, or one image


@dataclass(frozen=True)
class Split:
    """Records by what they may be used for; nothing is in two places.

    `support`: defects a method may learn from. `validation`: for choosing settings. `test`: defects it is judged on
    and the good images of the test folder. `held_back`: not used, because they show a part (or are a copy of a
    image) that is in the support or validation set. Good images for training are in none of them.
    """

    support: tuple[Record, ...]
    test: tuple[Record, ...]
    validation: tuple[Record, ...] = ()
    held_back: tuple[Record, ...] = ()


def has_groups(records: Sequence[Record]) -> bool:
    """Whether the data set tells which images show the same part: some defects share a group."""
    defects = [record for record in records if not record.is_good]
    return len({record.group for record in defects if record.group}) < sum(bool(r.group) for r in defects)


def few_shot(
    records: Sequence[Record],
    shots: int | None = None,
    rule: str | None = None,
    seed: int = 0,
    validation: float = 0.0,
) -> Split:
    """Divide the defects of every category and type into support, validation and test.

    Rules: "first-third" takes the lowest n // 3 file names of each type, strictly (the protocol of the papers);
    "stratified" takes every k-th, for data sets ordered by sub-defect (MVTec LOCO); "group" takes whole parts, the
    first third of them. The default is "group" when some defects share a group, else "first-third". "stratified"
    counts parts too where there are any.

    `shots` asks for that many images of each type instead of a third, of as many different parts as possible, but
    of no more than half of the parts while these have images left. `seed` other than 0 shuffles the parts or
    images first ("first-third" is fixed and ignores it). `validation` is the share of the remaining parts set
    aside for choosing settings.

    A data set that divides its defects itself (some in train, some not) teaches from train only.

    Whatever the rule, images that share a group or the file content with a support image are never in test.
    A type with fewer than three images has none in its third: give `shots`. Raises FlawsmithError when there are
    no defects at all.
    """
    if rule is None:
        rule = "group" if has_groups(records) else "first-third"
    if rule not in RULES:
        raise unknown("Split rule", rule, RULES)
    if shots is not None and shots < 1:
        raise FlawsmithError(f"shots={shots}: give at least 1, or leave it out for a third of each defect type.")
    if not 0 <= validation < 1:
        raise FlawsmithError(f"validation={validation:g}: give a share from 0 to below 1.")
    kinds: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=_order):
        if not record.is_good:
            kinds.setdefault((record.category, record.defect_type), []).append(record)
    if not kinds:
        raise FlawsmithError("There is no defect image to split: name a data set with defect folders.")
    own = {record.split for members in kinds.values() for record in members}
    taught = {"train"} if "train" in own else own
    by_part = rule == "group" or (rule == "stratified" and has_groups(records))
    support: list[Record] = []
    for number, found in enumerate(kinds.values()):
        members = [record for record in found if record.split in taught]
        units = _units(members) if by_part else [[record] for record in members]
        if seed and rule != "first-third":
            order = np.random.default_rng([seed, number]).permutation(len(units))
            units = [units[index] for index in order]
        support += sorted(_choose(units, shots, rule), key=_order)
    return _divide(records, kinds, support, validation)


def around(records: Sequence[Record], support: Sequence[Record], validation: float = 0.0) -> Split:
    """The split around a support set that was chosen elsewhere: as in `few_shot`, nothing tied to it is tested.

    `support` are members of `records`, for example the defects a generator was trained on.
    """
    kinds: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=_order):
        if not record.is_good:
            kinds.setdefault((record.category, record.defect_type), []).append(record)
    return _divide(records, kinds, list(support), validation)


def hold_out(support: Mapping[str, Sequence[Record]], seed: int = 0) -> dict[str, list[Record]]:
    """Which of the support images of every type judge a fit instead of teaching it, by the names of `support`.

    About a fifth of a type's parts, at least one. Which ones turns with the seed and the name: over the seeds every
    part has its turn, but for those that are all that some type shows. What shows a part that is held out (by group or
    by content, under whatever type) is held out with it. A type always keeps a part to learn from: of a single one
    nothing is held out.
    """
    links = links_of([record for members in support.values() for record in members])
    parts: dict[Path, frozenset[str]] = {}
    for image, found in links.items():
        before, tied = set[str](), found or {f"file {image}"}
        while tied != before:
            before, tied = tied, tied.union(*(other for other in links.values() if other & tied))
        parts[image] = frozenset(tied)
    shown = {name: list(dict.fromkeys(parts[record.image] for record in members)) for name, members in support.items()}
    held: set[frozenset[str]] = set()
    for name, units in shown.items():
        start = (seed + zlib.crc32(name.encode())) % max(1, len(units))
        for unit in units[start:] + units[:start]:
            if len(held.intersection(units)) >= max(1, round(len(units) / 5)):
                break
            if all(set(others) - held - {unit} for others in shown.values() if others):
                held.add(unit)
    return {name: [record for record in members if parts[record.image] in held] for name, members in support.items()}


def _order(record: Record) -> tuple[object, ...]:
    return tree.natural(record.name)


def _units(members: Sequence[Record]) -> list[Unit]:
    """Records by group, groups in the order of their first image; a record without group stands alone."""
    units: dict[str, Unit] = {}
    for record in members:
        units.setdefault(record.group or f"\0{record.image}", []).append(record)
    return list(units.values())


def _choose(units: list[Unit], shots: int | None, rule: str) -> list[Record]:
    if shots is None:
        return [record for unit in _pick(units, len(units) // 3, rule) for record in unit]
    available = sum(map(len, units))
    # Half of the parts stay for the test while the other half has enough images; single images are the user's.
    limit = len(units) if available == len(units) else max(1, len(units) // 2)
    count = min(shots, limit)
    while sum(map(len, _pick(units, count, rule))) < min(shots, available):
        count += 1
    # One image of every part before the second of any, and another place of the series for each part: series are
    # often sorted by exposure or time, and the first images of all parts would show one exposure only.
    picked = _pick(units, count, rule)
    turned = [unit[i % len(unit) :] + unit[: i % len(unit)] for i, unit in enumerate(picked)]
    rounds = zip_longest(*turned)
    return [record for turn in rounds for record in turn if record is not None][:shots]


def _pick(units: list[Unit], count: int, rule: str) -> list[Unit]:
    """The first `count` units, or `count` evenly spaced ones."""
    count = min(count, len(units))
    if rule == "stratified":
        return [units[index * len(units) // count] for index in range(count)]
    return units[:count]


def _divide(
    records: Sequence[Record], kinds: dict[tuple[str, str], list[Record]], support: list[Record], share: float
) -> Split:
    links = links_of(records)
    taken = {record.image for record in support}
    blocked = {link for record in support for link in links[record.image]}

    def is_free(record: Record) -> bool:
        return record.image not in taken and blocked.isdisjoint(links[record.image])

    validation: list[Record] = []
    if share:
        good = [record for record in sorted(records, key=_order) if record.is_good and record.split == "test"]
        for members in (*kinds.values(), good):
            units = _units([record for record in members if is_free(record)])
            validation += [record for unit in _pick(units, round(share * len(units)), "stratified") for record in unit]
        # A part may show several defect types: what validation uses is closed for the test as well.
        taken |= {record.image for record in validation}
        blocked |= {link for record in validation for link in links[record.image]}
    candidates = [record for record in records if not record.is_good or record.split == "test"]
    test = [record for record in candidates if is_free(record)]
    used = taken | {record.image for record in test}
    held_back = [record for record in candidates if record.image not in used]
    return Split(tuple(support), tuple(test), tuple(validation), tuple(held_back))


def links_of(records: Sequence[Record]) -> dict[Path, set[str]]:
    """What ties an image to others: its group, and its content where another file is byte for byte the same."""
    sizes: dict[int, list[Path]] = {}
    links: dict[Path, set[str]] = {}
    for record in records:
        links[record.image] = {f"group {record.root} {record.group}"} if record.group else set()
        try:
            sizes.setdefault(record.image.stat().st_size, []).append(record.image)
        except OSError:
            continue  # a file that vanished is reported by whoever opens it
    for paths in sizes.values():
        if len(paths) > 1:  # only files of equal length can be equal, so hardly any is read
            for path in paths:
                links[path].add(f"content {images.file_sha(path)}")
    return links
