"""The state of a training run: averaged weights, optimiser, resume, metrics. No model, no data, no schedule."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class Trainer:
    """AdamW over named parameters, an exponential moving average of them, and a state that survives a kill.

    `out` receives `state/` (parameters, averages, moments as safetensors) and `metrics.jsonl`. `factors` multiply the
    learning rate of the parameters they name.
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
    ) -> None:
        self.parameters = dict(parameters)
        self.out, self.decay, self.clip = Path(out), ema, clip
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
        self.steps = 0

    def step(self, loss: Tensor | Iterable[Tensor], learning_rate: float) -> tuple[float, float]:
        """One optimiser step at the given rate; returns the loss and the gradient's norm before clipping.

        A loss in parts that add up to it needs the memory of one part only.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self.optimiser.zero_grad(set_to_none=True)
        value = 0.0
        for part in (loss,) if isinstance(loss, Tensor) else loss:
            part.backward()
            value += float(part.detach())
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.clip)
        self.optimiser.step()
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))  # short runs must not average in the start
        averages = list(self.ema.values())
        torch._foreach_lerp_(averages, [p.detach() for p in self.parameters.values()], 1 - decay)
        return value, float(norm)

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
        with (self.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write the state beside the old one, then swap: a kill at any moment leaves one whole state."""
        fresh, old, state = (self.out / name for name in ("state.new", "state.old", "state"))
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        moments = {
            f"{name}|{key}": value if isinstance(value, Tensor) else torch.tensor(value)
            for name, parameter in self.parameters.items()
            for key, value in self.optimiser.state.get(parameter, {}).items()
        }
        save_file({k: p.detach().contiguous() for k, p in self.parameters.items()}, fresh / "parameters.safetensors")
        save_file({k: p.contiguous() for k, p in self.ema.items()}, fresh / "ema.safetensors")
        save_file(moments, fresh / "optimiser.safetensors")
        (fresh / "state.json").write_text(json.dumps({"step": self.steps}) + "\n", encoding="utf-8")
        shutil.rmtree(old, ignore_errors=True)
        if state.exists():
            os.replace(state, old)
        os.replace(fresh, state)
        shutil.rmtree(old, ignore_errors=True)

    def load(self) -> int:
        """Take up the saved state, cut metrics.jsonl back to it, and return its step; 0 when there is none."""
        state = next((p for p in (self.out / "state", self.out / "state.old") if (p / "state.json").is_file()), None)
        if state is not None:
            stored, averaged = load_file(state / "parameters.safetensors"), load_file(state / "ema.safetensors")
            moments = load_file(state / "optimiser.safetensors")
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(stored[name])
                    self.ema[name].copy_(averaged[name])
                    keys = {k.rsplit("|", 1)[1]: v for k, v in moments.items() if k.rsplit("|", 1)[0] == name}
                    keys = {k: v if k == "step" else v.to(parameter.device) for k, v in keys.items()}
                    if keys:
                        self.optimiser.state[parameter] = keys
            self.steps = int(json.loads((state / "state.json").read_text(encoding="utf-8"))["step"])
        metrics = self.out / "metrics.jsonl"
        if metrics.is_file():
            lines = metrics.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= self.steps]
            metrics.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        return self.steps
