"""The state of a training run: averaged weights, optimiser, resume, metrics. No model, no data, no schedule."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from flawsmith import images, inputs
from flawsmith.diffusion.side_by_side import computed
from flawsmith.errors import FlawsmithError
from flawsmith.training import parallel

STATE = "state.safetensors"
SAVE_SECONDS = 20.0  # between two states: the work a kill costs


class Trainer:
    """AdamW over named parameters, an exponential moving average of them, and a state that survives a kill.

    Everything that a later step depends on is in the state, so that a run killed at any moment and resumed has the
    same bytes as one that was not. `out` receives `state.safetensors` and `metrics.jsonl`. `factors` multiply the
    learning rate of the parameters they name. `shared`: where several processes fit together each has a part of the
    loss, see `parallel`; else each does the same steps. Only the main one writes.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        out: Path,
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        ema: float = 0.999,
        clip: float = 1.0,
        factors: Mapping[str, float] | None = None,
        shared: bool = False,
    ) -> None:
        self.parameters = dict(parameters)
        self.out, self.decay, self.clip, self.shared = Path(out), ema, clip, shared
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.parameters.items():
            groups.setdefault((factors or {}).get(name, 1.0), []).append(parameter)
        self.optimiser = torch.optim.AdamW(
            [{"params": members, "factor": factor} for factor, members in groups.items()],
            lr=learning_rate,
            betas=betas,
            weight_decay=weight_decay,
        )
        self.ema = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.added = False  # whether the last step's gradients are those of several processes
        self.steps = 0
        self.recent: list[tuple[float, float]] = []  # loss and gradient norm of the steps since the last `means`
        self.best: dict[str, Tensor] = {}  # the averages that were judged best
        self.best_loss, self.best_step = math.inf, 0
        self._saved = time.monotonic()

    def step(
        self, parts: Iterable[Callable[[], Tensor]], learning_rate: float, threads: int = 1
    ) -> tuple[float, float]:
        """One optimiser step at the given rate; returns the loss and the gradient's norm before clipping.

        The loss comes in parts that add up to it, each a scalar: `threads` are computed at a time, and no more than
        those need memory. The gradients are added in the order of the parts.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self.optimiser.zero_grad(set_to_none=True)
        value, self.added = 0.0, False
        trained = list(self.parameters.values())
        for loss, gradients in computed((partial(_slope, part, trained) for part in parts), threads):
            value += loss
            for parameter, gradient in zip(trained, gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        if self.shared:
            value = parallel.total(value, next(iter(self.parameters.values())).device)
            self.added = parallel.add_gradients(trained)
        norm = nn.utils.clip_grad_norm_(trained, self.clip)
        self.optimiser.step()
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))  # short runs must not average in the start
        averages = list(self.ema.values())
        torch._foreach_lerp_(averages, [p.detach() for p in trained], 1 - decay)
        self.recent.append((value, float(norm)))
        return self.recent[-1]

    def means(self) -> tuple[float, float]:
        """Mean loss and gradient norm of the steps since the last call."""
        loss, norm = (float(np.mean(values)) for values in zip(*self.recent, strict=True))
        self.recent = []
        return loss, norm

    def judge(self, loss: float, keep: bool) -> None:
        """Note a held-out loss of the averages where it is the lowest so far; with `keep` also those averages."""
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, self.steps
            if keep:
                self.best = {name: value.clone() for name, value in self.ema.items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model holds the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.data, self.ema[name] = self.ema[name], parameter.data

    # -- disk ------------------------------------------------------------------------------------------------------

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        if parallel.main():
            images.append_bytes(self.out / "metrics.jsonl", (json.dumps(line) + "\n").encode())

    @property
    def due(self) -> bool:
        """Whether the last state is so old that it is time for another."""
        return time.monotonic() - self._saved >= SAVE_SECONDS

    def save(self) -> None:
        """Write the state, one file, whole or not at all."""
        self._saved = time.monotonic()
        if not parallel.main():
            return
        stored = {f"parameter|{name}": p.detach() for name, p in self.parameters.items()}
        stored |= {f"ema|{name}": value for name, value in self.ema.items()}
        stored |= {f"best|{name}": value for name, value in self.best.items()}
        for name, parameter in self.parameters.items():
            moments = self.optimiser.state.get(parameter, {})
            stored |= {f"{key}|{name}": torch.as_tensor(value) for key, value in moments.items()}
        numbers = {key: getattr(self, key) for key in ("steps", "recent", "best_loss", "best_step")}
        # one entry: safetensors writes several in any order
        content = to_bytes({key: v.contiguous() for key, v in stored.items()}, {"numbers": json.dumps(numbers)})
        images.write_bytes(self.out / STATE, content)

    def load(self) -> int:
        """Take up the saved state, cut metrics.jsonl back to it, and return its step; 0 when there is none.

        Raises FlawsmithError for a state that is damaged or of other parameters.
        """
        path = self.out / STATE
        if path.is_file():
            try:
                self._take(path)
            except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
                raise FlawsmithError(
                    f"{path} cannot be resumed from ({error}): remove it, and this fit begins again."
                ) from error
        parallel.wait()  # until all have it, before it is written anew
        metrics = self.out / "metrics.jsonl"
        if metrics.is_file() and parallel.main():
            images.write_bytes(metrics, b"".join(_known(metrics.read_bytes(), self.steps)))
        return self.steps

    def _take(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads((file.metadata() or {})["numbers"])
            stored: dict[str, dict[str, Tensor]] = {name: {} for name in self.parameters}
            for entry in file.keys():  # noqa: SIM118 (it is no mapping)
                key, name = entry.split("|", 1)
                stored[name][key] = file.get_tensor(entry).clone()  # not a view of the file, which is replaced
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parts = stored[name]
                parameter.copy_(parts.pop("parameter"))
                self.ema[name].copy_(parts.pop("ema"))
                if "best" in parts:
                    self.best[name] = parts.pop("best").to(parameter.device)
                if parts:
                    moved = {k: v if k == "step" else v.to(parameter.device) for k, v in parts.items()}
                    self.optimiser.state[parameter] = moved
        self.steps, self.best_step = int(numbers["steps"]), int(numbers["best_step"])
        self.best_loss, self.recent = float(numbers["best_loss"]), [(a, b) for a, b in numbers["recent"]]


def _slope(part: Callable[[], Tensor], trained: list[nn.Parameter]) -> tuple[float, tuple[Tensor | None, ...]]:
    """The loss of a part of a step, and its gradient by each parameter; None where it has none."""
    loss = part()
    return float(loss.detach()), torch.autograd.grad(loss, trained, allow_unused=True)


def _known(content: bytes, steps: int) -> list[bytes]:
    """The lines of a metrics.jsonl up to a step; what is no whole line of one, as a kill leaves, is dropped."""
    kept = []
    for line in content.splitlines(keepends=True):
        try:
            if line.endswith(b"\n") and inputs.parse_json(line)["step"] <= steps:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    return kept
