"""LoRA adapters on a frozen denoiser: attached by name, switched, saved, merged for good or while images are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flawsmith import images, registry
from flawsmith.diffusion import tensor_files
from flawsmith.diffusion.backbone import Backbone
from flawsmith.errors import FlawsmithError

__all__ = ["active_adapters", "add_adapter", "load_adapter", "merge_adapter", "merged", "save_adapter", "use_adapter"]

TARGETS = [
    "conv1",
    "conv2",
    "conv_shortcut",
    "conv",
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "proj_out",
    "gates",
]
MOST_RANK = 4096  # of a file's LoRA: more is no adapter
LARGEST = 64_000_000  # weights; of a larger denoiser the second copy costs more than the layers it saves


def add_adapter(backbone: Backbone, name: str, rank: int, seed: int = 0) -> dict[str, nn.Parameter]:
    """Attach a fresh LoRA called `name` to the denoiser and return its parameters; everything else stays frozen."""
    with registry.importing():
        from peft import LoraConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, init_lora_weights="gaussian")
        unet: Any = backbone.unet
        unet.add_adapter(lora, adapter_name=name)
    backbone.freeze()
    found = {key: p for key, p in backbone.unet.named_parameters() if f".{name}." in key}
    for parameter in found.values():
        parameter.data = parameter.data.float()  # also beside a denoiser in half precision: small steps would be lost
        parameter.requires_grad_(True)
    return found


def save_adapter(backbone: Backbone, name: str, path: Path) -> None:
    """Write the adapter's weights (fp16 safetensors, a few MB); its rank is in the file's metadata."""
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save

    unet: Any = backbone.unet
    found: dict[str, Any] = get_peft_model_state_dict(unet, adapter_name=name)
    weights = {key: value.detach().half().contiguous() for key, value in found.items()}
    # one entry only: safetensors writes several in any order, and the same weights would have other bytes
    images.write_bytes(path, save(weights, metadata={"rank": str(unet.peft_config[name].r)}))


def load_adapter(backbone: Backbone, name: str, path: Path) -> None:
    """Attach, frozen, the adapter in a file of `save_adapter` as `name`. Raises FlawsmithError when damaged."""
    from peft.utils import set_peft_model_state_dict

    try:
        stored, about = tensor_files.read(path)
        rank = int(about["rank"])
        weights = {key: value.float() for key, value in stored.items()}
        if not 1 <= rank <= MOST_RANK:
            raise ValueError(f"its rank is {rank}")
    except (OSError, KeyError, ValueError) as error:
        raise FlawsmithError(f"Adapter {path} cannot be read ({error}): train this defect type again.") from error
    expected = add_adapter(backbone, name, rank)
    try:
        result = set_peft_model_state_dict(backbone.unet, weights, adapter_name=name)
        problem = f"unknown part {result.unexpected_keys[0]}" if result is not None and result.unexpected_keys else ""
        problem = problem or (f"{len(weights)} parts, not {len(expected)}" if len(weights) != len(expected) else "")
    except (RuntimeError, KeyError, IndexError) as error:  # parts of other shapes
        problem = str(error).splitlines()[-1].strip()
    if problem:
        raise FlawsmithError(
            f"Adapter {path} does not fit backbone {backbone.source} ({problem}): it is damaged, or was trained on "
            "another backbone."
        )
    backbone.freeze()


def merge_adapter(backbone: Backbone, name: str) -> None:
    """Add one attached adapter into the denoiser's own weights, for good, and remove all adapters."""
    unet: Any = backbone.unet
    use_adapter(backbone, name)
    unet.fuse_lora(adapter_names=[name])
    unet.unload_lora()
    backbone.digest = ""  # it is another denoiser now


def use_adapter(backbone: Backbone, name: str | None) -> None:
    """Switch the denoiser to one attached adapter, or to none."""
    unet: Any = backbone.unet
    if not getattr(unet, "peft_config", None):
        return
    if name is None:
        unet.disable_adapters()
    else:
        unet.enable_adapters()
        unet.set_adapter(name)
        backbone.freeze()


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


def active_adapters(unet: nn.Module) -> tuple[str, ...]:
    """The names of the adapters that are switched on."""
    return tuple(dict.fromkeys(name for layer in _adapted(unet) for name in layer.active_adapters))  # type: ignore[union-attr]


def _adapted(unet: nn.Module) -> list[nn.Module]:
    """The layers in which an adapter is switched on."""
    if not getattr(unet, "peft_config", None):
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = [m for m in unet.modules() if isinstance(m, BaseTunerLayer)]
    return [m for m in found if not m.disable_adapters and m.active_adapters]
