"""What tests of AnomalyXFusion share: windows of two types, masks at different places."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from small import samples

import fakes
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.batch import Batch
from flawsmith.records import Sample
from flawsmith.training.fitting import Material, TypeWindows
from flawsmith.training.losses import batch_loss
from flawsmith.training.settings import FitConfig
from flawsmith.training.steps import draw


def windows(count: int = 6) -> TypeWindows:
    """Training windows of 32 px from `count` cracks and as many holes, with good photographs."""
    normals = [Sample(fakes.photo(90 + s, (60, 80)), np.zeros((60, 80), bool), "widget") for s in range(2)]
    material = {f"widget/{kind}": Material(samples(kind, count), normals) for kind in ("crack", "hole")}
    return TypeWindows(material, 32, FitConfig(drop_tokens=0.2, drop_both=0.2))


def masks(count: int) -> torch.Tensor:
    """(count, 1, 32, 32) of 0 and 1, each a pixel lower than the one before."""
    found = torch.zeros(count, 1, 32, 32)
    for row in range(count):
        found[row, 0, 4 + row : 12 + row, 6:20] = 1
    return found


def step_loss(backbone: Backbone, batch: Batch, step: int, config: FitConfig, condition: Any) -> torch.Tensor:
    """The scalar loss of training step `step`."""
    t, noise = draw(backbone, config, step)
    return batch_loss(backbone, batch, t, noise, config, condition, config.loss_norm).mean()
