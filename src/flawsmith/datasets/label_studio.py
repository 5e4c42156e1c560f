"""Label Studio's JSON export: a list of tasks, each an image with what was drawn on it.

Polygons, brushes and ellipses are taken as they are, in rectangles a mask is proposed. Choices name the type of an
image on which nothing is drawn, a text is its caption; a task without either is a good part. Predictions are not read.
Images are found by the names that tasks hold, also as Label Studio changes them when they are uploaded
(`/data/upload/1/3f2a9c1e-hole.png`). Reference: labelstud.io/guide/export, "Label Studio JSON format".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from flawsmith.datasets import annotated, regions
from flawsmith.datasets.annotated import Found, Tree
from flawsmith.errors import FlawsmithError, short
from flawsmith.images import MAX_PIXELS, SUFFIXES
from flawsmith.records import Record, Region

SHAPES = ("polygon", "brush", "ellipse", "rectangle")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
_TASK = re.compile(rb'"(annotations|completions)"\s*:\s*\[')


@dataclass(frozen=True)
class Brush(Region):
    """Painted pixels: Label Studio's packed runs of an RGBA image of (H, W), whose last channel counts."""

    packed: bytes = field(default=b"", compare=False, repr=False)
    shape: tuple[int, int] = field(default=(0, 0), compare=False)

    def draw(self, size: tuple[int, int], read: regions.Read) -> np.ndarray:
        if self.shape != size:
            raise FlawsmithError(
                f"{self}: it was painted on {self.shape[1]} x {self.shape[0]} pixels, the image has {size[1]} x "
                f"{size[0]}: export the task again."
            )
        try:
            return unpack(self.packed, size[0] * size[1] * 4).reshape(*size, 4)[..., 3] > 0
        except ValueError as error:
            raise FlawsmithError(f"{self}: rle cannot be unpacked ({error}): export the task again.") from error


def unpack(packed: bytes, count: int) -> np.ndarray:
    """`count` values, (count,) uint8, of a text of bits: 32 for their number, 5 for a value's width, four times 4 for
    widths of lengths; then blocks of a repeated value or of single ones. Raises ValueError for other bits.

    Reference: github.com/thi-ng/umbrella, packages/rle-pack.
    """
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8))
    place = 0

    def number(width: int) -> int:
        nonlocal place
        if place + width > len(bits):
            raise ValueError("it ends too early")
        place += width
        return int.from_bytes(np.packbits(bits[place - width : place]).tobytes(), "big") >> (-width % 8)

    if number(32) != count:
        raise ValueError("it is of another size than its image")
    word = number(5) + 1
    widths = [number(4) + 1 for _ in range(4)]
    if word > 8:
        raise ValueError(f"its values have {word} bits")
    values = np.zeros(count, dtype=np.uint8)
    done = 0
    while done < count:
        repeated = number(1)
        length = number(widths[number(2)]) + 1
        if done + length > count:
            raise ValueError("it holds more values than its image")
        if repeated:
            values[done : done + length] = number(word)
        else:
            single = bits[place : place + length * word]
            if len(single) < length * word:
                raise ValueError("it ends too early")
            place += length * word
            values[done : done + length] = single.reshape(length, word) @ (1 << np.arange(word)[::-1])
        done += length
    return values


def is_export(path: Path) -> bool:
    """Whether a JSON file begins as Label Studio's do: a list of tasks with data and annotations."""
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16)
    except OSError:
        return False
    return head.lstrip()[:1] == b"[" and (b'"data"' in head or b'"result"' in head) and bool(_TASK.search(head))


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read every task's image, with what was drawn on it, in natural order.

    Raises FlawsmithError naming file, task and result for coordinates that are none or lie outside their image, tasks
    that two people annotated differently, two tasks for one image, and names that lead out of the folder.
    """
    found = Tree(root)
    sources = [path for path in found.others if path.suffix.lower() == ".json" and is_export(path)]
    if not sources:
        raise FlawsmithError(
            f"Folder {root} holds no JSON export of Label Studio (a list of tasks): name the folder of images and JSON."
        )
    listed = []
    for path in sources:
        tasks = annotated.objects(annotated.read_json(path, list), path, "tasks")
        listed += [_task(path, f"task {number}", task, found) for number, task in enumerate(tasks, start=1)]
    return annotated.records(root, listed, category, group_by)


def _task(path: Path, place: str, task: dict[str, Any], found: Tree) -> Found:
    where = f"{path}, {place}"
    image = _image(task.get("data"), found, path.parent, where)
    one = Found(image, where, annotated.split_of(found.name(image)))
    for number, result in enumerate(_results(task, where), start=1):
        value = result.get("value")
        entry = f"{place}, result {number}"
        if not isinstance(value, dict):
            raise FlawsmithError(f"{path}, {entry}: value is {short(value)}: it must be an object.")
        if isinstance(value.get("text"), (str, list)) and result.get("type") == "textarea":
            texts = value["text"] if isinstance(value["text"], list) else [value["text"]]
            one.caption = one.caption or " ".join(str(text) for text in texts).strip()
        elif isinstance(value.get("choices"), list):
            one.tags += [annotated.label(name, f"{path}, {entry}") for name in value["choices"]]
        else:
            region = _shape(path, entry, result, value)
            if region is not None:
                one.add(region)
    return one


def _results(task: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """What was drawn in the one annotation that counts."""
    kept = annotated.entries(task, "annotations" if "annotations" in task else "completions", where)
    kept = [one for one in kept if not one.get("was_cancelled")]
    truth = [one for one in kept if one.get("ground_truth")]
    kept = truth if len(truth) == 1 else kept
    if len(kept) > 1 and any(one.get("result") != kept[0].get("result") for one in kept):
        raise FlawsmithError(
            f"{where} has {len(kept)} annotations that differ: mark one as ground truth in Label Studio, or remove the "
            "others."
        )
    return annotated.entries(kept[0], "result", where) if kept else []


def _image(data: Any, found: Tree, near: Path, where: str) -> Path:
    names = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    names = [name for name in map(_plain, names) if Path(name).suffix.lower() in SUFFIXES]
    if len(names) != 1:
        raise FlawsmithError(f"{where}: data is {short(data)}: it must name one image ({', '.join(sorted(SUFFIXES))}).")
    name = names[0]
    before = _UPLOADED.sub("", name)
    if before != name and not found.by_stem(Path(name).stem):
        name = before
    return found.find(name, near, where)


def _plain(address: str) -> str:
    """An image's name out of an address: of an upload or a server its last part, of local files the path below them."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    local = parse_qs(parts.query).get("d")
    if local:
        return unquote(local[0]).lstrip("/")
    uploaded = parts.scheme in ("http", "https", "s3", "gs", "azure-blob") or parts.path.startswith("/data/")
    return unquote(parts.path).rpartition("/")[2] if uploaded else address


