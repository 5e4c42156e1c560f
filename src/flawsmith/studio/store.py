"""What a studio has on disk, all under its --out: painted masks, made sets, decisions about their images."""

from __future__ import annotations

import json
import re
import threading
import zlib
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from flawsmith import images, inputs
from flawsmith.datasets.writer import MANIFEST, read_manifest
from flawsmith.errors import FlawsmithError

ID = re.compile(r"[0-9a-f]{12}")
DECISIONS = ("keep", "drop", "")
Kind = Literal["masks", "references"]  # of a painted mask: where a defect may come, or where the real one is


class ConflictError(FlawsmithError):
    """Somebody else, most likely another tab, has written since."""


class Store:
    """Files under `out`; every write is whole or not at all, and one at a time."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._lock = threading.Lock()

    # -- masks ---------------------------------------------------------------------------------------------------------

    def mask_path(self, data_set: str, key: str, kind: Kind = "masks") -> Path:
        return self.out / kind / checked(data_set) / f"{checked(key)}.png"

    def painted(self, data_set: str, kind: Kind = "masks") -> set[str]:
        """The keys of the images of a data set that have such a mask."""
        return {path.stem for path in (self.out / kind / checked(data_set)).glob("*.png")}

    def mask(self, data_set: str, key: str, kind: Kind = "masks") -> tuple[np.ndarray | None, str]:
        """(mask (H, W) bool or None, revision); the revision of no mask is ""."""
        path = self.mask_path(data_set, key, kind)
        if not path.is_file():
            return None, ""
        mask = images.read_mask(path)
        return mask, images.array_sha(mask)

    def save_mask(self, data_set: str, key: str, mask: np.ndarray, revision: str | None, kind: Kind = "masks") -> str:
        """Save (H, W) bool; an empty one removes the file. `revision`: what was painted over, None = whatever is there.

        Returns the new revision. Raises ConflictError where another revision is on disk.
        """
        with self._lock:
            now = self.mask(data_set, key, kind)[1]
            if revision is not None and revision != now:
                raise ConflictError("The mask was changed elsewhere, most likely in another tab.")
            path = self.mask_path(data_set, key, kind)
            if not mask.any():
                path.unlink(missing_ok=True)
                return ""
            images.write_image(path, mask)
            return images.array_sha(mask)

    # -- where defects may lie -----------------------------------------------------------------------------------------

    def save_place(self, image: np.ndarray) -> str:
        """Keep an image, (H, W, 3) uint8 or (H, W) bool, that says where defects may lie; returns its id."""
        id_ = images.array_sha(image)[:12]
        if not self.place_path(id_).is_file():
            images.write_image(self.place_path(id_), image)
        return id_

    def place_path(self, id_: str) -> Path:
        return self.out / "places" / f"{checked(id_)}.png"

    def place(self, id_: str) -> Path | None:
        """The file of such an image, None for no id. Raises FlawsmithError for one that is none."""
        if id_ and not self.place_path(id_).is_file():
            raise FlawsmithError(f"No image {id_} says where defects may lie: import it again.")
        return self.place_path(id_) if id_ else None

    # -- made sets -----------------------------------------------------------------------------------------------------

    def set_folder(self, id_: str) -> Path:
        return self.out / "made" / checked(id_)

    def lines(self, id_: str) -> list[dict[str, Any]]:
        """The kept lines of a made set, a generated folder. Raises FlawsmithError where there is none."""
        folder = self.set_folder(id_)
        if not (folder / MANIFEST).is_file():
            return []
        return [line for line in read_manifest(folder) if line["status"] == "kept"]

    def file(self, id_: str, index: int, what: str) -> Path:
        """The image or mask file of a made image."""
        line = next((line for line in self.lines(id_) if line["index"] == index), None)
        if line is None:
            raise FlawsmithError(f"Set {id_} holds no image {index}.")
        return inputs.inside(self.set_folder(id_), line[what], MANIFEST)

    # -- decisions -----------------------------------------------------------------------------------------------------

    def decisions(self, id_: str) -> dict[str, str]:
        """Index -> "keep" or "drop" of a made set."""
        path = self.out / "decisions" / f"{checked(id_)}.json"
        try:
            found = inputs.parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(key): value for key, value in found.items() if value in DECISIONS}

    def decide(self, id_: str, index: int, decision: str) -> None:
        """Keep or drop an image; "" takes the decision back."""
        if decision not in DECISIONS:
            raise FlawsmithError(f"Decision {decision[:20]!r} is not known: keep, drop, or nothing.")
        self.file(id_, index, "image")
        with self._lock:
            known = self.decisions(id_)
            known.pop(str(index), None)
            if decision:
                known[str(index)] = decision
            images.write_bytes(self.out / "decisions" / f"{id_}.json", (json.dumps(known) + "\n").encode())


def checked(id_: str) -> str:
    """An id of ours: it can name a file and nothing else. Raises FlawsmithError."""
    if not ID.fullmatch(id_):
        raise FlawsmithError(f"{id_[:40]!r} is no id.")
    return id_


def inflate(content: bytes, size: tuple[int, int]) -> np.ndarray:
    """A painted mask as the page sends it: gzip of one byte per pixel, 0 or 1, row by row -> (H, W) bool.

    Raises FlawsmithError where it does not hold exactly height x width of them; no more is ever unpacked.
    """
    count = size[0] * size[1]
    unpacking = zlib.decompressobj(wbits=31)
    try:
        raw = unpacking.decompress(content, count + 1)
    except zlib.error as error:
        raise FlawsmithError(f"The mask is no gzip of bytes ({error}).") from error
    pixels = np.frombuffer(raw, np.uint8)
    if len(pixels) != count or not unpacking.eof or pixels.max(initial=0) > 1:
        raise FlawsmithError(f"The mask must hold {size[1]} x {size[0]} bytes of 0 or 1.")
    return pixels.reshape(size).astype(bool)


def deflate(mask: np.ndarray) -> bytes:
    """What `inflate` reads."""
    packing = zlib.compressobj(1, wbits=31)
    return packing.compress(np.ascontiguousarray(mask, np.uint8).tobytes()) + packing.flush()


def heat_of(path: Path | None, image: np.ndarray) -> np.ndarray | None:
    """A heat map at an image's size, (H, W) float32, as `flawsmith generate --heat` takes it; None for none."""
    if path is None:
        return None
    grey = images.read_image(path).mean(axis=2).astype(np.float32)
    return cv2.resize(grey, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_AREA)
