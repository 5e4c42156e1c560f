"""The compact denoiser: diffusers' conditional U-Net with the part of its answer that needs no network taken out."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

__all__ = ["PreconditionedUNet"]


class PreconditionedUNet(UNet2DConditionModel):
    """Predicts v as `skip(t) * noisy + scale(t) * network(noisy / std(t), ...)`.

    Pixel latents are many channels of mostly noise. Without the skip a narrow network has to learn to carry all of
    them from input to output; with it, it only corrects the best linear guess per channel (a Wiener filter, since
    the codec's channels are cosine waves), and its own output has unit spread at every step and channel.
    Reference: Karras et al. 2022, section 5, written for v-prediction on a variance-preserving schedule.
    """

    skip: Tensor
    scale: Tensor
    spread: Tensor
    context: Tensor

    def precondition(self, alphas_cumprod: Tensor, data_std: float | tuple[float, ...]) -> PreconditionedUNet:
        """Set the tables (T, C) from the schedule (T,) and the spread of each latent channel (or one for all)."""
        channels = int(self.config["out_channels"])
        std = torch.as_tensor(data_std, dtype=torch.double).expand(channels)
        signal = alphas_cumprod.double()[:, None]  # alpha^2
        noise = 1 - signal  # sigma^2
        total = signal * std**2 + noise  # variance of the noisy latents
        tables = {
            "skip": (signal * noise).sqrt() * (1 - std**2) / total,  # cov(v, noisy) / var(noisy)
            "scale": std / total.sqrt(),  # deviation of what is left of v
            "spread": total.rsqrt(),
            "context": 1 / std.clamp_min(0.1),  # (C,): the context's fine channels are made visible too
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)
        return self

    def forward(
        self, sample: Tensor, timestep: Any, encoder_hidden_states: Any, return_dict: bool = True, **options: Any
    ) -> Any:
        """sample (B, in_channels, h, w): the noisy latents first; otherwise as in diffusers."""
        channels = int(self.config["out_channels"])
        noisy = sample[:, :channels].float()
        t = torch.as_tensor(timestep, device=sample.device).long().expand(len(sample))
        skip, scale, spread = (table[t][..., None, None] for table in (self.skip, self.scale, self.spread))
        given = sample[:, channels:]
        context = given[:, -channels:] * self.context[:, None, None]
        x = torch.cat([noisy * spread, given[:, :-channels], context], 1)
        out = super().forward(x, timestep, encoder_hidden_states, return_dict=False, **options)[0]
        out = skip * noisy + scale * out.float()
        if not return_dict:
            return (out,)
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

        return UNet2DConditionOutput(sample=out)
