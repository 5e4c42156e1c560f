"""The compact denoiser: diffusers' conditional U-Net with the part of its answer that needs no network taken out."""

from __future__ import annotations

import threading
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel, UNet2DConditionOutput
from torch import Tensor, nn

__all__ = ["PreconditionedUNet", "cosine_basis", "wave_bands"]

WAVELENGTHS = (64.0, 24.0, 9.0, 3.4)  # pixels, middles of the bands that are gated


def cosine_basis(size: int) -> Tensor:
    """The orthonormal cosine transform (size, size), float64: rows are waves (DCT-II)."""
    place, wave = torch.arange(size).double(), torch.arange(size).double()[:, None]
    basis = torch.cos(torch.pi * (place + 0.5) * wave / size) * (2 / size) ** 0.5
    basis[0] /= 2**0.5
    return basis


def wave_bands(size: int) -> Tensor:
    """The cosine waves (size, size) shared out to bands around WAVELENGTHS: (K, size, size), adding up to 1, each
    falling linearly in log wavelength to its neighbours' middles.
    """
    number = torch.arange(size).double()
    radius = (number[:, None] ** 2 + number[None] ** 2).sqrt().clamp_min(0.5)
    place = (2 * size / radius).log()
    middles = torch.tensor(WAVELENGTHS, dtype=torch.float64).log()
    found = []
    for i, middle in enumerate(middles):
        left = 1.0 if i == 0 else ((middles[i - 1] - place) / (middles[i - 1] - middle)).clamp(0, 1)
        right = 1.0 if i == len(middles) - 1 else ((place - middles[i + 1]) / (middle - middles[i + 1])).clamp(0, 1)
        found.append(torch.minimum(torch.as_tensor(left), torch.as_tensor(right)).expand(size, size))
    return torch.stack(found).float()


def _both_sides(basis: Tensor, planes: Tensor) -> Tensor:
    """basis (P, P) @ planes (..., P, P) @ basis.T, as convolutions: on some processors ten times faster than matmul."""
    x = planes.flatten(0, -3)
    for _ in range(2):
        x = nn.functional.conv1d(x, basis[:, :, None]).transpose(1, 2)
    return x.reshape(planes.shape)


