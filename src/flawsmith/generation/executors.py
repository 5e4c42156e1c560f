"""Who makes the blocks of a run: this thread, a few threads around one model, or worker processes.

Whoever makes them, they are the same and come in the same order; only the calling thread writes.
"""

from __future__ import annotations

import math
import os
import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from flawsmith import images, registry
from flawsmith.config import GenerateConfig
from flawsmith.errors import FlawsmithError
from flawsmith.generation.blocks import Blocks
from flawsmith.generation.finished import Finished
from flawsmith.generation.workers import Workers
from flawsmith.methods.base import Synthesizer
from flawsmith.records import Request, Sample

WORTH = 100  # images that take as long as a worker takes to start, a second or two
WORKER_BYTES = 450 << 20  # of a worker: libraries, photographs kept; and four times the photograph it paints on
OVERLAPPING = 3  # blocks in work around a model: one before it, one in it, one behind it
OVERLAPPED = 32 << 20  # pixels of a block's photographs; of larger ones there is one block in work


class Executor(Protocol):
    """Makes blocks, in order. A context manager; leaving it ends what it has begun."""

    def __enter__(self) -> Executor: ...
    def __exit__(self, *error: object) -> None: ...
    def blocks(self, starts: Sequence[int]) -> Iterator[list[Finished]]: ...
    def again(self, index: int, repeated: Collection[int]) -> Finished: ...


class Here:
    """Makes each block when it is asked for."""

    def __init__(self, made: Blocks) -> None:
        self.made = made

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def blocks(self, starts: Sequence[int]) -> Iterator[list[Finished]]:
        return map(self.made.make, starts)

    def again(self, index: int, repeated: Collection[int]) -> Finished:
        return self.made.again(index, repeated)


class Threads(Here):
    """Decodes, judges and encodes some blocks while the model, in a thread of its own, paints another."""

    def __init__(self, made: Blocks, count: int) -> None:
        super().__init__(made)
        self.count = count
        self.model, self.pool = ThreadPoolExecutor(1, "flawsmith-model"), ThreadPoolExecutor(count, "flawsmith")
        made.paint = self._paint

    def __exit__(self, *error: object) -> None:
        for pool in (self.pool, self.model):  # who stops does not wait for what nobody will write
            pool.shutdown(wait=error[0] is None, cancel_futures=True)
        self.made.paint = self.made.synthesizer.generate

    def _paint(self, requests: Sequence[Request]) -> Sequence[Sample]:
        return self.model.submit(self.made.synthesizer.generate, requests).result()

    def blocks(self, starts: Sequence[int]) -> Iterator[list[Finished]]:
        left, waiting = iter(starts), deque[Future[list[Finished]]]()
        while True:
            while len(waiting) < self.count and (start := next(left, None)) is not None:
                waiting.append(self.pool.submit(self.made.make, start))
            if not waiting:
                return
            yield waiting.popleft().result()


def neural(config: GenerateConfig, synthesizer: Synthesizer) -> str:
    """The neural network that a run asks of each image, in words; "" where there is none."""
    if synthesizer.learns != "nothing":
        return synthesizer.name
    if config.mask_run() is not None:
        return "the mask model"
    return "" if config.features is None and config.words is None else "the gate's vision model"


def refuse_jobs(config: GenerateConfig, synthesizer: Synthesizer) -> None:
    """Raises FlawsmithError where processes were asked for that would each load a neural network."""
    network = neural(config, synthesizer)
    if network and (config.jobs or 1) > 1:
        raise FlawsmithError(
            f"--jobs {config.jobs} is for methods without a neural network, and {network} takes every core by itself: "
            "leave --jobs out."
        )


def jobs(made: Blocks, left: int) -> int:
    """How many processes paint `left` images: what was asked for, or what pays where this process is our own."""
    config = made.loader.config
    if config.jobs is not None or neural(config, made.synthesizer) or not registry.own_process:
        return config.jobs or 1
    height, width = images.image_size(made.made.jobs[0].normal.image)
    room = _free_memory() // (WORKER_BYTES + 4 * 3 * height * width)
    return max(1, min(_cores(), room, left // WORTH))


def choose(made: Blocks, left: int) -> Executor:
    """Who paints `left` images."""
    count = jobs(made, left)
    if count > 1:
        return Workers(made, count)
    pixels = made.size * math.prod(images.image_size(made.made.jobs[0].normal.image))
    return Threads(made, OVERLAPPING) if made.size > 1 and pixels <= OVERLAPPED else Here(made)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory() -> int:
    """Bytes that programs may still take; plenty where the system does not say."""
    try:
        found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else 1 << 60
