"""anomalib where it is installed: beside a torchvision of another torch, too."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def need_anomalib() -> None:
    """Skip where anomalib is not installed; else make it importable."""
    if find_spec("anomalib") is None:
        pytest.skip("anomalib is not installed: it needs a torchvision that fits torch")
    declare_operators()


def declare_operators() -> None:
    """What torchvision asks for when it is imported, and a build for another torch does not bring; nobody calls it."""
    import torch

    if not hasattr(torch.ops.torchvision, "nms"):
        declare_operators.library = torch.library.Library("torchvision", "FRAGMENT")  # as long as the process lives
        for name in ("nms", "qnms"):
            declare_operators.library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
