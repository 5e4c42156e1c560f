"""The downstream question on a CPU: a small U-Net trained on few real and many generated defects, tested on real ones.

Reference: docs/evaluation.md. Every arm of a comparison gets the same initial weights, the
same number of steps and the same share of normal images; only where the defects come from differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from flawsmith import images
from flawsmith.config import SETTINGS, Count, Rate, Share, Whole
from flawsmith.diffusion import tensors
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.evaluation import features
from flawsmith.evaluation.detectors import loop
from flawsmith.evaluation.detectors.networks import MULTIPLE, NETWORKS
from flawsmith.evaluation.metrics import scores
from flawsmith.records import GOOD, Progress, Sample


@settings(frozen=True, config=SETTINGS)
class SegmentationConfig:
    """Training of the segmenter. `scale` shrinks images first; crops are square, in shrunk pixels."""

    network: str = "light-unet"  # a name in networks.NETWORKS
    steps: Count = 1000
    batch_size: Count = 12
    crop: Count = 96
    scale: Rate = 0.7
    longest: Count = 400  # no image is longer than this after shrinking
    learning_rate: Rate = 2e-3
    normals: Share = 0.3  # share of crops from normal images
    synthetic: Share = 0.9  # share of the defect crops that are generated, where there are any
    looks: Whole = 6  # at the validation images, over the second half of the steps
    encoder: str = ""  # a vision model in transformers format: heads on its maps instead of `network`; see pyramid.py
    encoder_rate: Share = 0.0  # of the learning rate, for the encoder's own weights; 0: frozen, and its maps are kept
    heads: Count = 4  # on the encoder, each with its own beginning and batches; their logits are averaged
    views: Count = 200  # images of a group that go through the encoder at least, small groups turned and mirrored
    averaged: bool = True  # a moving average of the heads' weights
    paired: bool = True  # the same random numbers in every arm of a seed
    flips: bool = False  # the mirror image is looked at, too, when an image is judged
    weight_decay: Rate = 1e-3  # of heads
    device: str = "cpu"
    seed: Whole = 0

    @property
    def name(self) -> str:
        """The network's name in keys."""
        return f"pyramid-{features.name_of(self.encoder)}" if self.encoder else self.network


@dataclass(frozen=True)
class Shrunk:
    """A sample at the segmenter's scale: image (h, w, 3) uint8, mask (h, w) bool, a row of its defect pixels."""

    image: np.ndarray
    mask: np.ndarray
    defect_type: str
    places: np.ndarray  # (K, 2) defect pixels to centre crops on; K = 0 for normal images


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
    return varied(image, mask, rng)


def varied(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask turned by quarters and mirrored at random, the image of another brightness and contrast."""
    turns = int(rng.integers(4))
    image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-20, 20)
    image = np.clip((image.astype(np.float32) - 128) * gain + 128 + offset, 0, 255).astype(np.uint8)
    return image, mask


def loss_of(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice over the batch: the first for calibration, the second for small defects."""
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * truth).sum() + 1) / (probability.sum() + truth.sum() + 1)
    return nn.functional.binary_cross_entropy_with_logits(logits, truth) + dice


@dataclass(frozen=True)
class Trained:
    """A segmenter in evaluation mode, and where it was taken from: `selected` is "val-selected" or "last"."""

    model: nn.Module
    selected: str
    step: int
    config: SegmentationConfig
    validation: dict[int, float] = field(default_factory=dict)  # step -> mean pixel AP on validation images


