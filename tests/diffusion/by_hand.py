"""Layers written out: what the tests of equations compare the modules with. No torch.nn in here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Module = TypeVar("Module", bound=torch.nn.Module)


def stirred(module: Module, seed: int = 0, std: float = 0.4) -> Module:
    """With every parameter somewhere else than it starts, so that no zero hides a term."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(std * torch.randn(parameter.shape, generator=generator))
    return module


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(layer: Any, x: Tensor) -> Tensor:
    return x @ layer.weight.T + layer.bias


def normed(layer: Any, x: Tensor) -> Tensor:
    """Layer norm over the last axis."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def heads(q: Tensor, k: Tensor, v: Tensor, count: int, logits: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """Attention (B, n, W), head by head; `logits` may change what the softmax sees."""
    found, size = [], q.shape[-1] // count
    for head in range(count):
        cut = slice(head * size, (head + 1) * size)
        scores = logits(torch.einsum("bnc,bmc->bnm", q[..., cut], k[..., cut]) / math.sqrt(size))
        shares = scores.exp() / scores.exp().sum(-1, keepdim=True)
        found.append(shares @ v[..., cut])
    return torch.cat(found, -1)


def attention(layer: Any, x: Tensor, source: Tensor) -> Tensor:
    """`nn.MultiheadAttention` of x (B, n, W) over source (B, m, W)."""
    weight, bias = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    q, k, v = (given @ w.T + b for given, w, b in zip((x, source, source), weight, bias, strict=True))
    return linear(layer.out_proj, heads(q, k, v, layer.num_heads))


def pooled(mask: Tensor, side: int) -> Tensor:
    """(B, 1, S, S) -> (B, 1, side, side): 1 where any pixel of a cell is, cell by cell."""
    step = mask.shape[-1] // side
    found = torch.zeros(len(mask), 1, side, side)
    for row in range(side):
        for column in range(side):
            cell = mask[:, 0, row * step : (row + 1) * step, column * step : (column + 1) * step]
            found[:, 0, row, column] = (cell != 0).flatten(1).any(1).float()
    return found
