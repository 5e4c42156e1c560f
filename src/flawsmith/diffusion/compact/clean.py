"""The compact denoiser: diffusers' conditional U-Net, asked for the clean image."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel, UNet2DConditionOutput
from torch import Tensor

__all__ = ["CleanUNet"]


GRAIN = 0.25  # of s: the spread of what is taken from the noisy image as it is
FLOOR = 0.7  # of s: an error counts as over c_out or over this share of s, or grain alone would be learned


class CleanUNet(UNet2DConditionModel):
    """Predicts the clean image under a hole, as what it adds to the smooth continuation of the surroundings.

    With x the noisy latents, x0 the image and c its smooth continuation, r = x - c is what the network is to clean;
    outside the hole it is known. Inside, x0 - c has the standard deviation s (one number each for brightness and both
    colour differences, measured on the training windows). In units of the clean image, sigma = noise over signal:

        D(r; sigma) = c_skip r + s F(c_in r),    c_in = 1 / sqrt(sigma^2 + s^2),    c_skip = g^2 / (sigma^2 + g^2)

    This is the form of EDM (Karras et al. 2022, table 1) with two changes. There c_skip has g = s, and F must carry the
    noise of every pixel to take it out again, for which a narrow network has no room: surfaces stayed grainy
    (recipes/compact/README.md). With g = GRAIN s the skip only passes what is finer than the noise could hide, and
    above it F says the clean image, the easier thing (Li and He 2025, "Back to Basics: Let Denoising Generative Models
    Denoise"). An error of D is weighed by 1 / c_out^2, c_out = sigma s / sqrt(sigma^2 + s^2), as EDM's and as an error
    of v, but below c_out = FLOOR s no more than there.

    Everything is written with alpha and sigma of the variance-preserving schedule, so that pure noise (alpha = 0) is
    no special case.
    """

    plain_cells = True  # latents are pixels, see PixelCodec: a mask may cut a cell
    signal: Tensor  # (T,) alpha^2 of the schedule
    spread: Tensor  # (3,) s, saved with the weights
    pooled_from: Tensor | None = None  # (B, L, D), pooled in the context's place: what each of the two ways is worth
    _heard: Tensor | None = None  # (B, 1), 0 where the pooled context is left out; None = nowhere

    def precondition(self, alphas_cumprod: Tensor, spread: Tensor | float) -> CleanUNet:
        """Set the schedule (T,) and s (3,), or one number for all three."""
        self.register_buffer("spread", torch.as_tensor(spread, dtype=torch.float32).expand(3).clone())
        self.register_buffer("signal", alphas_cumprod.detach().float().clone(), persistent=False)
        return self

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, sigma (B, 1, 1, 1) at steps t (B,), and s (1, C, 1, 1)."""
        signal = self.signal[t][:, None, None, None]
        cells = int(self.config["out_channels"]) // 3
        return signal.sqrt(), (1 - signal).sqrt(), self.spread.float().repeat_interleave(cells)[None, :, None, None]

    def whitened(self, error: Tensor, t: Tensor) -> Tensor:
        """An error of v (B, C, h, w) at steps t (B,) as one of the clean image over c_out, at least FLOOR s."""
        alpha, sigma, s = self._levels(t)
        out = sigma * s / (sigma.square() + (alpha * s).square()).sqrt()
        return error * sigma / torch.maximum(out, FLOOR * s)

    def get_aug_embed(self, emb: Tensor, encoder_hidden_states: Any, added_cond_kwargs: Any) -> Tensor | None:
        """The context, pooled, for the time embedding; an adapter's own tokens go to its own attention only.

        In pretraining it is left out at two of five steps: what can be read from the pooled context alone leaves
        cross-attention without work, and then an adapter that writes there is not heard.
        """
        context = encoder_hidden_states[0] if isinstance(encoder_hidden_states, tuple) else encoder_hidden_states
        context = context if self.pooled_from is None else self.pooled_from
        pooled = super().get_aug_embed(emb, context, added_cond_kwargs)
        return pooled if pooled is None or self._heard is None else pooled * self._heard

    def network(self, x: Tensor, t: Tensor, states: Any, **options: Any) -> tuple[Tensor]:
        """What is learned: F (B, C, h, w)."""
        return (super().forward(x, t, states, return_dict=False, **options)[0],)

    def forward(
        self,
        sample: Tensor,
        timestep: Any,
        encoder_hidden_states: Any,
        return_dict: bool = True,
        network: Any = None,
        **options: Any,
    ) -> Any:
        """sample (B, 3 C + m, h, w): noisy latents, mask, the surroundings continued into the hole, and the draft
        there less that continuation (zeros where there is none), in this order. `network` computes what the method of
        that name would, by other means.
        """
        channels = int(self.config["out_channels"])
        noisy, mask, filled, draft = sample.float().split([channels, channels // 3, channels, channels], 1)
        t = torch.as_tensor(timestep, device=sample.device).long().expand(len(sample))
        alpha, sigma, s = self._levels(t)
        hole = mask.repeat(1, 3, 1, 1)
        rest = (noisy - alpha * filled) * hole  # alpha r + sigma eps
        total = (sigma.square() + (alpha * s).square()).sqrt()
        x = torch.cat([rest / total, mask, filled, draft / s], 1)
        self._heard = (t % 5 >= 2).float()[:, None] if self.training else None
        (out,) = (network or self.network)(x, t, encoder_hidden_states, **options)
        skip = alpha * (GRAIN * s).square() / (sigma.square() + (alpha * GRAIN * s).square())
        clean = filled + hole * (skip * rest + s * out.float())
        v = (alpha * noisy - clean) / sigma  # alpha eps - sigma x0
        return UNet2DConditionOutput(sample=v) if return_dict else (v,)
