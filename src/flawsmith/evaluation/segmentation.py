"""The downstream question on a CPU: a small U-Net trained on few real and many generated defects, tested on real ones.

Reference: evaluation.md, sections 5 and 8 (`tiny-unet`). Every arm of a comparison gets the same initial weights, the
same number of steps and the same share of normal pictures; only where the defects come from differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from flawsmith import images, tensors
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.scores import average_precision
from flawsmith.records import Sample


@dataclass(frozen=True)
class SegmentationConfig:
    """Training of the tiny U-Net. `scale` shrinks pictures first; crops are square, in shrunk pixels."""

    steps: int = 800
    batch_size: int = 12
    crop: int = 96
    scale: float = 0.7
    longest: int = 400  # no picture is longer than this after shrinking
    learning_rate: float = 2e-3
    normals: float = 0.3  # share of crops from normal pictures
    synthetic: float = 0.5  # share of the defect crops that are generated, where there are any
    average_last: float = 0.25  # weights are averaged over this last share of the steps: less spread between seeds
    seed: int = 0


class TinyUNet(nn.Module):
    """(B, 3, H, W) in [-1, 1] to logits (B, 1, H, W); H and W divisible by 8."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 96)) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(i, o) for i, o in zip((3, *widths[:-1]), widths, strict=True))
        self.up = nn.ModuleList(
            _block(low + high, high) for low, high in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for number, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if number else x)
            kept.append(x)
        for block, skip in zip(self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
        return self.head(x)


def _block(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, padding=1, bias=False),
        nn.BatchNorm2d(outward),
        nn.ReLU(inplace=True),
        nn.Conv2d(outward, outward, 3, padding=1, bias=False),
        nn.BatchNorm2d(outward),
        nn.ReLU(inplace=True),
    )


@dataclass(frozen=True)
class Shrunk:
    """A sample at the segmenter's scale: image (h, w, 3) uint8, mask (h, w) bool, a row of its defect pixels."""

    image: np.ndarray
    mask: np.ndarray
    defect_type: str
    places: np.ndarray  # (K, 2) defect pixels to centre crops on; K = 0 for normal pictures


def shrink(sample: Sample, config: SegmentationConfig) -> Shrunk:
    """Bring a sample to the segmenter's scale; a reduced mask keeps cells that are at least a quarter defect."""
    height, width = sample.mask.shape
    scale = min(config.scale, config.longest / max(height, width))
    size = max(16, round(height * scale)), max(16, round(width * scale))
    mask = images.resize(sample.mask.astype(np.float32), *size) > 0.25 if sample.mask.any() else np.zeros(size, bool)
    places = np.argwhere(mask)
    if sample.mask.any() and not len(places):
        mask = images.resize(sample.mask.astype(np.float32), *size) > 0
        places = np.argwhere(mask)
    return Shrunk(images.resize(sample.image, *size), mask, sample.defect_type, places)


def _crop(item: Shrunk, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A (size, size) crop, around a random defect pixel in three of four cases where there is one; flipped, turned."""
    pad = [max(0, size - side) for side in item.mask.shape]
    image, mask = item.image, item.mask
    if any(pad):
        image = np.pad(image, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="symmetric")
        mask = np.pad(mask, ((0, pad[0]), (0, pad[1])))
    limits = [side - size for side in mask.shape]
    if len(item.places) and rng.random() < 0.75:
        centre = item.places[rng.integers(len(item.places))] + rng.integers(-size // 3, size // 3 + 1, 2)
        corner = [int(np.clip(c - size // 2, 0, limit)) for c, limit in zip(centre, limits, strict=True)]
    else:
        corner = [int(rng.integers(0, limit + 1)) for limit in limits]
    view = np.s_[corner[0] : corner[0] + size, corner[1] : corner[1] + size]
    image, mask = image[view], mask[view]
    turns = int(rng.integers(4))
    image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-20, 20)
    image = np.clip((image.astype(np.float32) - 128) * gain + 128 + offset, 0, 255).astype(np.uint8)
    return image, mask


def _loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice over the batch: the first for calibration, the second for small defects."""
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * truth).sum() + 1) / (probability.sum() + truth.sum() + 1)
    return nn.functional.binary_cross_entropy_with_logits(logits, truth) + dice