def _shape(path: Path, entry: str, result: dict[str, Any], value: dict[str, Any]) -> Region | None:
    where = f"{path}, {entry}"
    kind = str(result.get("type", "")).removesuffix("labels")
    if kind == "relation":
        return None
    if kind == "":  # type "labels": what was drawn tells
        kind = "brush" if "rle" in value else "polygon" if "points" in value else "rectangle"
        kind = "ellipse" if "radiusX" in value else kind
    if kind not in SHAPES:
        raise FlawsmithError(f"{where}: type is {short(result.get('type'))}: give one of {', '.join(SHAPES)}.")
    given: list[Any] = next((value[key] for key in (f"{kind}labels", "labels") if isinstance(value.get(key), list)), [])
    if len(given) != 1:
        raise FlawsmithError(f"{where}: its labels are {short(given)}: give it one.")
    name = annotated.label(given[0], where)
    size = result.get("original_height"), result.get("original_width")
    if not all(type(side) is int and 0 < side < MAX_PIXELS for side in size) or size[0] * size[1] > MAX_PIXELS:  # type: ignore
        raise FlawsmithError(f"{where}: original_width and original_height are {short(size[::-1])}: give the image's.")
    height, width = int(size[0]), int(size[1])  # type: ignore[arg-type]
    if kind == "brush":
        return _brush(path, entry, name, value, (height, width))
    scale = np.array([width, height]) / 100
    turned = _values(value, ("rotation",), where)[0] if value.get("rotation") else 0.0
    if kind == "polygon":
        points = value.get("points")
        pairs = isinstance(points, list) and all(isinstance(one, list) and len(one) == 2 for one in points)
        ring = regions.ring([n for pair in points for n in pair] if pairs else points, where) * scale  # type: ignore
    elif kind == "ellipse":
        x, y, wide, high = _values(value, ("x", "y", "radiusX", "radiusY"), where)
        regions.box([x - wide, y - high, 2 * wide, 2 * high], where)
        ring = regions.ellipse((x, y) * scale, (wide, high) * scale, turned)
    else:
        place = regions.box(list(_values(value, ("x", "y", "width", "height"), where)), where)
        corner, sides = np.array(place[:2]) * scale, np.array(place[2:]) * scale
        ring = regions.turn(np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * sides, turned) + corner
    regions.refuse_outside(ring.min(axis=0), ring.max(axis=0), (height, width), where)
    if kind == "rectangle" and not turned:
        return regions.Box(path, entry, name, place=(*map(float, corner), *map(float, sides)))  # type: ignore[arg-type]
    return regions.Polygon(path, entry, name, proposed=kind == "rectangle", rings=(ring,))


def _values(value: dict[str, Any], names: tuple[str, ...], where: str) -> np.ndarray:
    given = [value.get(name) for name in names]
    return regions.numbers(given, where, ", ".join(names), "numbers from 0 to 100")


def _brush(path: Path, entry: str, name: str, value: dict[str, Any], size: tuple[int, int]) -> Region:
    packed = value.get("rle")
    whole = isinstance(packed, list) and all(type(one) is int and 0 <= one < 256 for one in packed)
    if not whole or len(packed) < 7 or int.from_bytes(bytes(packed[:4]), "big") != 4 * size[0] * size[1]:  # type: ignore
        raise FlawsmithError(
            f"{path}, {entry}: rle is {short(packed)}: it must hold packed bytes of {size[1]} x {size[0]} pixels."
        )
    return Brush(path, entry, name, packed=bytes(packed), shape=size)  # type: ignore[arg-type]
