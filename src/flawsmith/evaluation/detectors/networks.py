"""The segmenters: light U-Nets for CPUs, and the U-Net of the papers' protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class TinyUNet(nn.Module):
    """(B, 3, H, W) in [-1, 1] to logits (B, 1, H, W); H and W divisible by 8 x unshuffle. Under 0.5 M parameters.

    unshuffle: side of the blocks of pixels that become channels at the input and are laid out again at the output, so
    that the network has one level less and its widest maps a quarter of the places.
    """

    def __init__(self, widths: Sequence[int], unshuffle: int = 1) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        inward = (3 * unshuffle**2, *widths[:-1])
        self.down = nn.ModuleList(_block(i, o) for i, o in zip(inward, widths, strict=True))
        self.up = nn.ModuleList(
            _block(low + high, high) for low, high in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], unshuffle**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.pixel_unshuffle(x, self.unshuffle)
        kept: list[Tensor] = []
        for number, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if number else x)
            kept.append(x)
        for block, skip in zip(self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
        return nn.functional.pixel_shuffle(self.head(x), self.unshuffle)


class UNet(nn.Module):
    """DRAEM's discriminative sub-network on one image: (B, 3, H, W) to logits (B, 1, H, W); H, W divisible by 32.

    Five reductions, `base` channels at full size, bilinear enlargement with a convolution, as in the papers' protocol
    (Zavrtanik et al., ICCV 2021, section 3.2). Their two output channels with a softmax are one with a sigmoid here:
    the difference of the two logits.
    """

    def __init__(self, base: int = 64) -> None:
        super().__init__()
        widths = [base, 2 * base, 4 * base, 8 * base, 8 * base, 8 * base]
        ups = [8 * base, 4 * base, 2 * base, base, base]
        self.down = nn.ModuleList(_block(i, o) for i, o in zip((3, *widths[:-1]), widths, strict=True))
        inward = (widths[-1], *ups[:-1])
        self.grow = nn.ModuleList(_unit(i, o) for i, o in zip(inward, ups, strict=True))
        self.up = nn.ModuleList(_block(o + s, o) for o, s in zip(ups, widths[-2::-1], strict=True))
        self.head = nn.Conv2d(base, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for number, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if number else x)
            kept.append(x)
        for grow, block, skip in zip(self.grow, self.up, kept[-2::-1], strict=True):
            x = grow(nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True))
            x = block(torch.cat([x, skip], 1))
        return self.head(x)


def _unit(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, padding=1, bias=False), nn.BatchNorm2d(outward), nn.ReLU(inplace=True)
    )


def _block(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(*_unit(inward, outward), *_unit(outward, outward))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "light-unet": lambda: TinyUNet((24, 48, 64, 96), unshuffle=2),  # twice as fast as the next
    "tiny-unet": lambda: TinyUNet((16, 32, 64, 96)),
    "unet": UNet,
}
MULTIPLE = 32  # sides of an image are padded to this, enough for all
