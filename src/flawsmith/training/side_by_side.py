"""The parts of a step at the same time, a thread for each.

A small network is thousands of short operations. Divided among the threads they wait for each other at every one of
them: two threads were no faster than one, and seven times slower beside another program that kept a core busy. A part
of the batch in each thread has nothing to wait for (docs/performance.md, "Training").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Found = TypeVar("Found")
LEAST = 3  # windows of a part: of fewer, what is the same for all of them costs too much


def threads_for(device: torch.device, windows: int) -> int:
    """How many parts of so many windows are computed at a time on a device."""
    return max(1, min(torch.get_num_threads(), windows // LEAST)) if device.type == "cpu" else 1


def computed(parts: Iterable[Callable[[], Found]], threads: int) -> Iterator[Found]:
    """What the parts return, in their order, with as many at a time as `threads`; each has its share of torch's own.

    Whether gradients are kept is for each part to say: a new thread keeps them.
    """
    if threads == 1:
        yield from (part() for part in parts)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // threads))
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(lambda part: part(), parts)
    finally:
        torch.set_num_threads(before)
