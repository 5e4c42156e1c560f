"""Who makes the blocks of a run: this thread, a few threads around one model, worker processes, or a Ray cluster.

Whoever makes them, they are the same and come in the same order; only the calling thread writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from flawsmith import images, registry
from flawsmith.config import GenerateConfig
from flawsmith.errors import FlawsmithError
from flawsmith.generation.actors import Actors, refuse_without_ray
from flawsmith.generation.blocks import Blocks
from flawsmith.generation.finished import Finished
from flawsmith.generation.here import Here, Threads, overlapping
from flawsmith.generation.workers import Workers
from flawsmith.methods.base import Synthesizer

WORTH = 100  # images that take as long as a worker takes to start, a second or two
WORKER_BYTES = 450 << 20  # of a worker: libraries, photographs kept; and four times the photograph it paints on


class Executor(Protocol):
    """Makes blocks, in order. A context manager; leaving it ends what it has begun."""

    def __enter__(self) -> Executor: ...
    def __exit__(self, *error: object) -> None: ...
    def blocks(self, starts: Sequence[int]) -> Iterator[list[Finished]]: ...
    def again(self, index: int, repeated: Collection[int]) -> Finished: ...


def neural(config: GenerateConfig, synthesizer: Synthesizer) -> str:
    """The neural network that a run asks of each image, in words; "" where there is none."""
    if synthesizer.learns != "nothing":
        return synthesizer.name
    if config.mask_run() is not None:
        return "the mask model"
    return "" if config.features is None and config.words is None else "the gate's vision model"


def refuse_jobs(config: GenerateConfig, synthesizer: Synthesizer) -> None:
    """Raises FlawsmithError where processes were asked for that would each load a neural network, or a cluster that
    cannot be.
    """
    if config.ray is not None:
        if config.jobs is not None:
            raise FlawsmithError(
                f"--jobs {config.jobs} are processes of this machine, --ray {config.ray} has actors: leave one of them "
                "out. How many actors there are says --set actors=N."
            )
        refuse_without_ray()
    network = neural(config, synthesizer)
    if network and (config.jobs or 1) > 1:
        raise FlawsmithError(
            f"--jobs {config.jobs} is for methods without a neural network, and {network} takes every core by itself: "
            "leave --jobs out."
        )


def jobs(work: Blocks, left: int) -> int:
    """How many processes paint `left` images: what was asked for, or what pays where this process is our own."""
    config = work.loader.config
    if config.ray is not None:
        return 1
    if config.jobs is not None or neural(config, work.synthesizer) or not registry.own_process:
        return config.jobs or 1
    height, width = images.image_size(work.plan.jobs[0].normal.image)
    room = _free_memory() // (WORKER_BYTES + 4 * 3 * height * width)
    return max(1, min(_cores(), room, left // WORTH))


def choose(work: Blocks, left: int) -> Executor:
    """Who paints `left` images."""
    if work.loader.config.ray is not None:
        return Actors(work)
    count = jobs(work, left)
    if count > 1:
        return Workers(work, count)
    count = overlapping(work)
    return Threads(work, count) if count > 1 else Here(work)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory() -> int:
    """Bytes that programs may still take; plenty where the system does not say."""
    try:
        found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else 1 << 60
