"""Data sets: names to readers. A reader turns a folder into Records; `check` says what is wrong with a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flawsmith import inputs
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.records import GOOD, Record
from flawsmith.registry import resolve

DATASETS: dict[str, str] = {
    "btad": "flawsmith.datasets.mvtec_ad:read",
    "coco": "flawsmith.datasets.coco:read",
    "cvat": "flawsmith.datasets.cvat:read",
    "datumaro": "flawsmith.datasets.datumaro:read",
    "folder": "flawsmith.datasets.folder:read",
    "hf_dataset": "flawsmith.datasets.rows:hf_dataset",
    "ksdd": "flawsmith.datasets.kolektor:sdd",
    "ksdd2": "flawsmith.datasets.kolektor:sdd2",
    "label_studio": "flawsmith.datasets.label_studio:read",
    "labelme": "flawsmith.datasets.labelme:read",
    "mpdd": "flawsmith.datasets.mvtec_ad:read",
    "mvtec_ad": "flawsmith.datasets.mvtec_ad:read",
    "mvtec_ad2": "flawsmith.datasets.mvtec_ad2:read",
    "mvtec_loco": "flawsmith.datasets.mvtec_loco:read",
    "real_iad": "flawsmith.datasets.real_iad:read",
    "visa": "flawsmith.datasets.visa:read",
    "voc": "flawsmith.datasets.voc:read",
    "webdataset": "flawsmith.datasets.rows:webdataset",
    "yolo": "flawsmith.datasets.yolo:read",
}

# Readers of folders whose layout other rules tell than class folders with captions in them.
ANNOTATED = frozenset(
    {
        *("coco", "cvat", "datumaro", "ksdd", "ksdd2", "label_studio", "labelme", "mvtec_ad2", "real_iad", "visa"),
        *("hf_dataset", "voc", "webdataset", "yolo"),
    }
)

_PREFIX = re.compile(r"^(?P<own>\w+(?:\.\w+)+:\w+)(?=:)|^(?P<name>\w{2,})(?=:)")  # one letter is a Windows drive


def parse_source(source: str | Path) -> tuple[str, Path]:
    """Split "READER:DIR" into the reader's name and the folder.

    A DIR alone is accepted: its layout is recognised, what has none is read by `folder`. Paths may hold spaces,
    colons and a Windows drive. "package.module:function:DIR" names a reader outside flawsmith. The folder must exist
    only where the reader has to be guessed. Raises FlawsmithError for an unknown reader or a missing folder.
    """
    text = str(source)
    match = _PREFIX.match(text)
    if match and not isinstance(source, Path):
        name = match["own"] or match["name"]
        rest = text[len(name) + 1 :]
        if name in DATASETS or (match["own"] and not Path(text).exists()):
            if not rest.strip():
                raise FlawsmithError(f"{text!r} names no folder: write {name}:DIR.")
            return name, inputs.home(Path(rest))
        if not inputs.home(Path(text)).exists():
            raise unknown("Reader", name, DATASETS, f"({text!r})")
    if not text.strip():
        raise FlawsmithError("The data set is an empty name: write READER:DIR, for example mvtec_ad:data/bottle.")
    folder = inputs.home(Path(text))
    return detect(folder), folder


def detect(folder: Path) -> str:
    """The reader that fits a folder; "folder" where it has no data set's layout."""
    from flawsmith.datasets.recognise import recognise

    return recognise(folder).reader


def told(source: str | Path) -> str:
    """How a data set is read, as a sentence for people: by the reader that was named, or by which one was taken, why.

    Raises FlawsmithError as `parse_source`.
    """
    from flawsmith.datasets.recognise import recognise

    name, folder = parse_source(source)
    if str(source).startswith(f"{name}:") and not isinstance(source, Path):
        return f"Read as {name}."
    why = recognise(folder).why.encode(errors="backslashreplace").decode()  # a name that is no text is refused later
    return f"Read as {name}: {why}."


def read(
    name: str,
    root: str | Path,
    category: str | None = None,
    *,
    defect: str | Sequence[str] | None = None,
    split: str | None = None,
    group_by: str = "group",
    **filters: Any,
) -> list[Record]:
    """Read a data set into Records, in natural order.

    `name` is a key of DATASETS or "package.module:function"; `root` a data set root (then `category` names one, or
    all are read) or one category's folder. `defect` keeps these defect types ("good" is one), `split` keeps train,
    validation or test, `group_by` is the column of origin.csv that names the physical part. Further `filters` go to
    a reader outside flawsmith. Raises FlawsmithError naming the folder and what it knows, or a name that is no UTF-8.
    """
    from flawsmith.datasets import caption_table

    reader = resolve(name, DATASETS, "Reader")
    if filters and name in DATASETS:
        raise unknown("Filter", next(iter(filters)), ("category", "defect", "split", "group_by"), f"for {name}")
    records: list[Record] = reader(Path(root), category=category, group_by=group_by, **filters)
    if not isinstance(records, list) or not all(isinstance(record, Record) for record in records):
        raise FlawsmithError(f"Reader {name!r} returned no list of flawsmith.records.Record: mend it.")
    for record in records:
        for part in (
            record.name,
            record.category,
            record.defect_type,
            record.group,
            *record.labels,
            *map(str, record.files),
        ):
            inputs.refuse_odd_name(part, f"In {root}: the name")
    records = caption_table.applied(Path(root), records)
    if defect is not None:
        wanted = [defect] if isinstance(defect, str) else list(defect)
        known = {record.defect_type for record in records}
        for one in wanted:
            if one not in known:
                raise unknown("Defect", one, known, f"in {root}")
        records = [record for record in records if record.defect_type in wanted]
    if split is not None:
        splits = {record.split for record in records}
        if split not in splits:
            raise unknown("Split", split, splits, f"in {root}")
        records = [record for record in records if record.split == split]
    return records


def read_source(source: str | Path, category: str | None = None, **filters: Any) -> list[Record]:
    """`read` for "READER:DIR" or a folder alone; see `parse_source`."""
    name, root = parse_source(source)
    return read(name, root, category, **filters)


def defect_types(records: Sequence[Record]) -> list[str]:
    """The defect types that occur, without "good", in order of appearance."""
    return list(dict.fromkeys(record.defect_type for record in records if record.defect_type != GOOD))
