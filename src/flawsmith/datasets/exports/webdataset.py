"""WebDataset: <split>-000000.tar and so on, in each of an image's files: 000.png, 000.mask.png, 000.txt, 000.json.

Reference: github.com/webdataset/webdataset, "The WebDataset Format".
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence

from flawsmith import images
from flawsmith.datasets.exports import words
from flawsmith.datasets.exports.item import Item, Write

SHARD = 64_000_000  # bytes from which a new one begins; one per split is held in memory


class Webdataset:
    packs = True  # images go into the tars, not beside them

    def __init__(self, names: Sequence[str], write: Write) -> None:
        self.write = write
        self.shards: dict[str, tuple[io.BytesIO, tarfile.TarFile]] = {}
        self.count: dict[str, int] = {}

    def image(self, item: Item) -> str:
        return f"{item.split}-{self.count.get(item.split, 0):06d}.tar/{_key(item)}{item.suffix}"

    def add(self, item: Item) -> None:
        if item.split not in self.shards:
            buffer = io.BytesIO()
            self.shards[item.split] = buffer, tarfile.TarFile(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT)
        buffer, tar = self.shards[item.split]
        text = (item.record.caption.strip() + "\n").encode()
        content = {
            item.suffix.lstrip("."): item.content(),
            "mask.png": images.encode_png(item.mask()),
            "txt": text,
            "json": json.dumps(words.row(item), ensure_ascii=False).encode(),
        }
        for ending, data in content.items():
            member = tarfile.TarInfo(f"{_key(item)}.{ending}")  # no time, no owner: the same bytes every time
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        if buffer.tell() >= SHARD:
            self._finish(item.split)

    def _finish(self, split: str) -> None:
        number = self.count.get(split, 0)
        buffer, tar = self.shards.pop(split)
        tar.close()
        self.write(f"{split}-{number:06d}.tar", buffer.getvalue())
        self.count[split] = number + 1

    def close(self, splits: Sequence[str]) -> None:
        for split in list(self.shards):
            self._finish(split)


def _key(item: Item) -> str:
    return item.stem.replace(".", "_")  # a key ends at its first dot
