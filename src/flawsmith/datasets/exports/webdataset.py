"""WebDataset: <split>-000000.tar and so on, in each of an image's files: 000.png, 000.mask.png, 000.txt, 000.json.

Reference: github.com/webdataset/webdataset, "The WebDataset Format".
"""

from __future__ import annotations

import io
import json
import tarfile

from flawsmith import images
from flawsmith.datasets.exports import words
from flawsmith.datasets.exports.item import Item
from flawsmith.datasets.exports.shards import Shards


class Tar:
    """A shard in memory. Its members have no time and no owner: the same bytes every time."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, item: Item) -> None:
        content = {
            item.suffix.lstrip("."): item.content(),
            "mask.png": images.encode_png(item.mask()),
            "txt": (item.record.caption.strip() + "\n").encode(),
            "json": json.dumps(words.row(item), ensure_ascii=False).encode(),
        }
        for ending, data in content.items():
            member = tarfile.TarInfo(f"{key(item.stem)}.{ending}")
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))

    def size(self) -> int:
        return self._buffer.tell()

    def content(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


class Webdataset(Shards):
    ending, pack = "tar", Tar

    def key(self, stem: str) -> str:
        return key(stem)


def key(stem: str) -> str:
    """A key ends at its first dot."""
    return stem.replace(".", "_")
