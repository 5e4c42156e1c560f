"""Many images in few large files, <split>-000000.tar and so on, each with a list of what it holds; and an index of all.

    train-000000.tar    images of the split, until the file exceeds SHARD bytes
    train-000000.json   its list: shard, split, first, count, bytes, sha256, and origin.csv's row of each image
    index.json          all lists but their rows, written in the end: an export that has it is whole

A list is written after its shard. So a shard that has one is whole, and a resumed export neither writes it again nor
reads its images: of all shards the sizes are compared, of each split's last one the bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flawsmith import __version__, inputs
from flawsmith.datasets.exports import origins
from flawsmith.datasets.exports.item import Item
from flawsmith.datasets.exports.places import Place
from flawsmith.datasets.writer import pretty
from flawsmith.errors import FlawsmithError

INDEX = "index.json"
SHARD = 64_000_000  # bytes from which a new one begins; one per split is held in memory


class Pack(Protocol):
    """A shard that is being filled."""

    def add(self, item: Item) -> None: ...
    def size(self) -> int: ...
    def content(self) -> bytes: ...


@dataclass
class _Split:
    """listed: the index's entries of whole shards. known: rows of their images that no image was found for yet."""

    listed: list[dict[str, Any]] = field(default_factory=list)
    known: deque[dict[str, Any]] = field(default_factory=deque)
    pack: Pack | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)  # of `pack`


class Shards:
    """A format that packs; heirs say how. `place` is where the export goes."""

    ending: str
    pack: type[Pack]

    def __init__(self, names: Sequence[str], place: Place) -> None:
        self.place = place
        self._splits: dict[str, _Split] = {}

    def key(self, item_stem: str) -> str:
        """What an image is called in its shard, without suffix."""
        return item_stem

    def packed(self, split: str, stem: str) -> dict[str, Any] | None:
        """The row of an image that an earlier run has packed, None where it is still to be added. Asked in order."""
        known = self._split(split).known
        here = bool(known) and known[0]["file"].partition("/")[2].rpartition(".")[0] == self.key(stem)
        return known.popleft() if here else None

    def image(self, item: Item) -> str:
        return f"{self._name(item.split)}.{self.ending}/{self.key(item.stem)}{item.suffix}"

    def add(self, item: Item) -> None:
        split = self._split(item.split)
        if split.known:
            self._refuse(item.split)
        if split.pack is None:
            split.pack = self.pack()
        split.rows.append(origins.row(self.image(item), item))
        split.pack.add(item)
        if split.pack.size() >= SHARD:
            self._finish(item.split)

    def close(self, splits: Sequence[str]) -> None:
        for name, split in self._splits.items():
            if split.known:
                self._refuse(name)
            if split.pack is not None:
                self._finish(name)
        shards = [entry for name in splits for entry in self._splits[name].listed]
        total = sum(entry["count"] for entry in shards)
        self.place.write(INDEX, pretty({"flawsmith": __version__, "images": total, "shards": shards}))

    def _name(self, split: str) -> str:
        return f"{split}-{len(self._split(split).listed):06d}"

    def _finish(self, name: str) -> None:
        split, stem = self._splits[name], self._name(name)
        assert split.pack is not None
        content = split.pack.content()
        entry: dict[str, Any] = {
            **{"shard": f"{stem}.{self.ending}", "split": name, "first": _images(split.listed)},
            **{"count": len(split.rows), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        }
        listed = json.dumps({**entry, "images": split.rows}) + "\n"
        self.place.write(entry["shard"], content, durable=True)
        self.place.write(f"{stem}.json", listed.encode(), durable=True)
        split.listed.append(entry)
        split.pack, split.rows = None, []

    def _split(self, name: str) -> _Split:
        """A split, with what an earlier run has packed of it."""
        if name not in self._splits:
            split = self._splits[name] = _Split()
            rows: list[list[dict[str, Any]]] = []
            while found := self._whole(name):
                entry, images = found
                split.listed.append(entry)
                rows.append(images)
            if split.listed:
                last = self.place.read(split.listed[-1]["shard"])
                if last is None or hashlib.sha256(last).hexdigest() != split.listed[-1]["sha256"]:
                    del split.listed[-1], rows[-1]
            split.known = deque(row for part in rows for row in part)
        return self._splits[name]

    def _whole(self, split: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """The entry and the rows of a split's next shard; None where it is not there, or not whole."""
        stem = self._name(split)
        raw = self.place.read(f"{stem}.json")
        try:
            entry = inputs.parse_json(raw or b"")
            images = entry.pop("images")
            sound = (
                (entry["shard"], entry["split"]) == (f"{stem}.{self.ending}", split)
                and (entry["first"], entry["count"]) == (_images(self._splits[split].listed), len(images))
                and isinstance(entry["sha256"], str)
                and all(isinstance(row["file"], str) and row["split"] == split for row in images)
            )
            return (entry, images) if sound and self.place.size(entry["shard"]) == entry["bytes"] else None
        except (ValueError, KeyError, TypeError):
            return None

    def _refuse(self, split: str) -> None:
        row = self._splits[split].known[0]
        raise FlawsmithError(
            f"{self.place} holds {row['file']}, which is not the next image of this data set: choose another --out."
        )


def _images(listed: Sequence[dict[str, Any]]) -> int:
    return sum(entry["count"] for entry in listed)
