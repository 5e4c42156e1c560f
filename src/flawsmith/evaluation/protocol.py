"""What may be trained on, chosen with and tested on; and the refusal of every overlap between them.

Reference: docs/evaluation.md, "The split". Three leaks are looked for: the same file, the same physical part (group),
and images that look alike (`datasets.leaks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from flawsmith import datasets, images, inputs
from flawsmith.config import JudgingConfig
from flawsmith.datasets.leaks import Print, fingerprint, merge_lookalikes, near
from flawsmith.datasets.splits import Split
from flawsmith.datasets.writer import CONFIG, MANIFEST, read_manifest
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.records import Record

VALIDATION = 0.2  # of the physical parts that are not support


@dataclass(frozen=True)
class Division:
    """Records by use; no file, part or look-alike is in two of support, validation and test."""

    support: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]
    normals: tuple[Record, ...]  # good photographs to train on

    @property
    def types(self) -> list[str]:
        return sorted({r.defect_type for r in (*self.support, *self.test) if not r.is_good})


@dataclass(frozen=True)
class Real:
    """The real data: records with look-alikes in one group, the data set's own groups, and what weights have seen."""

    records: list[Record]
    groups: dict[Path, str]
    seen: set[Path]


def read_real(config: JudgingConfig) -> Real:
    """The real data of a configuration; `--seen` names what the weights have seen.

    Raises FlawsmithError when there is no good photograph, no defect with a mask, or a type is unknown.
    """
    reader, root = datasets.parse_source(config.real)
    own = datasets.read(reader, root, category=config.category, group_by=config.group_by)
    categories = sorted({record.category for record in own})
    if len(categories) > 1:
        raise FlawsmithError(
            f"{config.real} holds {len(categories)} categories: choose one with --category ({', '.join(categories)})."
        )
    known = datasets.defect_types(own)
    for name in config.defect:
        if name not in known:
            raise unknown("Defect", name, known, f"in {config.real}")
    own = [r for r in own if r.is_good or ((not config.defect or r.defect_type in config.defect) and r.masks)]
    if not any(r.is_good for r in own) or all(r.is_good for r in own):
        raise FlawsmithError(
            f"{config.real} must hold good photographs and real defects with masks to judge by "
            "(train/good, test/<defect>, ground_truth/<defect>)."
        )
    records = merge_lookalikes(own)
    own_groups = {record.image: record.group for record in own}
    if config.seen is None:
        return Real(records, own_groups, set())
    listed = _listed(config.seen)
    groups = {
        merged.group
        for record, merged in zip(own, records, strict=True)
        if f"{record.category}/{record.group}" in listed or images.file_sha(record.image) in listed
    }
    spent = {r.image for r in records if r.group in groups or images.file_sha(r.image) in listed}
    return Real(records, own_groups, spent)


