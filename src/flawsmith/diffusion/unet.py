"""The compact denoiser: diffusers' conditional U-Net with the part of its answer that needs no network taken out."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel, UNet2DConditionOutput
from torch import Tensor

__all__ = ["PreconditionedUNet", "cosine_basis"]


def cosine_basis(size: int) -> Tensor:
    """The orthonormal cosine transform (size, size), float64: rows are waves (DCT-II)."""
    place, wave = torch.arange(size).double(), torch.arange(size).double()[:, None]
    basis = torch.cos(torch.pi * (place + 0.5) * wave / size) * (2 / size) ** 0.5
    basis[0] /= 2**0.5
    return basis


class PreconditionedUNet(UNet2DConditionModel):
    """Predicts v as the best linear guess from the noisy latents plus a correction by the network.

    Pixel latents are many channels of mostly noise, which a narrow network would have to learn to carry from input to
    output. Pictures have a known mean spectrum, so the best linear guess is a Wiener filter, wave by wave. The
    network's own answer is shaped by the same spectrum: it has unit spread at every step and wave, and what it gets
    wrong looks like a smooth change rather than like the codec's 4 px grid.
    Reference: Karras et al. 2022, section 5, written for v-prediction on a variance-preserving schedule, per wave.
    """

    signal: Tensor  # (T,) alpha^2 of the schedule
    basis: Tensor  # (S, S)
    spectrum: Tensor  # (C, S, S) standard deviation of every wave of clean latents; saved with the weights

    def precondition(self, alphas_cumprod: Tensor, spectrum: Tensor | float) -> PreconditionedUNet:
        """Set schedule (T,) and spectrum (C, S, S), or one number for a flat one."""
        channels, size = int(self.config["out_channels"]), int(self.config["sample_size"])
        table = torch.as_tensor(spectrum, dtype=torch.float32).expand(channels, size, size).clone()
        self.register_buffer("spectrum", table)
        self.register_buffer("signal", alphas_cumprod.detach().float().clone(), persistent=False)
        self.register_buffer("basis", cosine_basis(size).float(), persistent=False)
        return self

    def waves(self, latents: Tensor) -> Tensor:
        """(B, C, S, S) -> its cosine waves, same shape; orthonormal."""
        return self.basis @ latents @ self.basis.T

    def get_aug_embed(self, emb: Tensor, encoder_hidden_states: Any, added_cond_kwargs: Any) -> Tensor | None:
        """The context, pooled, for the time embedding; an adapter's own tokens go to its own attention only."""
        context = encoder_hidden_states[0] if isinstance(encoder_hidden_states, tuple) else encoder_hidden_states
        return super().get_aug_embed(emb, context, added_cond_kwargs)

    def forward(
        self, sample: Tensor, timestep: Any, encoder_hidden_states: Any, return_dict: bool = True, **options: Any
    ) -> Any:
        """sample (B, in_channels, S, S): the noisy latents first, the clean context last; else as in diffusers."""
        channels = int(self.config["out_channels"])
        noisy, given = sample[:, :channels].float(), sample[:, channels:]
        t = torch.as_tensor(timestep, device=sample.device).long().expand(len(sample))
        signal = self.signal[t][:, None, None, None]  # alpha^2
        noise = 1 - signal  # sigma^2
        variance = self.spectrum.float().square()  # (C, S, S)
        per_channel = variance.mean((1, 2))[:, None, None]
        spread = (signal * per_channel + noise).rsqrt()
        # the context's fine channels are made visible too
        context = given[:, -channels:] * per_channel.sqrt().clamp_min(0.1).reciprocal()
        x = torch.cat([noisy * spread, given[:, :-channels], context], 1)
        out = super().forward(x, timestep, encoder_hidden_states, return_dict=False, **options)[0]
        with torch.autocast(sample.device.type, enabled=False):
            total = signal * variance + noise  # variance of a noisy wave
            skip = (signal * noise).sqrt() * (1 - variance) / total  # cov(v, noisy) / var(noisy)
            waves = skip * self.waves(noisy) + (variance / total).sqrt() * self.waves(out.float())
            out = self.basis.T @ waves @ self.basis
        if not return_dict:
            return (out,)
        return UNet2DConditionOutput(sample=out)
