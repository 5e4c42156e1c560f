"""Devices by name, refused before anything slow where this machine does not have them, and how a GPU's memory is kept.

Nothing here imports torch before a GPU is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flawsmith.errors import FlawsmithError, unknown

if TYPE_CHECKING:
    import torch

KNOWN = ("cpu", "cuda")


def refuse_device(device: str | None) -> None:
    """Raise FlawsmithError unless this machine has `device`: "cpu", "cuda" or "cuda:NUMBER"; None is the CPU.

    Imports torch where a GPU is asked for, and nothing otherwise.
    """
    kind, colon, number = ("cpu" if device is None else device).partition(":")
    if kind not in KNOWN or (colon and not number.isdecimal()):
        raise unknown("Device", str(device), KNOWN)
    if kind == "cpu":
        return
    try:
        import torch
    except ImportError:
        raise FlawsmithError(
            f"Device {device!r} needs torch, which is not installed: pip install 'flawsmith[diffusion]'."
        ) from None
    if not torch.cuda.is_available():
        raise FlawsmithError(
            f"Device {device!r} is not there: this torch ({torch.__version__}) sees no GPU. `flawsmith doctor` says "
            "more; leave --device out to work on the CPU."
        )
    if number and int(number) >= torch.cuda.device_count():
        raise FlawsmithError(
            f"Device {device!r} is not there: this machine's {torch.cuda.device_count()} GPUs are numbered from 0."
        )


@dataclass(frozen=True)
class Preset:
    """How a memory is kept. In all of them attention is torch's fused kernel, so none needs to slice it, and the vae
    takes one window at a time.
    """

    gib: int
    offload: bool  # text encoder and vae live in the computer's memory and visit the GPU; windows above the vae's own
    # size pass it in tiles
    checkpointing: bool  # training computes blocks twice instead of keeping them


PRESETS = {
    8: Preset(8, offload=True, checkpointing=True),
    12: Preset(12, offload=True, checkpointing=True),
    16: Preset(16, offload=False, checkpointing=True),
    24: Preset(24, offload=False, checkpointing=False),
}


def preset_of(gib: int) -> Preset:
    if gib not in PRESETS:
        raise FlawsmithError(f"Memory preset {gib!r} is not known; known: {', '.join(map(str, PRESETS))} (GiB).")
    return PRESETS[gib]


def work_dtype(device: torch.device) -> torch.dtype:
    """What a frozen denoiser is kept and run in: bfloat16 where the GPU has it, else float16; float32 on the CPU."""
    import torch

    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
