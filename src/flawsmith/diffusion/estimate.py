"""How much memory a forward or training pass needs, counted before anything is moved to a GPU.

The denoiser runs once on torch's "meta" device, where tensors have shapes and lifetimes but no numbers; what lives at
the same time is added up. Attention counts as torch's fused kernel, which never holds the position-by-position matrix.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.compact.clean import CleanUNet
from flawsmith.diffusion.compact.unet import PreconditionedUNet

__all__ = ["Estimate", "LivePeak", "activations", "coding_bytes", "fused_attention", "weight_bytes"]

CONTEXT = 600 << 20  # the driver's own share, and what kernels work in


class LivePeak(TorchDispatchMode):
    """Inside, `peak` is the most bytes of new tensors that were alive at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if id(storage) not in self._known and id(storage) not in given:
                    self._add(storage)
        return out

    def _add(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)

        def gone() -> None:
            self._known.discard(key)
            self.live -= size

        weakref.finalize(storage, gone)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention as its fused kernel: reads queries, keys and values, writes one answer of the queries' size.

    A patch and not a TorchFunctionMode, which does not reach the autograd thread that recomputes checkpointed blocks.
    """
    functional: Any = nn.functional
    plain = functional.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        found: Tensor = _Attention.apply(query, key, value)
        return found

    functional.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        query, key, value, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _peak(work: Callable[[], Any]) -> int:
    with LivePeak() as counted, fused_attention():
        work()
    return counted.peak


def activations(backbone: Backbone, batch: int, training: bool, checkpointing: bool = False) -> int:
    """Bytes that one pass of `batch` windows through the denoiser holds beside the weights: for training, what the
    backward pass needs of the whole forward pass.
    """
    unet, dtype = backbone.unet, next(backbone.unet.parameters()).dtype
    side = backbone.size // backbone.factor
    with torch.device("meta"):
        copy = _like(unet, dtype)
        sample = torch.empty(batch, int(unet.config.in_channels), side, side, dtype=dtype)
        context = torch.empty(batch, 77, backbone.context_width, dtype=dtype, requires_grad=training)
        step = torch.zeros(batch, dtype=torch.long)
    if checkpointing:
        copy.enable_gradient_checkpointing()

    def work() -> None:
        with torch.set_grad_enabled(training):
            found = copy(sample, step, encoder_hidden_states=context, return_dict=False)[0]
            if training:
                found.sum().backward()

    return _peak(work)


def coding_bytes(backbone: Backbone) -> int:
    """Bytes that the vae holds beside its weights while it encodes or decodes one window; 0 for pixel codecs."""
    vae = backbone.vae
    if vae is None:
        return 0
    with torch.device("meta"), torch.no_grad():
        copy = type(vae).from_config(vae.config)
        image = torch.empty(1, 3, backbone.size, backbone.size)
        side = backbone.size // backbone.factor
        latents = torch.empty(1, backbone.latent_channels, side, side)
        return max(_peak(lambda: copy.encode(image)), _peak(lambda: copy.decode(latents)))


def _like(unet: Any, dtype: torch.dtype) -> Any:
    """A denoiser of the same kind, frozen, with its adapters (in float32, to be trained)."""
    kind = type(unet)
    # the class itself casts as well, but warns about parts that this one does not have
    copy = nn.Module.to(kind.from_config(unet.config), dtype).requires_grad_(False)
    if isinstance(unet, (CleanUNet, PreconditionedUNet)):
        copy.precondition(torch.ones(1000), 1.0)
    for name, config in getattr(unet, "peft_config", {}).items():
        copy.add_adapter(config, name)
    return copy


def weight_bytes(module: nn.Module | None) -> int:
    """Bytes of a module's parameters and buffers as they are stored."""
    if module is None:
        return 0
    return sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])


@dataclass(frozen=True)
class Estimate:
    """Peak bytes of a kind of work at a batch size; what `flawsmith` says before it starts."""

    weights: int
    trained: int  # parameters, gradients, moments and averages of what is trained
    activations: int
    batch: int
    training: bool

    @property
    def total(self) -> int:
        return self.weights + self.trained + self.activations + CONTEXT

    def __str__(self) -> str:
        parts = f"weights {self.weights / 2**30:.1f}, one pass of {self.batch} windows {self.activations / 2**30:.1f}"
        if self.trained:
            parts += f", what is trained {self.trained / 2**30:.1f}"
        what = "Training" if self.training else "Painting"
        return f"{what} needs about {self.total / 2**30:.1f} GiB of GPU memory ({parts})."
