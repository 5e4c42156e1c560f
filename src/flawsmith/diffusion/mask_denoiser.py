"""The mask models' small diffusion U-Nets: of shapes, and of whole masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flawsmith.diffusion.mask_examples import SIDE, WHOLE


class Denoiser(nn.Module):
    """Predicts v of noisy fields (B, 1, S, S) at steps t (B,), given type numbers (B,) and features (B, E) of what is
    said of them. `blocks` are diffusers' UNet2DModel's.
    """

    def __init__(self, names: int, words: int, **blocks: Any) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.unet: Any = UNet2DModel(
            **{"in_channels": 1, "out_channels": 1, **blocks},
            layers_per_block=1,
            norm_num_groups=8,
            class_embed_type="identity",
        )
        width = 4 * blocks["block_out_channels"][0]  # of diffusers' embedding of the step
        self.kind, self.said = nn.Embedding(names, width), nn.Linear(words, width)

    def forward(self, noisy: Tensor, t: Tensor, kinds: Tensor, words: Tensor) -> Tensor:
        given = self.kind(kinds) + self.said(words)
        found: Tensor = self.unet(noisy, t, class_labels=given, return_dict=False)[0]
        return found


class ShapeDenoiser(Denoiser):
    """Of fields of SIDE cells."""

    def __init__(self, names: int, words: int) -> None:
        super().__init__(
            names,
            words,
            sample_size=SIDE,
            block_out_channels=(16, 32, 48),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )


class WholeDenoiser(Denoiser):
    """Reads fields as quarters of twice the cell, each cell with its row and column: convolutions know no place."""

    def __init__(self, names: int, words: int) -> None:
        super().__init__(
            names,
            words,
            sample_size=WHOLE // 2,
            in_channels=6,
            out_channels=4,
            block_out_channels=(32, 48, 64),
            down_block_types=("DownBlock2D",) * 3,
            up_block_types=("UpBlock2D",) * 3,
            add_attention=False,
        )
        line = torch.linspace(-1, 1, WHOLE // 2)
        self.register_buffer("places", torch.stack(torch.meshgrid(line, line, indexing="ij")), persistent=False)
        self.places: Tensor

    def forward(self, noisy: Tensor, t: Tensor, kinds: Tensor, words: Tensor) -> Tensor:
        quarters = functional.pixel_unshuffle(noisy, 2)
        cells = torch.cat([quarters, self.places.expand(len(noisy), -1, -1, -1)], 1)
        return functional.pixel_shuffle(super().forward(cells, t, kinds, words), 2)
