"""Pretraining of the compact backbone: denoiser, text encoder, reference encoder and reader together, on
shards of windows.

One function, one config. Every step is a function of (seed, step), so a run that was stopped and resumed
gives the same weights.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flawsmith import processes
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.batch import Batch
from flawsmith.diffusion.compact.clean import CleanUNet
from flawsmith.errors import FlawsmithError
from flawsmith.records import Progress
from flawsmith.training.held_out import held_out, moves, preview
from flawsmith.training.losses import batch_loss, stratified_steps
from flawsmith.training.pretrain_config import MAY_CHANGE, PretrainConfig
from flawsmith.training.shards import Windows
from flawsmith.training.spread import measure_spectrum, measure_spread
from flawsmith.training.trainer import Trainer

__all__ = ["pretrain"]

_maker: list[Callable[[int], Batch]] = []  # in a process that puts batches together: what makes them


def _parameters(backbone: Backbone) -> dict[str, nn.Parameter]:
    return {f"{part}.{name}": p for part, module in backbone.modules().items() for name, p in module.named_parameters()}


def _rate(step: int, config: PretrainConfig) -> float:
    """Linear warm-up, constant, then down to 2 % in the last `decay` of the steps.

    Constant in between, so that a run may be made longer or shorter (another `steps`) as long as it has not
    begun to decay.
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    falling = max(1.0, config.decay * config.steps)
    share = min(1.0, max(0.0, (step - (config.steps - falling)) / falling))
    return config.learning_rate * (0.02 + 0.98 * (1 - math.sqrt(share)))


