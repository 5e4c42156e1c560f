"""CVAT for images 1.1: one XML file, or several, that describe the shapes of every image.

Polygons, masks and ellipses are taken as they are, in boxes a mask is proposed, polylines are three pixels wide and
count as proposed. Polygons of one label and group are one defect. A tag names the type of an image without shapes; an
image without either is a good part. Reference: docs.cvat.ai, "CVAT for image".
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from flawsmith.datasets import annotated, regions, voc
from flawsmith.datasets.annotated import Found, Tree
from flawsmith.errors import FlawsmithError, short
from flawsmith.images import MAX_PIXELS
from flawsmith.records import Record, Region

SHAPES = ("polygon", "mask", "box", "ellipse", "polyline")
OTHER = ("points", "cuboid", "skeleton")  # they mark no area
_ROOT = re.compile(rb"<annotations[\s>]")


def is_annotation(path: Path) -> bool:
    """Whether an XML file begins as CVAT's do."""
    try:
        with open(path, "rb") as file:
            return _ROOT.search(file.read(4096)) is not None
    except OSError:
        return False


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read every image, with its shapes where there are any, in natural order.

    Raises FlawsmithError naming file, image and shape for coordinates that are none or lie outside their image, shapes
    without an area, an image that is described twice, tracks of videos, and names that lead out of the folder.
    """
    found = Tree(root)
    listed: list[Found] = []
    for path in found.others:
        if path.suffix.lower() == ".xml" and is_annotation(path):
            listed += _read_file(path, found)
    if not listed:
        raise FlawsmithError(f"Folder {root} holds no image of CVAT's (*.xml with <annotations>): name another folder.")
    return annotated.records(root, listed, category, group_by)


def _read_file(path: Path, found: Tree) -> list[Found]:
    root = voc.parse(path)
    if root.find("track") is not None:
        raise FlawsmithError(f"{path} holds tracks of a video: export the task as 'CVAT for images 1.1'.")
    listed = []
    for number, node in enumerate(root.findall("image"), start=1):
        name = node.get("name")
        where = f"{path}, image {number}"
        subset = node.get("subset") or ""
        image = found.find(name, path.parent / "images" / subset, where)
        split = annotated.split_of(found.name(image), path.stem, f"{subset}")
        one = Found(image, where, split)
        size = _size(node)
        shapes = [child for child in node if child.tag in SHAPES or child.tag in OTHER]
        for place, shape in enumerate(shapes, start=1):
            entry = f"image {number}, {shape.tag} {place}"
            one.add(_shape(path, entry, shape, size), shape.get("group_id"))
        one.tags += [annotated.label(tag.get("label"), f"{where}, a tag") for tag in node.findall("tag")]
        listed.append(one)
    return listed


def _size(node: Element) -> tuple[int, int] | None:
    """(H, W) as the file says, None where it does not."""
    texts = node.get("height", ""), node.get("width", "")
    if not all(text.isdecimal() and len(text) < 10 for text in texts):
        return None
    height, width = (int(text) for text in texts)
    return (height, width) if 0 < height * width <= MAX_PIXELS else None


def _numbers(node: Element, names: tuple[str, ...], where: str) -> np.ndarray:
    """Attributes as (n,) float64. Raises FlawsmithError that begins with `where`."""
    texts = [node.get(name) for name in names]
    try:
        given: object = [float(text) for text in texts]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        given = texts
    return regions.numbers(given, where, ", ".join(names), "numbers of pixels")


def _shape(path: Path, entry: str, node: Element, size: tuple[int, int] | None) -> Region:
    where = f"{path}, {entry}"
    name = annotated.label(node.get("label"), where)
    if node.tag in OTHER:
        raise FlawsmithError(f"{where}: {node.tag} mark no area: draw one of {', '.join(SHAPES)}, or remove it.")
    if node.tag == "mask":
        return _mask(path, entry, node, name, size)
    turned = float(_numbers(node, ("rotation",), where)[0]) if node.get("rotation") else 0.0
    proposed = node.tag == "box"
    if node.tag == "box":
        left, top, right, bottom = _numbers(node, ("xtl", "ytl", "xbr", "ybr"), where)
        place = regions.box([left, top, right - left, bottom - top], where)
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        ring = regions.turn(corners - middle, turned) + middle
    elif node.tag == "ellipse":
        x, y, wide, high = _numbers(node, ("cx", "cy", "rx", "ry"), where)
        regions.box([x - wide, y - high, 2 * wide, 2 * high], where)
        ring = regions.ellipse((x, y), (wide, high), turned)
    else:
        ring = _points(node.get("points"), 3 if node.tag == "polygon" else 2, where)
    if size:
        regions.refuse_outside(ring.min(axis=0), ring.max(axis=0), size, where)
    if node.tag == "polyline":
        return regions.Line(path, entry, name, points=ring)
    if proposed and not turned:
        return regions.Box(path, entry, name, place=place)
    return regions.Polygon(path, entry, name, proposed=proposed, rings=(ring,))


def _points(given: str | None, least: int, where: str) -> np.ndarray:
    """ "x,y;x,y;..." as (n, 2) float64."""
    wanted = f"x,y;x,y;... of {least} points or more"
    try:
        flat: object = [float(text) for pair in (given or "").split(";") for text in pair.split(",", 1)]
    except ValueError:
        flat = given
    array = regions.numbers(flat, where, "points", wanted)
    if len(array) < 2 * least or len(array) % 2:
        raise FlawsmithError(f"{where}: points is {short(given)}: give {wanted}.")
    return array.reshape(-1, 2)


def _mask(path: Path, entry: str, node: Element, name: str, size: tuple[int, int] | None) -> Region:
    where = f"{path}, {entry}"
    left, top, width, height = (round(value) for value in _numbers(node, ("left", "top", "width", "height"), where))
    regions.box([left, top, width, height], where)
    texts = (node.get("rle") or "").split(",")
    whole = all(text.strip().isdecimal() and len(text) < 12 for text in texts)
    counts = np.array([int(text) for text in texts] if whole else [-1], dtype=np.int64)
    if width * height > MAX_PIXELS or counts.min() < 0 or counts.sum() > width * height:
        raise FlawsmithError(f"{where}: rle is {short(node.get('rle'))}: give runs of {width} x {height} pixels.")
    rest = width * height - counts.sum()  # what follows the last run is outside
    counts = np.append(counts, [0, rest] if len(counts) % 2 else [rest])
    if size:
        regions.refuse_outside((left, top), (left + width, top + height), size, where)
    return regions.RowRuns(path, entry, name, counts=counts, place=(left, top, width, height))
