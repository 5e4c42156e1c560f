"""Adaptive attention re-weighting: inserted tokens are listened to more where the image still looks like the normal.

Reference: AnomalyDiffusion (AAAI 2024), adaptive attention re-weighting, an option of AnomalyXFusion's code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["reweighted", "weights"]

STRONGEST = 1.5


def weights(latents: Tensor, normal: Tensor, mask: Tensor) -> Tensor:
    """(B, 1, h, w) in [1, 1.5]: |M| * softmax over M of 1 / |z - z_normal|^2, clamped; 1 outside M.

    latents, normal (B, C, h, w), mask (B, 1, h, w) in {0, 1}. The softmax's mean over M is 1 / |M|, so that the product
    has mean 1 before it is clamped.
    """
    distance = (latents - normal).square().mean(1, keepdim=True)
    logits = (1 / distance.clamp_min(1e-2)).masked_fill(mask < 0.5, float("-inf")).flatten(1)
    share = logits.softmax(1).nan_to_num().unflatten(1, mask.shape[1:]) * mask.sum((1, 2, 3), keepdim=True)
    return torch.where(mask > 0.5, share.clamp(1.0, STRONGEST), 1.0)


class _Reweighted:
    """Plain cross-attention whose logits at the inserted positions are multiplied by `state["map"]`."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *args: Any, **kw: Any
    ) -> Tensor:
        shape = hidden_states.shape
        x = hidden_states
        if x.ndim == 4:
            x = x.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        query = attn.head_to_batch_dim(attn.to_q(x))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        logits = (query @ key.transpose(-1, -2)).float() * attn.scale  # (B h, n, L)
        grid = self.state["map"]  # (B, 1, H, W)
        side = round(x.shape[1] ** 0.5)
        places = nn.functional.adaptive_max_pool2d(grid, side).flatten(1)  # (B, n)
        places = places.repeat(len(x) // len(places), 1).repeat_interleave(attn.heads, 0)  # guidance doubles the batch
        first, last = self.state["slots"]
        factor = torch.ones_like(logits)
        factor[..., first:last] = places[..., None]
        out = attn.batch_to_head_dim((logits * factor).softmax(-1).to(value.dtype) @ value)
        out = attn.to_out[1](attn.to_out[0](out))
        if len(shape) == 4:
            out = out.transpose(1, 2).reshape(shape)
        out = out + hidden_states if attn.residual_connection else out
        return out / attn.rescale_output_factor


@contextmanager
def reweighted(unet: Any, slots: tuple[int, int], normal: Tensor, mask: Tensor) -> Iterator[None]:
    """Inside, the denoiser's cross-attention is re-weighted at context positions slots[0]:slots[1].

    normal (B, C, h, w), mask (B, 1, h, w): of the windows being painted.
    """
    state: dict[str, Any] = {"slots": slots, "map": None}

    def appearance(module: nn.Module, given: tuple[Any, ...]) -> None:
        latents = given[0][: len(normal), : normal.shape[1]]
        state["map"] = weights(latents, normal, mask)

    before = dict(unet.attn_processors)
    changed = {name: _Reweighted(state) if name.endswith("attn2.processor") else p for name, p in before.items()}
    unet.set_attn_processor(changed)
    handle = unet.register_forward_pre_hook(appearance)
    try:
        yield
    finally:
        handle.remove()
        unet.set_attn_processor(before)
