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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from flawsmith import images
from flawsmith.diffusion import tensors
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.batch import Batch
from flawsmith.diffusion.compact.clean import CleanUNet
from flawsmith.diffusion.compact.recipe import CompactConfig
from flawsmith.diffusion.denoise import Conditioning, denoise, draw_noise, predict
from flawsmith.errors import FlawsmithError
from flawsmith.processes import spawn
from flawsmith.records import Progress
from flawsmith.training.losses import batch_loss, batch_tensors, drafts_of, stratified_steps
from flawsmith.training.shards import Mix, Windows
from flawsmith.training.spread import measure_spectrum, measure_spread
from flawsmith.training.trainer import Trainer

__all__ = ["PretrainConfig", "pretrain", "read_config"]


MAY_CHANGE = {"steps", "held_out_every", "held_out", "save_every", "preview_every"}  # between a run and its resumption


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides the weights, apart from the shards."""

    steps: int = 12_000
    batch_size: int = 16
    learning_rate: float = 4e-4
    warmup: int = 300
    decay: float = 0.25  # last share of the steps, in which the rate falls to zero
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    outside: float = 0.05  # weight of the loss outside the mask
    colour: float = 4.0  # extra weight of errors in colour: small in numbers, but seen at once
    align: float = 0.05  # weight of "a reference says what its caption says"
    edges: float = 0.25  # weight of the error's gradient: fights the 4 px grid of pixel-unshuffle
    snr_cap: float = 5.0  # above this signal-to-noise ratio a step counts less: there the v loss only sees grain
    even_in: Literal["time", "noise"] = "noise"  # how training steps are spread, see noise_levels
    min_area: int = 64  # pixels; the masked loss is divided by the mask's area, but not by less than this
    bf16: bool = True
    held_out_every: int = 500
    held_out: int = 64  # windows per held-out figure
    save_every: int = 500
    preview_every: int = 1000
    mix: Mix = field(default_factory=Mix)
    recipe: CompactConfig = field(default_factory=CompactConfig)


def read_config(path: Path | str, **changes: Any) -> PretrainConfig:
    """A JSON file of PretrainConfig's fields (mix and recipe nested), with `changes` on top."""
    given = {**json.loads(Path(path).read_text(encoding="utf-8")), **changes}
    given["mix"] = Mix(**given.get("mix", {}))
    recipe: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.get("recipe", {}).items()}
    given["recipe"] = CompactConfig(**recipe)
    try:
        return PretrainConfig(**given)
    except TypeError as error:
        raise FlawsmithError(
            f"{path}: {error}; known fields: {', '.join(PretrainConfig.__dataclass_fields__)}."
        ) from error