class PreconditionedUNet(UNet2DConditionModel):
    """Predicts v as the best linear guess from what is given plus a correction by the network.

    Outside the hole the image is known, so v is too. Inside, the surroundings are continued smoothly, and what the
    image has beyond that is guessed from the noisy latents by a Wiener filter, wave by wave: a narrow network would
    have to learn to carry all this from input to output. The network's own answer is shaped by the same spectrum, so
    that it has unit spread at every step and wave. The waves are those of the *image*, not of one channel of cells:
    what the network gets wrong then looks like a smooth cloud, while with channels filtered each for itself it was a
    mosaic of 4 px cells.

    The filter knows only the mean spectrum of all holes, which is several times too strong for the fine waves of a
    smooth surface and for colour on a grey one. So the network says, place by place and band by band, how much of the
    filter's guess to take: `gates`, 1 everywhere before training. Without them nearly all noise that the mean spectrum
    lets through stayed in the image as mottle.
    Reference: Karras et al. 2022, section 5, written for v-prediction on a variance-preserving schedule, per wave.
    """

    signal: Tensor  # (T,) alpha^2 of the schedule
    basis: Tensor  # (P, P) cosine waves of a whole side, P = S * f pixels
    cell: Tensor  # (f, f) cosine waves of a cell's side
    bands: Tensor  # (K, P, P) shares of the waves, see `wave_bands`
    spectrum: Tensor  # (3, P, P) standard deviation of every wave of what holes hide; saved with the weights

    def precondition(self, alphas_cumprod: Tensor, spectrum: Tensor | float) -> PreconditionedUNet:
        """Set schedule (T,) and spectrum (3, P, P), or one number for a flat one."""
        factor = round((int(self.config["out_channels"]) / 3) ** 0.5)
        side = int(self.config["sample_size"]) * factor
        table = torch.as_tensor(spectrum, dtype=torch.float32).expand(3, side, side).clone()
        self.register_buffer("spectrum", table)
        self.register_buffer("signal", alphas_cumprod.detach().float().clone(), persistent=False)
        self.register_buffer("basis", cosine_basis(side).float(), persistent=False)
        self.register_buffer("cell", cosine_basis(factor).float(), persistent=False)
        bands = wave_bands(side)
        self.register_buffer("bands", bands, persistent=False)
        self.reach = [int(band.amax(0).nonzero().max()) + 1 for band in bands]  # waves of each that are not 0
        self.gates = nn.Conv2d(int(self.config["block_out_channels"][0]), 2 * len(WAVELENGTHS), 3, padding=1)
        nn.init.zeros_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)  # type: ignore[arg-type]  # there is one
        self._features: dict[int, Tensor] = {}  # by thread: several may compute at a time
        self.conv_out.register_forward_pre_hook(self._keep)
        return self

    def _keep(self, module: nn.Module, given: tuple[Tensor]) -> None:
        # what `gates` read beside conv_out: the class has no other way out for it
        self._features[threading.get_ident()] = given[0]

    def _gated(self, waves: Tensor, gates: Tensor) -> Tensor:
        """Waves (B, 3, P, P) -> pixels, every band times its gate at its place: of brightness, and of both colours.

        gates: (B, 2 K, S, S), as the layer says them; 0 is a factor of 1, and factors end at 2.
        """
        gates = nn.functional.interpolate(
            2 * gates.sigmoid(), size=waves.shape[-2:], mode="bilinear", align_corners=False
        )
        of_light, of_colour = (part.unbind(1) for part in gates.chunk(2, 1))
        total = torch.zeros_like(waves)
        for band, reach, light, colour in zip(self.bands, self.reach, of_light, of_colour, strict=True):
            coarse = self.basis[:reach]  # a band's waves end early: most of the products would be with zeros
            pixels = coarse.T @ (waves[..., :reach, :reach] * band[:reach, :reach]) @ coarse
            total = total + pixels * torch.stack([light, colour, colour], 1)
        return total

    def planes(self, latents: Tensor) -> Tensor:
        """Latents (B, 3 f^2, S, S) of PixelCodec -> brightness and two colour differences (B, 3, P, P)."""
        factor, (count, channels, height, width) = len(self.cell), latents.shape
        waves = torch.kron(self.cell, self.cell)  # (f^2, f^2)
        cells = waves.T @ latents.reshape(3 * count, factor**2, height * width)
        return nn.functional.pixel_shuffle(cells.view(count, channels, height, width), factor)

    def latents(self, planes: Tensor) -> Tensor:
        """Exact inverse of `planes`."""
        cells = nn.functional.pixel_unshuffle(planes, len(self.cell))  # (B, 3 f^2, S, S)
        waves = torch.kron(self.cell, self.cell)
        return (waves @ cells.reshape(3 * len(cells), len(waves), -1)).view(cells.shape)

    def waves(self, planes: Tensor) -> Tensor:
        """(B, 3, P, P) -> its cosine waves, same shape; orthonormal."""
        return _both_sides(self.basis, planes)

    def pixels(self, waves: Tensor) -> Tensor:
        """Exact inverse of `waves`."""
        return _both_sides(self.basis.T, waves)

    def power(self) -> Tensor:
        """Mean variance (3 f^2,) of every latent channel under the spectrum, in closed form."""
        factor = len(self.cell)
        share = torch.einsum("wsx,ux->wsu", self.basis.unflatten(1, (-1, factor)), self.cell).square().sum(1)  # (P, f)
        per_side = self.basis.shape[0] // factor
        found = share.T @ self.spectrum.float().square() @ share / per_side**2  # (3, f, f)
        return found.flatten()

    def get_aug_embed(self, emb: Tensor, encoder_hidden_states: Any, added_cond_kwargs: Any) -> Tensor | None:
        """The context, pooled, for the time embedding; an adapter's own tokens go to its own attention only."""
        context = encoder_hidden_states[0] if isinstance(encoder_hidden_states, tuple) else encoder_hidden_states
        return super().get_aug_embed(emb, context, added_cond_kwargs)

    def network(self, x: Tensor, t: Tensor, states: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """What is learned: the answer (B, 3 f^2, S, S) and the gates (B, 2 K, S, S), before `_gated` shapes them."""
        out = super().forward(x, t, states, return_dict=False, **options)[0]
        return out, self.gates(self._features.pop(threading.get_ident()))

    def forward(
        self,
        sample: Tensor,
        timestep: Any,
        encoder_hidden_states: Any,
        return_dict: bool = True,
        network: Any = None,
        **options: Any,
    ) -> Any:
        """sample (B, in_channels, S, S): noisy latents, mask, and the surroundings continued into the hole. `network`
        computes what the method of that name would, by other means.
        """
        channels = int(self.config["out_channels"])
        noisy, mask, filled = sample.float().split([channels, sample.shape[1] - 2 * channels, channels], 1)
        t = torch.as_tensor(timestep, device=sample.device).long().expand(len(sample))
        signal = self.signal[t][:, None, None, None]  # alpha^2
        noise = 1 - signal  # sigma^2
        hole = nn.functional.pixel_shuffle(mask, len(self.cell))  # (B, 1, P, P)
        rest = self.planes(noisy - signal.sqrt() * filled)  # alpha (x0 - filled) + sigma eps
        power = self.power()[:, None, None]
        x = [
            self.latents(rest * hole) * (signal * power + noise).rsqrt(),
            mask,
            filled * power.sqrt().clamp_min(0.1).reciprocal(),  # its fine channels are made visible
        ]
        out, gates = (network or self.network)(torch.cat(x, 1), t, encoder_hidden_states, **options)
        with torch.autocast(sample.device.type, enabled=False):
            variance = self.spectrum.float().square()  # (3, P, P)
            total = signal * variance + noise  # variance of a noisy wave
            filtered = signal.sqrt() * variance / total * self.waves(rest * hole)  # of x0 - filled
            guess = self._gated(filtered, gates.float())
            answer = self.pixels((variance / total).sqrt() * self.waves(self.planes(out.float())))
            # v of any guess of x0 - filled; outside, where that is 0, it is known
            v = (signal / noise).sqrt() * rest + hole * (answer - noise.rsqrt() * guess)
            out = self.latents(v) - noise.sqrt() * filled
        if not return_dict:
            return (out,)
        return UNet2DConditionOutput(sample=out)
