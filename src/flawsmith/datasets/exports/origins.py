"""Where each exported image comes from: the rows of origin.csv."""

from __future__ import annotations

import csv
import io
from typing import Any

from flawsmith.datasets.exports.item import Item

FILE = "origin.csv"
COLUMNS = (
    *("file", "group", "category", "defect_type", "split", "caption", "source", "origin_file"),
    *("method", "seed", "normal", "reference"),
)


def row(place: str, item: Item) -> dict[str, Any]:
    """What the table says of an image that stands at `place`, relative to the export's folder."""
    record = item.record
    known = {"file": place, "group": record.group, "category": record.category, "defect_type": record.defect_type}
    return {**dict.fromkeys(COLUMNS, ""), **known, "split": item.split, "caption": record.caption, **item.origin}


class Table:
    """The rows as text, since a million of them as dictionaries would fill the memory. `splits`: those that occur."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self._writer = csv.DictWriter(self._text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        self._writer.writeheader()
        self.splits: set[str] = set()

    def add(self, one: dict[str, Any]) -> None:
        self._writer.writerow(one)
        self.splits.add(one["split"])

    def content(self) -> bytes:
        return self._text.getvalue().encode()
