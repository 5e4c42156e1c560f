"""One data set, or several joined, to other tools' formats: read, divide, then image by image into every format."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flawsmith import __version__, images
from flawsmith.datasets import tree
from flawsmith.datasets.exports import FORMATS, PACKED, origins, sources
from flawsmith.datasets.exports.image_file import ImageFile
from flawsmith.datasets.exports.item import Format, Instance, Item, instances
from flawsmith.datasets.exports.naming import Names
from flawsmith.datasets.exports.places import Folder, Store, target
from flawsmith.datasets.exports.shards import Shards
from flawsmith.datasets.lock import PARTIAL, Lock
from flawsmith.datasets.writer import Writer, pretty
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.records import Progress
from flawsmith.registry import resolve

CONFIG = "export.json"


@dataclass(frozen=True)
class Summary:
    """What an export did. `rows`: images by type and split, ready to print; `places`: a folder or URL per format.

    already: files that were there, or images that an earlier run had packed.
    """

    places: dict[str, str]
    images: int
    rows: list[dict[str, Any]]
    already: int = 0
    notes: Sequence[str] = ()


def export(
    source: str | Path,
    out: str | Path,
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

    One format goes to `out` itself, several to `out/<format>`; `out` may be a URL (see `places`), for formats that pack
    images into shards. `split` "part" divides by physical part, `val` and
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
    where = target(out)
    loose = [name for name in formats if name not in PACKED]
    if isinstance(where, Store) and loose:
        raise FlawsmithError(
            f"Format {loose[0]} writes a file for every image, and {where} is for few large ones: give --format "
            f"{PACKED[0]} or a folder."
        )
    found = sources.read([source, *merge], category, group_by)
    chosen = sources.divide(found, split, val, test, seed)
    settings = {
        "sources": [str(one) for one in (source, *merge)],
        **{"category": category, "split": split, "val": val, "test": test, "seed": seed, "group_by": group_by},
    }
    return write(found, chosen, where, formats, settings, progress)


def write(
    found: sources.Sources,
    chosen: dict[Path, str],
    out: Path | Store,
    formats: Sequence[str],
    settings: dict[str, Any],
    progress: Progress | None = None,
) -> Summary:
    """Write records, divided by `chosen` (image -> train, val or test), as `export` does.

    `settings` are what the same call again must repeat to resume. Raises FlawsmithError where `out` lies in a data set,
    or holds anything else than the same export.
    """
    if isinstance(out, Path):
        _refuse_inside(out, found.roots)
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
    if isinstance(out, Store):
        out.begin(CONFIG, pretty(description), description)
        return _write(found, chosen, {name: out for name in formats}, progress)
    Writer.check(out, description, CONFIG)
    with Lock(out):
        Writer.check(out, description, CONFIG)  # again, now that nobody else can write
        images.write_bytes(out / CONFIG, pretty(description), out / PARTIAL)
        folders = {name: Folder(out if len(formats) == 1 else out / name, out / PARTIAL) for name in formats}
        return _write(found, chosen, folders, progress)


def _refuse_inside(out: Path, roots: Sequence[Path]) -> None:
    for one in roots:
        if os.path.realpath(out).startswith(os.path.realpath(one) + os.sep) or out.resolve() == one.resolve():
            raise FlawsmithError(f"--out {out} lies in the data set {one}, which must stay as it is: choose another.")


def _write(
    found: sources.Sources,
    chosen: dict[Path, str],
    places: Mapping[str, Folder | Store],
    progress: Progress | None,
) -> Summary:
    labels = sorted({label for record in found.records for label in record.labels}, key=tree.natural)
    writers = {name: _writer(name, labels, place) for name, place in places.items()}
    names = Names(several=len({record.category for record in found.records}) > 1)
    tables = {name: origins.Table() for name in writers}
    counted: Counter[tuple[str, str, str]] = Counter()
    bare: list[str] = []
    already = 0
    for index, record in enumerate(found.records):
        origin = found.origin(record)
        stem = names.of(record, "generated" if origin["source"] == "generated" and found.several else "")
        side = chosen[record.image]
        rows = _packed(writers, side, stem)
        already += len(rows)
        if len(rows) < len(writers):
            image = ImageFile(record.image)
            marked: list[Instance] = list(instances(record, image.size, image.pixels))
            item = Item(index, stem, image.suffix, image.size, side, record, marked, origin, image.content)
            lost = not record.is_good and not marked  # without a mask it would pass for a good one
            if lost:
                bare.append(record.name)
            for name, writer in writers.items():
                if name in rows or (lost and name != "mvtec"):
                    continue
                rows[name] = origins.row(writer.image(item), item)
                place = places[name]
                if isinstance(place, Folder) and not isinstance(writer, Shards):
                    already += not place.copy(rows[name]["file"], image.content())
                writer.add(item)
        for name, row in rows.items():
            tables[name].add(row)
        if rows:
            counted[record.category, record.defect_type, side] += 1
        if progress:
            progress("", index + 1, len(found.records), {})
    splits = _close(found, writers, tables, places)
    notes = [*found.notes, *_notes(bare, splits, writers)]
    return Summary(
        {name: str(place) for name, place in places.items()}, counted.total(), _rows(counted), already, notes
    )


def _writer(name: str, labels: Sequence[str], place: Folder | Store) -> Format:
    made: Format = resolve(name, FORMATS, "Format")(labels, place if name in PACKED else place.write)
    return made


def _packed(writers: Mapping[str, Format], split: str, stem: str) -> dict[str, dict[str, Any]]:
    """The row of an image in each format whose shards hold it already."""
    asked = {name: one.packed(split, stem) for name, one in writers.items() if isinstance(one, Shards)}
    return {name: row for name, row in asked.items() if row is not None}


def _close(
    found: sources.Sources,
    writers: Mapping[str, Format],
    tables: Mapping[str, origins.Table],
    places: Mapping[str, Folder | Store],
) -> list[str]:
    """Write what belongs to all images of a format; returns the splits that hold any."""
    splits: list[str] = []
    for name, writer in writers.items():
        splits = [split for split in ("train", "val", "test") if split in tables[name].splits]
        if not splits:
            roots = ", ".join(map(str, found.roots))
            raise FlawsmithError(f"No image of {roots} is left for {name}: their masks and regions mark no pixel.")
        places[name].write(origins.FILE, tables[name].content())
        writer.close(splits)
    return splits


def _notes(bare: Sequence[str], splits: Sequence[str], writers: Collection[str]) -> Iterator[str]:
    if bare:
        yield (
            f"{len(bare)} defect images mark no pixel and are left out, since they would pass for good ones (the "
            f"first: {bare[0]})."
        )
    if "val" not in splits and not {"yolo", "yolo-seg"}.isdisjoint(writers):
        yield "No part is left for val, which data.yaml must name: it names another split there."


def _rows(counted: Counter[tuple[str, str, str]]) -> list[dict[str, Any]]:
    kinds = dict.fromkeys(key[:2] for key in counted)
    return [
        {"category": category, "type": kind, **{s: counted[category, kind, s] for s in ("train", "val", "test")}}
        for category, kind in kinds
    ]
