"""LabelMe: a JSON file with shapes beside every image.

Polygons, circles and masks are taken as they are, in rectangles a mask is proposed, lines are three pixels wide and
count as proposed. Shapes that share a label and a `group_id` are one defect. An image without file or shape is a good
part. The images' own copies inside the files (`imageData`) are not read. Reference: github.com/wkentaro/labelme.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flawsmith.datasets import annotated, regions
from flawsmith.datasets.annotated import Found, Tree
from flawsmith.errors import FlawsmithError, short
from flawsmith.records import Record, Region

SHAPES = ("polygon", "rectangle", "circle", "line", "linestrip", "mask")


def is_annotation(path: Path) -> bool:
    """Whether a JSON file looks like LabelMe's; its beginning or its end tells, in the middle is the image's copy."""
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16)
            file.seek(max(0, path.stat().st_size - (1 << 12)))
            ends = head + file.read()
    except OSError:
        return False
    return b'"shapes"' in ends and b'"image' in ends


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read every image, with its shapes where there are any, in natural order.

    Raises FlawsmithError naming file and shape for points that are none or lie outside their image, shapes without
    an area, and names that lead out of the folder.
    """
    found = Tree(root)
    listed = annotated.described(found, ".json", is_annotation, lambda path: _read_file(path, found))
    if not listed:
        raise FlawsmithError(f"Folder {root} holds no LabelMe file (*.json with shapes): name the right folder.")
    for image in found.images:
        if image not in listed:
            listed[image] = Found(image, found.name(image), annotated.split_of(found.name(image)))
    return annotated.records(root, list(listed.values()), category, group_by)


def _read_file(path: Path, found: Tree) -> Found:
    content = annotated.read_json(path)
    given = content.get("imagePath")
    alike = [image for image in found.by_stem(path.stem) if image.parent == path.parent]
    image = alike[0] if given is None and len(alike) == 1 else found.find(given, path.parent, str(path), may_go_up=True)
    said = annotated.notes({**content, "caption": content.get("description")})
    one = Found(image, str(path), annotated.split_of(found.name(image))).told(said)
    size = content.get("imageHeight"), content.get("imageWidth")
    inside = (int(size[0]), int(size[1])) if all(type(n) is int and n > 0 for n in size) else None
    for number, shape in enumerate(annotated.entries(content, "shapes", path)):
        group = shape.get("group_id")
        one.add(_shape(path, number, shape, inside), None if group is None else f"group {short(group)}")
    return one


def _shape(path: Path, number: int, shape: dict[str, Any], size: tuple[int, int] | None) -> Region:
    entry = f"shapes[{number}]"
    where = f"{path}, {entry}"
    name = annotated.label(shape.get("label"), where)
    kind = shape.get("shape_type") or "polygon"
    if not isinstance(kind, str) or kind not in SHAPES:
        raise FlawsmithError(f"{where}: shape_type is {short(kind)}: draw one of {', '.join(SHAPES)}, or remove it.")
    points = _points(shape.get("points"), where)
    least = {"polygon": 3, "linestrip": 2}.get(kind, 2)
    exact = kind in ("rectangle", "circle", "line", "mask")
    if len(points) < least or (exact and len(points) != least):
        raise FlawsmithError(
            f"{where}: {len(points)} points are no {kind}: it has {least}{'' if exact else ' or more'}. Draw it again, "
            "or remove it."
        )
    low, high = points.min(axis=0), points.max(axis=0)
    ring = points
    if kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        ring = regions.ellipse(points[0], (radius, radius))
        low, high = ring.min(axis=0), ring.max(axis=0)
    if size:
        regions.refuse_outside(low, high + (kind == "mask"), size, where)
    if kind in ("polygon", "circle"):
        return regions.Polygon(path, entry, name, rings=(ring,))
    if kind in ("line", "linestrip"):
        return regions.Line(path, entry, name, points=points)
    if kind == "mask":
        png = shape.get("mask")
        if not isinstance(png, str) or not png:
            raise FlawsmithError(f"{where}: mask is {short(png)}: it must be a PNG as base64 text.")
        return regions.Stamp(path, entry, name, png=png, left=round(low[0]), top=round(low[1]))
    place = regions.box([*low, *(high - low)], where)
    return regions.Box(path, entry, name, place=place)


def _points(given: Any, where: str) -> np.ndarray:
    """[[x, y], ...] as (n, 2) float64."""
    whole = isinstance(given, list) and given and all(isinstance(one, list) and len(one) == 2 for one in given)
    if not whole:
        raise FlawsmithError(f"{where}: points is {short(given)}: give [[x, y], [x, y], ...].")
    flat = [value for pair in given for value in pair]
    return regions.numbers(flat, where, "a point", "[[x, y], [x, y], ...]").reshape(-1, 2)
