"""ASEA: for each reference, find the small change of its visual tokens that makes the reader look at the defect.

Nothing is masked and no weight changes: e_g, of the shape of the visual tokens, is optimised for a few steps so that
the reader's attention falls inside the anomaly mask.

Reference: He et al. 2024 (AnomalyControl), anomaly-semantic enhanced attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flawsmith.diffusion.tensors import pool_mask
from flawsmith.errors import FlawsmithError

__all__ = ["Guided", "attention_share", "optimise_guidance", "token_mask"]

Read = Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]]  # e_g -> states (B, Q, E), maps (B, heads, Q, N)


@dataclass(frozen=True)
class Guided:
    """The result for B references: the reader's states with the final e_g, and the energy before each update and
    after the last.
    """

    states: Tensor  # (B, Q, E)
    guidance: Tensor  # (B, N, V), e_g
    energy: Tensor  # (updates + 1, B)


def token_mask(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, 1, S, S) in {0, 1} -> (B, Gh * Gw): a cell is 1 if any of its pixels is, so that no small defect vanishes.

    Raises FlawsmithError for an empty mask: with it the energy has no gradient and nothing would happen, silently.
    """
    cells = pool_mask(mask.float(), grid).flatten(1)
    if not bool(cells.any(1).all()):
        raise FlawsmithError("A reference's mask is empty, so its attention has no target: paint the defect white.")
    return cells


def attention_share(maps: tuple[Tensor, ...], cells: Tensor, prefix: int) -> Tensor:
    """r (B,): the share of the attention that falls inside the mask, over layers, heads and queries.

    maps: per layer (B, heads, Q, prefix + Gh * Gw), softmax over the last; the first `prefix` columns (CLS) are no
    place in the image and are dropped.
    """
    a = torch.stack(maps).mean(0)[..., prefix:].mean((1, 2))  # (B, Gh * Gw)
    return (a * cells).sum(1) / a.sum(1)


def optimise_guidance(
    read: Read, visual: Tensor, cells: Tensor, prefix: int, updates: int = 5, rate: float = 0.1
) -> Guided:
    """Optimise e_g from zero by Adam on E = (1 - r)^2, then read once more with the last e_g.

    read(e_g) reads the visual tokens plus e_g; visual (B, N, V) gives e_g its shape; cells (B, Gh * Gw). References
    in one batch do not see each other: E is summed and Adam works entry by entry. The gradient is taken for e_g
    alone. `updates=4` is the released code, whose last update is never read; 0 gives the plain feature.
    """
    with torch.enable_grad(), torch.autocast(visual.device.type, enabled=False):
        e_g = torch.zeros_like(visual, dtype=torch.float32, requires_grad=True)
        adam = torch.optim.Adam([e_g], lr=rate)
        energies = []
        for _ in range(updates):
            energy = (1 - attention_share(read(e_g)[1], cells, prefix)).square()  # (B,)
            energies.append(energy.detach())
            (e_g.grad,) = torch.autograd.grad(energy.sum(), e_g)
            adam.step()
        with torch.no_grad():
            states, maps = read(e_g)
            energies.append((1 - attention_share(maps, cells, prefix)).square())
    return Guided(states.detach(), e_g.detach(), torch.stack(energies))
