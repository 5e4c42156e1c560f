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
    them from input to output; with it, it only corrects the best linear guess, and its own output has unit spread at
    every step.
    Reference: Karras et al. 2022, section 5, written for v-prediction on a variance-preserving schedule.
    """

    skip: Tensor
    scale: Tensor
    spread: Tensor

    def precondition(self, alphas_cumprod: Tensor, data_std: float) -> PreconditionedUNet:
        """Set the three tables (T,) from the schedule (T,) and the spread of the pixels, in units of [-1, 1]."""
        signal = alphas_cumprod.double()  # alpha^2
        noise = 1 - signal  # sigma^2
        total = signal * data_std**2 + noise  # variance of the noisy latents
        tables = {
            "skip": (signal * noise).sqrt() * (1 - data_std**2) / total,  # cov(v, noisy) / var(noisy)
            "scale": data_std / total.sqrt(),  # deviation of what is left of v
            "spread": total.rsqrt(),
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
        skip, scale, spread = (table[t].view(-1, 1, 1, 1) for table in (self.skip, self.scale, self.spread))
        x = torch.cat([noisy * spread, sample[:, channels:]], 1)
        out = super().forward(x, timestep, encoder_hidden_states, return_dict=False, **options)[0]
        out = skip * noisy + scale * out.float()
        if not return_dict:
            return (out,)
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

        return UNet2DConditionOutput(sample=out)
