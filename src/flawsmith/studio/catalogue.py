"""The data sets a studio may read: those it was started with, and folders dropped into it. Nothing else is read."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from flawsmith import compose, datasets, images, inputs
from flawsmith.errors import FlawsmithError
from flawsmith.records import Record

THUMB = 160  # pixels
MOST_FILES = 5_000  # of one uploaded folder
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}  # browsers show these


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class DataSet:
    """A registered data set; `records` by key, a hash of the record's name, so that a key outlives a restart."""

    id: str
    name: str
    source: str
    records: dict[str, Record]

    def record(self, key: str) -> Record:
        """Raises FlawsmithError for a key that is none."""
        if key not in self.records:
            raise FlawsmithError(f"No image {key!r} in {self.name}: reload the page.")
        return self.records[key]


class Catalogue:
    """The registered data sets. Each is read once, when it is first asked for."""

    def __init__(self, sources: Sequence[str], uploads: Path) -> None:
        self.uploads = uploads
        self._lock = threading.Lock()
        self._sources: dict[str, str] = {}
        self._read: dict[str, DataSet] = {}
        for source in sources:
            self._register(source)
        for folder in sorted(uploads.iterdir()) if uploads.is_dir() else ():
            if folder.is_dir():
                self._register(str(folder))

    def _register(self, source: str) -> str:
        reader, root = datasets.parse_source(source)
        if not root.is_dir():
            raise FlawsmithError(f"Data set {root} does not exist: name a folder with --data READER:DIR.")
        full = f"{reader}:{root.resolve()}"
        self._sources[short_hash(full)] = full
        return short_hash(full)

    def listed(self) -> list[dict[str, Any]]:
        return [{"id": id_, "name": Path(source).name, "source": source} for id_, source in self._sources.items()]

    def get(self, id_: str) -> DataSet:
        """Raises FlawsmithError for an unknown data set, or one that cannot be read."""
        with self._lock:
            if id_ not in self._sources:
                raise FlawsmithError(f"No data set {id_!r} is registered: reload the page.")
            if id_ not in self._read:
                source = self._sources[id_]
                reader, root = datasets.parse_source(source)
                records = {short_hash(record.name): record for record in datasets.read(reader, root)}
                self._read[id_] = DataSet(id_, root.name, source, records)
            return self._read[id_]

    def has(self, id_: str, key: str) -> bool:
        """Whether a data set is registered and holds this image."""
        return id_ in self._sources and key in self.get(id_).records

    # -- dropped folders -----------------------------------------------------------------------------------------------

    def upload(self, name: str, relative: str, content: bytes) -> None:
        """One file of a dropped folder. Raises FlawsmithError for odd names, other types, and too much."""
        folder = self.uploads / _safe(name)
        parts = [_safe(part) for part in PurePosixPath(relative).parts]
        if not parts or len(parts) > 8 or Path(parts[-1]).suffix.lower() not in images.SUFFIXES:
            raise FlawsmithError(
                f"{relative!r} is not taken: only images are ({', '.join(sorted(images.SUFFIXES))}), 8 levels deep."
            )
        path = folder.joinpath(*parts)
        if inputs.leaves(folder, "/".join(parts)):
            raise FlawsmithError(f"{relative!r} leaves its folder.")
        if sum(1 for one in folder.rglob("*") if one.is_file()) >= MOST_FILES:
            raise FlawsmithError(f"More than {MOST_FILES} files: start the studio with --data READER:DIR instead.")
        images.write_bytes(path, content)
        try:
            images.verify(path)
        except FlawsmithError as error:
            path.unlink()
            raise FlawsmithError(f"{relative} is no image that can be read.") from error

    def uploaded(self, name: str) -> str:
        """Register a dropped folder once its files are there; returns the data set's id."""
        with self._lock:
            id_ = self._register(str(self.uploads / _safe(name)))
            self._read.pop(id_, None)
        return id_


def _safe(part: str) -> str:
    """A name of one level that means no place but itself. Raises FlawsmithError."""
    odd = not part or len(part) > 120 or part.startswith(".") or not part.isprintable() or not inputs.is_text(part)
    if odd or any(letter in part for letter in '/\\:*?"<>|'):
        raise FlawsmithError(f"{part[:80]!r} cannot name a file or folder: use letters, digits, spaces, - and _.")
    return part


@lru_cache(maxsize=4096)
def thumbnail(path: Path, changed: int, side: int = THUMB) -> bytes:
    """WebP of an image file, its longer side `side`; `changed`: the file's time, so that a new file is seen."""
    return _webp(images.read_image(path), side)


@lru_cache(maxsize=4096)
def closeup(path: Path, mask: Path, changed: int, side: int = THUMB) -> bytes:
    """WebP of the square around a made defect."""
    return around(images.read_image(path), images.read_mask(mask), side)


def around(image: np.ndarray, mask: np.ndarray, side: int = THUMB) -> bytes:
    """WebP of the square around a mask; of the whole image where it is empty."""
    view = compose.square_window(mask, minimum=64, context=2.2).slices if mask.any() else np.s_[:, :]
    return _webp(np.ascontiguousarray(image[view]), side)


def _webp(image: np.ndarray, side: int) -> bytes:
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    small = cv2.cvtColor(images.resize(image, height, width), cv2.COLOR_RGB2BGR)
    _, buffer = cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, 78])
    return buffer.tobytes()


def shown(path: Path) -> tuple[bytes, str]:
    """(bytes, media type) of an image as a browser can show it, its pixels unchanged."""
    media = TYPES.get(path.suffix.lower())
    if media is not None:
        return path.read_bytes(), media
    return images.encode_png(images.read_image(path)), "image/png"
