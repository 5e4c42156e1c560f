"""Where a defect is and what shape it has: a mask to four tokens.

Reference: AnomalyXFusion, location embedding, which it takes from AnomalyDiffusion.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flawsmith.diffusion.tensors import pool_mask
from flawsmith.errors import FlawsmithError

__all__ = ["COUNT", "LocationEncoder", "PaperLocationEncoder"]

COUNT = 4  # tokens


def _signs(mask: Tensor, side: int) -> Tensor:
    """(B, 1, S, S) in {0, 1} -> (B, 1, side, side) in {-1, 1}; a touched cell counts, so that no mask vanishes."""
    if not mask.flatten(1).any(1).all():
        raise FlawsmithError("A mask is empty: location tokens need at least one pixel that may change.")
    return 2 * pool_mask(mask.float(), side) - 1


class LocationEncoder(nn.Module):
    """The compact design: strided convolutions at 128 px, then four queries that each pool the map with attention."""

    def __init__(self, width: int, base: int = 16, side: int = 128) -> None:
        super().__init__()
        self.side = side
        widths = [base, 2 * base, 4 * base, 8 * base]
        layers: list[nn.Module] = []
        for before, after in zip([1, *widths], widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(after // 8, after), nn.SiLU()]
        self.trunk = nn.Sequential(*layers)  # side / 16
        self.place = nn.Parameter(torch.randn(widths[-1], (side // 16) ** 2) * 0.02)
        self.queries = nn.Parameter(torch.randn(COUNT, widths[-1]) * 0.02)
        self.norm = nn.LayerNorm(widths[-1])
        self.project = nn.Linear(widths[-1], width)
        nn.init.normal_(self.project.weight, std=0.02)
        nn.init.zeros_(self.project.bias)

    def forward(self, mask: Tensor) -> Tensor:
        """mask (B, 1, S, S) in {0, 1}, no row empty -> e_loc (B, 4, D)."""
        cells = self.trunk(_signs(mask, self.side)).flatten(2) + self.place  # (B, C, n)
        weights = (self.queries @ cells / cells.shape[1] ** 0.5).softmax(-1)  # (B, 4, n)
        return self.project(self.norm(weights @ cells.transpose(1, 2)))


class _Unit(nn.Module):
    """IR-50's residual unit. Reference: Deng et al., "ArcFace", CVPR 2019 (improved ResNet)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.MaxPool2d(1, stride)
        if before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.body = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.body(x)


class PaperLocationEncoder(nn.Module):
    """The published size, 356 M parameters at D = 1280: an IR-50 trunk with a feature pyramid and four heads.

    It is trained from nothing here; where the published one was pretrained, and on what, is not known.
    Reference: Richardson et al., "Encoding in Style" (pSp), CVPR 2021, section 3.1, by way of AnomalyDiffusion.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        self.stages = nn.ModuleList()
        before = 64
        for after, units in ((64, 3), (128, 4), (256, 14), (512, 3)):
            self.stages.append(
                nn.Sequential(_Unit(before, after, 2), *(_Unit(after, after, 1) for _ in range(units - 1)))
            )
            before = after
        self.lateral = nn.ModuleList([nn.Conv2d(256, 512, 1), nn.Conv2d(128, 512, 1)])
        self.heads = nn.ModuleList(self._head(width) for _ in range(COUNT))

    @staticmethod
    def _head(width: int) -> nn.Module:
        layers: list[nn.Module] = []
        for before in (512, *(width,) * 5):  # 64 -> 1
            layers += [nn.Conv2d(before, width, 3, 2, 1), nn.LeakyReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, width))

    def forward(self, mask: Tensor) -> Tensor:
        """mask (B, 1, S, S) in {0, 1}, no row empty -> e_loc (B, 4, D)."""
        x = self.stem(_signs(mask, 256).expand(-1, 3, -1, -1))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)  # 128, 64, 32, 16
        merged = maps[3]
        for lateral, finer in zip(self.lateral, (maps[2], maps[1]), strict=True):
            merged = nn.functional.interpolate(merged, scale_factor=2.0, mode="bilinear") + lateral(finer)
        return torch.stack([head(merged) for head in self.heads], 1)
