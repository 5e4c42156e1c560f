"""What the denoiser is trained on: v-prediction judged in pixels, by the area of the hole, at stratified steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from flawsmith import tensors
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.denoise import Conditioning, autocast, predict
from flawsmith.diffusion.shards import Batch

__all__ = ["LossTerms", "batch_loss", "masked_loss", "step_weight", "stratified_steps"]


def batch_tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor] | None]]:
    """A batch as tensors: image and clean (B, 3, S, S) in [-1, 1], mask (B, 1, S, S), references or None per row."""
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


def step_weight(alphas_cumprod: Tensor, t: Tensor, cap: float) -> Tensor:
    """Weight (B,) of steps t (B,): 1 up to a signal-to-noise ratio of `cap`, then falling so that an error of the
    clean picture counts no more than at the cap. Unlike min-SNR (Hang et al. 2023) pure noise keeps its full
    weight, where the picture is composed.
    """
    signal = alphas_cumprod[t]
    return (1 + cap) * (1 - signal).clamp_max(1 / (1 + cap))  # 1 / (SNR + 1) is 1 - alpha_bar


def stratified_steps(count: int, generator: torch.Generator) -> Tensor:
    """One step from each of `count` equal parts of the schedule, (count,) long: less spread between batches."""
    place = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    return (place * 1000).long().clamp(0, 999)


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
    def align(self) -> float: ...
    @property
    def bf16(self) -> bool: ...


def alignment(backbone: Backbone, batch: Batch, visual: Sequence[Tensor | None]) -> Tensor | None:
    """1 - cosine between what the references are read to say and their captions in the frozen word table.

    visual: per sample the reference encoder's tokens (65, E), or None. A reference that speaks the language of words is
    used early, while from the denoising loss alone it was ignored for thousands of steps. The part of BLIP-2's
    image-text contrast in its Q-Former's first stage.
    """
    pairs = [(v[0], words) for v, words in zip(visual, batch.words, strict=True) if v is not None and words]
    if not pairs:
        return None
    wanted = backbone.text_encoder.table.pool(*backbone.tokenizer([words for _, words in pairs]))  # (N, 128)
    found = backbone.reference.say(torch.stack([first for first, _ in pairs]))
    return (1 - nn.functional.cosine_similarity(found.float(), wanted, dim=-1)).mean()


def batch_loss(
    backbone: Backbone,
    batch: Batch,
    t: Tensor,
    noise: Tensor,
    config: LossTerms,
    condition: Callable[[Batch, Tensor], Conditioning] | None = None,
) -> Tensor:
    """Per-sample loss (B,) of the denoiser's prediction at steps t (B,) with the given noise (B, C, h, w).

    `condition(batch, t)` is a method's own conditioning; without one, the backbone's words and references are.
    """
    image, clean, mask, references = batch_tensors(batch)
    latents = backbone.encode(image)
    noisy = backbone.scheduler.add_noise(latents, noise, t)
    target = backbone.scheduler.get_velocity(latents, noise, t)
    with autocast("cpu", config.bf16):
        aligned = None
        if condition is None:
            visual = backbone.encode_references(references)
            given = Conditioning(backbone.context(batch.captions, visual))
            aligned = alignment(backbone, batch, visual) if config.align and batch.words else None
        else:
            given = condition(batch, t)
        output = predict(backbone.unet, noisy, t, given, backbone.inpaint_input(clean, mask))
    error = backbone.decode(output - target)
    loss = masked_loss(error, mask, config.outside, config.edges, config.min_area, config.colour)
    loss = loss * step_weight(backbone.scheduler.alphas_cumprod, t, config.snr_cap)
    return loss if aligned is None else loss + config.align * aligned
