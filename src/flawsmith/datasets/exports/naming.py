"""Names of exported files and folders: readable, safe on every file system, never one for two."""

from __future__ import annotations

import re
import unicodedata

from flawsmith.datasets import tree
from flawsmith.records import Record

_ODD = re.compile(r"[^\w.+=@-]+")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")  # Windows
LONGEST = 100


def slug(text: str) -> str:
    """A text as the name of one file or folder: letters, digits, . + = @ _ -; never hidden, never empty."""
    name = _ODD.sub("_", unicodedata.normalize("NFC", text)).strip("._ ")[:LONGEST].rstrip(". ")
    return f"_{name}" if not name or _RESERVED.match(name) else name


class Names:
    """Stems for records, from their places: test/crack/000.png is crack_000; whatever is taken gets a number."""

    def __init__(self, several: bool) -> None:
        self.several = several
        self._taken: set[str] = set()

    def of(self, record: Record, prefix: str = "") -> str:
        name = record.image.stem
        for word in (record.defect_type, record.category if self.several else "", prefix):
            if word and not slug(name).startswith(f"{slug(word)}_"):  # what was exported before has it already
                name = f"{word}_{name}"
        stem = slug(name)
        name, turn = stem, 1
        while self._key(name) in self._taken:
            turn += 1
            name = f"{stem}-{turn}"
        self._taken.add(self._key(name))
        return name

    @staticmethod
    def _key(name: str) -> str:
        return tree.stem_key(name).replace(".", "_")  # as WebDataset's keys are written
