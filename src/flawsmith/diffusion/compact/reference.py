"""What a reference image of a defect looks like, as tokens: a mask-aware conv encoder and a small reader
with learned queries.

The reader has the shape of BLIP-2's Q-Former (queries and text share one self-attention, queries look at the
image), at a size that runs on a CPU; its attention maps and the additive guidance variable on the visual
tokens are what AnomalyControl's ASEA needs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["GRID", "VISUAL_TOKENS", "ReferenceEncoder", "ReferenceReader"]

GRID = 8  # the visual tokens form an 8 x 8 grid ...
VISUAL_TOKENS = GRID * GRID + 1  # ... behind one pooled token of the masked region


CONTRAST = 13  # numbers that `contrast` gives


def contrast(image: Tensor, mask: Tensor) -> Tensor:
    """How the masked region differs from its surroundings, (B, 13) of about unit size: mean colour inside, mean
    difference, spread inside, spread around, and the logarithm of the region's share.

    image (B, 3, S, S) in [-1, 1], mask (B, 1, S, S) in {0, 1}.
    """
    around = 1 - mask
    found = []
    for region in (mask, around):
        area = region.sum((2, 3)).clamp_min(1)  # (B, 1)
        mean = (image * region).sum((2, 3)) / area  # (B, 3)
        spread = ((image - mean[..., None, None]).square() * region).sum((2, 3)) / area
        found += [mean, spread.sqrt()]
    inside, deviation, outside, outer = found
    share = mask.mean((2, 3)).clamp_min(1e-4).log() / 4
    return torch.cat([2 * inside, 4 * (inside - outside), 4 * deviation, 4 * outer, share], 1)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        groups = max(1, width // 16)
        self.body = nn.Sequential(
            nn.GroupNorm(groups, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(groups, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ReferenceEncoder(nn.Module):
    """A reference window and its mask -> (B, 65, E): one token of the masked region, then 8 x 8 patch tokens
    in row order.

    The mask is a fourth channel, so the surroundings are seen but known to be surroundings. The first token starts
    from `contrast`, what is known without learning; `say` turns it into words (a unit vector of the word table).
    """

    def __init__(self, width: int = 128, base: int = 48, words: int = 128) -> None:
        super().__init__()
        self.width, self.base = width, base
        self.stem = nn.Conv2d(4, base, 4, stride=4)  # 128 px -> 32 x 32
        self.stages = nn.ModuleList(
            [
                nn.Sequential(_Residual(base), nn.Conv2d(base, 2 * base, 3, stride=2, padding=1)),
                nn.Sequential(_Residual(2 * base), nn.Conv2d(2 * base, width, 3, stride=2, padding=1)),
                _Residual(width),
            ]
        )
        self.contrast = nn.Linear(CONTRAST, width)
        self.position = nn.Parameter(torch.randn(VISUAL_TOKENS, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.say = nn.Linear(width, words)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """image (B, 3, S, S) in [-1, 1], mask (B, 1, S, S) in {0, 1}; S = 128 gives the 8 x 8 grid, other
        sizes are pooled to it.
        """
        x = self.stem(torch.cat([image, mask * 2 - 1], 1))
        for stage in self.stages:
            x = stage(x)
        if x.shape[-2:] != (GRID, GRID):
            x = nn.functional.adaptive_avg_pool2d(x, GRID)
        share = nn.functional.adaptive_avg_pool2d(mask, GRID)  # (B, 1, 8, 8): how much of each cell is defect
        pooled = (x * share).sum((2, 3)) / share.sum((2, 3)).clamp_min(1e-4)  # (B, E)
        pooled = pooled + self.contrast(contrast(image, mask))
        tokens = torch.cat([pooled[:, None], x.flatten(2).transpose(1, 2)], 1)  # (B, 65, E)
        return self.norm(tokens + self.position)


class _Attention(nn.Module):
    """Multi-head attention with an explicit softmax, so that the maps can be returned. No dropout."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, N, E), source (B, M, E), keep (B, M) bool -> (B, N, E) and the map (B, heads, N, M), rows
        summing to 1.
        """
        q, k, v = (
            layer(t).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, t in ((self.query, x), (self.key, source), (self.value, source))
        )
        logits = (q @ k.transpose(-1, -2)).float() / q.shape[-1] ** 0.5  # (B, h, N, M)
        if keep is not None:
            logits = logits.masked_fill(~keep[:, None, None], float("-inf"))
        weights = logits.softmax(-1)
        return self.out((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)), weights


class _ReaderLayer(nn.Module):
    def __init__(self, width: int, heads: int, looks: bool) -> None:
        super().__init__()
        self.norm_self, self.attend_self = nn.LayerNorm(width), _Attention(width, heads)
        self.norm_look = nn.LayerNorm(width) if looks else None
        self.attend_look = _Attention(width, heads) if looks else None
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, queries: int, keep: Tensor, visual: Tensor) -> tuple[Tensor, Tensor | None]:
        n = self.norm_self(x)
        x = x + self.attend_self(n, n, keep)[0]
        weights = None
        if self.attend_look is not None and self.norm_look is not None:
            seen, weights = self.attend_look(self.norm_look(x[:, :queries]), visual)
            x = torch.cat([x[:, :queries] + seen, x[:, queries:]], 1)
        return x + self.mlp(self.norm_mlp(x)), weights


class ReferenceReader(nn.Module):
    """Text and visual tokens in, a few tokens that say what the defect looks like out.

    Queries and text share one self-attention; in the first layer of each pair the queries look at the visual
    tokens.
    """

    def __init__(
        self,
        text_width: int = 192,
        width: int = 128,
        queries: int = 8,
        layers: int = 2,
        heads: int = 4,
        visual_width: int = 128,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "text_width": text_width,
            "width": width,
            "queries": queries,
            "layers": layers,
            "heads": heads,
            "visual_width": visual_width,
        }
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.from_text = nn.Linear(text_width, width)
        self.from_visual = nn.Linear(visual_width, width) if visual_width != width else nn.Identity()
        self.layers = nn.ModuleList(_ReaderLayer(width, heads, looks=i % 2 == 0) for i in range(layers))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, text_width)
        self.null = nn.Parameter(torch.randn(queries, text_width) * 0.02)

    def features(
        self, visual: Tensor, text: Tensor, keep: Tensor, guidance: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The queries' states (B, Q, E) and one attention map (B, heads, Q, 65) per looking layer.

        visual (B, 65, E), text (B, L, D) with keep (B, L) bool; `guidance` is ASEA's e_g, (1 or B, 65, E),
        added to the visual tokens.
        """
        seen = visual if guidance is None else visual + guidance
        seen = self.from_visual(seen)
        count = self.queries.shape[0]
        x = torch.cat([self.queries.expand(len(visual), -1, -1).to(seen.dtype), self.from_text(text).to(seen.dtype)], 1)
        everyone = torch.cat([keep.new_ones(len(keep), count), keep], 1)
        maps = []
        for layer in self.layers:
            x, weights = layer(x, count, everyone, seen)
            if weights is not None:
                maps.append(weights)
        return self.norm(x[:, :count]), tuple(maps)

    def forward(self, visual: Tensor, text: Tensor, keep: Tensor, guidance: Tensor | None = None) -> Tensor:
        """Context tokens (B, Q, D) for the denoiser; shapes as in `features`."""
        return self.project(self.features(visual, text, keep, guidance)[0])

    def absent(self, count: int) -> Tensor:
        """The learned tokens (count, Q, D) that mean "no reference"."""
        return self.null.expand(count, -1, -1)
