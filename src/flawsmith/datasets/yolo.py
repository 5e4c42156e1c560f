"""YOLO detection and segmentation: a text file for every image, a line for every defect.

images/train/a.png + labels/train/a.txt      or train/images/a.png + train/labels/a.txt, or a.txt beside a.png
data.yaml, dataset.yaml or classes.txt       the classes' names; without, a class is class_0, class_1 ...

`class x y width height` is a box, for which a mask is proposed; `class x1 y1 x2 y2 x3 y3 ...` an outline; all in parts
of the image's size. An image without file or line is a good part. The paths that data.yaml names are not followed:
images are found where they stand. Reference: docs.ultralytics.com/datasets.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith import inputs
from flawsmith.datasets import annotated, regions, tree
from flawsmith.datasets.annotated import Found, Tree
from flawsmith.errors import FlawsmithError, short
from flawsmith.records import Record, Region

BEYOND = 0.05  # how far beyond its image, in parts of it, a coordinate may lie: it is cut off
_CLASSES = re.compile(rb"^[\"']?names[\"']?\s*:", re.MULTILINE)
_NAMES = frozenset({"classes.txt", "obj.names", "labels.txt"})


def settings(root: Path) -> list[Path]:
    """The files at the root that name the classes, the likeliest first."""
    found = sorted([*root.glob("*.yaml"), *root.glob("*.yml")], key=lambda path: (path.stem != "data", path.name))
    listed = [path for path in found if _CLASSES.search(path.read_bytes()[: 1 << 16])]
    return listed + [path for path in sorted(root.iterdir()) if path.name in _NAMES and path.is_file()]


def labels_of(image: Path) -> list[Path]:
    """Where an image's text file may stand: labels/ in place of images/, labels/ beside, or beside the image."""
    parts = list(image.parts)
    swapped = [
        Path(*parts[:place], "labels", *parts[place + 1 :]).with_suffix(".txt")
        for place in range(len(parts) - 2, -1, -1)
        if parts[place].casefold() in tree.IMAGE_FOLDERS
    ]
    return [*swapped[:1], image.parent / "labels" / f"{image.stem}.txt", image.with_suffix(".txt")]


def is_label(path: Path) -> bool:
    """Whether a text file's first line is a class number followed by parts of an image, not a caption."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            words = [float(word) for word in file.readline().split()]
    except (OSError, ValueError):
        return False
    return len(words) >= 5 and all(-BEYOND <= value <= 1 + BEYOND for value in words[1:])


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read every image and its lines into Records, in natural order.

    Raises FlawsmithError naming file and line for a class without name, and numbers that are none or not in parts of
    the image.
    """
    found = Tree(root)
    names = _names(root)
    texts = {path for path in found.others if path.suffix.lower() == ".txt"}
    listed = []
    for image in found.images:
        place = found.name(image)
        if any(part.casefold() in tree.MASK_FOLDERS for part in Path(place).parts[:-1]):
            continue
        one = Found(image, place, annotated.split_of(place))
        text = next((path for path in labels_of(image) if path in texts), None)
        if text is not None:
            one.where = str(text)
            one.regions = _lines(text, names)
        listed.append(one)
    return annotated.records(root, listed, category, group_by)


def _names(root: Path) -> dict[int, str] | None:
    """Class number -> name; None where no file tells."""
    for path in settings(root):
        try:
            text = path.read_text(encoding="utf-8-sig")
            if path.suffix in (".txt", ".names"):
                named: Any = [line.strip() for line in text.splitlines() if line.strip()]
            else:
                content = inputs.parse_yaml(text)
                named = content.get("names") if isinstance(content, dict) else None
        except (OSError, ValueError) as error:
            raise FlawsmithError(f"{path} cannot be read ({error}): write names: as a list of classes.") from error
        pairs = enumerate(named) if isinstance(named, list) else named.items() if isinstance(named, dict) else None
        if pairs is None:
            raise FlawsmithError(f"{path}: names is {short(named)}: write a list of the classes' names.")
        found = {}
        for key, name in pairs:
            if isinstance(key, bool) or not isinstance(key, int) or key < 0:
                raise FlawsmithError(f"{path}: names has the key {short(key)}: a class is a whole number from 0.")
            found[key] = annotated.label(str(name) if isinstance(name, (int, float)) else name, f"{path}, class {key}")
        return found
    return None


def _lines(path: Path, names: dict[int, str] | None) -> list[Region]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FlawsmithError(f"{path} cannot be read ({error}): it must be text.") from error
    return [_line(path, n, line.split(), names) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _line(path: Path, number: int, words: list[str], names: dict[int, str] | None) -> Region:
    entry = f"line {number}"
    where = f"{path}, {entry}"
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)) or values[0] != int(values[0]) or values[0] < 0:
        raise FlawsmithError(f"{where}: {short(' '.join(words))} is no class number followed by finite numbers.")
    kind = int(values[0])
    name = f"class_{kind}" if names is None else names.get(kind)
    if name is None:
        known = f"0 to {max(names)}" if names else "none"
        raise FlawsmithError(f"{where}: the class {kind} has no name; known: {known}. Add it to names, or correct it.")
    place = values[1:]
    if len(place) != 4 and (len(place) < 6 or len(place) % 2):
        raise FlawsmithError(
            f"{where}: {len(place)} numbers follow the class: a box has 4, an outline an even number from 6 on."
        )
    if min(place) < -BEYOND or max(place) > 1 + BEYOND:
        raise FlawsmithError(
            f"{where}: {min(place):g} to {max(place):g} are no parts of the image, from 0 to 1: divide by its width "
            "and height."
        )
    if len(place) > 4:
        return regions.Polygon(path, entry, name, rings=(np.array(place).reshape(-1, 2),), relative=True)
    x, y, width, height = place
    regions.box([x - width / 2, y - height / 2, width, height], where)
    return regions.Box(path, entry, name, place=(x - width / 2, y - height / 2, width, height), relative=True)
