"""One writer a folder: a lock that ends with its process, and a note that tells the next one who holds it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from datetime import datetime
from pathlib import Path

from flawsmith import images, inputs
from flawsmith.errors import FlawsmithError

PARTIAL = ".partial"  # folder of files that are being written, and of the note
HOLDER = "writer.json"


class Lock:
    """A folder, made where it is missing, taken for this process until `close` or the end of the `with` block.

    What a killed writer left in its `.partial` is removed first. A folder in which nothing was written is removed in
    the end. Where the file system has no locks (and on Windows), two writers are the user's care. Raises FlawsmithError
    where another process has the folder, naming it, or the folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = _flock(self.folder)
        except OSError as error:
            raise FlawsmithError(
                f"Output folder {folder} cannot be made ({error.strerror or error}): choose another --out or change "
                "the permissions."
            ) from error
        note = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now().astimezone().isoformat(" ")[:19]}
        try:
            images.clear_partial(self.folder / PARTIAL)
            images.write_bytes(self.folder / PARTIAL / HOLDER, (json.dumps(note) + "\n").encode(), durable=False)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        images.clear_partial(self.folder / PARTIAL)
        with contextlib.suppress(OSError):
            (self.folder / PARTIAL / HOLDER).unlink(missing_ok=True)
            (self.folder / PARTIAL).rmdir()
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # only when nothing at all was written
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _flock(folder: Path) -> int | None:
    """The descriptor that holds the lock, None where there is none to be had."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(folder, os.O_RDONLY)  # the folder itself: its files are replaced, it is not
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FlawsmithError(
            f"Another flawsmith is writing to {folder}{_holder(folder)}: wait for it to end, or choose another --out."
        ) from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def _holder(folder: Path) -> str:
    """Who says to be writing to a folder; "" where nothing can be read, as in the moment before it is written."""
    try:
        note = inputs.parse_json((folder / PARTIAL / HOLDER).read_text(encoding="utf-8"))
        return f" (process {int(note['pid'])} on {note['host']}, since {note['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
