"""One data set, or several joined, to other tools' formats: read, divide, then image by image into every format."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flawsmith import __version__, images, inputs
from flawsmith.datasets import tree
from flawsmith.datasets.exports import FORMATS, sources
from flawsmith.datasets.exports.image_file import ImageFile
from flawsmith.datasets.exports.item import Format, Instance, Item, instances
from flawsmith.datasets.exports.naming import Names
from flawsmith.datasets.lock import PARTIAL, Lock
from flawsmith.datasets.writer import Writer, pretty
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.records import Progress
from flawsmith.registry import resolve

CONFIG = "export.json"
COLUMNS = (
    *("file", "group", "category", "defect_type", "split", "caption", "source", "origin_file"),
    *("method", "seed", "normal", "reference"),
)


@dataclass(frozen=True)
class Summary:
    """What an export did. `rows`: images by type and split, ready to print; `folders`: one per format."""

    folders: dict[str, Path]
    images: int
    rows: list[dict[str, Any]]
    already: int = 0
    notes: Sequence[str] = ()


def export(
    source: str | Path,
    out: Path,
    formats: Sequence[str],
    *,
    merge: Sequence[str | Path] = (),
    category: str | None = None,
    split: str | None = None,
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    group_by: str = "group",
    progress: Progress | None = None,
) -> Summary:
    """Write a generated folder or any readable data set, joined with those of `merge`, in `formats`.

    One format goes to `out` itself, several to `out/<format>`. `split` "part" divides by physical part, `val` and
    `test` being shares of each type's images; "own" keeps the data set's own division; None keeps it where defects
    stand in two of its splits or more. Joined with real images, generated ones only train, and so do the real ones
    that they were made from. The same call again resumes; another one into the same folder is refused.

    Raises FlawsmithError for what cannot be read or said in a format, before anything is written where it can be known.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown("Format", name, FORMATS)
    if not formats or len(set(formats)) != len(formats):
        raise FlawsmithError(f"Formats {', '.join(formats) or 'none'}: name each of {', '.join(FORMATS)} once at most.")
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise FlawsmithError(f"val={val:g} and test={test:g} are shares from 0, and together less than 1.")
    found = sources.read([source, *merge], category, group_by)
    chosen = sources.divide(found, split, val, test, seed)
    settings = {
        "sources": [str(one) for one in (source, *merge)],
        **{"category": category, "split": split, "val": val, "test": test, "seed": seed, "group_by": group_by},
    }
    return write(found, chosen, out, formats, settings, progress)


def write(
    found: sources.Sources,
    chosen: dict[Path, str],
    out: Path,
    formats: Sequence[str],
    settings: dict[str, Any],
    progress: Progress | None = None,
) -> Summary:
    """Write records, divided by `chosen` (image -> train, val or test), as `export` does.

    `settings` are what the same call again must repeat to resume. Raises FlawsmithError where `out` lies in a data set,
    or holds anything else than the same export.
    """
    for one in found.roots:
        if os.path.realpath(out).startswith(os.path.realpath(one) + os.sep) or out.resolve() == one.resolve():
            raise FlawsmithError(f"--out {out} lies in the data set {one}, which must stay as it is: choose another.")
    if "mvtec" in formats and found.joins_generated:
        raise FlawsmithError(
            "The MVTec layout trains on good images only, so that generated defects could only be tested on: leave "
            "mvtec out of --format, or export without --merge."
        )
    description = {
        "flawsmith": __version__,
        "formats": list(formats),
        **settings,
        "data_set": found.sha(),
        "licences": found.licences,
    }
    Writer.check(out, description, CONFIG)
    with Lock(out):
        Writer.check(out, description, CONFIG)  # again, now that nobody else can write
        images.write_bytes(out / CONFIG, pretty(description), out / PARTIAL)
        folders = {name: out if len(formats) == 1 else out / name for name in formats}
        return _write(found, chosen, folders, out / PARTIAL, progress)


