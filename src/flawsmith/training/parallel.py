"""Several processes that fit one model together: `accelerate launch` or `torchrun` starts them.

Each computes its share of a batch's windows; their gradients are added up, so that a step is that of the whole batch
in one process, but for rounding. All take the same decisions from the same numbers, and only the main one writes.
Where a process is alone everything here does nothing.

Reference: PyTorch, "Distributed Data Parallel"; the sum takes the place of the wrapper, since what is trained are a few
parts inside a frozen backbone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from flawsmith.errors import FlawsmithError


def join(device: str | None) -> None:
    """Meet the other processes that were started with this one. Raises FlawsmithError for a way that is not ours."""
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true") or "ACCELERATE_USE_DEEPSPEED" in os.environ:
        raise FlawsmithError(
            "FSDP and DeepSpeed divide weights that are trained, and here a few MB are, inside a frozen backbone that "
            "every process holds whole: launch without them, and give --memory where a GPU is small."
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=(device or "cpu") == "cpu")


def count() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def main() -> bool:
    """Whether this process writes and speaks."""
    return count() == 1 or dist.get_rank() == 0


def wait() -> None:
    """Until every process has come here: what the main one wrote before is there."""
    if count() > 1:
        _together(dist.barrier)


def share(windows: int) -> range:
    """Which windows of a batch this process computes; of a batch in fewer windows than processes some have none."""
    if count() == 1:
        return range(windows)
    rank, most = dist.get_rank(), count()
    return range(windows * rank // most, windows * (rank + 1) // most)


def total(value: float, device: torch.device | str = "cpu") -> float:
    """The sum of every process's value, the same in all of them."""
    if count() == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64, device=device)
    _together(dist.all_reduce, told)
    return float(told)


def add_gradients(parameters: Sequence[nn.Parameter]) -> bool:
    """Replace every gradient by the sum over the processes, where there are several; returns whether there are. What
    none of them touched keeps none.
    """
    if count() == 1:
        return False
    device = parameters[0].device
    touched = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=device)
    _together(dist.all_reduce, touched)
    found = [p for p, times in zip(parameters, touched.tolist(), strict=True) if times]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in found]
    kinds = dict.fromkeys(gradient.dtype for gradient in gradients)
    for kind in kinds:  # one message each
        own = [g for g in gradients if g.dtype == kind]
        flat = torch.cat([g.reshape(-1) for g in own])
        _together(dist.all_reduce, flat)
        for gradient, part in zip(own, flat.split([g.numel() for g in own]), strict=True):
            gradient.copy_(part.view_as(gradient))
    for parameter, gradient in zip(found, gradients, strict=True):
        parameter.grad = gradient
    return True


def refuse_small(batch_size: int) -> None:
    """Raise FlawsmithError where there are more processes than windows in a batch."""
    if count() > batch_size:
        raise FlawsmithError(
            f"{count()} processes cannot share batches of {batch_size} windows: start fewer, or give --set "
            f"batch_size={count()} or more."
        )


def _together(do: Callable[..., Any], *arguments: Any) -> None:
    try:
        do(*arguments)
    except RuntimeError as error:
        raise FlawsmithError(
            "Another process of this fit has ended: see what it said. What was saved is kept; the same command resumes."
        ) from error
