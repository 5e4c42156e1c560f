"""Reading safetensors that may come from a stranger: whole, and with numbers in them."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

__all__ = ["read"]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, in its own types on the CPU, and its metadata.

    Raises OSError for a file that is not there, ValueError for one that is damaged or holds NaN or infinity: a model
    would paint them.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            about = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    for name, value in found.items():
        if value.is_floating_point() and not value.float().isfinite().all():
            raise ValueError(f"{name} holds values that are no numbers")
    return found, about
