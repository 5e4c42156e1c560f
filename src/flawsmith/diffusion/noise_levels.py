"""Which noise levels a pixel-space denoiser is trained on and sampled at: evenly in log sigma, not in t.

Latent diffusion's schedule is made for latents of unit spread. A dent on a photograph has a contrast of 0.1 to 0.3, its
structure of 0.03, and that schedule crosses these levels in its first hundredth: eight even steps jump from sigma 0.4
(53 grey levels) to the finished image, which therefore has no detail. In sigma = noise / signal the levels that
decide detail get their share.
Reference: Karras et al. 2022, section 3 and table 1 (log-normal training levels); Lu et al. 2022 (steps even in log
SNR).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TOP = 8.0  # sigma above which an image of ordinary contrast cannot be told from noise
PURE = 0.2  # share of training steps above TOP, where only words, mask and surroundings speak


def log_sigma(alphas_cumprod: Tensor) -> Tensor:
    """log(noise / signal) of every step (T,), float64; infinite at pure noise."""
    signal = alphas_cumprod.double()
    return 0.5 * ((1 - signal) / signal).log()


def _below_top(alphas_cumprod: Tensor) -> Tensor:
    levels = log_sigma(alphas_cumprod)
    return levels[levels <= math.log(TOP)]


def step_table(alphas_cumprod: Tensor) -> Tensor:
    """Training steps (1000,) long, ascending: all but a share PURE evenly in log sigma up to TOP, the rest evenly in t
    above.
    """
    levels = _below_top(alphas_cumprod)
    low = round(1000 * (1 - PURE))
    wanted = torch.linspace(float(levels[0]), float(levels[-1]), low, dtype=torch.float64)
    high = torch.linspace(len(levels), len(alphas_cumprod) - 1, 1000 - low).round().long()
    return torch.cat([torch.bucketize(wanted, levels).clamp_max(len(levels) - 1), high])


def sampling_steps(alphas_cumprod: Tensor, count: int) -> list[int]:
    """Descending steps for a sampler: pure noise first, then evenly in log sigma from TOP down to the first step.

    Fewer than `count` where two of them fall on one step of the schedule.
    """
    levels = _below_top(alphas_cumprod)
    wanted = torch.linspace(float(levels[-1]), float(levels[0]), max(1, count - 1), dtype=torch.float64)
    steps = (levels[None, :] - wanted[:, None]).abs().argmin(dim=1).tolist()
    return list(dict.fromkeys([len(alphas_cumprod) - 1, *steps]))[:count]
