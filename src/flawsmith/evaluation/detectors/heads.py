"""The segmenter of a comparison that must see three points: heads on a pretrained encoder, trained to vary little.

Reference: docs/evaluation.md, "The judge". What makes two trainings of one arm differ is taken out one by one: the
encoder is frozen, several heads are averaged, their weights are moving averages, every image is drawn equally often,
and all arms of a seed use the same random numbers. Most can be switched off (`SegmentationConfig`).
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from flawsmith.config import overlay
from flawsmith.diffusion.compact import SHIPPED
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.detectors import loop, pyramid, segmentation, views
from flawsmith.evaluation.detectors.encoder import fingerprint
from flawsmith.evaluation.detectors.segmentation import SegmentationConfig, Trained
from flawsmith.records import Progress, Sample

DEFAULTS = {"steps": 300, "batch_size": 8, "crop": 128, "learning_rate": 3e-3, "looks": 1}  # where these differ


def settings_of(changes: dict[str, Any], extractor: str, device: str) -> SegmentationConfig:
    """The segmenter that a configuration asks for: heads on `segmentation.encoder`, else on `--features` where that
    serves, else the small network.

    Raises FlawsmithError for an encoder that does not serve, one named beside a network, and a wrong setting.
    """
    named = changes.get("encoder")
    if named and "network" in changes:
        raise FlawsmithError(f"segmentation.encoder={named} and segmentation.network={changes['network']}: name one.")
    chosen = str(named or "")
    if named:
        fingerprint(chosen)
    elif "network" not in changes and named is None and extractor not in SHIPPED:
        with contextlib.suppress(FlawsmithError):
            chosen = extractor if fingerprint(extractor) else ""
    base = overlay(SegmentationConfig(device=device), {**DEFAULTS, "encoder": chosen} if chosen else {}, "Segmentation")
    return cast(SegmentationConfig, overlay(base, changes, "Segmentation"))


def train(
    real: Iterable[Sample],
    synthetic: Iterable[Sample],
    normals: Iterable[Sample],
    config: SegmentationConfig,
    validation: Sequence[Sample] = (),
    progress: Progress | None = None,
) -> Trained:
    """As `segmentation.train`, with heads on `config.encoder` instead of a network from nothing.

    Images go through a frozen encoder once per view before the first step. Raises FlawsmithError without normal
    images or without any defect, and for an encoder that does not serve.
    """
    shrunk = [[segmentation.shrink(sample, config) for sample in group] for group in (real, synthetic, normals)]
    if not shrunk[2] or not any(len(item.places) for item in (*shrunk[0], *shrunk[1])):
        raise FlawsmithError("Segmentation needs normal images and at least one real or generated defect.")
    start = config.seed if config.paired else zlib.crc32(repr([config.seed, *map(len, shrunk)]).encode())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(start)
        model = pyramid.build(config).to(config.device)
    tuned = config.encoder_rate > 0
    model.encoder.requires_grad_(tuned)
    seen = [views.views(group, config, model.encoder) for group in shrunk]
    model.measure([own[0].maps or model.encoder.seen(own[0].image) for own in seen[2]])
    pools = [views.by_type(group, own) for group, own in zip(shrunk[:2], seen[:2], strict=True)]
    plans = [views.plan_of(pools, seen[2], config, np.random.default_rng([start, n])) for n in range(config.heads)]
    optimiser = _optimiser(model, config)
    parameters = [weight for group in optimiser.param_groups for weight in group["params"]]
    means = [weight.detach().clone() for weight in parameters]
    defects = [sample for sample in validation if sample.mask.any()]
    good = [sample for sample in validation if not sample.mask.any()]
    batches = zip(*plans, strict=True)

    def loss() -> Tensor:
        whole = torch.zeros((), device=config.device)
        for head, picked in zip(model.heads, next(batches), strict=True):
            maps, truth = views.batch(picked, config.device)
            known = model.standardised(model.encoder(maps[0]) if tuned else maps)
            whole = whole + segmentation.loss_of(head(known), truth)
        return whole

    def average(step: int) -> None:
        # A moving average over a twentieth of the steps, from their second half on.
        share = min(0.5, 20 / config.steps) if config.averaged and step > config.steps // 2 else 1.0
        for mean, now in zip(means, parameters, strict=True):
            mean.lerp_(now.detach(), share)

    def judge() -> float:
        kept = _exchange(parameters, means)
        value = segmentation.pixel_ap(Trained(model, "", 0, config), defects, good)
        _exchange(parameters, kept)
        return value["mean"] or 0.0

    learnt = loop.learn(
        loss,
        optimiser,
        config.steps,
        judge,
        lambda: [mean.clone() for mean in means],
        loop.looks_of(config.steps, config.looks) if defects else (),
        average,
        progress,
    )
    _exchange(parameters, learnt.weights or means)
    return Trained(model.requires_grad_(False), learnt.selected, learnt.step, config, learnt.found)


def _optimiser(model: pyramid.Segmenter, config: SegmentationConfig) -> torch.optim.Optimizer:
    """Of the heads, and at its own rate of the encoder where that is tuned."""
    groups = [{"params": list(model.heads.parameters()), "lr": config.learning_rate}]
    if config.encoder_rate > 0:
        rate = config.learning_rate * config.encoder_rate
        groups.append({"params": list(model.encoder.parameters()), "lr": rate})
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def _exchange(weights: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """Put other values into the weights; what they held is returned."""
    kept = [one.detach().clone() for one in weights]
    for one, other in zip(weights, others, strict=True):
        one.data.copy_(other)
    return kept
