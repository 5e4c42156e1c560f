"""Devices by name, refused before anything slow where this machine does not have them."""

from __future__ import annotations

from flawsmith.errors import FlawsmithError, unknown

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
