"""Blocks made in this process: one by one, or a few at a time around one model."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from flawsmith import images
from flawsmith.generation.blocks import Blocks
from flawsmith.generation.finished import Finished
from flawsmith.records import Request, Sample

OVERLAPPING = 3  # blocks in work around a model: one before it, one in it, one behind it
OVERLAPPED = 32 << 20  # pixels of a block's photographs; of larger ones there is one block in work


class Here:
    """Makes each block when it is asked for."""

    def __init__(self, work: Blocks) -> None:
        self.work = work

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def blocks(self, starts: Sequence[int]) -> Iterator[list[Finished]]:
        return map(self.work.make, starts)

    def again(self, index: int, repeated: Collection[int]) -> Finished:
        return self.work.again(index, repeated)


class Threads(Here):
    """Decodes, judges and encodes some blocks while the model, in a thread of its own, paints another."""

    def __init__(self, work: Blocks, count: int) -> None:
        super().__init__(work)
        self.count = count
        self.model, self.pool = ThreadPoolExecutor(1, "flawsmith-model"), ThreadPoolExecutor(count, "flawsmith")
        work.paint = self._paint

    def __exit__(self, *error: object) -> None:
        for pool in (self.pool, self.model):  # who stops does not wait for what nobody will write
            pool.shutdown(wait=error[0] is None, cancel_futures=True)
        self.work.paint = self.work.synthesizer.generate

    def _paint(self, requests: Sequence[Request]) -> Sequence[Sample]:
        return self.model.submit(self.work.synthesizer.generate, requests).result()

    def blocks(self, starts: Sequence[int]) -> Iterator[list[Finished]]:
        left, waiting = iter(starts), deque[Future[list[Finished]]]()
        while True:
            while len(waiting) < self.count and (start := next(left, None)) is not None:
                waiting.append(self.pool.submit(self.work.make, start))
            if not waiting:
                return
            yield waiting.popleft().result()


def overlapping(work: Blocks) -> int:
    """How many blocks pay to be in work at a time in one process."""
    pixels = work.size * math.prod(images.image_size(work.plan.jobs[0].normal.image))
    return OVERLAPPING if work.size > 1 and pixels <= OVERLAPPED else 1
