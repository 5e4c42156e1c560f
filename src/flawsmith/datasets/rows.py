"""Data sets that hold a row of words for every image: Hugging Face's imagefolder, and unpacked WebDataset shards.

    train/metadata.jsonl + train/*           imagefolder: a row with `file_name` for every image
    000.png + 000.json (+ 000.mask.png)      WebDataset: a JSON file beside every image of the same name

A row may hold `caption` (or text), `defect_type` (or label), `category` (the product), `group`, `split`, and `objects`
with `categories` and `segmentation` (polygons of x and y in pixels) or `bbox`, for which masks are proposed, also as a
JSON text. Without objects the image's mask is taken: `mask_file_name`, or the file called 000.mask.png.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from flawsmith import inputs
from flawsmith.datasets import annotated, regions, tree
from flawsmith.datasets.annotated import Found, Tree
from flawsmith.datasets.folder import SPLITS
from flawsmith.errors import FlawsmithError, short
from flawsmith.images import SUFFIXES
from flawsmith.records import Record

METADATA = "metadata.jsonl"
UNNAMED = "defect"  # the type where nothing names it


def is_row(path: Path) -> bool:
    """Whether a JSON file holds words of the image beside it, as exports to WebDataset do."""
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16)
    except OSError:
        return False
    beside = any(path.with_suffix(suffix).is_file() for suffix in SUFFIXES)
    return beside and head.lstrip()[:1] == b"{" and b'"defect_type"' in head


def hf_dataset(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read the rows of every metadata.jsonl in natural order.

    Raises FlawsmithError naming file and line for damaged rows, images that are not there or described twice, and names
    that lead out of the folder.
    """
    found = Tree(root)
    tables = [path for path in found.others if path.name == METADATA]
    if not tables:
        raise FlawsmithError(f"Folder {root} holds no {METADATA}: name an imagefolder of Hugging Face's datasets.")
    return _records(root, found, [row for table in tables for row in _lines(table)], category, group_by)


def webdataset(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read the images of unpacked shards, each with the JSON file of its name, in natural order.

    Raises FlawsmithError as `hf_dataset`, and for shards that are still packed.
    """
    found = Tree(root)
    rows = []
    for path in found.others:
        alike = [image for image in found.by_stem(path.stem) if image.parent == path.parent]
        if path.suffix.lower() == ".json" and len(alike) == 1:
            row = annotated.read_json(path)
            mask = path.parent / f"{path.stem}.mask.png"
            given = {"file_name": alike[0].name, "mask_file_name": mask.name if mask.is_file() else None}
            rows.append((path, str(path), {**row, **given}))
    if not rows:
        packed = [path for path in found.others if path.suffix == ".tar"]
        remedy = (
            f"unpack them: for f in {root}/*.tar; do tar -xf $f -C FOLDER; done" if packed else "name another folder"
        )
        raise FlawsmithError(f"Folder {root} holds no image with a JSON file of its name: {remedy}.")
    return _records(root, found, rows, category, group_by)


def _lines(table: Path) -> list[tuple[Path, str, dict[str, Any]]]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FlawsmithError(f"{table} cannot be read ({error}): save it as UTF-8 text.") from error
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append((table, f"{table}, line {number}", inputs.parse_json(line)))
            except ValueError as error:
                raise FlawsmithError(f"{table}, line {number}, is no JSON object ({error}): mend it.") from error
    return rows


def _records(
    root: Path, found: Tree, rows: list[tuple[Path, str, dict[str, Any]]], category: str | None, group_by: str
) -> list[Record]:
    listed = []
    masks: dict[Path, tuple[str, tuple[Path, ...]]] = {}
    for path, where, row in rows:
        image = found.find(row.get("file_name"), path.parent, where)
        said = {key: _text(row, *names) for key, names in TEXTS.items()}
        split = SPLITS.get(_text(row, "split").casefold()) or annotated.split_of(found.name(image))
        one = Found(image, where, split).told(said)
        kind = annotated.label(said["kind"], where) if said["kind"] else ""
        one.good = tree.is_good_name(kind) if kind else False
        _objects(one, path, where, row)
        if not one.regions and not one.good:
            given = row.get("mask_file_name")
            mask = () if given is None else (found.find(given, path.parent, where),)
            if kind or mask:
                masks[image] = kind or UNNAMED, mask
        listed.append(one)
    made = annotated.records(root, listed, category, group_by)
    return [
        replace(one, defect_type=masks[one.image][0], masks=masks[one.image][1]) if one.image in masks else one
        for one in made
    ]


# What a column may be called.
TEXTS = {
    "caption": ("caption", "text", "description"),
    "group": ("group",),
    "category": ("category",),
    "kind": ("defect_type", "label"),
}


def _text(row: dict[str, Any], *names: str) -> str:
    values = (row.get(name) for name in names)
    return next((one.strip() for one in values if isinstance(one, str) and inputs.is_text(one) and one.strip()), "")


def _objects(one: Found, path: Path, where: str, row: dict[str, Any]) -> None:
    given = row.get("objects")
    if given is None:
        return
    if isinstance(given, str):
        try:
            given = inputs.parse_json(given)
        except ValueError as error:
            raise FlawsmithError(f"{where}: objects is no JSON object ({error}): mend it.") from error
    if not isinstance(given, dict):
        raise FlawsmithError(f"{where}: objects is {short(given)}: it must be an object of lists.")
    names: list[Any] = next((given[key] for key in ("categories", "category", "label", "labels") if key in given), [])
    outlines, boxes = given.get("segmentation"), given.get("bbox")
    columns = [names, *(column for column in (outlines, boxes) if column is not None)]
    if not all(isinstance(column, list) and len(column) == len(names) for column in columns) or len(columns) < 2:
        raise FlawsmithError(f"{where}: the lists of objects are not of one length, or lack bbox: {short(given)}.")
    height, width = row.get("height"), row.get("width")
    inside = None
    if type(height) is int and type(width) is int and min(height, width) > 0:
        inside = height, width
    for number, name in enumerate(names):
        place = f"{where}, object {number + 1}"
        entry = place.removeprefix(f"{path}, ")
        label = annotated.label(name, place)
        rings = outlines[number] if outlines is not None else None
        if isinstance(rings, list) and rings:
            one.regions.append(regions.outlined(path, entry, label, rings, inside))
        elif boxes is not None:
            one.regions.append(regions.boxed(path, entry, label, boxes[number], inside))
        else:
            raise FlawsmithError(f"{place}: segmentation is {short(rings)}: give polygons, or a bbox.")
