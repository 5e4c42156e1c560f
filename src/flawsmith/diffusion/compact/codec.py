"""Images to latents and back without a vae: what the compact backbone works on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["PixelCodec"]


class PixelCodec:
    """Images <-> latents without parameters: (B, 3, H, W) <-> (B, 3 f^2, H / f, W / f).

    Brightness and two colour differences (orthonormal), then pixel-unshuffle: white noise stays white, nothing is lost
    (1e-6 in float32, so exact for 8-bit images), and the first third of the channels holds what the eye sees first.
    """

    def __init__(self, factor: int) -> None:
        self.factor = factor
        colour = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.double)
        self.rotation = (colour / colour.norm(dim=1, keepdim=True)).float()

    def encode(self, images: Tensor) -> Tensor:
        planes = torch.einsum("kc,bchw->bkhw", self.rotation.to(images.device), images.float())
        return nn.functional.pixel_unshuffle(planes, self.factor)

    def decode(self, latents: Tensor) -> Tensor:
        planes = nn.functional.pixel_shuffle(latents.float(), self.factor)
        return torch.einsum("kc,bkhw->bchw", self.rotation.to(latents.device), planes)

    def encode_mask(self, mask: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, f^2, H / f, W / f): every pixel of a cell in its own channel."""
        return nn.functional.pixel_unshuffle(mask, self.factor)
