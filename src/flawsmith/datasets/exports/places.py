"""Where an export goes: a folder, or a store behind a URL that fsspec opens (s3://, gs://, abfs://, sftp:// ...).

Nothing is asked of a store but to write, read and list whole objects: no lock, no append, no rename. So only formats
that pack many images into a file go there; see `shards`.
"""

from __future__ import annotations

import contextlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from flawsmith import images, inputs
from flawsmith.datasets.writer import refuse_other_run
from flawsmith.errors import FlawsmithError

_PASSWORD = re.compile(r"(//[^/@:]*):[^/@]*@")
_DENIED = ("permission", "credential", "forbidden", "denied", "unauthor", "authentic", "token", "signature")


class Place(Protocol):
    """Files by their paths in it; every one is written whole or not at all. `durable`: a crash of the machine must not
    undo it.
    """

    def write(self, relative: str, content: bytes, durable: bool = False) -> None: ...
    def read(self, relative: str) -> bytes | None: ...
    def size(self, relative: str) -> int | None: ...


def target(out: str | Path) -> Path | Store:
    """A folder for a path or a file:// URL, a store for any other URL. Raises FlawsmithError as `Store`."""
    if isinstance(out, Path) or "://" not in out:
        return inputs.home(Path(out))
    parts = urlsplit(out)
    if parts.scheme not in ("file", "local"):
        return Store(out)
    if parts.netloc not in ("", "localhost"):
        raise FlawsmithError(f"--out {out} names the machine {parts.netloc}: write file:///FOLDER, or the path alone.")
    return Path(url2pathname(parts.path))


class Folder:
    """A folder on this machine, or one that is mounted."""

    def __init__(self, root: Path, partial: Path) -> None:
        self.root, self.partial = root, partial

    def __str__(self) -> str:
        return str(self.root)

    def _inside(self, relative: str) -> Path:
        if inputs.leaves(self.root, relative):
            raise FlawsmithError(f"{relative!r} would leave {self.root}: remove the links in it.")
        return self.root / relative

    def write(self, relative: str, content: bytes, durable: bool = False) -> None:
        images.write_bytes(self._inside(relative), content, self.partial, durable)

    def read(self, relative: str) -> bytes | None:
        path = self._inside(relative)
        return path.read_bytes() if path.is_file() else None

    def size(self, relative: str) -> int | None:
        path = self._inside(relative)
        return path.stat().st_size if path.is_file() else None

    def copy(self, relative: str, content: bytes) -> bool:
        """Write a file, unless it is there with the same bytes; returns whether it was written."""
        if self.size(relative) == len(content) and self.read(relative) == content:
            return False
        self.write(relative, content)
        return True


class Store:
    """What lies behind a URL. Credentials are what its driver finds by itself: environment, its own configuration.

    Raises FlawsmithError, when it is made, where fsspec or the driver is not installed or the protocol is not known;
    later for whatever a driver says, in its words.
    """

    def __init__(self, url: str) -> None:
        if find_spec("fsspec") is None:
            raise FlawsmithError(f"--out {url} needs fsspec: pip install 'flawsmith[store]', or give a folder.")
        from fsspec.core import url_to_fs
        from fsspec.registry import available_protocols

        self.url = _PASSWORD.sub(r"\1@", url).rstrip("/")  # as messages say it
        protocol = url.partition("://")[0]
        if "::" in protocol:
            raise FlawsmithError(f"--out {self.url} chains {protocol!r}: give one address, as s3://BUCKET/FOLDER.")
        if protocol not in available_protocols():
            known = ", ".join(sorted(set(available_protocols()) & {"s3", "gs", "abfs", "hf", "sftp"}))
            raise FlawsmithError(f"Protocol {protocol!r} of --out {self.url} is not known; known are {known} and more.")
        try:
            self._files, self._root = url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            raise FlawsmithError(f"--out {self.url} needs a driver: {error} (with pip install).") from error
        except Exception as error:
            raise self._told(error, "opened") from error
        self._root = self._root.rstrip("/")

    def __str__(self) -> str:
        return self.url

    def write(self, relative: str, content: bytes, durable: bool = True) -> None:
        try:
            self._files.pipe_file(f"{self._root}/{relative}", content)
        except Exception as error:
            raise self._told(error, "written") from error

    def read(self, relative: str) -> bytes | None:
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{relative}")
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._told(error, "read") from error
        return content

    def size(self, relative: str) -> int | None:
        try:
            found: int | None = self._files.info(f"{self._root}/{relative}")["size"]
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._told(error, "read") from error
        return found

    def begin(self, config: str, content: bytes, description: dict[str, Any]) -> None:
        """Take it for an export that `description` tells, by writing `config`.

        Raises FlawsmithError where it holds another export, or anything else.
        """
        before = self.read(config)
        if before is not None:
            refuse_other_run(self.url, f"{self.url}/{config}", before, description)
        elif self._holds():
            raise FlawsmithError(
                f"{self.url} is not empty and was not made by flawsmith (no {config}): choose another --out."
            )
        else:  # object stores have no folders, others need this one; the bucket itself is never made
            with contextlib.suppress(Exception):  # the first write says what is wrong
                self._files.mkdir(self._root, create_parents=False)
        self.write(config, content)

    def _holds(self) -> bool:
        try:
            return any(entry.rstrip("/") != self._root for entry in self._files.ls(self._root, detail=False))
        except FileNotFoundError:
            return False
        except Exception as error:
            raise self._told(error, "listed") from error

    def _told(self, error: Exception, what: str) -> FlawsmithError:
        said = _PASSWORD.sub(r"\1@", f"{type(error).__name__}: {' '.join(str(error).split())}")
        if isinstance(error, FileNotFoundError):
            remedy = "make the bucket, or the folder above it, first"
        elif any(word in said.casefold() for word in _DENIED):
            remedy = "give the driver credentials that may read, write and list there (environment or its own files)"
        elif isinstance(error, NotImplementedError):
            remedy = "this protocol cannot do it: choose another --out"
        else:
            remedy = "mend it and run the same command again; it resumes"
        return FlawsmithError(f"{self.url} cannot be {what} ({said[:300]}): {remedy}.")
