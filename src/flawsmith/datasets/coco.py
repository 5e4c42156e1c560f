"""COCO instances: polygons, run lengths, or boxes alone, for which masks are proposed.

annotations/instances_train.json + images/train/*     as COCO and flawsmith export it
train/_annotations.coco.json + train/*                as annotation services export it
any.json beside or above the images

Where tools write one file for each of COCO's tasks, instances_train.json counts and stuff_train.json,
person_keypoints_train.json and panoptic_train.json beside it do not: they describe the same images again.

A COCO category is a defect type, an image without annotations a good part. Captions: `caption` of an image, or a
captions_*.json beside. Reference: Lin et al., "Microsoft COCO", ECCV 2014; cocodataset.org, "Data format".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flawsmith.datasets import annotated, regions
from flawsmith.datasets.annotated import Found, Tree
from flawsmith.errors import FlawsmithError, short
from flawsmith.images import MAX_PIXELS
from flawsmith.records import Record, Region

_LISTS = re.compile(rb'"(images|annotations)"\s*:\s*\[')
_ENTRIES = re.compile(rb'"(image_id|category_id|file_name)"')

AGAIN = ("stuff_", "person_keypoints_", "panoptic_")  # COCO's other tasks


def files(root: Path) -> list[Path]:
    """The JSON files at the root, in annotations/ or in its sub-folders that look like COCO."""
    found = sorted([*root.glob("*.json"), *root.glob("*/*.json")])
    return [path for path in found if path.is_file() and not _is_told_again(path) and _is_coco(path)]


def _is_told_again(path: Path) -> bool:
    for task in AGAIN:
        if path.name.startswith(task):
            return path.with_name("instances_" + path.name.removeprefix(task)).is_file()
    return False


def _is_coco(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16)
            file.seek(max(0, path.stat().st_size - (1 << 16)))
            tail = file.read()
    except OSError:
        return False
    words = (b'"shapes"', b'"dm_format_version"', b'"shard"')  # of LabelMe, Datumaro, our lists of shards
    other = any(word in head for word in words) or head.lstrip()[:1] == b"["  # of Label Studio
    if other or (b'"items"' in head and b'"images"' not in head):  # of Datumaro
        return False
    return bool(_LISTS.search(head)) or (b'"categories"' in head and bool(_ENTRIES.search(tail)))


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read every COCO file of a data set into Records, in natural order.

    Raises FlawsmithError naming file and entry for wrong ids, boxes and polygons that are none or lie outside their
    image, names that lead out of the folder, and images that two entries describe.
    """
    found = Tree(root)
    sources = files(root)
    if not sources:
        raise FlawsmithError(
            f"Folder {root} holds no COCO file (*.json, */*.json with images and annotations): name the right folder."
        )
    images: dict[Path, Found] = {}
    for path in sources:
        _read_file(path, found, images)
    return annotated.records(root, list(images.values()), category, group_by)


def _read_file(path: Path, found: Tree, known: dict[Path, Found]) -> None:
    content = annotated.read_json(path)
    names = {}
    for one in annotated.entries(content, "categories", path):
        names[_id(one, "id", f"{path}, a category")] = one.get("name")
    images: dict[Any, Found] = {}
    sizes: dict[Any, tuple[int, int] | None] = {}
    here: dict[Path, str] = {}
    for number, entry in enumerate(annotated.entries(content, "images", path)):
        where = f"{path}, images[{number}]"
        key = _id(entry, "id", where)
        if key in images:
            raise FlawsmithError(f"{where}: the id {short(key)} is that of another image, too: give every image one.")
        image = found.find(entry.get("file_name"), path.parent, where)
        if image in here:
            raise FlawsmithError(
                f"{where} describes {image.name}, and so does {here[image]}: keep one, with all of its annotations."
            )
        here[image] = where
        split = annotated.split_of(found.name(image), path.stem if path.parent != image.parent else "")
        images[key] = known.setdefault(image, Found(image, where, split).told(annotated.notes(entry)))
        sizes[key] = _size(entry, where)
    for number, entry in enumerate(annotated.entries(content, "annotations", path)):
        where = f"annotations[{number}]"
        key = _id(entry, "image_id", f"{path}, {where}")
        if key not in images:
            raise FlawsmithError(
                f"{path}, {where}: image_id {short(key)} is no image of this file: correct it, or remove the entry."
            )
        marked = images[key]
        if isinstance(entry.get("caption"), str) and "category_id" not in entry:
            marked.caption = marked.caption or entry["caption"].strip()
            continue
        if marked.regions and marked.regions[0].source != path:
            raise FlawsmithError(
                f"{path}, {where} marks a defect on {marked.image.name}, and so does {marked.regions[0]}: keep one "
                "file for every image."
            )
        marked.regions.append(_region(path, where, entry, names, sizes[key]))


def _id(entry: dict[str, Any], key: str, where: str) -> Any:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise FlawsmithError(f"{where}: {key} is {short(value)}: give a whole number.")
    return value


def _size(entry: dict[str, Any], where: str) -> tuple[int, int] | None:
    """(H, W) as the file says, None where it does not."""
    size = entry.get("height"), entry.get("width")
    if size == (None, None):
        return None
    height, width = size
    if type(height) is not int or type(width) is not int or min(height, width) < 1 or height * width > MAX_PIXELS:
        raise FlawsmithError(
            f"{where}: height and width are {short(height)} and {short(width)}: give the image's, as whole numbers."
        )
    return height, width


def _region(path: Path, place: str, entry: dict[str, Any], names: Any, size: tuple[int, int] | None) -> Region:
    where = f"{path}, {place}"
    key = _id(entry, "category_id", where)
    if key not in names:
        raise FlawsmithError(f"{where}: category_id {short(key)} is no category of this file: add it, or correct it.")
    name = annotated.label(names[key], f"{path}, the category {short(key)}")
    shape = entry.get("segmentation")
    if isinstance(shape, dict):
        return regions.runs(path, place, name, shape, size)
    if isinstance(shape, list) and shape:
        return regions.outlined(path, place, name, shape, size)
    if shape not in (None, []):
        raise FlawsmithError(f"{where}: segmentation is {short(shape)}: give polygons, run lengths, or [].")
    return regions.boxed(path, place, name, entry.get("bbox"), size)
