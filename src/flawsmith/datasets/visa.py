"""VisA in its own layout, described by tables: image_anno.csv of each object, split_csv/1cls.csv of all.

    candle/Data/Images/Normal/0000.JPG   candle/Data/Images/Anomaly/000.JPG   candle/Data/Masks/Anomaly/000.png
    candle/image_anno.csv                image,label,mask with the names of the defects
    split_csv/1cls.csv                   object,split,label,image,mask with normal and anomaly

An image with several defects is of the type "combined"; every non-zero pixel of a mask counts. The one-class layout
that VisA's own script writes is MVTec AD's: read it with `mvtec_ad`.
Reference: Zou et al., "SPot-the-Difference Self-Supervised Pre-training", ECCV 2022.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from flawsmith.datasets import tree
from flawsmith.datasets.annotated import Found, Tree, records
from flawsmith.errors import FlawsmithError
from flawsmith.records import COMBINED, GOOD, Record


def tables(root: Path) -> tuple[list[Path], Path | None]:
    """The objects' tables, and that of the splits where there is one."""
    own = [path for path in (root / "image_anno.csv", *root.glob("*/image_anno.csv")) if path.is_file()]
    splits = [path for path in (root / "split_csv/1cls.csv", root.parent / "split_csv/1cls.csv") if path.is_file()]
    return sorted(own), splits[0] if splits else None


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read one object or all. Good images train and defects test where no table of splits says otherwise.

    Raises FlawsmithError naming table and line for images and masks that are not there, and paths that lead out.
    """
    found = Tree(root)
    own, splits = tables(root)
    if not own and (splits is None or splits.parent.parent != root):
        raise FlawsmithError(f"Folder {root} holds no image_anno.csv and no split_csv/1cls.csv: name VisA's folder.")
    said: dict[Path, str] = {}
    if splits is not None:
        for where, row in _rows(splits):
            if splits.parent.parent == root or (row.get("image") or "").startswith(f"{root.resolve().name}/"):
                said[_find(found, row.get("image"), splits.parent, where)] = (row.get("split") or "").strip()
    listed: dict[Path, tuple[Found, str, tuple[Path, ...]]] = {}
    for table in own or ([splits] if splits else []):
        for where, row in _rows(table):
            image = _find(found, row.get("image"), table.parent, where)
            label = (row.get("label") or "").strip()
            words = [word.strip() for word in label.split(",") if word.strip()]
            good = not words or tree.is_good_name(words[0])
            kind = GOOD if good else words[0] if len(words) == 1 else COMBINED
            given = (row.get("mask") or "").strip()
            mask = () if good or not given else (_find(found, given, table.parent, where),)
            split = said.get(image) or ("train" if good else "test")
            name = row.get("object") or found.name(image).split("/Data/")[0].rpartition("/")[2]
            one = Found(image, where, split, category=name if "/Data/" in found.name(image) else "")
            if image in listed:
                raise FlawsmithError(f"{where} describes {image.name}, and so does {listed[image][0].where}: keep one.")
            listed[image] = one, kind, mask
    made = records(root, [one for one, _, _ in listed.values()], category, group_by)
    return [
        replace(record, defect_type=listed[record.image][1], masks=listed[record.image][2], any_level=True)
        for record in made
    ]


def _find(found: Tree, given: str | None, near: Path, where: str) -> Path:
    """A table names files relative to the whole set's folder, also where one object's is read."""
    text = given or ""
    return found.find(text.removeprefix(f"{found.root.resolve().name}/"), near, where)


def _rows(table: Path) -> Iterator[tuple[str, dict[str, str | None]]]:
    """(place for messages, row) of every line of a table."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = {"image", "label", "mask"} - set(rows.fieldnames or ())
            if missing:
                raise FlawsmithError(f"{table} has no column {', '.join(sorted(missing))}: restore VisA's own table.")
            for row in rows:
                yield f"{table}, line {rows.line_num}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FlawsmithError(f"{table} cannot be read ({error}): restore VisA's own table.") from error
