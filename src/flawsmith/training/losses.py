"""What the denoiser is trained on: its error inside the hole, by the hole's area, at stratified steps.

Judged in pixels where the codec is exact, in latent cells behind a VAE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from flawsmith.diffusion import tensors
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.batch import Batch
from flawsmith.diffusion.compact.clean import CleanUNet
from flawsmith.diffusion.denoise import Conditioning, autocast, predict
from flawsmith.errors import FlawsmithError

__all__ = ["Encoded", "LossTerms", "batch_loss", "encode_batch", "masked_loss", "step_weight", "stratified_steps"]


Norm = Literal["area", "all"]


def batch_tensors(
    batch: Batch, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor] | None]]:
    """A batch as tensors: image and clean (B, 3, S, S) in [-1, 1], mask (B, 1, S, S), references or None per row."""
    image, clean = tensors.from_images(batch.image).to(device), tensors.from_images(batch.clean).to(device)
    mask = tensors.from_masks(batch.mask).to(device)
    return image, clean, mask, _references(batch)


def _references(batch: Batch) -> list[tuple[Tensor, Tensor] | None]:
    """References (3, S, S) in [-1, 1] with masks (1, S, S), or None, on the CPU."""
    return [
        None if r is None else (tensors.from_images([r[0]])[0], tensors.from_masks([r[1]])[0]) for r in batch.references
    ]


def drafts_of(batch: Batch) -> list[Tensor | None]:
    """The drafts (3, S, S) in [-1, 1], or None, of every row that has or lacks one."""
    return [None if draft is None else tensors.from_images([draft])[0] for draft in batch.drafts]


@dataclass(frozen=True)
class Encoded:
    """What of a batch does not depend on step, noise or anything trained."""

    latents: Tensor  # (B, C, h, w)
    extra: Tensor | None  # (B, m + C, h, w), of inpainting backbones

    def rows(self, part: slice) -> Encoded:
        return Encoded(self.latents[part], None if self.extra is None else self.extra[part])

    def to(self, device: torch.device | str) -> Encoded:
        return Encoded(self.latents.to(device), None if self.extra is None else self.extra.to(device))

    @staticmethod
    def join(parts: Sequence[Encoded]) -> Encoded:
        extra = [part.extra for part in parts if part.extra is not None]
        return Encoded(torch.cat([part.latents for part in parts]), torch.cat(extra) if extra else None)


@torch.no_grad()
def encode_batch(backbone: Backbone, batch: Batch) -> Encoded:
    """The image's latents, and mask and surroundings of its hole."""
    image, clean, mask, _ = batch_tensors(batch, backbone.device)
    extra = backbone.inpaint_input(clean, mask, drafts_of(batch))
    return Encoded(backbone.encode(image), extra)


def masked_loss(
    error: Tensor,
    mask: Tensor,
    outside: float,
    edges: float,
    min_area: float,
    colour: float = 0.0,
    norm: Norm = "area",
) -> Tensor:
    """Per-sample loss (B,) of an error (B, C, h, w) in pixels or latent cells: mean square inside the mask
    (B, 1, h, w), a little of the rest, and of its edges.

    The square of the error's differences between neighbours costs a 4 px grid, which the plain square hardly
    sees. norm "area" divides by the mask's area, so that small defects count; "all" by the whole image's, as
    AnomalyXFusion does.
    """
    square = error.square().mean(1, keepdim=True)
    if colour:
        square = square + colour * (error - error.mean(1, keepdim=True)).square().mean(1, keepdim=True)
    area = mask.sum((1, 2, 3)).clamp_min(min_area)
    if norm == "all":
        area = torch.full_like(area, mask[0].numel())
    loss = (square * mask).sum((1, 2, 3)) / area + outside * (square * (1 - mask)).mean((1, 2, 3))
    if edges:
        for axis in (2, 3):
            step = error.diff(dim=axis).square().mean(1, keepdim=True)
            inside = mask.narrow(axis, 1, mask.shape[axis] - 1) * mask.narrow(axis, 0, mask.shape[axis] - 1)
            loss = loss + edges * (step * inside).sum((1, 2, 3)) / area
    return loss


