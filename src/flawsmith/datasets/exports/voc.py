"""Pascal VOC: JPEGImages, Annotations/*.xml with boxes, SegmentationObject and SegmentationClass, ImageSets.

Boxes count pixels from 1 and include both ends, as VOC does. In SegmentationObject pixels of the n-th object hold n.
labelmap.txt, which CVAT and Datumaro read, names the classes.
Reference: Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2010.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from flawsmith.datasets import levels
from flawsmith.datasets.exports.item import Item, Write
from flawsmith.errors import FlawsmithError

MOST = 254  # objects or classes: 255 means "no matter"


class Voc:
    def __init__(self, names: Sequence[str], write: Write) -> None:
        self.write = write
        self.numbers = {name: number for number, name in enumerate(names, start=1)}
        self.lists: dict[str, list[str]] = {}
        if len(names) > MOST:
            raise FlawsmithError(f"Pascal VOC holds {MOST} defect types, not {len(names)}: choose another --format.")

    def image(self, item: Item) -> str:
        return f"JPEGImages/{item.name}"

    def add(self, item: Item) -> None:
        if len(item.instances) > MOST:
            raise FlawsmithError(
                f"{item.record.name} holds {len(item.instances)} separate defects, Pascal VOC {MOST} at most: choose "
                "another --format."
            )
        self.lists.setdefault(item.split, []).append(item.stem)
        self.write(f"Annotations/{item.stem}.xml", self._xml(item))
        if item.instances:
            objects, classes = np.zeros((2, *item.size), dtype=np.uint8)
            for number, one in enumerate(item.instances, start=1):
                x, y, width, height = one.box
                for image, value in ((objects, number), (classes, self.numbers[one.label])):
                    image[y : y + height, x : x + width][one.mask] = value
            self.write(f"SegmentationObject/{item.stem}.png", _palette_png(objects))
            self.write(f"SegmentationClass/{item.stem}.png", _palette_png(classes))

    def _xml(self, item: Item) -> bytes:
        root = ElementTree.Element("annotation")
        _add(root, "folder", "JPEGImages")
        _add(root, "filename", item.name)
        source = ElementTree.SubElement(root, "source")
        for key, value in item.origin.items():
            _add(source, key, value)
        for key in ("caption", "category", "group"):
            _add(root, key, getattr(item.record, key))
        size = ElementTree.SubElement(root, "size")
        for key, value in (("width", item.size[1]), ("height", item.size[0]), ("depth", 3)):
            _add(size, key, value)
        _add(root, "segmented", int(bool(item.instances)))
        for one in item.instances:
            thing = ElementTree.SubElement(root, "object")
            for key, value in (("name", one.label), ("pose", "Unspecified"), ("truncated", 0), ("difficult", 0)):
                _add(thing, key, value)
            box = ElementTree.SubElement(thing, "bndbox")
            x, y, width, height = one.box
            for key, value in (("xmin", x + 1), ("ymin", y + 1), ("xmax", x + width), ("ymax", y + height)):
                _add(box, key, value)
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="utf-8") + b"\n"

    def close(self, splits: Sequence[str]) -> None:
        colours = [("background", 0), *self.numbers.items()]
        lines = [f"{name}:{','.join(map(str, PALETTE[3 * n : 3 * n + 3]))}::\n" for name, n in colours]
        self.write("labelmap.txt", ("# label:color_rgb:parts:actions\n" + "".join(lines)).encode())
        for split in splits:
            for place in ("Main", "Segmentation"):
                self.write(f"ImageSets/{place}/{split}.txt", "".join(f"{s}\n" for s in self.lists[split]).encode())


def _add(parent: ElementTree.Element, tag: str, value: object) -> None:
    text = "".join(c if c >= " " or c in "\t\n" else " " for c in str(value))  # XML holds no control characters
    ElementTree.SubElement(parent, tag).text = text


PALETTE = [value for number in range(256) for value in levels.colour(number)]


def _palette_png(levels: np.ndarray) -> bytes:
    image = Image.fromarray(levels)
    image.putpalette(PALETTE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
