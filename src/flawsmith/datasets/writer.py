"""Samples to disk: MVTec layout, prompts, an append-only manifest. A killed run loses nothing it had finished.

An image counts when its manifest line is whole and its three files hold the bytes the line names. Files go first,
the line last, so a line never promises what is not there; whatever a kill left half done is redone with equal bytes.
A resumed run hashes the files of the last RECENT lines, which a crash of the machine may have hit, and of all others
asks the sizes only.
"""

from __future__ import annotations

import json
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flawsmith import images, inputs
from flawsmith.datasets import lines
from flawsmith.datasets.lock import PARTIAL, Lock
from flawsmith.errors import FlawsmithError

MANIFEST = "manifest.jsonl"
CONFIG = "generate.json"
REFUSED, DROPPED = "refused", "dropped"  # thumbnails of what the gate refused; files of what a person dropped
ASIDE = frozenset({REFUSED, DROPPED})  # of a generated folder: no part of its data set
RECENT = 1_000  # lines: a few times what is written in the half minute that a system keeps files in memory only


class Writer:
    """Writes one run's folder. Use as a context manager; a second writer on the same folder is refused.

    `count`: images that are there, found or written. hear: is told of the manifest line of each, in order; of a line
    that it refuses (ValueError, KeyError, TypeError or AttributeError) the image is redone.
    """

    def __init__(
        self, out: Path, description: dict[str, Any], hear: Callable[[dict[str, Any]], None] = lambda line: None
    ) -> None:
        self.out = Path(out)
        self.description = dict(description)
        self.hear = hear
        self.count = 0
        self._safe: set[str] = set()  # folders that are known to lie inside `out`
        self._lock: Lock | None = None

    # -- opening: a new folder, a resumed one, or a refusal -----------------------------------------------------------

    def __enter__(self) -> Writer:
        self._lock = Lock(self.out)
        try:
            if self.check(self.out, self.description):  # again, now that nobody else can write
                before = inputs.parse_json((self.out / CONFIG).read_text(encoding="utf-8"))
                self.description["n"] = max(self.description["n"], before.get("n", 0))  # a shorter run removes nothing
            images.write_bytes(self.out / CONFIG, pretty(self.description), self.out / PARTIAL)
            self._read()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @staticmethod
    def check(out: Path, description: dict[str, Any], name: str = CONFIG) -> bool:
        """True when `out` holds this very run, False when it is free.

        Raises FlawsmithError when it belongs to another run (naming the setting that differs) or holds other files.
        """
        if out.is_symlink() and not out.exists():
            raise FlawsmithError(f"Output folder {out} is a broken link: choose another --out.")
        if out.exists() and not out.is_dir():
            raise FlawsmithError(f"Output {out} is a file: give a folder to --out.")
        config = out / name
        if not config.is_file():
            if out.is_dir() and any(entry.name != PARTIAL for entry in out.iterdir()):
                raise FlawsmithError(
                    f"Output folder {out} is not empty and was not made by flawsmith (no {name}): choose another --out."
                )
            return False
        try:
            before = config.read_bytes()
        except OSError as error:
            raise FlawsmithError(f"{config} cannot be read ({error}): choose another --out or remove it.") from error
        refuse_other_run(out, config, before, description)
        return True

    # -- what is already there ----------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Hear the manifest's lines; cut it off before the first that is half written or whose files are not whole."""
        path = self.out / MANIFEST
        if not path.is_file():
            return
        recent: deque[tuple[bytes, dict[str, Any]]] = deque()
        end = read = 0
        with open(path, "rb") as file:
            for raw in file:
                line = self._sound(raw, read)
                if line is None:  # lines are written in order, so everything from here on is redone
                    break
                read += 1
                recent.append((raw, line))
                if len(recent) > RECENT:
                    first = recent.popleft()
                    if not self._accept(*first, hashed=False):
                        recent.clear()
                        break
                    end += len(first[0])
        while recent and self._accept(*recent[0], hashed=True):
            end += len(recent.popleft()[0])
        if end < path.stat().st_size:
            os.truncate(path, end)

    @staticmethod
    def _sound(raw: bytes, index: int) -> dict[str, Any] | None:
        """A manifest line, None for one that is half written or not number `index`."""
        try:
            line = lines.parse(raw)
            return line if raw.endswith(b"\n") and line["index"] == index else None
        except (ValueError, KeyError):
            return None

    def _accept(self, raw: bytes, line: dict[str, Any], hashed: bool) -> bool:
        try:
            if not self._files_whole(line, hashed):
                return False
            self.hear(line)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, FlawsmithError):
                raise
            return False
        self.count += 1
        return True

    def _files_whole(self, line: dict[str, Any], hashed: bool) -> bool:
        if line["status"] != "kept":
            return True
        for key in ("image", "mask"):
            size = self._size(line[key])
            if hashed or f"{key}_bytes" not in line:
                if size is None or images.file_sha(self.out / line[key]) != line[f"{key}_sha"]:
                    return False
            elif size != line[f"{key}_bytes"]:
                return False
        return bool(self._size(line["prompt"]))  # people correct prompts; what a crash leaves is empty

    def _size(self, relative: str) -> int | None:
        """Bytes of a file in the folder, None where there is none. `inputs.inside` asks the system about every part of
        a path; here that is done once for each folder, and for links.
        """
        folder, _, name = relative.rpartition("/")
        if folder not in self._safe or name in ("", ".", ".."):
            inputs.inside(self.out, relative, MANIFEST)
            self._safe.add(folder)
        path = f"{self.out}/{relative}"
        try:
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                inputs.inside(self.out, relative, MANIFEST)
                found = os.stat(path)
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(
        self,
        line: dict[str, Any],
        image_png: bytes | None,
        mask_png: bytes | None,
        others: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Write one image's files and then its manifest line; lines must come in the order of their index.

        others: further files, by their path in the folder.
        """
        for name, content in others.items():
            images.write_bytes(inputs.inside(self.out, name, MANIFEST), content, self.out / PARTIAL, durable=False)
        if line["index"] != self.count:
            raise RuntimeError(f"manifest line {line['index']} comes after {self.count - 1}")
        if image_png is not None and mask_png is not None:
            prompt = (line["caption"].strip() + "\n").encode("utf-8")
            for key, content in (("image", image_png), ("mask", mask_png), ("prompt", prompt)):
                images.write_bytes(
                    inputs.inside(self.out, line[key], MANIFEST), content, self.out / PARTIAL, durable=False
                )
        raw = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8")
        images.append_bytes(self.out / MANIFEST, raw)
        self.hear(line)
        self.count += 1


def refuse_other_run(out: Path | str, config: Path | str, before: bytes, description: dict[str, Any]) -> None:
    """Raise FlawsmithError unless `before`, the content of `config` in `out`, describes the same run."""
    try:
        old = _flat(inputs.parse_json(before))
    except ValueError as error:
        raise FlawsmithError(f"{config} is damaged ({error}): choose another --out or remove it.") from error
    for key, value in _flat(description).items():
        was = old.get(key, None if key == "runtime" else "not set")  # folders older than the setting
        if key == "digits" and was != value:
            raise FlawsmithError(
                f"Output folder {out} was begun for fewer images and counts them with {was} digits, a run this "
                f"long needs {value}: choose another --out, or make the rest there with another --seed."
            )
        if key == "data_set" and was != value:
            raise FlawsmithError(
                f"Output folder {out} was begun on other images: some of the data set were added, removed or "
                "changed since. Put the old ones back to resume, or choose another --out."
            )
        if key not in ("n", "flawsmith", "source") and was != value:
            raise FlawsmithError(
                f"Output folder {out} belongs to another run: {key} was {_short(was)}, now it is {_short(value)}. "
                "Choose another --out, or give the same settings to resume."
            )


def read_manifest(out: Path) -> list[dict[str, Any]]:
    """The whole lines of a generated folder's manifest. Raises FlawsmithError when there is none."""
    return list(manifest_lines(out))


def manifest_lines(out: Path) -> Iterator[dict[str, Any]]:
    """The lines that `read_manifest` gives, one at a time: those of a million images would fill the memory."""
    path = Path(out) / MANIFEST
    if not path.is_file():
        raise FlawsmithError(f"{out} is not a generated folder: it has no {MANIFEST}.")
    with open(path, "rb") as file:
        for number, row in enumerate(file, start=1):
            try:
                yield lines.parse(row)
            except ValueError as error:
                if file.read(1):  # a half-written last line is what a kill leaves; generate redoes it
                    raise FlawsmithError(
                        f"{path}, line {number}, is damaged ({error}): run `generate` again to repair it."
                    ) from None


def pretty(value: dict[str, Any]) -> bytes:
    """JSON for people, as the bytes of a file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted keys, so that a refusal can name the one setting that differs."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            flat.update(_flat(item, f"{prefix}{key}."))
        else:
            flat[prefix + key] = item
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