def step_weight(alphas_cumprod: Tensor, t: Tensor, cap: float, prediction: str = "v_prediction") -> Tensor:
    """Weight (B,) of steps t (B,): 1 up to a signal-to-noise ratio of `cap`, then falling so that an error of the
    clean image counts no more than at the cap; 1 everywhere for a cap of 0. Unlike min-SNR (Hang et al. 2023) pure
    noise keeps its full weight, where the image is composed.
    """
    signal = alphas_cumprod.to(t.device)[t]
    if not cap:
        return torch.ones_like(signal)
    if prediction == "epsilon":  # an error of the noise is SNR times that of the clean image
        return (cap * (1 - signal) / signal.clamp_min(1e-8)).clamp_max(1.0)
    return (1 + cap) * (1 - signal).clamp_max(1 / (1 + cap))  # 1 / (SNR + 1) is 1 - alpha_bar


def prediction_target(scheduler: Any, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the denoiser is asked for, (B, C, h, w): the noise or v, whichever its scheduler says."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, t)
    raise FlawsmithError(f"A denoiser that predicts {kind!r} cannot be trained here: known are epsilon, v_prediction.")


def stratified_steps(count: int, generator: torch.Generator, table: Tensor | None = None) -> Tensor:
    """One step from each of `count` equal parts of the schedule, (count,) long: less spread between batches. Parts of
    equal length in t, or with `table` (1000,) (see noise_levels.step_table) of equal weight there.
    """
    place = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    steps = (place * 1000).long().clamp(0, 999)
    return steps if table is None else table[steps]


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
    ids, valid = (part.to(backbone.device) for part in backbone.tokenizer([words for _, words in pairs]))
    wanted = backbone.text_encoder.table.pool(ids, valid)  # (N, 128)
    found = backbone.reference.say(torch.stack([first for first, _ in pairs]))
    return (1 - nn.functional.cosine_similarity(found.float(), wanted, dim=-1)).mean()


def batch_loss(
    backbone: Backbone,
    batch: Batch,
    t: Tensor,
    noise: Tensor,
    config: LossTerms,
    condition: Callable[[Batch, Tensor], Conditioning] | None = None,
    norm: Norm = "area",
    encoded: Encoded | None = None,
) -> Tensor:
    """Per-sample loss (B,) of the denoiser's prediction at steps t (B,) with the given noise (B, C, h, w).

    `condition(batch, t)` is a method's own conditioning; without one, the backbone's words and references are.
    `encoded` is `encode_batch` of the batch, where it is known already. Behind a VAE the error is judged in latent
    cells under the max-pooled mask, which is never empty.
    Reference: AnomalyXFusion, masked noise prediction.
    """
    device = backbone.device
    t, noise = t.to(device), noise.to(device)
    mask = tensors.from_masks(batch.mask).to(device)
    found = encode_batch(backbone, batch) if encoded is None else encoded.to(device)
    latents, extra = found.latents, found.extra
    noisy = backbone.scheduler.add_noise(latents, noise, t)
    target = prediction_target(backbone.scheduler, latents, noise, t)
    with autocast(device, config.bf16):
        aligned = None
        if condition is None:
            # a backbone without a reader learns from the words alone
            visual = [None] * len(mask) if backbone.reader is None else backbone.encode_references(_references(batch))
            given = Conditioning(backbone.context(batch.captions, visual))
            aligned = alignment(backbone, batch, visual) if config.align and batch.words else None
        else:
            given = condition(batch, t)
        error = predict(backbone.unet, noisy, t, given, extra) - target
    weight = step_weight(
        backbone.scheduler.alphas_cumprod, t, config.snr_cap, backbone.scheduler.config.prediction_type
    )
    if isinstance(backbone.unet, CleanUNet):
        error, weight = backbone.unet.whitened(error, t), torch.ones_like(weight)  # weighs every noise level itself
    if backbone.codec is not None:
        error = backbone.codec.decode(error)
        loss = masked_loss(error, mask, config.outside, config.edges, config.min_area, config.colour, norm)
    else:
        cells = tensors.pool_mask(mask, (error.shape[-2], error.shape[-1]))
        loss = masked_loss(error, cells, config.outside, 0.0, config.min_area / backbone.factor**2, 0.0, norm)
    loss = loss * weight
    return loss if aligned is None else loss + config.align * aligned
