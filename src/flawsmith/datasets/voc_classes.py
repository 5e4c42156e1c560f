"""Pascal VOC's class images: the defects of an image that no XML file names, as CVAT exports "Segmentation mask 1.1".

SegmentationClass/*.png shows each class in its colour, which labelmap.txt names ("scratch:128,0,0::"); without it the
colours are VOC's own and the classes class_1, class_2 and so on. SegmentationObject/*.png parts the defects of a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from flawsmith.datasets import annotated, levels
from flawsmith.errors import FlawsmithError, short
from flawsmith.records import Region

OBJECTS, CLASSES = "SegmentationObject", "SegmentationClass"
LABELMAP = "labelmap.txt"
BACKGROUND, VOID = 0, 255
MOST = 256  # classes or objects in an image


def labelmap(path: Path) -> Mapping[int, str] | None:
    """Colour, as `levels.packed` gives it, to class, in the file's order; None where there is no such file.

    Lines are `name:red,green,blue:parts:actions`; one without a colour has VOC's of its place. Raises FlawsmithError
    naming file and line.
    """
    if not path.is_file():
        return None
    names: dict[int, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FlawsmithError(f"{path} cannot be read ({error}): export the annotations again.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        texts = rest.partition(":")[0].split(",")
        where = f"{path}, line {number}"
        if texts == [""]:
            values = list(levels.colour(len(names) % 256))
        elif len(texts) == 3 and all(text.strip().isdecimal() and int(text.strip()[:4]) < 256 for text in texts):
            values = [int(text.strip()[:4]) for text in texts]
        else:
            raise FlawsmithError(f"{where}: {short(line)} is no class: write name:red,green,blue:: with 0 to 255.")
        key = _key(values)
        if key in names:
            raise FlawsmithError(f"{where}: {short(name)} has the colour of {names[key]}: give each class its own.")
        names[key] = annotated.label(name, where)
    return names


def _key(values: list[int]) -> int:
    return 65536 * values[0] + 256 * values[1] + values[2]


def defects(path: Path, names: Mapping[int, str] | None) -> list[Region]:
    """The defects in a class image: its objects where every pixel of a class is one's, else one for each class.

    `names` as `labelmap` gives them.

    Raises FlawsmithError naming the file for a class that labelmap.txt does not know, and images that do not fit.
    """
    found, stored = _values(path)
    kinds = [value for value in np.unique(found).tolist() if _is_class(value, names, stored)]
    if len(kinds) > MOST:
        raise FlawsmithError(f"{path} holds {len(kinds)} colours: a class image has {MOST} at most, and no shades.")
    called = {value: _called(path, value, names, stored) for value in kinds}
    objects = path.parent.parent / OBJECTS / path.name
    if kinds and objects.is_file():
        numbers = levels.levels_of(objects, str(path))
        if numbers.shape != found.shape:
            raise FlawsmithError(
                f"{objects} is {numbers.shape[1]} x {numbers.shape[0]} pixels, {path} {found.shape[1]} x "
                f"{found.shape[0]}: export them again."
            )
        marked = np.isin(found, kinds)
        owners = np.unique(numbers[marked]).tolist()
        if not {BACKGROUND, VOID} & set(owners):
            own = {number: np.unique(found[marked & (numbers == number)], return_counts=True) for number in owners}
            return [
                levels.Level(path, f"object {number}", called[int(v[c.argmax()])], image=objects, value=number)
                for number, (v, c) in own.items()
            ]
    return [
        levels.Level(path, f"class {name}", name, image=path, value=value, colours=not stored)
        for value, name in called.items()
    ]


def _values(path: Path) -> tuple[np.ndarray, bool]:
    """((H, W) numbers or colours, whether they are numbers): only grey images hold the classes' numbers."""
    try:
        with Image.open(path) as image:
            stored = image.mode in ("L", "1")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FlawsmithError(f"{path} cannot be read ({error}): export it again.") from error
    return (levels.levels_of if stored else levels.packed)(path, str(path)), stored


def _is_class(value: int, names: Mapping[int, str] | None, stored: bool) -> bool:
    if stored:
        return value not in (BACKGROUND, VOID)
    if names and value in names:
        return names[value].casefold() != "background"
    return value not in (BACKGROUND, _key(list(levels.colour(VOID))))


def _called(path: Path, value: int, names: Mapping[int, str] | None, stored: bool) -> str:
    """The class of a number or colour."""
    if names is not None:
        name = list(names.values())[value] if stored and value < len(names) else None if stored else names.get(value)
    else:
        number = value if stored else next((n for n in range(256) if _key(list(levels.colour(n))) == value), None)
        name = None if number is None else f"class_{number}"
    if name is None:
        what = f"the number {value}" if stored else f"the colour {value >> 16},{value >> 8 & 255},{value & 255}"
        raise FlawsmithError(
            f"{path} holds {what}, which is no class: name it in {path.parent.parent / LABELMAP} as "
            "name:red,green,blue::, or export the annotations again."
        )
    return name
