"""What is in a data set, and what is wrong with it: findings with file, reason and fix. Slow parts: each file once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flawsmith.datasets import ANNOTATED, check_files, check_images, check_sets, parse_source, read
from flawsmith.datasets.check_files import ERROR, NOTE, WARNING, Finding
from flawsmith.datasets.check_images import Facts
from flawsmith.records import GOOD, Progress, Record

WORKERS = min(4, os.cpu_count() or 1)  # images decoded at a time; each takes some 15 bytes a pixel
WINDOW = 256  # pixels to which detectors usually shrink an image
FEW = 4  # references below this number leave nothing to vary

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Report:
    """`rows`: one per category and type, ready to print as a table. `findings`: errors first, in file order.

    `licences`: files found. `pairs`: every record with what was seen of it. `groups`: (category, group) -> the group it
    should have, since both seem to show one part.
    """

    rows: list[dict[str, Any]]
    findings: list[Finding] = field(default_factory=list)
    licences: list[str] = field(default_factory=list)
    pairs: list[tuple[Record, Facts]] = field(default_factory=list, repr=False)
    groups: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """All that JSON holds: {"rows", "findings": [{"severity", "file", "reason", "fix", "kind"}], "licences"}."""
        findings = [asdict(finding) for finding in self.findings]
        return {"rows": self.rows, "findings": findings, "licences": self.licences}

    def count(self, severity: Severity) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def grouped(self, limit: int = 3) -> list[Finding]:
        """The findings for people: of many with the same cause in one folder, the first `limit` and a count."""
        seen: Counter[tuple[str, str]] = Counter((f.kind, _folder(f.file)) for f in self.findings)
        shown: Counter[tuple[str, str]] = Counter()
        short = []
        for finding in self.findings:
            key = finding.kind, _folder(finding.file)
            shown[key] += 1
            if shown[key] <= limit or seen[key] == limit + 1:
                short.append(finding)
            elif shown[key] == limit + 1:
                text = f"{seen[key] - limit} more files here: {finding.reason}"
                short.append(Finding(finding.severity, key[1], text, finding.fix, finding.kind))
        return short


def check(
    source: str | Path,
    records: Sequence[Record] | None = None,
    *,
    category: str | None = None,
    group_by: str = "group",
    window: int = WINDOW,
    progress: Progress | None = None,
) -> Report:
    """Look at every file of a data set, a few at a time.

    `source` is "READER:DIR" or a folder. Without `records` everything is read and stray files are reported too; with
    `records` only these are looked at. `window`: to how many pixels detectors shrink an image. `progress` is told of
    each image. Raises FlawsmithError only when there is no data set to look at.
    """
    findings: list[Finding] = []
    if records is None:
        reader, root = parse_source(source)
        records = read(reader, root, category, group_by=group_by)
        findings += check_files.stray(root, records, category, group_by, reader in ANNOTATED)
    facts: list[Facts] = []
    with ThreadPoolExecutor(WORKERS) as pool:  # decoding is most of it, and holds no lock of Python's
        for done, (one, found) in enumerate(pool.map(check_images.inspect, records), start=1):
            facts.append(one)
            findings += found
            if progress:
                progress("", done, len(records), {})
    pairs = list(zip(records, facts, strict=True))
    findings += [*_names(records), *_mixtures(pairs), *_copies(pairs), *_proposed(records)]
    findings += [*check_sets.tiny(pairs, window), *check_sets.background(pairs)]
    groups: dict[tuple[str, str], str] = {}
    if not _is_generated(records):
        groups, alike = check_sets.parts(pairs)
        findings += [*_counts(records), *check_sets.imbalance(records), *check_sets.captions(records), *alike]
    rank = {ERROR: 0, WARNING: 1, NOTE: 2}
    ordered = sorted(findings, key=lambda finding: rank[finding.severity])
    licences = check_sets.licences(records[0].root, records) if records else []
    return Report(_rows(pairs), ordered, licences, pairs, groups)


def _is_generated(records: Sequence[Record]) -> bool:
    """Whether flawsmith made these images: many on one photograph and none of it good is then as it should be."""
    root = records[0].root if records else Path()
    return any((folder / "generate.json").is_file() for folder in (root, root.resolve().parent))


def _folder(name: str) -> str:
    return name.rpartition("/")[0] or "."


def _types(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    kinds: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        kinds.setdefault((record.category, record.defect_type), []).append(record)
    return kinds


def _rows(pairs: Sequence[tuple[Record, Facts]]) -> list[dict[str, Any]]:
    rows = []
    for (category, defect_type), members in _types([record for record, _ in pairs]).items():
        facts = [fact for record, fact in pairs if (record.category, record.defect_type) == (category, defect_type)]
        sizes = Counter(fact.size for fact in facts if fact.size)
        areas = [fact.area for fact in facts if fact.area]
        rows.append(
            {
                "category": category,
                "type": defect_type,
                "images": len(members),
                "in train": sum(record.split == "train" for record in members),
                "parts": len({record.group for record in members}),
                "masks": sum(bool(record.masks) for record in members) if defect_type != GOOD else None,
                "captions": sum(bool(record.caption) for record in members),
                "size": _sizes(sizes),
                "mode": ", ".join(sorted({fact.mode for fact in facts if fact.mode})),
                "area %": round(100 * float(np.median(areas)), 3) if areas else None,
            }
        )
    return rows


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    """ "640 x 480" (width x height), or the smallest and largest of several."""
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    texts = [f"{width} x {height}" for height, width in ordered]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]} ({len(texts)} sizes)" if texts else ""


def _names(records: Sequence[Record]) -> Iterator[Finding]:
    """Images of one folder that share a stem: a mask or caption cannot tell them apart."""
    stems: dict[tuple[Path, str], list[Record]] = {}
    for record in records:
        stems.setdefault((record.image.parent, record.image.stem), []).append(record)
    for (_, stem), members in stems.items():
        if len(members) > 1:
            others = ", ".join(record.image.name for record in members[1:])
            yield Finding(
                WARNING,
                members[0].name,
                f"{others} has the same name {stem!r}: masks and captions are paired by it",
                "Rename or remove one of them.",
                "same-stem",
            )


def _counts(records: Sequence[Record]) -> Iterator[Finding]:
    for category in dict.fromkeys(record.category for record in records):
        members = [record for record in records if record.category == category]
        if not any(record.is_good for record in members):
            yield Finding(
                WARNING,
                category,
                "no good photographs: there is nothing to paint defects on",
                "Add photographs of good parts in train/good (or a folder named good).",
                "no-good",
            )
        for (_, defect_type), found in _types(members).items():
            parts = len({record.group for record in found})
            if defect_type == GOOD or parts >= FEW:
                continue
            what = f"{len(found)} images" if parts == len(found) else f"{len(found)} images of {parts} parts"
            yield Finding(
                NOTE,
                f"{category}, {defect_type}",
                f"only {what}: methods that learn from real defects will repeat them",
                f"Add some if you can ({FEW} different parts or more), or choose --shots {len(found)} to use all.",
                "few-references",
            )


def _mixtures(pairs: Sequence[tuple[Record, Facts]]) -> Iterator[Finding]:
    for category in dict.fromkeys(record.category for record, _ in pairs):
        facts = [fact for record, fact in pairs if record.category == category]
        sizes = Counter(fact.size for fact in facts if fact.size)
        if len(sizes) > 1:
            yield Finding(
                NOTE,
                category,
                f"images of different sizes: {_sizes(sizes)}",
                "Nothing to do here: flawsmith keeps each image's size. Training elsewhere may need one size.",
                "mixed-sizes",
            )
        shifts = [fact.shift for fact in facts if fact.shift is not None]
        if len(set(shifts)) > 1:
            yield Finding(
                WARNING,
                category,
                "16-bit images use different value ranges: some are divided by 256, others by 16 or not at all, "
                "so that their brightness cannot be compared",
                "Export all of them with the same range, best as 8-bit PNG.",
                "mixed-depth",
            )
        elif any(shifts):
            yield Finding(
                NOTE,
                category,
                f"{len(shifts)} images have 16 bits: values are divided by {2 ** shifts[0]}, results have 8 bits",
                "Nothing to do unless they look too dark: then export them as 8-bit PNG.",
                "16-bit",
            )


def _copies(pairs: Sequence[tuple[Record, Facts]]) -> Iterator[Finding]:
    """Files with the same content; worst first: under two labels, then in train and test, then twice in one place."""
    by_content: dict[str, list[Record]] = {}
    for record, fact in pairs:
        if fact.sha:
            by_content.setdefault(fact.sha, []).append(record)
    for members in by_content.values():
        if len(members) == 1:
            continue
        first, others = members[0], ", ".join(record.name for record in members[1:4])
        labels = {(record.category, record.defect_type) for record in members}
        if len(labels) > 1:
            names = " and ".join(sorted({record.defect_type for record in members}))
            yield Finding(
                ERROR, first.name, f"the same image as {others}, filed as {names}", "Keep one.", "copy-labels"
            )
        elif len({record.split for record in members}) > 1:
            yield Finding(
                ERROR, first.name, f"the same image as {others}: train and test overlap", "Keep one.", "copy-splits"
            )
        else:
            yield Finding(WARNING, first.name, f"the same image as {others}", "Keep one.", "copy")


def _proposed(records: Sequence[Record]) -> Iterator[Finding]:
    """Masks that nobody drew: pixels were chosen inside boxes, or around lines."""
    for category in dict.fromkeys(record.category for record in records):
        found = [record for record in records if record.category == category and record.is_proposed]
        if found:
            yield Finding(
                WARNING,
                found[0].name,
                f"it is marked by a box or a line, as are {len(found) - 1} more images: which pixels are defect was "
                "proposed by classical segmentation",
                "Look at them: flawsmith check ... --sheet FILE.png. To mend some, write them: flawsmith export ... "
                "--format mvtec --out DIR and edit DIR/*/ground_truth.",
                "mask-proposed",
            )