def train(
    real: Sequence[Sample],
    synthetic: Sequence[Sample],
    normals: Sequence[Sample],
    config: SegmentationConfig,
    progress: Callable[[int, int], None] | None = None,
) -> TinyUNet:
    """Train on real and generated defects (types in equal shares) and normal pictures; returns averaged weights."""
    pools = [_by_type([shrink(s, config) for s in group]) for group in (real, synthetic)]
    good = [shrink(sample, config) for sample in normals]
    if not good or not any(pools):
        raise FlawsmithError("Segmentation needs normal pictures and at least one real or generated defect.")
    rng = np.random.default_rng(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model: TinyUNet = TinyUNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps)
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    model.train()
    for step in range(config.steps):
        crops = [_crop(_draw(pools, good, config, rng), config.crop, rng) for _ in range(config.batch_size)]
        x = tensors.from_images([c[0] for c in crops]).to(memory_format=torch.channels_last)
        y = tensors.from_masks([c[1] for c in crops])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x)
        loss = _loss(logits.float(), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step >= config.steps * (1 - config.average_last):
            averaged.update_parameters(model)
        if progress:
            progress(step + 1, config.steps)
    result = averaged.module.eval()
    assert isinstance(result, TinyUNet)  # for the type checker
    return result


def _by_type(items: Sequence[Shrunk]) -> dict[str, list[Shrunk]]:
    pools: dict[str, list[Shrunk]] = {}
    for item in items:
        if len(item.places):
            pools.setdefault(item.defect_type, []).append(item)
    return pools


def _draw(
    pools: list[dict[str, list[Shrunk]]], good: list[Shrunk], config: SegmentationConfig, rng: np.random.Generator
) -> Shrunk:
    if rng.random() < config.normals:
        return good[rng.integers(len(good))]
    want_synthetic = rng.random() < config.synthetic
    pool = pools[1] if pools[1] and (want_synthetic or not pools[0]) else pools[0] or pools[1]
    names = sorted(pool)
    members = pool[names[rng.integers(len(names))]]
    return members[rng.integers(len(members))]


@torch.no_grad()
def predict(model: TinyUNet, sample: Sample, config: SegmentationConfig) -> tuple[np.ndarray, np.ndarray]:
    """Anomaly map (h, w) in [0, 1] and mask (h, w) bool, both at the segmenter's scale."""
    item = shrink(sample, config)
    height, width = item.mask.shape
    pad = [-side % 8 for side in (height, width)]
    padded = np.pad(item.image, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
    logits = model(tensors.from_images([padded]))[0, 0, :height, :width]
    return logits.sigmoid().numpy(), item.mask


def pixel_ap(model: TinyUNet, defects: Sequence[Sample], good: Sequence[Sample], config: SegmentationConfig) -> dict:
    """pixel AP per defect type (its pictures and all good ones pooled) and "mean" over the types."""
    clean = [predict(model, sample, config)[0].ravel() for sample in good]
    by_type: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for sample in defects:
        scores, mask = predict(model, sample, config)
        by_type.setdefault(sample.defect_type, []).append((scores.ravel(), mask.ravel()))
    values: dict[str, float | None] = {}
    for name, pairs in by_type.items():
        scores = np.concatenate([p[0] for p in pairs] + clean)
        truth = np.concatenate([p[1] for p in pairs] + [np.zeros(len(c), bool) for c in clean])
        values[name] = average_precision(scores, truth)
    found = [value for value in values.values() if value is not None]
    values["mean"] = float(np.mean(found)) if found else None
    return values
