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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flawsmith import images, tensors
from flawsmith.diffusion import compact
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.compact import CompactConfig
from flawsmith.diffusion.denoise import Conditioning, autocast, denoise, draw_noise, predict
from flawsmith.diffusion.shards import Batch, Mix, Windows
from flawsmith.errors import FlawsmithError

__all__ = ["PretrainConfig", "batch_loss", "pretrain", "read_config"]


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


# ---- loss ----------------------------------------------------------------------------------------------------------


def _tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor] | None]]:
    image, clean = tensors.from_images(batch.image), tensors.from_images(batch.clean)
    mask = tensors.from_masks(batch.mask)
    references = [
        None if r is None else (tensors.from_images([r[0]])[0], tensors.from_masks([r[1]])[0]) for r in batch.references
    ]
    return image, clean, mask, references


def masked_loss(
    error: Tensor, mask: Tensor, outside: float, edges: float, min_area: int, colour: float = 0.0
) -> Tensor:
    """Per-sample loss (B,) of a pixel-space error (B, 3, S, S): mean square inside the mask, a little of the
    rest, and of its edges.

    The square of the error's differences between neighbours costs a 4 px grid, which the plain square hardly
    sees.
    """
    square = error.square().mean(1, keepdim=True)
    if colour:
        square = square + colour * (error - error.mean(1, keepdim=True)).square().mean(1, keepdim=True)
    area = mask.sum((1, 2, 3)).clamp_min(min_area)
    loss = (square * mask).sum((1, 2, 3)) / area + outside * (square * (1 - mask)).mean((1, 2, 3))
    if edges:
        for axis in (2, 3):
            step = error.diff(dim=axis).square().mean(1, keepdim=True)
            inside = mask.narrow(axis, 1, mask.shape[axis] - 1) * mask.narrow(axis, 0, mask.shape[axis] - 1)
            loss = loss + edges * (step * inside).sum((1, 2, 3)) / area
    return loss


def measure_spectrum(backbone: Backbone, windows: Windows, batches: int = 24) -> Tensor:
    """Standard deviation (C, S, S) of every cosine wave of what the hole hides, per unit of area.

    That is the picture under the mask minus the mean of its surroundings: the surroundings are given, so the waves of
    the whole window would be the wrong prior. Windows differ a hundredfold in contrast and colour; the level of a
    channel is between their typical and their mean power, since the mean alone lets colour noise through in the many
    windows without colour. No wave counts more than its channel: the few coarsest ones would otherwise rule the
    gradient. Waves that hardly occur get half a grey level, the rounding of 8-bit pictures.
    """
    shape, mean, typical, total = torch.zeros(1), torch.zeros(1), torch.zeros(1), 0.0
    for part in range(batches):
        batch = windows.batch(64, 99, part)
        latents = backbone.encode(tensors.from_images(batch.image))
        cells = backbone.encode_mask(tensors.from_masks(batch.mask)).mean(1, keepdim=True)  # (B, 1, S, S) in 0..1
        around = (latents * (1 - cells)).sum((2, 3), keepdim=True) / (1 - cells).sum((2, 3), keepdim=True).clamp_min(1)
        power = backbone.unet.waves((latents - around) * cells).square()
        area = cells.square().mean((1, 2, 3), keepdim=True)  # (B, 1, 1, 1); large holes count by their area
        power = power / area  # (B, C, S, S)
        level = power.mean((2, 3), keepdim=True).clamp_min((0.5 / 127.5) ** 2)
        shape = shape + (area * power / level).sum(0)
        mean, typical = mean + (area * level).sum(0), typical + (area * level.log()).sum(0)
        total += float(area.sum())
    level = ((mean / total) * (typical / total).exp()).sqrt()  # (C, 1, 1)
    return (level * (shape / total).clamp_max(1.0)).sqrt().clamp_min(0.5 / 127.5)


