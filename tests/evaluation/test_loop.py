"""The detectors' training loop: every step once and in order, and of the looks the best one, of equals the later."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from flawsmith.evaluation.detectors import loop  # noqa: E402


def run(values: list[float], steps: int = 10) -> tuple[loop.Learnt[float], list[float], list[int], list[int]]:
    """Learn to bring one weight from 1 to 0; `values` is what validation says at its looks."""
    weight = torch.nn.Parameter(torch.ones(()))
    losses: list[float] = []
    averaged: list[int] = []
    told: list[int] = []
    said = iter(values)

    def loss() -> torch.Tensor:
        losses.append(float(weight.detach()) ** 2)
        return weight**2

    learnt = loop.learn(
        loss,
        torch.optim.AdamW([weight], lr=0.1),
        steps,
        lambda: next(said),
        lambda: float(weight.detach()),
        loop.looks_of(steps, len(values)) if values else (),
        averaged.append,
        lambda what, done, total, facts: told.append(done),
    )
    assert next(said, None) is None  # asked at every look, and no more often
    return learnt, losses, averaged, told


def test_a_loss_goes_down_and_every_step_is_averaged_and_told() -> None:
    learnt, losses, averaged, told = run([])
    assert averaged == told == list(range(1, 11))
    assert len(losses) == 10 and losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert (learnt.step, learnt.weights, learnt.selected) == (10, None, "last")


def test_of_the_looks_the_best_is_kept_of_equals_the_later() -> None:
    assert loop.looks_of(10, 5) == {6, 7, 8, 9, 10} and loop.looks_of(1000, 2) == {750, 1000}
    learnt, losses, _, _ = run([0.2, 0.7, 0.1, 0.7, 0.3])
    assert learnt.step == 9 and learnt.found == {6: 0.2, 7: 0.7, 8: 0.1, 9: 0.7, 10: 0.3}
    assert learnt.weights is not None and learnt.weights**2 == losses[9]  # the tenth step starts from them
    assert learnt.selected == "val-selected" and run([0.0, 0.0])[0].step == 10
