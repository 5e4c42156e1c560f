"""What an export is made of: data sets read and joined, each image's origin, and the division that leaks nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flawsmith import datasets, images, inputs
from flawsmith.datasets import tree
from flawsmith.datasets.exports import dividing
from flawsmith.datasets.exports.item import SPLITS
from flawsmith.datasets.writer import CONFIG, MANIFEST, manifest_lines
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.records import Record

RULES = ("part", "own")
USED = ("image", "category", "method", "seed", "normal", "reference")  # of a manifest's line


@dataclass
class Sources:
    """`records` in order; `lines` are the manifest's, by generated image; `seen` the hashes of what was learned from.

    `normals`: the real image that a generated one was painted on, where it is there. `several`: more than one data set
    was joined. `joins_generated`: generated defects among real images.
    """

    roots: list[Path]
    records: list[Record]
    lines: dict[Path, dict[str, Any]] = field(default_factory=dict)
    normals: dict[Path, Record] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    licences: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    several: bool = False

    @property
    def joins_generated(self) -> bool:
        return self.several and bool(self.lines) and any(record.image not in self.lines for record in self.records)

    def origin(self, record: Record) -> dict[str, Any]:
        """Where an image comes from, in words that every format can hold."""
        line = self.lines.get(record.image)
        if line is None:
            return {"source": "real", "origin_file": record.name}
        names = {key: (line.get(key) or {}).get("file", "") for key in ("normal", "reference")}
        made = {"method": line.get("method", ""), "seed": line.get("seed", "")}
        return {"source": "generated", "origin_file": record.name, **made, **names}

    def sha(self) -> str:
        """A hash that changes when a file is added, removed or changes its length."""
        files = {file for record in self.records for file in record.files}
        text = sorted(f"{file} {file.stat().st_size}" for file in files if file.exists())
        return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]


def read(named: Sequence[str | Path], category: str | None, group_by: str) -> Sources:
    """Read every data set; of a generated folder also its manifest. Raises FlawsmithError as the readers do."""
    found = Sources([], [], several=len(named) > 1)
    real: list[Record] = []
    made: list[Record] = []
    for source in named:
        reader, root = datasets.parse_source(source)
        generated = (root / MANIFEST).is_file()
        if generated and not any(line["status"] == "kept" for line in manifest_lines(root)):
            raise tree.none_kept(root)
        records = datasets.read(reader, root, None if generated else category, group_by=group_by)
        if any(root.resolve() == other.resolve() for other in found.roots):
            raise FlawsmithError(f"{root} is named twice: name every data set once.")
        found.roots.append(root)
        if generated:
            made += _generated(root, records, category, found)
        else:
            real += _apart(records, real, root)
    if real and found.lines:
        made = _without_copies(made, real)
        made = _with_parts_of(made, real, found)
    found.records = [*real, *made]
    return found


def _apart(records: list[Record], before: Sequence[Record], root: Path) -> list[Record]:
    """Records whose groups are no other data set's: equal names there mean other parts."""
    taken = {record.group for record in before}
    if taken.isdisjoint(record.group for record in records):
        return records
    place = next(name for turn in range(1, len(taken) + 2) if not _starts(taken, name := f"{root.name} {turn}: "))
    return [replace(record, group=place + record.group) for record in records]


def _starts(names: set[str], beginning: str) -> bool:
    return any(name.startswith(beginning) for name in names)


def _generated(root: Path, records: list[Record], category: str | None, found: Sources) -> list[Record]:
    """Records of a generated folder, of the product they were made for; what shows one photograph is one part."""
    lines = {
        root / line["image"]: {key: line[key] for key in USED if key in line}
        for line in manifest_lines(root)
        if line["status"] == "kept"
    }
    found.lines.update(lines)
    for line in lines.values():
        found.seen |= {str((line.get(key) or {}).get("sha", "")) for key in ("normal", "reference")}
    try:
        config = inputs.parse_json((root / CONFIG).read_text(encoding="utf-8"))
        found.seen |= set(map(str, dict(config.get("support") or {}).values()))
        found.licences += list(config.get("licences") or [])
    except (OSError, ValueError, TypeError) as error:
        raise FlawsmithError(
            f"{root / CONFIG} cannot be read ({error}), so nobody knows which real defects were seen: generate again."
        ) from error
    products = dict.fromkeys(line["category"] for line in lines.values())
    if category is not None:
        tree.choose_category(category, products, root, single=False)
    made = []
    for record in records:
        own = lines.get(record.image)
        name = own["category"] if own else next(iter(products)) if len(products) == 1 else record.category
        group = f"on {own['normal'].get('file', own['image'])}" if own else record.group
        if category in (None, name):
            made.append(replace(record, group=group, category=name))
    return made


def _without_copies(made: Sequence[Record], real: Sequence[Record]) -> list[Record]:
    """Without the good photographs that were copied from the real set (`--with-normals`)."""
    sizes = {record.image.stat().st_size for record in real if record.is_good}
    doubtful = [record for record in made if record.is_good and record.image.stat().st_size in sizes]
    if not doubtful:
        return list(made)
    known = {images.file_sha(record.image) for record in real if record.is_good}
    copies = {record.image for record in doubtful if images.file_sha(record.image) in known}
    return [record for record in made if record.image not in copies]


def _with_parts_of(made: Sequence[Record], real: Sequence[Record], found: Sources) -> list[Record]:
    """Generated images show the part that they were painted on: its group, where that image is in the real set."""
    names: dict[str, list[Record]] = {}
    for record in real:
        names.setdefault(record.name, []).append(record)
    grouped = []
    for record in made:
        normal = found.lines.get(record.image, {}).get("normal") or {}
        alike = names.get(normal.get("file", ""), [])
        same = [one for one in alike if len(alike) == 1 or images.file_sha(one.image) == normal.get("sha")]
        if same:
            found.normals[record.image] = same[0]
        grouped.append(replace(record, group=same[0].group) if same else record)
    return grouped


def divide(found: Sources, rule: str | None, val: float, test: float, seed: int) -> dict[Path, str]:
    """Image -> train, val or test; see `export`. Notes what had to train because it was learned from."""
    if rule is not None and rule not in RULES:
        raise unknown("Split", rule, RULES)
    real = [record for record in found.records if not found.joins_generated or record.image not in found.lines]
    own = {record.split for record in real if not record.is_good}
    if rule is None:
        rule = "own" if len(own) > 1 else "part"
    if rule == "own":
        chosen = {record.image: SPLITS.get(record.split, "train") for record in real}
        leaks = [record for record in real if chosen[record.image] != "train" and is_seen(record, found)]
        if found.joins_generated and leaks:
            raise FlawsmithError(
                f"{leaks[0].name} stands in {leaks[0].split}, and generated images were made from it ("
                f"{len(leaks)} such images): give --split part, or generate again from the training part alone."
            )
    else:
        pinned = frozenset(record.image for record in real if found.joins_generated and is_seen(record, found))
        chosen = dividing.by_part(real, val, test, seed, pinned)
        if pinned:
            found.notes.append(
                f"{len(pinned)} real images were painted on or learned from: they and their parts train."
            )
    return {**{record.image: "train" for record in found.records}, **chosen}


def is_seen(record: Record, found: Sources) -> bool:
    """Whether a generated image was painted on it or learned from it."""
    return images.file_sha(record.image) in found.seen