def pretrain(
    config: PretrainConfig,
    shards: Sequence[Path | str],
    out: Path | str,
    *,
    text: Path | None = None,
    stop_after: int | None = None,
    start_from: Path | str | None = None,
    device: str = "cpu",
    workers: int = 0,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train on the shards and write `out/backbone` (averaged weights, fp16), `out/metrics.jsonl`,
    `out/state.safetensors` and previews.

    Calling it again resumes from the state. `stop_after` ends this call at that step, `minutes` after that time,
    without changing the schedule. `workers` processes put the same batches together ahead of time. `start_from` is a
    compact folder whose weights a *new* run starts with, of any window size; `text` the folder of the word table. Noise
    and windows are the same on every device. Returns `out/backbone`.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    wanted = _resumable(config, out / "pretrain.json")
    windows = Windows(shards, config.mix, config.recipe.size)
    backbone = _fresh(config, windows, text, start_from, device)
    (out / "pretrain.json").write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    trainer = Trainer(
        _parameters(backbone),
        out,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        ema=config.ema,
        clip=config.clip,
    )
    last = config.steps if stop_after is None else min(stop_after, config.steps)
    table = backbone.training_steps() if config.even_in == "noise" else None
    begun = time.monotonic()
    first = trainer.load()
    for step, batch in enumerate(_batches(windows, config, range(first, last), workers), first):
        rate = _learn(trainer, backbone, batch, config, step, table)
        done = step + 1
        late = minutes is not None and time.monotonic() - begun > 60 * minutes
        saving = done % config.save_every == 0 or done == last or late
        if done % 50 == 0 or saving:
            line = _figures(trainer, done, rate, time.monotonic() - begun)
            if done % config.held_out_every == 0 or done == config.steps:
                with trainer.averaged():
                    figures = held_out(backbone, windows, config)
                    if isinstance(backbone.unet, CleanUNet):
                        figures |= moves(backbone, windows, config)
                line |= {k: round(v, 5) for k, v in figures.items()}
            trainer.log(line)
            if progress is not None:
                progress("", done, config.steps, line)
        if done % config.preview_every == 0:
            with trainer.averaged():
                preview(backbone, windows, out / "previews" / f"{done:06d}.png")
        if saving or trainer.due:
            trainer.save()
        if saving:
            with trainer.averaged():
                backbone.info = {"recipe": asdict(config.recipe), "steps": done, "seed": config.seed}
                backbone.info["windows"] = len(windows)
                _export(backbone, out / "backbone")
        if late:
            break
    return out / "backbone"


def _batches(windows: Windows, config: PretrainConfig, steps: range, workers: int) -> Iterator[Batch]:
    """The batches of some steps, in order; put together here, or ahead of time by `workers` processes.

    Not by torch's DataLoader: it leaves its handler of SIGCHLD behind in this process for good. Raises FlawsmithError
    where the system ended one of them.
    """
    batch = partial(windows.batch, config.batch_size, config.seed)
    if not workers:
        yield from map(batch, steps)
        return
    pool = ProcessPoolExecutor(workers, processes.spawn, _begin, (batch,))
    waiting = deque[Future[Batch]]()
    try:
        for step in steps:
            with processes.starting():
                waiting.append(pool.submit(_ahead, step))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise FlawsmithError(
            f"The system ended one of {workers} processes, most likely for want of memory: give fewer --workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(batch: Callable[[int], Batch]) -> None:
    """To be called first in a process that puts batches together."""
    processes.serve()
    _maker.append(batch)


def _ahead(step: int) -> Batch:
    return _maker[0](step)


def _resumable(config: PretrainConfig, written: Path) -> dict[str, Any]:
    """The settings as they are written down; refused where the folder holds a run with others."""
    wanted: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    before = json.loads(written.read_text(encoding="utf-8")) if written.exists() else wanted
    if changed := sorted(k for k in {*before, *wanted} - MAY_CHANGE if before.get(k) != wanted.get(k)):
        raise FlawsmithError(
            f"{written.parent} holds a run with other settings ({', '.join(changed)}): "
            "resume with the same, or choose another folder."
        )
    return wanted


def _fresh(
    config: PretrainConfig, windows: Windows, text: Path | None, start_from: Path | str | None, device: str
) -> Backbone:
    """A backbone that is to learn on a device, from nothing or from what another has learned, its spread measured."""
    backbone = Backbone.compact(config.recipe, config.seed, text)
    if start_from is not None:
        _take_weights(backbone, Backbone.from_pretrained(start_from))
    if windows.size != backbone.size:
        raise FlawsmithError(
            f"Windows are {windows.size} px, the recipe wants {backbone.size}: make shards of that size."
        )
    if isinstance(backbone.unet, CleanUNet):
        backbone.unet.spread.copy_(measure_spread(backbone, windows))
    backbone.place(device)
    if not isinstance(backbone.unet, CleanUNet):
        backbone.unet.spectrum.copy_(measure_spectrum(backbone, windows))
    for module in backbone.modules().values():
        module.train()
    return backbone


def _learn(
    trainer: Trainer, backbone: Backbone, batch: Batch, config: PretrainConfig, step: int, table: Tensor | None
) -> float:
    """One step, a function of (seed, step); returns its learning rate. `table`: see losses.stratified_steps."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    t = stratified_steps(config.batch_size, generator, table)
    side = int(backbone.unet.config.sample_size)
    noise = torch.randn((config.batch_size, backbone.latent_channels, side, side), generator=generator)
    rate = _rate(step, config)
    trainer.step([lambda: batch_loss(backbone, batch, t, noise, config).mean()], rate)
    return rate


def _figures(trainer: Trainer, done: int, rate: float, seconds: float) -> dict[str, Any]:
    """A line of metrics.jsonl: the means since the last one."""
    value, norm = trainer.means()
    figures = {"step": done, "loss": round(value, 5), "norm": round(norm, 3), "lr": rate}
    return {**figures, "seconds": round(seconds, 1)}


def _take_weights(backbone: Backbone, other: Backbone) -> None:
    """Copy all parameters; the spread is measured anew."""
    for name, module in backbone.modules().items():
        with torch.no_grad():
            stored = dict(other.modules()[name].named_parameters())
            for key, parameter in module.named_parameters():
                if key not in stored or stored[key].shape != parameter.shape:
                    raise FlawsmithError(f"{other.source}: {name}.{key} is of another recipe; start from its own kind.")
                parameter.copy_(stored[key])


def _export(backbone: Backbone, folder: Path) -> None:
    fresh, old = folder.with_suffix(".new"), folder.with_suffix(".old")
    for path in (fresh, old):
        shutil.rmtree(path, ignore_errors=True)
    backbone.save_pretrained(fresh)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
