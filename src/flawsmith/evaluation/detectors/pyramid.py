"""Small heads on the feature maps of a pretrained encoder, as one network from images to logits.

Reference: docs/evaluation.md, "The judge". How they are trained: `heads.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flawsmith.evaluation.detectors.encoder import STRIDES, Encoder
from flawsmith.evaluation.detectors.segmentation import SegmentationConfig

WIDTH = 32  # channels of a head


class Head(nn.Module):
    """Maps of a pyramid -> logits (B, 1, H, W): maps standardised and added up, two convolutions of 3 x 3."""

    def __init__(self, widths: Sequence[int], finest: int) -> None:
        super().__init__()
        self.finest = finest  # stride of the first map
        self.inward = nn.ModuleList(nn.Conv2d(width, WIDTH, 1) for width in widths)
        self.middle = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.outward = nn.Conv2d(WIDTH, STRIDES[0] ** 2, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        factor = self.finest // STRIDES[0]
        size = maps[0].shape[2] * factor, maps[0].shape[3] * factor
        summed: Tensor | None = None
        for layer, one in zip(self.inward, maps, strict=True):
            x = layer(one)
            if x.shape[2:] != size:
                x = nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)
            summed = x if summed is None else summed + x
        assert summed is not None
        x = (summed / len(maps) ** 0.5).relu()
        return nn.functional.pixel_shuffle(self.outward(self.middle(x).relu()), STRIDES[0])


class Segmenter(nn.Module):
    """Images (B, 3, H, W) in [-1, 1], H and W multiples of 32, to logits (B, 1, H, W): the mean of all heads.

    flips: the image and its mirror image are both looked at and averaged.
    """

    def __init__(self, encoder: Encoder, heads: int, flips: bool = False) -> None:
        super().__init__()
        self.encoder, self.flips = encoder, flips
        with torch.no_grad():
            maps = encoder(torch.zeros(1, 3, 64, 96))
        self.heads = nn.ModuleList(Head(encoder.widths, 64 // maps[0].shape[2]) for _ in range(heads))
        for number, one in enumerate(maps):
            self.register_buffer(f"centre{number}", torch.zeros(1, one.shape[1], 1, 1))
            self.register_buffer(f"spread{number}", torch.ones(1, one.shape[1], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.decode(self.encoder(x))
        if self.flips:
            logits = (logits + self.decode(self.encoder(x.flip(3))).flip(3)) / 2
        return logits

    def standardised(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps in units of what normal images show; extremes are cut."""
        return [
            ((one - getattr(self, f"centre{n}")) / getattr(self, f"spread{n}")).clamp(-8, 8)
            for n, one in enumerate(maps)
        ]

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Mean logits (B, 1, H, W) of all heads on an encoder's maps."""
        known = self.standardised(maps)
        return torch.stack([head(known) for head in self.heads]).mean(0)

    def measure(self, items: Sequence[Sequence[Tensor]]) -> None:
        """Take centre and spread of every channel from normal images: no label is asked, so all arms get the same."""
        for number in range(len(self.encoder.widths)):
            flat = [maps[number].float().flatten(-2).reshape(self.encoder.widths[number], -1) for maps in items]
            count = sum(one.shape[1] for one in flat)
            mean = torch.stack([one.sum(1) for one in flat]).sum(0) / count
            square = torch.stack([(one**2).sum(1) for one in flat]).sum(0) / count
            spread = (square - mean**2).clamp_min(1e-6).sqrt() + 1e-3
            for name, value in (("centre", mean), ("spread", spread)):
                getattr(self, f"{name}{number}").copy_(value[None, :, None, None])


def build(config: SegmentationConfig) -> Segmenter:
    """An untrained segmenter on the encoder that the settings name."""
    return Segmenter(Encoder(config.encoder), config.heads, config.flips)