def train(
    real: Iterable[Sample],
    synthetic: Iterable[Sample],
    normals: Iterable[Sample],
    config: SegmentationConfig,
    validation: Sequence[Sample] = (),
    progress: Progress | None = None,
) -> Trained:
    """Train on real and generated defects (types in equal shares) and normal images.

    The weights are a moving average over the second half of the steps. Of `looks` such averages the one with the best
    mean pixel AP on the `validation` images (real defects and good ones) is kept; the last one without validation.
    Raises FlawsmithError without normal images or without any defect.
    """
    pools = [_by_type([shrink(s, config) for s in group]) for group in (real, synthetic)]
    good = [shrink(sample, config) for sample in normals]
    if not good or not any(pools):
        raise FlawsmithError("Segmentation needs normal images and at least one real or generated defect.")
    if config.network not in NETWORKS:
        raise unknown("Network", config.network, NETWORKS)
    rng = np.random.default_rng(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model: nn.Module = NETWORKS[config.network]()
    model.to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=1e-4)
    # A moving average over a twentieth of the steps: less spread between seeds than single weights.
    decay = 1 - 1 / max(2.0, config.steps / 20)
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay), use_buffers=True
    )
    result = averaged.module.eval()
    defects = [sample for sample in validation if sample.mask.any()]
    clean = [sample for sample in validation if not sample.mask.any()]
    model.train()

    def loss() -> Tensor:
        crops = [_crop(_draw(pools, good, config, rng), config.crop, rng) for _ in range(config.batch_size)]
        x = tensors.from_images([c[0] for c in crops]).to(config.device, memory_format=torch.channels_last)
        y = tensors.from_masks([c[1] for c in crops]).to(config.device)
        with torch.autocast(torch.device(config.device).type, torch.bfloat16):
            logits = model(x)
        return loss_of(logits.float(), y)

    learnt = loop.learn(
        loss,
        optimiser,
        config.steps,
        lambda: pixel_ap(Trained(result, "", 0, config), defects, clean)["mean"] or 0.0,
        lambda: {name: value.detach().clone() for name, value in result.state_dict().items()},
        loop.looks_of(config.steps, config.looks) if defects else (),
        lambda step: averaged.update_parameters(model) if step > config.steps // 2 else None,
        progress,
    )
    if learnt.weights:
        result.load_state_dict(learnt.weights)
    return Trained(result, learnt.selected, learnt.step, config, learnt.found)


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
def predict(trained: Trained, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Anomaly map (h, w) float32 in [0, 1] and mask (h, w) bool, both at the segmenter's scale."""
    item = shrink(sample, trained.config)
    height, width = item.mask.shape
    pad = [-side % MULTIPLE for side in (height, width)]
    padded = np.pad(item.image, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="symmetric")
    x = tensors.from_images([padded]).to(trained.config.device)
    logits = trained.model(x)[0, 0, :height, :width]
    return logits.sigmoid().float().cpu().numpy(), item.mask


@dataclass(frozen=True)
class Judged:
    """What a segmenter said of a test set, image by image, at its own scale."""

    levels: list[np.ndarray]  # (h, w) uint16, see scores.levels
    masks: list[np.ndarray]  # (h, w) bool
    image_scores: list[float]
    types: list[str]  # "good" for images without a defect


def judge(trained: Trained, samples: Iterable[Sample]) -> Judged:
    """Score real images one after the other; each is let go before the next is read."""
    found = Judged([], [], [], [])
    for sample in samples:
        anomaly, mask = predict(trained, sample)
        found.levels.append(scores.levels(anomaly))
        found.masks.append(mask)
        found.image_scores.append(scores.image_score(anomaly))
        found.types.append(sample.defect_type if sample.mask.any() else GOOD)
    return found


def pooled(judged: Judged, kind: str | None = None) -> scores.Tally:
    """The pixels of one defect type's images and of all good ones; of every image without a type."""
    whole = scores.empty()
    for levels, mask, name in zip(judged.levels, judged.masks, judged.types, strict=True):
        if kind in (None, name) or name == GOOD:
            whole = whole + scores.tally(levels, mask)
    return whole


def table(judged: Judged, level: int | None = None) -> dict[str, dict[str, float | None]]:
    """metric -> defect type -> value, and "all" (every image); names follow anomalib.

    A type's row holds its images and all good ones. `level` is the threshold of pixel_IoU, fixed on validation
    (`Tally.f1max`); None leaves pixel_IoU out. None as a value: no positives or no negatives.
    """
    kinds = [kind for kind in dict.fromkeys(judged.types) if kind != GOOD]
    found: dict[str, dict[str, float | None]] = {}
    for kind in [*kinds, "all"]:
        pixels = pooled(judged, None if kind == "all" else kind)
        chosen = [kind in ("all", name) or name == GOOD for name in judged.types]
        image = scores.count(
            np.array(judged.image_scores)[chosen], np.array([name != GOOD for name in judged.types])[chosen]
        )
        for prefix, side in (("image", image), ("pixel", pixels)):
            f1 = side.f1max()
            for name, value in (
                *(("AUROC", side.auroc()), ("AP", side.ap()), ("AUPR", side.aupr())),
                ("F1Max", f1[0] if f1 else None),
            ):
                found.setdefault(f"{prefix}_{name}", {})[kind] = value
        found.setdefault("pixel_AUPRO", {})[kind] = pixels.aupro()
        if level is not None:
            found.setdefault("pixel_IoU", {})[kind] = pixels.iou(level)
    return found


def pixel_ap(trained: Trained, defects: Sequence[Sample], good: Sequence[Sample]) -> dict[str, float | None]:
    """pixel AP per defect type (its images and all good ones pooled) and "mean" over the types."""
    judged = judge(trained, [*defects, *good])
    kinds = dict.fromkeys(sample.defect_type for sample in defects)
    values = {kind: pooled(judged, kind).ap() if kind in judged.types else None for kind in kinds}
    found = [value for value in values.values() if value is not None]
    values["mean"] = float(np.mean(found)) if found else None
    return values