def _listed(file: Path) -> set[str]:
    try:
        return {line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise FlawsmithError(
            f"{file} cannot be read ({error}): give a text file with one image's hash, or CATEGORY/GROUP, per line."
        ) from error


def use(split: Split, real: Real) -> Division:
    """A Division from a split: seen images leave the judging sides, normals tied to those leave training.

    Good photographs are tied by content and by the data set's own groups; by look only to judged defects, since under
    a fixed camera all good ones look alike. Raises FlawsmithError when no defect is left to test on or no photograph
    to train on.
    """
    test, validation = (tuple(r for r in side if r.image not in real.seen) for side in (split.test, split.validation))
    parts = {real.groups[r.image] for r in (*test, *validation)} - {""}
    contents = {images.file_sha(r.image) for r in (*test, *validation)}
    good = [r for r in real.records if r.is_good and r.split == "train" and real.groups[r.image] not in parts]
    normals = _unlike([r for r in good if images.file_sha(r.image) not in contents], [*test, *validation])
    if not any(not r.is_good for r in test):
        parts_known = len({r.group for r in real.records if not r.is_good})
        raise FlawsmithError(
            f"No real defect is left to test on; the defects show {parts_known} parts (look-alikes count as one): use "
            "fewer --shots, more real defects, or another --group-by."
        )
    if not normals:
        raise FlawsmithError("No good photograph is left to train on: put some under train/good that are not in test/.")
    return Division(split.support, validation, test, normals)


@cache
def _fingerprint_of(image: Path) -> Print:
    """Every seed of a comparison asks for the same images."""
    return fingerprint(images.read_image(image))


def _unlike(normals: Sequence[Record], judging: Sequence[Record]) -> tuple[Record, ...]:
    """The photographs that show no part which a judged defect shows, by look: what is painted on them would leak."""
    defects = [_fingerprint_of(r.image) for r in judging if not r.is_good]
    alike = {j for _, j, _ in near(defects, [_fingerprint_of(r.image) for r in normals])}
    return tuple(record for place, record in enumerate(normals) if place not in alike)


# -- leaks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Used:
    """What went into a folder of generated images: hash -> name of the real images, and their groups."""

    defects: dict[str, str]  # seen by the generator: training list and references
    normals: dict[str, str]  # painted on
    images: tuple[Path, ...]  # the generated images themselves
    misses: dict[str, str] = field(default_factory=dict)  # by whose misses the images were planned


def used_by(folder: Path, paths: Iterable[Path]) -> Used:
    """Read generate.json and manifest.jsonl of a generated folder; without them only the images are known.

    Raises FlawsmithError when one of them is damaged.
    """
    defects: dict[str, str] = {}
    normals: dict[str, str] = {}
    missed: dict[str, str] = {}
    if (folder / CONFIG).is_file():
        try:
            told = inputs.parse_json((folder / CONFIG).read_text(encoding="utf-8"))
            defects |= {str(sha): str(name) for name, sha in told.get("support", {}).items()}
            missed |= {str(sha): str(name) for name, sha in told.get("aim", {}).get("seen", {}).items()}
        except (OSError, ValueError, AttributeError) as error:
            raise FlawsmithError(f"{folder / CONFIG} is damaged ({error}): generate the images again.") from error
    if (folder / MANIFEST).is_file():
        for line in read_manifest(folder):
            normals[line["normal"]["sha"]] = line["normal"]["file"]
            if line.get("reference"):
                defects[line["reference"]["sha"]] = line["reference"]["file"]
    return Used(defects, normals, tuple(paths), missed)


def refuse_leaks(used: Used, records: Sequence[Record], division: Division) -> None:
    """Raise FlawsmithError when an image to be judged by was used to make the generated ones, naming up to five.

    By file: its content is in the training list, among the references, painted on, or among the generated images; or it
    is tested on, and the images were planned by how it was missed. By group: it shows a part that one of those shows.
    By look: it nearly equals a support defect or a generated image.
    """
    judging = [*division.test, *division.validation]
    shas = {record.image: images.file_sha(record.image) for record in (*records, *judging)}
    made = {images.file_sha(path): path.name for path in used.images}
    spent = {**made, **used.normals, **used.defects}
    groups = {record.group: record.name for record in records if record.group and shas[record.image] in used.defects}
    groups |= {record.group: record.name for record in division.support if record.group}
    found = []
    for record in judging:
        if shas[record.image] in spent:
            found.append(f"{record.name}, used as {spent[shas[record.image]]} (same file)")
        elif record.group in groups:
            found.append(f"{record.name} and {groups[record.group]} (same group {record.group!r})")
    planned = [record for record in division.test if shas[record.image] in used.misses]
    found += [f"{record.name}, by whose misses the images were planned (same file)" for record in planned]
    defects = [record for record in judging if not record.is_good]
    sources = [
        (record.name, record.image)
        for record in records
        if record in division.support or shas[record.image] in used.defects
    ]
    sources += [(path.name, path) for path in used.images]
    if not found and sources:
        prints = [fingerprint(images.read_image(record.image)) for record in defects]
        looks = [fingerprint(images.read_image(path)) for _, path in sources]
        found = [f"{defects[i].name} and {sources[j][0]} (look alike)" for i, j, _ in near(prints, looks)]
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise FlawsmithError(
            f"The evaluation would leak: {'; '.join(found[:5])}{more}. Generate from training images only, and give "
            "evaluate the --shots and --group-by that generate had."
        )


def lookalikes(paths: Sequence[Path], division: Division) -> list[Path]:
    """Those of the generated images that nearly equal a defect that is judged, but are another file."""
    defects = [_fingerprint_of(r.image) for r in (*division.test, *division.validation) if not r.is_good]
    alike = {j for _, j, _ in near(defects, [fingerprint(images.read_image(path)) for path in paths])}
    judged = {images.file_sha(r.image) for r in (*division.test, *division.validation)} if alike else set()
    return [paths[j] for j in sorted(alike) if images.file_sha(paths[j]) not in judged]


def support_of(used: Used, records: Sequence[Record]) -> list[Record]:
    """The real defects that the generator saw, found by content."""
    return [record for record in records if not record.is_good and images.file_sha(record.image) in used.defects]
