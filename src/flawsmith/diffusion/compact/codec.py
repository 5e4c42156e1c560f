"""Images to latents and back without a vae: what the compact backbone works on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["PixelCodec"]


class PixelCodec:
    """Images <-> latents without parameters: (B, 3, H, W) <-> (B, 3 f^2, H / f, W / f).

    Pixel-unshuffle, then one fixed rotation of every cell: brightness and two colour differences, each as a cosine
    transform of its f x f pixels. A rotation keeps white noise white and loses nothing (1e-6 in float32, so exact
    for 8-bit images); but now a few channels hold nearly all of the image, and the denoiser can be told so. With
    `plain` the pixels of a cell stay apart, and only brightness and colour are.
    """

    def __init__(self, factor: int, plain: bool = False) -> None:
        self.factor = factor
        place, wave = torch.arange(factor).double(), torch.arange(factor).double()[:, None]
        cosine = torch.cos(torch.pi * (place + 0.5) * wave / factor) * (2 / factor) ** 0.5
        cosine[0] /= 2**0.5  # (f, f), rows orthonormal
        cosine = torch.eye(factor, dtype=torch.double) if plain else cosine
        colour = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.double)
        colour /= colour.norm(dim=1, keepdim=True)
        self.rotation = torch.kron(colour, torch.kron(cosine, cosine)).float()  # (3 f^2, 3 f^2)

    def encode(self, images: Tensor) -> Tensor:
        cells = nn.functional.pixel_unshuffle(images.float(), self.factor)
        return torch.einsum("kc,bchw->bkhw", self.rotation.to(cells.device), cells)

    def decode(self, latents: Tensor) -> Tensor:
        cells = torch.einsum("kc,bkhw->bchw", self.rotation.to(latents.device), latents.float())
        return nn.functional.pixel_shuffle(cells, self.factor)

    def encode_mask(self, mask: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, f^2, H / f, W / f): every pixel of a cell in its own channel."""
        return nn.functional.pixel_unshuffle(mask, self.factor)
