"""Blocks made by worker processes, each with a method and photographs of its own."""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import cv2

from flawsmith import processes
from flawsmith.errors import FlawsmithError
from flawsmith.generation.blocks import Blocks
from flawsmith.generation.finished import Finished

AHEAD = 2  # blocks that a worker has been told of, so that it never waits for the next
WINDOW = 4  # blocks for each worker, from the one to be written next, that may be begun: what memory is kept for
DEATHS = 3  # workers that end one after the other, without a block made between them, before we give up

log = logging.getLogger("flawsmith")


@dataclass
class Failure:
    """An error in a worker, with where it was."""

    error: Exception
    where: str


@dataclass
class Worker:
    """A process, the pipe to it, and the blocks that it has been told of. No two share a pipe: one that ends in the
    middle of a word ends its own only.
    """

    process: SpawnProcess
    pipe: Connection
    told: list[int] = field(default_factory=list)


class Workers:
    """`count` processes. Where the system ends one, as for want of memory, another takes its place and its blocks."""

    def __init__(self, made: Blocks, count: int) -> None:
        self.made = made
        self.workers: list[Worker] = []
        self.count = count
        self._lost: deque[int] = deque()  # blocks that a worker was told of that has ended
        self._deaths = 0

    def __enter__(self) -> Workers:
        try:
            while len(self.workers) < self.count:
                self.workers.append(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join()
            worker.pipe.close()
        self.workers.clear()

    def blocks(self, starts: Sequence[int]) -> Iterator[list[Finished]]:
        left: deque[int] = deque()
        made: dict[int, list[Finished] | Failure] = {}
        begun = 0
        for number, start in enumerate(starts):
            while start not in made:
                more = min(len(starts), number + WINDOW * self.count)
                left.extend(starts[begun:more])
                begun = max(begun, more)
                self._tell(left)
                self._hear(made)
            found = made.pop(start)
            if isinstance(found, Failure):
                raise found.error from RuntimeError(f"in a worker process:\n{found.where}")
            yield found

    def again(self, index: int, repeated: Collection[int]) -> Finished:
        return self.made.again(index, repeated)  # it is rare, and the workers go on meanwhile

    def _start(self) -> Worker:
        ours, theirs = processes.spawn.Pipe()
        process = processes.spawn.Process(target=_serve, args=(theirs, self.made), daemon=True)
        with processes.starting():
            process.start()
        theirs.close()  # so that the pipe ends with the process
        return Worker(process, ours)

    def _tell(self, left: deque[int]) -> None:
        """Give every worker what it may have; blocks that were lost come first."""
        for worker in self.workers:
            while len(worker.told) < AHEAD and (self._lost or left):
                worker.told.append((self._lost or left).popleft())
                try:
                    worker.pipe.send(worker.told[-1])
                except OSError:  # it has ended: heard of below
                    break

    def _hear(self, made: dict[int, list[Finished] | Failure]) -> None:
        """Wait until a worker has made a block or has ended."""
        by_pipe = {worker.pipe: worker for worker in self.workers}
        for pipe in wait(list(by_pipe)):
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                start, found = worker.pipe.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            worker.told.remove(start)
            made[start] = found
            self._deaths = 0

    def _replace(self, worker: Worker) -> None:
        worker.process.join()
        worker.pipe.close()
        self._deaths += 1
        code = worker.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if self._deaths > DEATHS:
            self.workers.remove(worker)
            script = "as they do where a Python script asks for jobs elsewhere than below `if __name__ == '__main__':`"
            why = "most likely for want of memory: give fewer --jobs" if code < 0 else script
            raise FlawsmithError(
                f"{self._deaths} worker processes ended one after the other ({how}), {why}. What was finished is kept; "
                "the same command resumes."
            )
        log.warning("A worker process ended (%s); what it had not finished is painted again.", how)
        self._lost.extend(worker.told)
        self.workers[self.workers.index(worker)] = self._start()


def _serve(pipe: Connection, made: Blocks) -> None:
    """A worker's life: blocks are asked for by their first image, and sent back."""
    processes.serve()
    cv2.setNumThreads(1)
    while True:
        try:
            start = pipe.recv()
        except EOFError:  # nobody asks any more
            return
        found: list[Finished] | Failure
        try:
            found = made.make(start)
        except Exception as error:
            found = Failure(error, traceback.format_exc())
        try:
            pipe.send((start, found))
        except Exception:
            if not isinstance(found, Failure):
                raise
            # an error of somebody else's that cannot be sent as it is
            pipe.send((start, Failure(RuntimeError(str(found.error)), found.where)))
