"""The parts of a batch at the same time, a thread for each.

A small network is thousands of short operations. Divided among the threads they wait for each other at every one of
them: two threads were no faster than one, and six times slower beside another program that kept a core busy. A part
of the batch in each thread has nothing to wait for (docs/performance.md, "Threads").
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Found = TypeVar("Found")
LEAST = 3  # windows of a part: of fewer, what is the same for all of them costs too much
LOCK = threading.Lock()
lent: list[int] = []  # torch's own threads, once for each caller that has changed them for a while


def threads_for(device: torch.device, windows: int) -> int:
    """How many parts of so many windows are computed at a time on a device."""
    return max(1, min(_own(), windows // LEAST)) if device.type == "cpu" else 1


def computed(parts: Iterable[Callable[[], Found]], threads: int, within: int | None = None) -> Iterator[Found]:
    """What the parts return, in their order, with as many at a time as `threads`.

    Within a part torch computes with `within` threads, by default with its share of all. Whether gradients are kept is
    for each part to say: a new thread keeps them.
    """
    if threads == 1 and within is None:
        yield from (part() for part in parts)
        return
    with LOCK:
        own = _own()
        lent.append(own)
    within = within or max(1, own // threads)
    try:
        with ThreadPoolExecutor(threads, initializer=_begin, initargs=(within,)) as pool:
            yield from pool.map(lambda part: part(), parts)
    finally:
        with LOCK:
            lent.pop()
            torch.set_num_threads(own)  # what a worker set holds for threads that begin later, too


def _begin(within: int) -> None:
    """Give this thread its number, whatever other callers set: asked once, torch no longer takes up theirs."""
    torch.get_num_threads()
    torch.set_num_threads(within)


def _own() -> int:
    """The threads that torch has while nobody computes side by side."""
    return lent[0] if lent else torch.get_num_threads()
