"""Random images with a hole each, as tensors."""

from __future__ import annotations

import numpy as np
import torch

from flawsmith.diffusion import tensors


def windows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (count, 3, 32, 32) in [-1, 1] and masks (count, 1, 32, 32) in {0, 1}, each hole at another place."""
    rng = np.random.default_rng(3)
    image = tensors.from_images(rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
    mask = torch.zeros(count, 1, 32, 32)
    for i in range(count):
        mask[i, :, 3 + i : 12 + i, 5:20] = 1
    return image, mask
