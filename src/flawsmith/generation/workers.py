"""Blocks made by worker processes, each with a method and photographs of its own."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import cv2

from flawsmith import processes
from flawsmith.errors import FlawsmithError
from flawsmith.generation.blocks import Blocks
from flawsmith.generation.finished import Finished
from flawsmith.generation.pool import AHEAD, DEATHS, Failure, Pool

log = logging.getLogger("flawsmith")


@dataclass
class Worker:
    """A process, the pipe to it, and the blocks that it has been told of. No two share a pipe: one that ends in the
    middle of a word ends its own only.
    """

    process: SpawnProcess
    pipe: Connection
    told: list[int] = field(default_factory=list)


class Workers(Pool):
    """`count` processes. Where the system ends one, as for want of memory, another takes its place and its blocks."""

    def __init__(self, work: Blocks, count: int) -> None:
        super().__init__(work, count)
        self.workers: list[Worker] = []

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

    def _start(self) -> Worker:
        ours, theirs = processes.spawn.Pipe()
        process = processes.spawn.Process(target=_serve, args=(theirs, self.work), daemon=True)
        with processes.starting():
            process.start()
        theirs.close()  # so that the pipe ends with the process
        return Worker(process, ours)

    def tell(self, left: deque[int]) -> None:
        for worker in self.workers:
            while len(worker.told) < AHEAD and (self.lost or left):
                worker.told.append((self.lost or left).popleft())
                try:
                    worker.pipe.send(worker.told[-1])
                except OSError:  # it has ended: heard of below
                    break

    def hear(self, made: dict[int, list[Finished] | Failure]) -> None:
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
            self.deaths = 0

    def _replace(self, worker: Worker) -> None:
        worker.process.join()
        worker.pipe.close()
        self.deaths += 1
        code = worker.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if self.deaths > DEATHS:
            self.workers.remove(worker)
            script = "as they do where a Python script asks for jobs elsewhere than below `if __name__ == '__main__':`"
            why = "most likely for want of memory: give fewer --jobs" if code < 0 else script
            raise FlawsmithError(
                f"{self.deaths} worker processes ended one after the other ({how}), {why}. What was finished is kept; "
                "the same command resumes."
            )
        log.warning("A worker process ended (%s); what it had not finished is painted again.", how)
        self.lost.extend(worker.told)
        self.workers[self.workers.index(worker)] = self._start()


def _serve(pipe: Connection, work: Blocks) -> None:
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
            found = work.make(start)
        except Exception as error:
            found = Failure.of(error)
        pipe.send((start, found))
