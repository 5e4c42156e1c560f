"""YOLO: images/<split>/*, labels/<split>/*.txt with a line per defect, and a data.yaml that Ultralytics takes as it is.

A line of detection is `class x y width height` (the centre), one of segmentation `class x1 y1 x2 y2 ...`, all in parts
of the image's width and height. A good image has an empty file. Reference: docs.ultralytics.com/datasets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import yaml

from flawsmith.datasets.exports import outlines
from flawsmith.datasets.exports.item import Instance, Item, Write


class Yolo:
    def __init__(self, names: Sequence[str], write: Write) -> None:
        self.write = write
        self.names = list(names)
        self.numbers = {name: number for number, name in enumerate(names)}

    def image(self, item: Item) -> str:
        return f"images/{item.split}/{item.name}"

    def add(self, item: Item) -> None:
        lines = [f"{self.numbers[one.label]} {_text(self.values(one, item.size))}\n" for one in item.instances]
        self.write(f"labels/{item.split}/{item.stem}.txt", "".join(lines).encode())

    def values(self, one: Instance, size: tuple[int, int]) -> np.ndarray:
        x, y, width, height = one.box
        return np.array([(x + width / 2) / size[1], (y + height / 2) / size[0], width / size[1], height / size[0]])

    def close(self, splits: Sequence[str]) -> None:
        val = next(split for split in ("val", "test", "train") if split in splits)  # a trainer must have one
        places = {split: f"images/{split}" for split in splits} | {"val": f"images/{val}"}
        places.setdefault("train", places["val"])
        settings = {**places, "names": dict(enumerate(self.names))}
        self.write("data.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode())


class YoloSeg(Yolo):
    """As Yolo, with outlines; the parts of a defect that is in pieces are joined by lines without width."""

    def values(self, one: Instance, size: tuple[int, int]) -> np.ndarray:
        return np.asarray((outlines.join(one.polygons) / (size[1], size[0])).ravel())


def _text(values: np.ndarray) -> str:
    return " ".join(f"{value:.7g}" for value in values)