def step_weight(alphas_cumprod: Tensor, t: Tensor, cap: float) -> Tensor:
    """Weight (B,) of steps t (B,): 1 up to a signal-to-noise ratio of `cap`, then falling so that an error of the
    clean picture counts no more than at the cap. Unlike min-SNR (Hang et al. 2023) pure noise keeps its full
    weight, where the picture is composed.
    """
    signal = alphas_cumprod[t]
    return (1 + cap) * (1 - signal).clamp_max(1 / (1 + cap))  # 1 / (SNR + 1) is 1 - alpha_bar


class LossTerms(Protocol):
    """The fields of a config that `batch_loss` reads; see PretrainConfig."""

    @property
    def outside(self) -> float: ...
    @property
    def edges(self) -> float: ...
    @property
    def snr_cap(self) -> float: ...
    @property
    def min_area(self) -> int: ...
    @property
    def colour(self) -> float: ...
    @property
    def bf16(self) -> bool: ...


def alignment(backbone: Backbone, batch: Batch, context: Tensor) -> Tensor | None:
    """How far the first reference token (context (B, L + Q, D)) is from the sentence token of the caption it stands for.

    Only for samples whose words were dropped, where the reader cannot copy them. The denoiser learns words early; a
    reference that speaks their language is used at once, while from the denoising loss alone it was ignored for
    thousands of steps. The part of BLIP-2's image-text contrast in its Q-Former's first stage.
    """
    given = enumerate(zip(batch.references, batch.captions, batch.words, strict=True))
    rows = [i for i, (r, said, words) in given if r is not None and not said and words]
    if not rows:
        return None
    with torch.no_grad():
        wanted = backbone.encode_text([batch.words[i] for i in rows])[:, 0].float()
    first = context.shape[1] - backbone.reader.queries.shape[0]
    return (context[rows, first].float() - wanted).square().mean()


def batch_loss(backbone: Backbone, batch: Batch, t: Tensor, noise: Tensor, config: LossTerms) -> Tensor:
    """Per-sample loss (B,) of predicting v at steps t (B,) with the given noise (B, C, h, w)."""
    image, clean, mask, references = _tensors(batch)
    latents = backbone.encode(image)
    noisy = backbone.scheduler.add_noise(latents, noise, t)
    target = backbone.scheduler.get_velocity(latents, noise, t)
    with autocast("cpu", config.bf16):
        context = backbone.context(batch.captions, references)
        output = predict(backbone.unet, noisy, t, Conditioning(context), backbone.inpaint_input(clean, mask))
        aligned = alignment(backbone, batch, context) if config.align and batch.words else None
    error = backbone.decode(output - target)
    loss = masked_loss(error, mask, config.outside, config.edges, config.min_area, config.colour)
    loss = loss * step_weight(backbone.scheduler.alphas_cumprod, t, config.snr_cap)
    return loss if aligned is None else loss + config.align * aligned


