"""The only conversions between images (uint8, HWC, numpy) and tensors ([-1, 1], NCHW), and the resizing
that encoders need.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flawsmith.errors import FlawsmithError

__all__ = ["from_images", "from_masks", "normalise", "pool_mask", "resize", "to_images"]


def from_images(images: Sequence[np.ndarray] | np.ndarray) -> Tensor:
    """Images of one size, each (H, W, 3) uint8 RGB -> (B, 3, H, W) float32 in [-1, 1]."""
    shapes = {image.shape for image in images}
    if len(shapes) != 1 or any(image.dtype != np.uint8 for image in images):
        raise FlawsmithError(f"A batch needs uint8 RGB images of one size, got {sorted(shapes)}: resize them first.")
    stack = torch.from_numpy(np.ascontiguousarray(np.stack(list(images))))
    return stack.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def to_images(tensor: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] (clipped) -> (B, H, W, 3) uint8 RGB; exact inverse of `from_images`."""
    pixels = tensor.detach().float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def from_masks(masks: Sequence[np.ndarray] | np.ndarray) -> Tensor:
    """Masks (H, W) bool -> (B, 1, H, W) float32 in {0, 1}."""
    return torch.from_numpy(np.stack([np.asarray(mask, dtype=bool) for mask in masks])).float()[:, None]


def pool_mask(mask: Tensor, size: int | tuple[int, int]) -> Tensor:
    """(B, 1, H, W) in {0, 1} -> (B, 1, h, w): a cell is 1 if any pixel in it is, so that no small mask
    vanishes.
    """
    return torch.nn.functional.adaptive_max_pool2d(mask, size)


def smooth_fill(image: Tensor, hole: Tensor) -> Tensor:
    """The image (B, C, P, P) with its hole (B, 1, P, P) in {0, 1} filled smoothly from what is around it.

    Pull-push (Gortler et al. 1996): averages of the known pixels on ever coarser grids, taken back to the fine ones
    where nothing is known. A hole over everything becomes 0, mid grey.
    """
    known = [(image * (1 - hole), 1 - hole)]
    while known[-1][0].shape[-1] % 2 == 0:
        known.append(tuple(torch.nn.functional.avg_pool2d(part, 2) for part in known[-1]))  # type: ignore[arg-type]
    value, weight = known.pop()
    filled = value.sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1e-4)
    filled = value + (1 - weight) * filled
    for value, weight in reversed(known):
        finer = torch.nn.functional.interpolate(filled, scale_factor=2.0, mode="bilinear", align_corners=False)
        filled = value + (1 - weight) * finer
    return filled


def continued(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """`smooth_fill` of one image (h, w, 3) of any size and range with its hole (h, w) bool, float32."""
    height, width = hole.shape
    side = 32 * -(-max(height, width) // 32)
    pad = ((0, side - height), (0, side - width))
    known = torch.from_numpy(np.pad(image.astype(np.float32), (*pad, (0, 0)), mode="edge")).permute(2, 0, 1)[None]
    filled = smooth_fill(known, torch.from_numpy(np.pad(hole.astype(np.float32), pad))[None, None])
    return filled[0].permute(1, 2, 0).numpy()[:height, :width]


def resize(tensor: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Bicubic, antialiased resize of (B, C, H, W) to `size` (one side for a square, or height and width)."""
    target = (size, size) if isinstance(size, int) else size
    if tuple(tensor.shape[-2:]) == target:
        return tensor
    return torch.nn.functional.interpolate(tensor, target, mode="bicubic", antialias=True, align_corners=False)


def normalise(tensor: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """[-1, 1] images -> an encoder's own statistics, given for the range [0, 1]."""
    shape = (1, -1, 1, 1)
    centre, spread = (
        torch.tensor(values, dtype=tensor.dtype, device=tensor.device).view(shape) for values in (mean, std)
    )
    return (tensor.add(1).div(2) - centre) / spread
