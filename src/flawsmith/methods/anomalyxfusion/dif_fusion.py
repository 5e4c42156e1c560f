"""Dynamic Dif-Fusion: how much each group of tokens says changes with the diffusion step.

Reference: AnomalyXFusion, DDF. The paper states X_t = MLP(X, t); both readings of it are here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["DifFusion", "sinusoid"]

STEP_WIDTH = 256


def sinusoid(t: Tensor, width: int = STEP_WIDTH) -> Tensor:
    """Steps (B,) -> (B, width) cosines and sines of falling frequency. Reference: Ho et al. 2020."""
    rate = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=t.device) / (width // 2))
    angle = t.float()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], 1)


class DifFusion(nn.Module):
    """X (B, N, D) and steps (B,) -> X_t (B, N, D).

    "film": X_t = X * (1 + gamma) + beta, both (B, 3, D) from the step alone, one pair per group. "concat":
    X_t = X + MLP([X; tau(t)]). The last layer is zero at first, so that X_t starts as X at every step.
    """

    def __init__(self, width: int, sizes: Sequence[int], kind: str = "film") -> None:
        super().__init__()
        self.kind, self.sizes = kind, list(sizes)
        given, made = (STEP_WIDTH, len(sizes) * 2 * width) if kind == "film" else (STEP_WIDTH + width, width)
        self.mlp = nn.Sequential(nn.Linear(given, width), nn.SiLU(), nn.Linear(width, made))
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        step = sinusoid(t)
        if self.kind == "concat":
            return x + self.mlp(torch.cat([x, step[:, None].expand(-1, x.shape[1], -1).to(x.dtype)], -1))
        both = self.mlp(step).unflatten(-1, (len(self.sizes), 2, -1))  # (B, 3, 2, D)
        gamma, beta = (
            torch.cat([v[:, i : i + 1].expand(-1, n, -1) for i, n in enumerate(self.sizes)], 1) for v in both.unbind(2)
        )  # (B, N, D)
        return x * (1 + gamma) + beta
