"""Decoupled cross-attention: a second set of keys and values for a reference's tokens, beside the frozen words.

    Z = Attn(Q, K_t, V_t) + lambda * Attn(Q, F_c W'_k, F_c W'_v)

Reference: Ye et al. 2023 (IP-Adapter), equation 5; He et al. 2024 (AnomalyControl), semantic guided adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from flawsmith.errors import FlawsmithError

__all__ = ["DecoupledAttention", "SemanticAttention", "attach", "attached", "cross_attention", "detach"]


def cross_attention(unet: Any) -> dict[str, Any]:
    """The cross-attention layers by the name of their processor, in the order of `unet.attn_processors`."""
    layers = {name: unet.get_submodule(name.removesuffix(".processor")) for name in unet.attn_processors}
    return {name: layer for name, layer in layers.items() if layer.is_cross_attention}


class SemanticAttention(nn.Module):
    """W'_k and W'_v of every cross-attention layer of one denoiser: all that the adapter trains inside it.

    They live beside the denoiser, not in it, so that its weights, fingerprint and files never change. They start as
    copies of the layer's own K and V. `positions` are the layers' numbers in `unet.attn_processors`, which is how
    IP-Adapter files number them.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        layers = cross_attention(unet)
        if not layers:
            raise FlawsmithError("The denoiser has no cross-attention, so nothing can be attached to it.")
        self.names = list(layers)
        self.positions = [list(unet.attn_processors).index(name) for name in layers]
        self.to_k_ip = nn.ModuleList(_copy(layer.to_k) for layer in layers.values())
        self.to_v_ip = nn.ModuleList(_copy(layer.to_v) for layer in layers.values())

    def __len__(self) -> int:
        return len(self.names)


def _copy(own: Any) -> nn.Linear:
    """A layer without bias that starts as `own` (a LoRA around it is left behind)."""
    weight = own.weight
    new = nn.Linear(own.in_features, own.out_features, bias=False, device=weight.device, dtype=torch.float32)
    with torch.no_grad():
        new.weight.copy_(weight)
    return new


class DecoupledAttention:
    """The processor of one cross-attention layer. `weight` is lambda, set at run time by `denoise.predict`.

    Called with the tuple (context (B, L, D), semantic (B, N, D)) it computes the equation above; at lambda = 0, and
    for a plain context, it hands over to the processor it replaced, whose output is then the same bit for bit.
    """

    def __init__(self, inner: Any, to_k_ip: nn.Module, to_v_ip: nn.Module) -> None:
        self.inner, self.to_k_ip, self.to_v_ip = inner, to_k_ip, to_v_ip
        self.weight = 1.0

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,  # (B, P, W): the image's positions
        encoder_hidden_states: Any = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if not isinstance(encoder_hidden_states, tuple):
            return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        context, semantic = encoder_hidden_states
        if self.weight == 0:
            return self.inner(attn, hidden_states, context, attention_mask, temb)
        query = attn.to_q(hidden_states)
        z = self._attend(attn, query, attn.to_k(context), attn.to_v(context), attention_mask)
        semantic = semantic.to(next(self.to_k_ip.parameters()).dtype)  # trained in float32 beside any denoiser
        key, value = self.to_k_ip(semantic).to(query.dtype), self.to_v_ip(semantic).to(query.dtype)
        z = z + self.weight * self._attend(attn, query, key, value, None)
        return attn.to_out[1](attn.to_out[0](z)) / attn.rescale_output_factor

    def _attend(self, attn: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """softmax(Q K^T / sqrt(d)) V over all heads, (B, P, W), by the kernel of the replaced processor."""
        if isinstance(self.inner, AttnProcessor):  # at the compact size the fused kernel is slower, see compact._unet
            mask = attn.prepare_attention_mask(mask, key.shape[1], len(key))
            q, k, v = (attn.head_to_batch_dim(x) for x in (query, key, value))
            return attn.batch_to_head_dim(torch.bmm(attn.get_attention_scores(q, k, mask), v))
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value))
        if mask is not None:
            mask = attn.prepare_attention_mask(mask, key.shape[1], len(key)).unflatten(0, (-1, attn.heads))
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def attach(unet: Any, semantic: SemanticAttention | None = None) -> SemanticAttention:
    """Give every cross-attention layer of `unet` the second branch; returns its weights (fresh ones when None)."""
    semantic = semantic or SemanticAttention(unet)
    layers = cross_attention(unet)
    if list(layers) != semantic.names:
        raise FlawsmithError(
            f"The adapter is for {len(semantic)} cross-attention layers, this denoiser has {len(layers)}: it belongs "
            "to another backbone."
        )
    for layer, to_k, to_v in zip(layers.values(), semantic.to_k_ip, semantic.to_v_ip, strict=True):
        if layer.residual_connection or layer.norm_cross or layer.group_norm is not None:
            raise FlawsmithError("This denoiser's cross-attention is none of Stable Diffusion's kind: not supported.")
        if layer.to_k.in_features != to_k.in_features or layer.to_k.out_features != to_k.out_features:
            raise FlawsmithError(
                f"The adapter's keys are {to_k.in_features} -> {to_k.out_features}, this denoiser's "
                f"{layer.to_k.in_features} -> {layer.to_k.out_features}: it belongs to another backbone."
            )
        layer.set_processor(DecoupledAttention(_plain(layer.processor), to_k, to_v))
    return semantic


def detach(unet: Any) -> None:
    """Give every layer the processor back that it had before `attach`."""
    for layer in cross_attention(unet).values():
        layer.set_processor(_plain(layer.processor))


@contextmanager
def attached(unet: Any, semantic: SemanticAttention) -> Iterator[None]:
    """Attach for the length of a block, so that a denoiser shared with another method is left as it was."""
    attach(unet, semantic)
    try:
        yield
    finally:
        detach(unet)


def _plain(processor: Any) -> Any:
    return processor.inner if isinstance(processor, DecoupledAttention) else processor
