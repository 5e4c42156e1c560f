"""Blocks made elsewhere, by any number of workers that may end at any time, and handed on in order."""

from __future__ import annotations

import pickle  # between this process and its own workers only, as multiprocessing and Ray do; never from a file
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from flawsmith.generation.blocks import Blocks
from flawsmith.generation.finished import Finished

AHEAD = 2  # blocks that a worker has been told of, so that it never waits for the next
WINDOW = 4  # blocks for each worker, from the one to be written next, that may be begun: what memory is kept for
DEATHS = 3  # workers that end one after the other, without a block made between them, before we give up


@dataclass(frozen=True)
class Failure:
    """An error in a worker, in words and, where it can be packed, as it was."""

    packed: bytes
    said: str
    where: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """To be called in the `except` that caught it."""
        try:
            packed = pickle.dumps(error)
        except Exception:  # somebody else's error may hold anything
            packed = b""
        return cls(packed, traceback.format_exception_only(error)[-1].strip(), traceback.format_exc())

    def error(self) -> Exception:
        """The error itself, or its words where it cannot be put together here."""
        try:
            found = pickle.loads(self.packed)
        except Exception:  # by code of its own, which expects other arguments or another process
            found = None
        return found if isinstance(found, Exception) else RuntimeError(self.said)


class Pool(ABC):
    """Hands blocks out and waits for them. Who inherits says how a worker is told of a block and heard of."""

    def __init__(self, work: Blocks, count: int) -> None:
        self.work, self.count, self.window = work, count, WINDOW
        self.lost: deque[int] = deque()  # blocks that a worker was told of that has ended
        self.deaths = 0  # since the last block that was made

    @abstractmethod
    def __enter__(self) -> Pool:
        """Start the workers."""

    @abstractmethod
    def __exit__(self, *error: object) -> None:
        """End them, whatever they are at."""

    @abstractmethod
    def tell(self, left: deque[int]) -> None:
        """Give every worker what it may have; blocks that were lost come first."""

    @abstractmethod
    def hear(self, made: dict[int, list[Finished] | Failure]) -> None:
        """Wait until a worker has made a block or has ended."""

    def blocks(self, starts: Sequence[int]) -> Iterator[list[Finished]]:
        """The blocks that begin at `starts`, in order. Raises what a worker's block met, at that block's turn."""
        left: deque[int] = deque()
        made: dict[int, list[Finished] | Failure] = {}
        begun = 0
        for number, start in enumerate(starts):
            while start not in made:
                more = min(len(starts), number + self.window * self.count)
                left.extend(starts[begun:more])
                begun = max(begun, more)
                self.tell(left)
                self.hear(made)
            yield unpacked(made.pop(start))

    def again(self, index: int, repeated: Collection[int]) -> Finished:
        return self.work.again(index, repeated)  # it is rare, and the workers go on meanwhile


def unpacked(found: list[Finished] | Failure) -> list[Finished]:
    """What a worker made. Raises the error that it met."""
    if isinstance(found, Failure):
        raise found.error() from RuntimeError(f"in a worker process:\n{found.where}")
    return found
