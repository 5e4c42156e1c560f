"""Feature maps for segmentation from a pretrained vision model: any folder in transformers format, nothing downloaded.

Reference: docs/evaluation.md, "The judge". Convolutional models give their own resolutions, patch models their grid;
every map is brought to the nearest of four strides, so that a decoder need not know which model it stands on.
"""

from __future__ import annotations

import inspect
import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flawsmith.diffusion import tensors
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation import features

STRIDES = (4, 8, 16, 32)
CHANNELS = 128  # wider maps go through a fixed random projection: memory, and heads of one size for every model
LAYERS = 4  # of a patch model


class Encoder(nn.Module):
    """(B, 3, H, W) in [-1, 1], sides multiples of 32, to maps (B, C, H / s, W / s), s in `STRIDES`, the finest first.

    `name` and `hash` are the model's as in `features`. `widths`: the C of each map, at most `CHANNELS`.
    Raises FlawsmithError when the source cannot be loaded or is no encoder that gives feature maps.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        extractor = features.load(source)
        model: Any = extractor.model
        prefix = getattr(model, "base_model_prefix", "")
        self.model: Any = getattr(model, prefix, model) if prefix else model
        self.name, self.hash, self.preprocessing = extractor.name, extractor.hash, extractor.preprocessing
        self.patch = _patch(getattr(self.model, "config", None))
        try:
            if extractor.smoke:
                raise ValueError("the compact reference encoder gives no maps")
            with torch.no_grad():
                maps = self._maps(torch.zeros(1, 3, 64, 96))
            if not maps or any(not torch.isfinite(one).all() for one in maps):
                raise ValueError("it gives no feature maps of an image of 64 x 96 pixels")
        except Exception as error:  # every architecture fails in its own way
            first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise FlawsmithError(
                f"Encoder {source} does not serve for segmentation: {first}. Name a folder with a vision model in "
                "transformers format (MobileNetV2, ResNet, DINOv2, SegFormer), or take the small network: "
                "--set segmentation.network=light-unet."
            ) from error
        self.widths = [min(CHANNELS, one.shape[1]) for one in maps]
        generator = torch.Generator().manual_seed(0)
        for number, one in enumerate(maps):
            wide = one.shape[1]
            mixed = torch.linalg.qr(torch.randn(wide, CHANNELS, generator=generator))[0].T if wide > CHANNELS else None
            self.register_buffer(f"projection{number}", None if mixed is None else mixed[:, :, None, None].contiguous())

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for number, one in enumerate(self._maps(x)):
            mixed = getattr(self, f"projection{number}")
            found.append(one if mixed is None else nn.functional.conv2d(one, mixed))
        return found

    @torch.no_grad()
    def seen(self, image: np.ndarray) -> list[Tensor]:
        """The maps (1, C, h, w) of one image (H, W, 3) uint8, its sides multiples of 32."""
        x = tensors.from_images([image]).to(next(self.model.parameters()).device, memory_format=torch.channels_last)
        return list(self(x))

    def _maps(self, x: Tensor) -> list[Tensor]:
        height, width = x.shape[2:]
        x = tensors.normalise(x, self.preprocessing.mean, self.preprocessing.std)
        grid = max(1, round(height / self.patch)), max(1, round(width / self.patch))
        if self.patch > 1 and (height % self.patch or width % self.patch):
            x = nn.functional.interpolate(
                x, (grid[0] * self.patch, grid[1] * self.patch), mode="bilinear", align_corners=False
            )
        asked: dict[str, Any] = {"pixel_values": x, "output_hidden_states": True, "return_dict": True}
        if "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters:
            asked["interpolate_pos_encoding"] = True
        found = self.model(**asked)
        states = getattr(found, "reshaped_hidden_states", None) or found.hidden_states
        by_stride: dict[int, Tensor] = {}
        if states[-1].ndim == 4:
            for state in states:  # of equal strides the last, which has seen most
                stride = _nearest(height / state.shape[2])
                by_stride[stride] = _brought(state, height // stride, width // stride)
            return [by_stride[stride] for stride in sorted(by_stride)]
        stride, later = _nearest(height / grid[0]), states[1:]
        rows = sorted({math.ceil(len(later) * (n + 1) / LAYERS) - 1 for n in range(LAYERS)})
        maps = []
        for row in rows:  # class and register tokens stand in front of the grid's
            tokens = later[row][:, -grid[0] * grid[1] :].transpose(1, 2)
            maps.append(_brought(tokens.unflatten(2, grid), height // stride, width // stride))
        return maps


@cache
def fingerprint(source: str) -> str:
    """The hash of an encoder's weights and preprocessing; "" for none."""
    return Encoder(source).hash if source else ""


def _patch(config: Any) -> int:
    """The side of a patch of a model that looks at patches only; 1 for all that reduce step by step."""
    side = getattr(getattr(config, "vision_config", config), "patch_size", 1)
    return side if isinstance(side, int) and side > STRIDES[0] else 1


def _nearest(stride: float) -> int:
    return min(STRIDES, key=lambda one: abs(math.log(stride / one)))


def _brought(state: Tensor, height: int, width: int) -> Tensor:
    if tuple(state.shape[2:]) == (height, width):
        return state
    return nn.functional.interpolate(state, (height, width), mode="bilinear", align_corners=False)
