"""The active LoRA as part of the denoiser's own weights while pictures are made: every layer runs once, not thrice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["merged"]

LARGEST = 64_000_000  # weights; of a larger denoiser the second copy costs more than the layers it saves


@contextmanager
def merged(unet: nn.Module) -> Iterator[None]:
    """Add the active adapters (W + BA) inside the block; afterwards every weight is what it was, bit for bit.

    Left alone, and run as they are: denoisers without an active adapter, in half precision (a small BA would round
    to nothing) or of more than LARGEST weights.
    """
    layers = _adapted(unet)
    weights: list[torch.Tensor] = [layer.get_base_layer().weight.data for layer in layers]  # type: ignore[operator]
    if sum(w.numel() for w in weights) > LARGEST or any(w.dtype != torch.float32 for w in weights):
        layers, weights = [], []
    kept = [weight.clone() for weight in weights]
    try:
        for layer in layers:
            layer.merge()  # type: ignore[operator]
        yield
    finally:
        for layer, before in zip(layers, kept, strict=True):
            layer.unmerge()  # type: ignore[operator]
            layer.get_base_layer().weight.data.copy_(before)  # type: ignore[operator]  # W + BA - BA is not W


def _adapted(unet: nn.Module) -> list[nn.Module]:
    """The layers in which an adapter is switched on."""
    if not getattr(unet, "peft_config", None):
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = [m for m in unet.modules() if isinstance(m, BaseTunerLayer)]
    return [m for m in found if not m.disable_adapters and m.active_adapters]