@torch.no_grad()
def held_out(backbone: Backbone, windows: Windows, config: PretrainConfig) -> dict[str, float]:
    """Loss on held-out windows with the right, a wrong and no caption or reference: equal figures mean an
    unused condition.

    Captions are swapped with no reference given and references with no caption, so that neither can stand in
    for the other.
    """
    size = 16
    sums: dict[str, list[float]] = {}
    for part in range(max(1, config.held_out // size)):
        batch = windows.batch(size, config.seed + 1, part, split="val", augment=False)
        shape = (backbone.latent_channels, backbone.unet.config.sample_size, backbone.unet.config.sample_size)
        noise = draw_noise(range(part * size, (part + 1) * size), shape)
        t = torch.linspace(350, 990, size).long()  # where the picture is decided, not its grain
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
    return {f"held_out/{name}": float(np.mean(values)) for name, values in sums.items()}


# ---- state ---------------------------------------------------------------------------------------------------------


def _parameters(backbone: Backbone) -> dict[str, nn.Parameter]:
    return {f"{part}.{name}": p for part, module in backbone.modules().items() for name, p in module.named_parameters()}


def _save_state(
    out: Path, step: int, parameters: dict[str, nn.Parameter], ema: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> None:
    """Write the state beside the old one, then swap: a kill at any moment leaves one whole state."""
    fresh, old, state = out / "state.new", out / "state.old", out / "state"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    moments: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        for key, value in optimiser.state.get(parameter, {}).items():
            moments[f"{name}|{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    save_file({k: p.detach().contiguous() for k, p in parameters.items()}, str(fresh / "parameters.safetensors"))
    save_file(ema, str(fresh / "ema.safetensors"))
    save_file(moments, str(fresh / "optimiser.safetensors"))
    (fresh / "state.json").write_text(json.dumps({"step": step}) + "\n", encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if state.exists():
        os.replace(state, old)
    os.replace(fresh, state)
    shutil.rmtree(old, ignore_errors=True)


def _load_state(
    out: Path, parameters: dict[str, nn.Parameter], ema: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> int:
    state = next((p for p in (out / "state", out / "state.old") if (p / "state.json").exists()), None)
    if state is None:
        return 0
    stored, averaged = load_file(str(state / "parameters.safetensors")), load_file(str(state / "ema.safetensors"))
    moments = load_file(str(state / "optimiser.safetensors"))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(stored[name])
            ema[name].copy_(averaged[name])
            keys = {k.split("|")[1]: v for k, v in moments.items() if k.split("|")[0] == name}
            if keys:
                optimiser.state[parameter] = keys
    return int(json.loads((state / "state.json").read_text(encoding="utf-8"))["step"])


class _Averaged:
    """Run a block with the averaged weights in place of the trained ones."""

    def __init__(self, parameters: dict[str, nn.Parameter], ema: dict[str, Tensor]) -> None:
        self.parameters, self.ema = parameters, ema

    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.data, self.ema[name] = self.ema[name], parameter.data

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()


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
    """Held-out windows as a picture: hole, real, from text, from reference, from nothing; one row each."""
    batch = windows.batch(count, seed, 0, split="val", augment=False)
    image, clean, mask, references = _tensors(batch)
    noise = draw_noise(
        range(count), (backbone.latent_channels, image.shape[2] // backbone.factor, image.shape[3] // backbone.factor)
    )
    extra = backbone.inpaint_input(clean, mask)
    nothing = [None] * count
    with torch.no_grad():
        null = backbone.null(count)
        contexts = [
            backbone.context(batch.captions),
            backbone.context([""] * count, references),
            backbone.context([""] * count, nothing),
        ]
    columns = [tensors.to_images(clean * (1 - mask)), tensors.to_images(image)]
    for context in contexts:
        given = Conditioning(context)
        made = denoise(
            backbone.unet,
            backbone.sampler("dpm++"),
            partial(_constant, given),
            noise,
            extra=extra,
            unconditional=partial(_constant, null),
            guidance_scale=1.5,
            num_inference_steps=10,
        )
        painted = backbone.decode(made)
        columns.append(tensors.to_images(mask * painted + (1 - mask) * clean))
    shown = [r[0] if r is not None else np.zeros_like(batch.image[0]) for r in batch.references]
    columns.insert(2, np.stack(shown))
    images.write_image(path, np.concatenate([np.concatenate(list(c), 0) for c in columns], 1))


def pretrain(
    config: PretrainConfig,
    shards: Sequence[Path | str],
    out: Path | str,
    *,
    text: Path | None = None,
    stop_after: int | None = None,
    start_from: Path | str | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train on the shards and write `out/backbone` (averaged weights, fp16), `out/metrics.jsonl`, `out/state`
    and previews.

    Calling it again resumes from `out/state`. `stop_after` ends this call at that step without changing the
    schedule; `start_from` is a compact folder whose weights a *new* run starts with; `text` the folder of the
    word table. Returns `out/backbone`.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    written = out / "pretrain.json"
    wanted = json.loads(json.dumps(asdict(config)))
    before = json.loads(written.read_text(encoding="utf-8")) if written.exists() else wanted
    if changed := sorted(k for k in {*before, *wanted} - MAY_CHANGE if before.get(k) != wanted.get(k)):
        raise FlawsmithError(
            f"{out} holds a run with other settings ({', '.join(changed)}): "
            "resume with the same, or choose another folder."
        )
    windows = Windows(shards, config.mix)
    if start_from is not None:
        backbone = Backbone.from_pretrained(start_from)
        for module in backbone.modules().values():
            module.requires_grad_(True)
    else:
        backbone = compact.build(config.recipe, config.seed, text)
    if windows.size != backbone.size:
        raise FlawsmithError(
            f"Windows are {windows.size} px, the recipe wants {backbone.size}: make shards of that size."
        )
    backbone.unet.spectrum.copy_(measure_spectrum(backbone, windows))
    written.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    parameters = _parameters(backbone)
    ema = {name: p.detach().clone() for name, p in parameters.items()}
    optimiser = torch.optim.AdamW(
        parameters.values(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    first = _load_state(out, parameters, ema, optimiser)
    metrics = out / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    metrics.write_text("".join(f"{x}\n" for x in lines if json.loads(x)["step"] <= first), encoding="utf-8")
    last = config.steps if stop_after is None else min(stop_after, config.steps)
    side = int(backbone.unet.config.sample_size)
    shape = (config.batch_size, backbone.latent_channels, side, side)
    for module in backbone.modules().values():
        module.train()
    recent: list[float] = []
    norms: list[float] = []
    begun = time.monotonic()
    for step in range(first, last):
        batch = windows.batch(config.batch_size, config.seed, step)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        # one step from each of B equal parts of the schedule: less spread between batches than independent draws
        place = (
            torch.randperm(config.batch_size, generator=generator) + torch.rand(config.batch_size, generator=generator)
        ) / config.batch_size
        t = (place * 1000).long().clamp(0, 999)
        noise = torch.randn(shape, generator=generator)
        rate = _rate(step, config)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = batch_loss(backbone, batch, t, noise, config).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters.values(), config.clip)
        optimiser.step()
        done = step + 1
        decay = min(config.ema, (1 + done) / (10 + done))
        averages, current = list(ema.values()), [p.detach() for p in parameters.values()]
        torch._foreach_lerp_(averages, current, 1 - decay)
        recent.append(loss.item())
        norms.append(float(norm))
        saving = done % config.save_every == 0 or done == last
        if done % 50 == 0 or saving:
            line: dict[str, Any] = {
                "step": done,
                "loss": round(float(np.mean(recent)), 5),
                "norm": round(float(np.mean(norms)), 3),
                "lr": rate,
            }
            line["seconds"] = round(time.monotonic() - begun, 1)
            recent, norms = [], []
            if done % config.held_out_every == 0 or done == config.steps:
                with _Averaged(parameters, ema):
                    line |= {k: round(v, 5) for k, v in held_out(backbone, windows, config).items()}
            with metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if progress is not None:
                progress(line)
        if done % config.preview_every == 0:
            with _Averaged(parameters, ema):
                preview(backbone, windows, out / "previews" / f"{done:06d}.png")
        if saving:
            _save_state(out, done, parameters, ema, optimiser)
            with _Averaged(parameters, ema):
                backbone.info = {
                    "recipe": asdict(config.recipe),
                    "steps": done,
                    "seed": config.seed,
                    "windows": len(windows),
                }
                _export(backbone, out / "backbone")
    return out / "backbone"


def _export(backbone: Backbone, folder: Path) -> None:
    fresh, old = folder.with_suffix(".new"), folder.with_suffix(".old")
    for path in (fresh, old):
        shutil.rmtree(path, ignore_errors=True)
    backbone.save_pretrained(fresh)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
