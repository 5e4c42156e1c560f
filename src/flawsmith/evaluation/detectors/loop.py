"""The training loop of the detectors: a loss goes down, and validation says which weights are kept.

`training.Trainer` is for weights that are kept and survive a kill; a detector is trained within one line of results.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from flawsmith.records import Progress

Weights = TypeVar("Weights")


@dataclass
class Learnt(Generic[Weights]):
    """The best look at validation: its step and weights (None without any look), and the value of every look."""

    step: int
    weights: Weights | None = None
    found: dict[int, float] = field(default_factory=dict)

    @property
    def selected(self) -> str:
        """How the weights were chosen: "val-selected" or "last"."""
        return "val-selected" if self.found else "last"


def descend(loss: Tensor, optimiser: Optimizer) -> None:
    """One step down."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()


def looks_of(steps: int, count: int) -> set[int]:
    """The steps at which validation is looked at: evenly spaced over the second half, the last among them."""
    half = steps // 2
    return {half + round((steps - half) * (i + 1) / count) for i in range(count)}


def learn(
    loss_of: Callable[[], Tensor],
    optimiser: Optimizer,
    steps: int,
    judge: Callable[[], float],
    weights: Callable[[], Weights],
    looks: Collection[int] = (),
    average: Callable[[int], None] = lambda step: None,
    progress: Progress | None = None,
) -> Learnt[Weights]:
    """`steps` steps of one cycle of the optimiser's rates; after those in `looks`, `judge` says what the weights are
    worth, and a copy of the best ones is taken (`weights`); of equals the later, which have learnt longer.

    `loss_of` draws a batch; `average` is called after every step, with its number, counted from 1.
    """
    rates = [float(group["lr"]) for group in optimiser.param_groups]
    schedule = OneCycleLR(optimiser, rates, total_steps=steps)
    learnt: Learnt[Weights] = Learnt(steps)
    best = -1.0
    for step in range(1, steps + 1):
        descend(loss_of(), optimiser)
        schedule.step()
        average(step)
        if step in looks:
            learnt.found[step] = judge()
            if learnt.found[step] >= best:
                best, learnt.step, learnt.weights = learnt.found[step], step, weights()
        if progress:
            progress("", step, steps, {})
    return learnt
