"""The fitting loop of small trained parts on a frozen backbone: adapters, tokens, projections alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from flawsmith.records import Progress
from flawsmith.training import parallel
from flawsmith.training.trainer import Trainer

__all__ = ["Schedule", "TuneSettings", "tune"]

Schedule = Literal["linear", "constant"]  # of the learning rate, behind the warm-up


class TuneSettings(Protocol):
    """The fields of a config that `tune` reads; see FitConfig."""

    @property
    def steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def ema(self) -> float: ...
    @property
    def beta2(self) -> float: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def warmup(self) -> int: ...
    @property
    def patience(self) -> int: ...
    @property
    def evaluate_every(self) -> int: ...
    @property
    def save_every(self) -> int: ...
    @property
    def preview_every(self) -> int: ...


def tune(
    parameters: Mapping[str, nn.Parameter],
    loss: Callable[[int], Iterable[Callable[[], Tensor]]],
    out: Path,
    config: TuneSettings,
    *,
    held_out: Callable[[], float] | None,
    stop_early: bool,
    smaller: Callable[[], None] | None = None,
    shared: bool = False,
    threads: int = 1,
    factors: Mapping[str, float] | None = None,
    preview: Callable[[int], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train `parameters` on `loss(step)`, a pure function of the step; they end as the best averages.

    The loss comes in parts, scalars that add up to it, of which `threads` are computed at a time. After an
    out-of-memory error `smaller()` is told to make the parts smaller, and the step is done again: nothing of it was
    applied.

    `held_out()` is the loss on what training never sees, if anything, called with the averaged weights in place; with
    `stop_early` it decides when to stop and which weights are kept, without it the last averages are. Calling it
    again with the same `out` resumes, to the same bytes: the state holds all that a later step depends on.
    With `shared` it is what this process computes of the loss, where several fit together (see `parallel`).
    Returns {"steps", "held_out", "stopped"}. `factors` multiply the learning rate of the parameters they name.
    """
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        parameters,
        out,
        learning_rate=config.learning_rate,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        ema=config.ema,
        factors=factors,
        shared=shared,
    )

    def exhausted() -> bool:
        waited = trainer.steps - trainer.best_step
        return stop_early and waited >= max(1, config.patience) * config.evaluate_every

    trainer.load()
    while trainer.steps < config.steps and not exhausted():
        step = trainer.steps
        rate = _rate(step, config)
        line: dict[str, Any] = {
            "step": step + 1,
            "loss": _step(trainer, loss, step, rate, threads, smaller),
            "lr": rate,
        }
        if trainer.steps % config.evaluate_every == 0 or trainer.steps == config.steps:
            line |= _evaluated(trainer, held_out, stop_early)
            trainer.log(line)
        if progress:
            progress("", trainer.steps, config.steps, line)
        if preview and parallel.main() and trainer.steps % config.preview_every == 0:
            with trainer.averaged():
                preview(trainer.steps)
        if trainer.steps % config.save_every == 0 or trainer.due:
            trainer.save()
    trainer.save()  # the last state, too, does not tell when it was written
    chosen = trainer.best or trainer.ema
    _keep(chosen, parameters)
    stopped = f"no better for {config.patience} evaluations" if exhausted() else "all steps done"
    steps, lowest = trainer.best_step if stop_early else trainer.steps, trainer.best_loss if held_out else None
    return {"steps": steps, "held_out": lowest, "stopped": stopped}


def _rate(step: int, config: TuneSettings) -> float:
    """The learning rate of a step: a warm-up, then constant, or falling linearly to a twentieth."""
    share = max(0.0, (step - config.warmup) / max(1, config.steps - config.warmup))
    rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup))
    return rate * (0.05 + 0.95 * (1 - share) if config.schedule == "linear" else 1.0)


def _evaluated(trainer: Trainer, held_out: Callable[[], float] | None, keep: bool) -> dict[str, float]:
    """The mean loss since the last evaluation, and the averages' on what is held out, by which the trainer judges."""
    figures = {"loss": round(trainer.means()[0], 5)}
    if held_out:
        with torch.no_grad(), trainer.averaged():
            figures["held_out"] = held_out()
        trainer.judge(figures["held_out"], keep=keep)
    return figures


def _keep(weights: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    """Put the chosen weights into the parameters, which are then frozen."""
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(weights[key])
            parameter.requires_grad_(False)


def _step(
    trainer: Trainer,
    loss: Callable[[int], Iterable[Callable[[], Tensor]]],
    step: int,
    rate: float,
    threads: int,
    smaller: Callable[[], None] | None,
) -> float:
    while True:
        try:
            return trainer.step(loss(step), rate, threads)[0]
        except torch.OutOfMemoryError:
            if smaller is None or trainer.added:  # the other processes are a step ahead
                raise
        smaller()  # not inside `except`, where the error keeps the step's tensors alive
