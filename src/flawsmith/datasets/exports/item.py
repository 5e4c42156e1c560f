"""What every format is given: one image with its instances, and what it has to offer in return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from flawsmith.datasets.exports import outlines
from flawsmith.records import Record, Region

SPLITS = {"train": "train", "validation": "val", "test": "test"}  # ours to what trainers call them

Write = Callable[[str, bytes], None]  # a path inside the export's folder, and the file's content


@dataclass(frozen=True)
class Instance:
    """One defect of an image: `mask` (h, w) bool is its bounding box cut out, whose corner is at `top`, `left`."""

    label: str
    top: int
    left: int
    mask: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x, y, width, height) in pixels."""
        return self.left, self.top, self.mask.shape[1], self.mask.shape[0]

    @cached_property
    def polygons(self) -> list[np.ndarray]:
        """A closed polygon (n, 2) of (x, y) for every connected part; see `outlines`."""
        found = outlines.components(self.mask)
        return [outlines.polygon(part) + np.array([self.left + left, self.top + top]) for top, left, part in found]


@dataclass(frozen=True)
class Item:
    """One image on its way out.

    `stem` and `suffix` name its file, `size` is (H, W). `split` is train, val or test.
    `origin`: where it comes from, in words: source, file, and of a generated one method, seed, normal and reference.
    `content` gives the bytes of its file.
    """

    index: int
    stem: str
    suffix: str
    size: tuple[int, int]
    split: str
    record: Record
    instances: Sequence[Instance]
    origin: dict[str, Any] = field(default_factory=dict)
    content: Callable[[], bytes] = bytes

    @property
    def name(self) -> str:
        return self.stem + self.suffix

    def mask(self) -> np.ndarray:
        """The union of its instances, (H, W) bool."""
        whole = np.zeros(self.size, dtype=bool)
        for one in self.instances:
            height, width = one.mask.shape
            whole[one.top : one.top + height, one.left : one.left + width] |= one.mask
        return whole


class Format(Protocol):
    """A format's writer: made with the class names, given every image once, in order, then closed.

    Of one that packs, `shards` tells more: it puts the image itself into its own files.
    """

    def __init__(self, names: Sequence[str], write: Write) -> None: ...

    def image(self, item: Item) -> str:
        """Where the image goes, relative to the export's folder."""

    def add(self, item: Item) -> None:
        """Write what belongs to this image alone."""

    def close(self, splits: Sequence[str]) -> None:
        """Write what belongs to all of them; `splits` are those that hold an image."""


def instances(record: Record, size: tuple[int, int], read: Callable[[], np.ndarray]) -> Iterator[Instance]:
    """The defects of a record: its regions as they are, of mask images every connected part."""
    for mask, (label, part) in zip(record.masks, record.parts(size, read), strict=True):
        if isinstance(mask, Region):
            rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
            if len(rows):
                top, left = int(rows[0]), int(columns[0])
                yield Instance(label, top, left, part[top : rows[-1] + 1, left : columns[-1] + 1])
        else:
            for top, left, cut in outlines.components(part):
                yield Instance(label, top, left, cut)
