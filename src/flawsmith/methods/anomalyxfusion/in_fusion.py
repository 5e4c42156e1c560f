"""Multi-modal In-Fusion: the three groups of tokens see each other and become one embedding X.

Reference: AnomalyXFusion, MIF.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["InFusion"]


class InFusion(nn.Module):
    """E = [e_tex; e_loc; e_sem] + g, U = E + MSA(LN(E)), X = U + MLP(LN(U)); (B, N, D) -> (B, N, D).

    g, one vector per group, is ours: the semantic tokens are equal, and attention cannot tell unmarked groups apart. g
    and the last layer of each branch are zero at first, so that X starts as plain concatenation.
    """

    def __init__(self, width: int, sizes: Sequence[int], heads: int = 8, ratio: int = 4) -> None:
        super().__init__()
        self.group = nn.Parameter(torch.zeros(len(sizes), width))
        self.sizes = list(sizes)
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))
        for last in (self.attention.out_proj, self.mlp[-1]):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        e = tokens + torch.cat([g.expand(n, -1) for g, n in zip(self.group, self.sizes, strict=True)])
        n = self.norm_attention(e)
        u = e + self.attention(n, n, n, need_weights=False)[0]
        return u + self.mlp(self.norm_mlp(u))
