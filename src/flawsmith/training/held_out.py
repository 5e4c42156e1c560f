"""What held-out windows tell of a pretraining run: losses, which conditions are heard, and an image to look at."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flawsmith import images
from flawsmith.diffusion import tensors
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.batch import Batch
from flawsmith.diffusion.denoise import Conditioning, denoise, draw_noise, predict
from flawsmith.training.losses import batch_loss, batch_tensors, drafts_of
from flawsmith.training.pretrain_config import PretrainConfig
from flawsmith.training.shards import Windows

__all__ = ["held_out", "moves", "preview"]


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