def _write(
    found: sources.Sources,
    chosen: dict[Path, str],
    folders: dict[str, Path],
    partial: Path,
    progress: Progress | None,
) -> Summary:
    labels = sorted({label for record in found.records for label in record.labels}, key=tree.natural)
    places = {name: _Place(folder, partial) for name, folder in folders.items()}
    writers: dict[str, Format] = {
        name: resolve(name, FORMATS, "Format")(labels, place.write) for name, place in places.items()
    }
    names = Names(several=len({record.category for record in found.records}) > 1)
    table: dict[str, list[dict[str, Any]]] = {name: [] for name in writers}
    counted: Counter[tuple[str, str, str]] = Counter()
    bare: list[str] = []
    already = 0
    for index, record in enumerate(found.records):
        image = ImageFile(record.image)
        marked: list[Instance] = list(instances(record, image.size, image.pixels))
        origin = found.origin(record)
        stem = names.of(record, "generated" if origin["source"] == "generated" and found.several else "")
        side = chosen[record.image]
        item = Item(index, stem, image.suffix, image.size, side, record, marked, origin, image.content)
        lost = not record.is_good and not marked  # without a mask it would pass for a good one
        if lost:
            bare.append(record.name)
        for name, writer in writers.items():
            if lost and name != "mvtec":
                continue
            place = writer.image(item)
            if not getattr(writer, "packs", False):
                already += not places[name].copy(place, image)
            writer.add(item)
            table[name].append(_row(place, item))
        if not lost or "mvtec" in writers:
            counted[record.category, record.defect_type, item.split] += 1
        if progress:
            progress("", index + 1, len(found.records), {})
    splits: list[str] = []
    for name, writer in writers.items():
        if not table[name]:
            roots = ", ".join(map(str, found.roots))
            raise FlawsmithError(f"No image of {roots} is left for {name}: their masks and regions mark no pixel.")
        splits = [split for split in ("train", "val", "test") if any(row["split"] == split for row in table[name])]
        places[name].write("origin.csv", _csv(table[name]))
        writer.close(splits)
    notes = list(found.notes)
    if bare:
        notes.append(
            f"{len(bare)} defect images mark no pixel and are left out, since they would pass for good ones (the "
            f"first: {bare[0]})."
        )
    if "val" not in splits and {"yolo", "yolo-seg"} & writers.keys():
        notes.append("No part is left for val, which data.yaml must name: it names another split there.")
    return Summary(folders, sum(counted.values()), _rows(counted), already, notes)


class _Place:
    """The folder of one format: every file is written whole or not at all, and none outside."""

    def __init__(self, folder: Path, partial: Path) -> None:
        self.folder, self.partial = folder, partial

    def _inside(self, relative: str) -> Path:
        if inputs.leaves(self.folder, relative):
            raise FlawsmithError(f"{relative!r} would leave {self.folder}: remove the links in it.")
        return self.folder / relative

    def write(self, relative: str, content: bytes) -> None:
        images.write_bytes(self._inside(relative), content, self.partial, durable=False)

    def copy(self, relative: str, image: ImageFile) -> bool:
        """Write an image, unless it is there with the same bytes; returns whether it was written."""
        target = self._inside(relative)
        content = image.content()
        if target.is_file() and target.stat().st_size == len(content) and target.read_bytes() == content:
            return False
        images.write_bytes(target, content, self.partial, durable=False)
        return True


def _row(place: str, item: Item) -> dict[str, Any]:
    record = item.record
    known = {"file": place, "group": record.group, "category": record.category, "defect_type": record.defect_type}
    return {**dict.fromkeys(COLUMNS, ""), **known, "split": item.split, "caption": record.caption, **item.origin}


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


def _rows(counted: Counter[tuple[str, str, str]]) -> list[dict[str, Any]]:
    kinds = dict.fromkeys(key[:2] for key in counted)
    return [
        {"category": category, "type": kind, **{s: counted[category, kind, s] for s in ("train", "val", "test")}}
        for category, kind in kinds
    ]
