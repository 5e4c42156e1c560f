"""A repaired copy of a data set: what `check` found and a program can put right, without touching the source."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from flawsmith import images
from flawsmith.datasets.check import Report
from flawsmith.datasets.check_images import Facts, header
from flawsmith.datasets.exports import run, sources
from flawsmith.datasets.exports.item import SPLITS
from flawsmith.datasets.writer import MANIFEST
from flawsmith.errors import FlawsmithError
from flawsmith.records import Progress, Record, Region

REPAIRS = "repairs.csv"
ORDER = ("test", "validation")  # of two copies the one that is not trained on stays


@dataclass(frozen=True)
class Repair:
    """What was done about one file of the source."""

    file: str
    what: str


@dataclass(frozen=True)
class MendedMask(Region):
    """A mask image that does not fit as it is: turned as its image is, scaled to its size, or inverted."""

    any_level: bool = field(default=False, compare=False)
    inverted: bool = field(default=False, compare=False)

    def draw(self, size: tuple[int, int], read: object) -> np.ndarray:
        mask = images.read_mask(self.source, self.any_level)
        orientation = int(self.entry) if self.entry else 1  # of the image, where the mask lies as its camera did
        mask = {5: mask.T, 6: np.rot90(mask, -1), 7: np.rot90(mask, 2).T, 8: np.rot90(mask)}.get(orientation, mask)
        mask = mask if mask.shape == size else images.resize_mask(mask, *size)
        return ~mask if self.inverted else np.ascontiguousarray(mask)


def mend(source: str | Path, report: Report, out: Path, progress: Progress | None = None) -> list[Repair]:
    """Write what `check` looked at, repaired, to `out`; returns what was done about which file.

    `mvtec` where masks are images and all defects test, else `coco`. `repairs.csv` lists every repair and `origin.csv`
    where each image comes from, with the groups that `check` suggests. The same call again resumes. Raises
    FlawsmithError where nothing is left, or where `out` lies in the data set or holds anything else.
    """
    for root in {record.root for record, _ in report.pairs}:
        if any((folder / MANIFEST).is_file() for folder in (root, root.resolve().parent)):
            raise FlawsmithError(f"{root} is a generated folder: the same `generate` command again repairs it.")
    repairs: list[Repair] = []
    kept = list(_kept(report, repairs))
    if not any(record.masks or record.is_good for record in kept):
        raise FlawsmithError(f"Nothing of {source} can be repaired: no image is left that can be read.")
    regrouped = [replace(one, group=report.groups.get((one.category, one.group), one.group)) for one in kept]
    repairs += [
        Repair(new.name, f"group {new.group!r}, as an image that seems to show the same part")
        for old, new in zip(kept, regrouped, strict=True)
        if old.group != new.group
    ]
    regions = any(isinstance(mask, Region) and not isinstance(mask, MendedMask) for one in kept for mask in one.masks)
    plain = not regions and all(one.is_good or one.split == "test" for one in kept)
    chosen = {record.image: SPLITS.get(record.split, "train") for record in regrouped}
    found = sources.Sources([regrouped[0].root], regrouped)
    name = "mvtec" if plain else "coco"
    run.write(found, chosen, out, [name], {"sources": [str(source)], "repaired": True}, progress)
    images.write_bytes(out / REPAIRS, _table(repairs))
    return repairs


def _table(repairs: Sequence[Repair]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([("file", "repair"), *((one.file, one.what) for one in repairs)])
    return text.getvalue().encode()


def _kept(report: Report, repairs: list[Repair]) -> Iterator[Record]:
    """The records that stay, with masks that fit; what was done is added to `repairs`."""
    kinds: dict[str, set[str]] = {}
    for finding in report.findings:
        kinds.setdefault(finding.kind, set()).add(finding.file)
    left_out = _copies(report.pairs)
    for record, fact in report.pairs:
        reason = left_out.get(record.image, "")
        if fact.size is None:
            reason = "left out: it cannot be read"
        elif record.name in kinds.get("mask-empty", ()):
            reason = "left out: its mask marks no pixel"
        if not reason:
            masks = tuple(_masks(record, fact, kinds, repairs))
            if record.masks and not masks:
                reason = "left out: no mask of it can be used"
            elif changed := _rewritten(record, fact):
                repairs.append(Repair(record.name, changed))
        if reason:
            repairs.append(Repair(record.name, reason))
        else:
            yield replace(record, masks=masks)


def _rewritten(record: Record, fact: Facts) -> str:
    """What is done to an image that an export does not copy as it is; "" for one that it does."""
    if fact.orientation != 1:
        return f"turned upright (EXIF orientation {fact.orientation})"
    if fact.mode not in ("grey", "RGB"):
        return f"{fact.mode} written as 8-bit RGB"
    return "written as PNG" if record.image.suffix.lower() in images.HEIC else ""


def _copies(pairs: Sequence[tuple[Record, Facts]]) -> dict[Path, str]:
    """Images of equal content to leave out, and why: of two labels all, else all but one, a tested one first."""
    by_content: dict[str, list[Record]] = {}
    for record, fact in pairs:
        if fact.sha:
            by_content.setdefault(fact.sha, []).append(record)
    reasons: dict[Path, str] = {}
    for members in by_content.values():
        if len({(record.category, record.defect_type) for record in members}) > 1:
            kinds = " and ".join(sorted({record.defect_type for record in members}))
            reasons.update({record.image: f"left out: the same image is filed as {kinds}" for record in members})
        else:
            first = min(members, key=lambda one: ORDER.index(one.split) if one.split in ORDER else len(ORDER))
            reasons.update(
                {one.image: f"left out: a copy of {first.name}" for one in members if one.image != first.image}
            )
    return reasons


def _masks(record: Record, fact: Facts, kinds: dict[str, set[str]], repairs: list[Repair]) -> Iterator[Path | Region]:
    for mask in record.masks:
        path = mask.source if isinstance(mask, Region) else mask
        name = path.relative_to(record.root).as_posix() if path.is_relative_to(record.root) else str(path)
        if isinstance(mask, Region):
            if f"{name}, {mask.entry}" in kinds.get("region-empty", ()):
                repairs.append(Repair(f"{name}, {mask.entry}", "left out: it marks no pixel"))
            else:
                yield mask
            continue
        if name in kinds.get("unreadable", ()):
            repairs.append(Repair(name, "left out: it cannot be read"))
            continue
        inverted = record.name in kinds.get("mask-full", ()) and fact.area < 1
        if name in kinds.get("mask-size", ()):
            fitted = _fitted(record, path, fact)
            if fitted is None:
                repairs.append(Repair(name, "left out: its size and shape are not the image's"))
                continue
            repairs.append(Repair(name, fitted[1]))
            yield MendedMask(path, fitted[0], record.defect_type, any_level=record.any_level)
            continue
        if name in kinds.get("mask-grey", ()):
            repairs.append(Repair(name, "grey levels made black and white"))
        if inverted:
            repairs.append(Repair(name, f"black and white swapped: it covered {fact.area:.0%} of the image"))
            yield MendedMask(path, "", record.defect_type, any_level=record.any_level, inverted=True)
        else:
            yield path


def _fitted(record: Record, mask: Path, fact: Facts) -> tuple[str, str] | None:
    """(orientation to turn the mask by or "", what is done) for a mask of another size; None where it does not fit."""
    assert fact.size is not None
    height, width = images.image_size(mask)
    _, orientation = header(record.image)
    if orientation in (5, 6, 7, 8) and (width, height) == fact.size:
        return str(orientation), f"turned as its image is (EXIF orientation {orientation})"
    if abs(height * fact.size[1] - width * fact.size[0]) <= max(height, width, *fact.size):
        return "", f"{width} x {height} pixels scaled to {fact.size[1]} x {fact.size[0]}"
    return None


def write_groups(report: Report, out: Path) -> int:
    """Write an origin.csv with the groups that `check` suggests, for every image; returns how many changed.

    Raises FlawsmithError where `out` is there already.
    """
    if out.exists():
        raise FlawsmithError(f"{out} is there already: name a new file, and put its groups into yours.")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("file", "group", "suggested"))
    joined = {(category, name) for (category, _), name in report.groups.items()}
    changed = 0
    for record, _ in report.pairs:
        key = record.category, record.group
        group = report.groups.get(key, record.group)
        changed += group != record.group
        table.writerow((record.name, group, "yes" if key in report.groups or key in joined else ""))
    images.write_bytes(out, text.getvalue().encode())
    return changed