@torch.no_grad()
def held_out(backbone: Backbone, windows: Windows, config: PretrainConfig) -> dict[str, float]:
    """Loss on held-out windows with the right, a wrong and no caption or reference: equal figures mean an
    unused condition.

    Captions are swapped with no reference given and references with no caption, so that neither can stand in
    for the other. "detail" is the loss with both at the levels that decide fine structure.
    """
    size = 16
    sums: dict[str, list[float]] = {}
    for part in range(max(1, config.held_out // size)):
        batch = windows.batch(size, config.seed + 1, part, split="val", augment=False)
        shape = (backbone.latent_channels, backbone.unet.config.sample_size, backbone.unet.config.sample_size)
        noise = draw_noise(range(part * size, (part + 1) * size), shape)
        t = torch.linspace(350, 990, size).long()  # where the image is decided, not its grain
        nothing: list[Any] = [None] * size
        shift = size // 2
        wrong = batch.captions[shift:] + batch.captions[:shift]
        others = batch.references[shift:] + batch.references[:shift]
        cases = {
            "text": (batch.captions, nothing),
            "text_wrong": (wrong, nothing),
            "none": ([""] * size, nothing),
            "reference": ([""] * size, batch.references),
            "reference_wrong": ([""] * size, others),
            "both": (batch.captions, batch.references),
        }
        for name, (captions, references) in cases.items():
            given = Batch(batch.image, batch.clean, batch.mask, list(captions), list(references))
            sums.setdefault(name, []).extend(batch_loss(backbone, given, t, noise, config).tolist())
        fine = torch.linspace(2, 200, size).long()
        sums.setdefault("detail", []).extend(batch_loss(backbone, batch, fine, noise, config).tolist())
    return {f"held_out/{name}": float(np.mean(values)) for name, values in sums.items()}


@torch.no_grad()
def moves(backbone: Backbone, windows: Windows, config: PretrainConfig, size: int = 32) -> dict[str, float]:
    """How far the predicted image moves inside the holes, in grey levels, when one way of being told is silenced:
    cross-attention (words and references are then pooled only), the pooled context, the references' tokens, the draft;
    "all" for all of them. A way that moves nothing is not used, and what a method writes there is not heard.
    """
    batch = windows.batch(size, config.seed + 2, 0, split="val", augment=False)
    image, clean, mask, references = batch_tensors(batch, backbone.device)
    side = int(backbone.unet.config.sample_size)
    t = torch.linspace(350, 990, size).long().to(backbone.device)
    noise = draw_noise(range(size), (backbone.latent_channels, side, side), backbone.device)
    noisy = backbone.scheduler.add_noise(backbone.encode(image), noise, t)
    told, bare = backbone.inpaint_input(clean, mask, drafts_of(batch)), backbone.inpaint_input(clean, mask)
    context, null = backbone.context(batch.captions, references), backbone.null(size).context
    words = backbone.context(batch.captions)

    def painted(attended: Tensor, pooled: Tensor, extra: Tensor | None) -> Tensor:
        backbone.unet.pooled_from = pooled
        v = predict(backbone.unet, noisy, t, Conditioning(attended), extra)
        backbone.unet.pooled_from = None
        signal = backbone.scheduler.alphas_cumprod.to(t.device)[t][:, None, None, None]
        return backbone.decode(signal.sqrt() * noisy - (1 - signal).sqrt() * v)

    whole = painted(context, context, told)
    silenced = {
        "attention": painted(null, context, told),
        "pooled": painted(context, null, told),
        "reference": painted(words, words, told),
        "draft": painted(context, context, bare),
        "all": painted(null, null, bare),
    }
    area = 3 * mask.sum().clamp_min(1)
    return {f"moves/{k}": 127.5 * float(((x - whole).abs() * mask).sum() / area) for k, x in silenced.items()}


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


# ---- the run -------------------------------------------------------------------------------------------------------


def _constant(given: Conditioning, t: Tensor) -> Conditioning:
    return given


def preview(backbone: Backbone, windows: Windows, path: Path, seed: int = 7, count: int = 8) -> None:
    """Held-out windows as an image: hole, real, reference, draft, then painted from text, from reference, from draft
    and reference, from nothing; one row each.
    """
    batch = windows.batch(count, seed, 0, split="val", augment=False)
    image, clean, mask, references = batch_tensors(batch, backbone.device)
    side = image.shape[2] // backbone.factor
    noise = draw_noise(range(count), (backbone.latent_channels, side, side), backbone.device)
    bare, told = backbone.inpaint_input(clean, mask), backbone.inpaint_input(clean, mask, drafts_of(batch))
    with torch.no_grad():
        null = backbone.null(count)
        shown = backbone.context([""] * count, references)
        ways = [(backbone.context(batch.captions), bare), (shown, bare), (shown, told), (null.context, bare)]
    columns = [tensors.to_images(clean * (1 - mask)), tensors.to_images(image)]
    for context, extra in ways:
        given = Conditioning(context)
        made = denoise(
            backbone.unet,
            backbone.sampler("dpm++"),
            partial(_constant, given),
            noise,
            extra=extra,
            unconditional=partial(_constant, null),
            guidance_scale=1.5,
            timesteps=backbone.timesteps(10),
        )
        painted = backbone.decode(made)
        columns.append(tensors.to_images(mask * painted + (1 - mask) * clean))
    black = np.zeros_like(batch.image[0])
    columns.insert(2, np.stack([r[0] if r is not None else black for r in batch.references]))
    columns.insert(3, np.stack([d if d is not None else black for d in batch.drafts]))
    images.write_image(path, np.concatenate([np.concatenate(list(c), 0) for c in columns], 1))


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


class _Steps(torch.utils.data.Dataset[Batch]):
    """The batches by number of step, for processes that share the windows' memory."""

    def __init__(self, windows: Windows, config: PretrainConfig) -> None:
        self.windows, self.config = windows, config

    def __getitem__(self, step: int) -> Batch:
        return self.windows.batch(self.config.batch_size, self.config.seed, step)


def _batches(windows: Windows, config: PretrainConfig, steps: range, workers: int) -> Iterator[Batch]:
    """The batches of some steps, in order; put together here, or ahead of time by `workers` processes."""
    found = _Steps(windows, config)
    if not workers:
        return (found[step] for step in steps)
    made = torch.utils.data.DataLoader(
        found, batch_size=None, sampler=steps, num_workers=workers, prefetch_factor=4, multiprocessing_context=spawn
    )
    return iter(made)


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
