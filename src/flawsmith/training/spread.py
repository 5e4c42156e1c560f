"""How much a hole hides, measured on training windows before the first step: what a compact denoiser is scaled by."""

from __future__ import annotations

import torch
from torch import Tensor

from flawsmith.diffusion import tensors
from flawsmith.diffusion.backbone import Backbone
from flawsmith.training.shards import Windows

__all__ = ["measure_spectrum", "measure_spread"]


def measure_spectrum(backbone: Backbone, windows: Windows, batches: int = 24) -> Tensor:
    """Standard deviation (3, P, P) of every cosine wave of what the hole hides, per unit of area.

    That is the image under the mask minus the smooth continuation of its surroundings: the waves of the whole
    window would be the wrong prior. Windows differ a hundredfold in contrast and colour; the level of brightness and
    of each colour difference is between their typical and their mean power, since the mean alone lets colour noise
    through in the many windows without colour. Coarse waves keep their full power: capped, every cell's brightness
    was guessed for itself. Waves that hardly occur get half a grey level, the rounding of 8-bit images.
    """
    device = backbone.device
    shape, mean, typical, total = *torch.zeros(3, 1, device=device), 0.0
    for part in range(batches):
        batch = windows.batch(64, 99, part)
        image, mask = tensors.from_images(batch.image).to(device), tensors.from_masks(batch.mask).to(device)
        hidden = (image - tensors.smooth_fill(image, mask)) * mask
        power = backbone.unet.waves(backbone.unet.planes(backbone.encode(hidden))).square()
        area = mask.mean((1, 2, 3), keepdim=True)  # (B, 1, 1, 1); large holes count by their area
        power = power / area.clamp_min(1 / mask[0].numel())  # (B, 3, P, P)
        level = power.mean((2, 3), keepdim=True).clamp_min((0.5 / 127.5) ** 2)
        shape = shape + (area * power / level).sum(0)
        mean, typical = mean + (area * level).sum(0), typical + (area * level.log()).sum(0)
        total += float(area.sum())
    level = ((mean / total) * (typical / total).exp()).sqrt()  # (3, 1, 1)
    return (level * shape / total).sqrt().clamp_min(0.5 / 127.5)


def measure_spread(backbone: Backbone, windows: Windows, batches: int = 24) -> Tensor:
    """Standard deviation (3,) of what holes hide, of brightness and both colour differences in [-1, 1]: the image under
    the mask less the smooth continuation of its surroundings (EDM's sigma_data). Every window counts by its area.
    """
    total, area = torch.zeros(3), 0.0
    for part in range(batches):
        batch = windows.batch(64, 99, part)
        image, mask = tensors.from_images(batch.image), tensors.from_masks(batch.mask)
        hidden = backbone.encode((image - tensors.smooth_fill(image, mask)) * mask)
        total = total + hidden.square().sum((0, 2, 3)).view(3, -1).sum(1)
        area += float(mask.sum())
    return (total / max(area, 1.0)).sqrt().clamp_min(1 / 127.5)
