"""Datumaro's own JSON: annotations/<subset>.json beside images/<subset>/*.

Polygons, masks and ellipses are taken as they are, in boxes a mask is proposed, polylines are three pixels wide and
count as proposed. Polygons of one label and group are one defect. A label names the type of an image without shapes; an
image without either is a good part. Captions are read. Reference: github.com/open-edge-platform/datumaro, "Datumaro".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flawsmith.datasets import annotated, regions
from flawsmith.datasets.annotated import Found, Tree
from flawsmith.errors import FlawsmithError, short
from flawsmith.images import MAX_PIXELS
from flawsmith.records import Record, Region

SHAPES = ("polygon", "mask", "bbox", "ellipse", "polyline")


def files(root: Path) -> list[Path]:
    """The JSON files at the root or in a sub-folder that begin as Datumaro's do."""
    found = sorted([*root.glob("*.json"), *root.glob("*/*.json")])
    return [path for path in found if path.is_file() and _is_datumaro(path)]


def _is_datumaro(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16)
    except OSError:
        return False
    return b'"dm_format_version"' in head or (b'"categories"' in head and b'"items"' in head and b'"label"' in head)


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read every item of every subset into Records, in natural order.

    Raises FlawsmithError naming file and item for wrong ids, coordinates that are none or lie outside their image, an
    image that two items describe, and names that lead out of the folder.
    """
    found = Tree(root)
    sources = files(root)
    if not sources:
        raise FlawsmithError(f"Folder {root} holds no JSON of Datumaro (annotations/*.json): name the right folder.")
    listed = [one for path in sources for one in _read_file(path, found)]
    return annotated.records(root, listed, category, group_by)


def _read_file(path: Path, found: Tree) -> list[Found]:
    content = annotated.read_json(path)
    kinds = content.get("categories")
    kinds = kinds.get("label", {}) if isinstance(kinds, dict) else kinds
    if not isinstance(kinds, dict):
        raise FlawsmithError(f"{path}: categories is {short(kinds)}: it must hold the labels.")
    names = [one.get("name") for one in annotated.entries(kinds, "labels", f"{path}, categories")]
    listed = []
    for number, item in enumerate(annotated.entries(content, "items", path)):
        place = f"items[{number}]"
        where = f"{path}, {place}"
        media = item.get("image", item.get("media"))
        media = media if isinstance(media, dict) else {}
        image = _image(item, media, found, path, where)
        said = annotated.notes({**_attributes(item), "caption": None})
        one = Found(image, where, annotated.split_of(found.name(image), path.stem)).told(said)
        size = _size(media)
        for count, entry in enumerate(annotated.entries(item, "annotations", where)):
            _annotation(one, path, f"{place}, annotations[{count}]", entry, names, size)
        listed.append(one)
    return listed


def _attributes(item: dict[str, Any]) -> dict[str, Any]:
    """An item's own words; where flawsmith wrote them, product and part stand in them."""
    own = item.get("attr", item.get("attributes"))
    own = own if isinstance(own, dict) else {}
    return {"flawsmith": {"group": own.get("part"), "category": own.get("product")}}


def _image(item: dict[str, Any], media: dict[str, Any], found: Tree, path: Path, where: str) -> Path:
    """The image that an item names, or that is called like the item."""
    near = path.parent.parent / "images" / path.stem
    given = media.get("path")
    if given is None and isinstance(item.get("id"), str):
        alike = found.by_stem(item["id"].rpartition("/")[2])
        given = found.name(alike[0]) if len(alike) == 1 else f"{item['id']}.jpg"
    return found.find(given, near, where)


def _size(media: dict[str, Any]) -> tuple[int, int] | None:
    """(H, W) as the file says, None where it does not."""
    size = media.get("size")
    whole = isinstance(size, list) and len(size) == 2 and all(type(one) is int and one > 0 for one in size)
    return (size[0], size[1]) if whole and size[0] * size[1] <= MAX_PIXELS else None  # type: ignore[index]


def _annotation(
    one: Found, path: Path, place: str, entry: dict[str, Any], names: list[Any], size: tuple[int, int] | None
) -> None:
    where = f"{path}, {place}"
    kind = entry.get("type")
    if kind == "caption":
        if isinstance(entry.get("caption"), str):
            one.caption = one.caption or entry["caption"].strip()
        return
    if kind != "label" and kind not in SHAPES:
        raise FlawsmithError(f"{where}: type is {short(kind)}: give one of label, caption, {', '.join(SHAPES)}.")
    number = entry.get("label_id")
    if type(number) is not int or not 0 <= number < len(names):
        raise FlawsmithError(f"{where}: label_id {short(number)} is no label of this file: add it, or correct it.")
    name = annotated.label(names[number], f"{path}, label {number}")
    if kind == "label":
        one.tags.append(name)
    else:
        one.add(_shape(path, place, kind, entry, name, size), entry.get("group"))


def _shape(path: Path, place: str, kind: str, entry: dict[str, Any], name: str, size: tuple[int, int] | None) -> Region:
    where = f"{path}, {place}"
    if kind == "mask":
        rle = entry.get("rle")
        return regions.runs(path, place, name, rle if isinstance(rle, dict) else {}, size)
    if kind == "bbox":
        return regions.boxed(path, place, name, entry.get("bbox"), size)
    if kind == "polygon":
        return regions.outlined(path, place, name, [entry.get("points")], size)
    if kind == "ellipse":
        left, top, right, bottom = _four(entry.get("points"), where)
        x, y, width, height = regions.box([left, top, right - left, bottom - top], where)
        ring = regions.ellipse((x + width / 2, y + height / 2), (width / 2, height / 2))
    else:
        flat = regions.numbers(entry.get("points"), where, "points", "[x1, y1, x2, y2, ...]")
        if len(flat) < 4 or len(flat) % 2:
            raise FlawsmithError(f"{where}: a polyline has {len(flat)} numbers: give [x1, y1, x2, y2, ...].")
        ring = flat.reshape(-1, 2)
    if size:
        regions.refuse_outside(ring.min(axis=0), ring.max(axis=0), size, where)
    if kind == "polyline":
        return regions.Line(path, place, name, points=ring)
    return regions.Polygon(path, place, name, rings=(ring,))


def _four(given: Any, where: str) -> tuple[float, ...]:
    flat = regions.numbers(given, where, "points", "[left, top, right, bottom]")
    if len(flat) != 4:
        raise FlawsmithError(f"{where}: an ellipse has {len(flat)} numbers: give [left, top, right, bottom].")
    return tuple(float(value) for value in flat)
