"""The segmentation protocol that the papers share, faults included, so that numbers can be laid beside theirs.

One U-Net per category on whole images at 256 px: focal loss (gamma 2), Adam 1e-4, batches of 8, 200 epochs of 500
samples, rate times 0.2 at 80 % and 90 %; each sample is with probability one half normal, else generated. **It is
scored on the test set after every epoch and the best epoch is kept**, so that its numbers are upper bounds. Facts from
the public code of AnomalyDiffusion, AnomalyXFusion and AnomalyControl; see docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from flawsmith import images
from flawsmith.config import SETTINGS, Count, Rate, Whole
from flawsmith.diffusion import tensors
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.detectors import loop
from flawsmith.evaluation.detectors.networks import UNet
from flawsmith.evaluation.detectors.segmentation import Judged, table
from flawsmith.evaluation.metrics import scores
from flawsmith.records import GOOD, Progress, Sample

NAME = "paper-protocol"
CAVEAT = (
    "paper-protocol keeps the epoch that is best ON THE TEST SET, as the papers' code does: an upper bound that no "
    "user will see, to be compared only with numbers made the same way. The honest value of the same run is '/last'."
)
SUM = ("image_AUROC", "pixel_AUROC", "pixel_AP", "pixel_AUPRO")  # whose sum chooses the epoch


@settings(frozen=True, config=SETTINGS)
class PaperConfig:
    """The protocol's settings; others make another protocol, and stand in the values' settings."""

    size: Count = 256
    epochs: Count = 200
    samples: Count = 500  # per epoch
    batch_size: Count = 8
    learning_rate: Rate = 1e-4
    base: Count = 64
    per_type: Count = 500
    device: str = "cpu"
    seed: Whole = 0


def focal(logits: Tensor, truth: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss of two classes, mean over pixels: -(1 - p)^gamma log p of the true class. Lin et al., ICCV 2017."""
    log_p = nn.functional.logsigmoid(torch.where(truth > 0.5, logits, -logits))
    return (-((1 - log_p.exp()) ** gamma) * log_p).mean()


def run(
    generated: Sequence[Sample],
    normals: Sequence[Sample],
    test: Sequence[Sample],
    config: PaperConfig,
    progress: Progress | None = None,
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Train and score: "test-selected" and "last" -> metric -> "all" -> value.

    Raises FlawsmithError without generated or normal images.
    """
    made = [_small(s, config.size) for s in _capped(generated, config.per_type)]
    good, judged_on = ([_small(s, config.size) for s in group] for group in (normals, test))
    if not made or not good:
        raise FlawsmithError(f"{NAME} needs generated defects and normal images.")
    by_type: dict[str, list[Sample]] = {}
    for sample in made:
        by_type.setdefault(sample.defect_type, []).append(sample)
    rng = np.random.default_rng(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = UNet(config.base).to(config.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    marks = [int(config.epochs * share) for share in (0.8, 0.9)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, marks, gamma=0.2)
    best: tuple[float, dict[str, dict[str, float | None]]] = (-1.0, {})
    last: dict[str, dict[str, float | None]] = {}
    for epoch in range(config.epochs):
        model.train()
        for _ in range(max(1, config.samples // config.batch_size)):
            picked = [_draw(by_type, good, rng) for _ in range(config.batch_size)]
            x = tensors.from_images([s.image for s in picked]).to(config.device)
            y = tensors.from_masks([s.mask for s in picked]).to(config.device)
            with torch.autocast(torch.device(config.device).type, torch.bfloat16):
                logits = model(x)
            loop.descend(focal(logits.float(), y), optimiser)
        schedule.step()
        last = {name: {"all": row["all"]} for name, row in table(_judge(model.eval(), judged_on, config)).items()}
        total = sum(last[name]["all"] or 0.0 for name in SUM)
        if total > best[0]:
            best = (total, last)
        if progress:
            progress("", epoch + 1, config.epochs, {})
    return {"test-selected": best[1], "last": last}


def _capped(samples: Sequence[Sample], limit: int) -> list[Sample]:
    kept: dict[str, list[Sample]] = {}
    for sample in samples:
        kept.setdefault(sample.defect_type, []).append(sample)
    return [sample for members in kept.values() for sample in members[:limit]]


def _small(sample: Sample, size: int) -> Sample:
    mask = images.resize_mask(sample.mask, size, size) if sample.mask.any() else np.zeros((size, size), bool)
    return Sample(images.resize(sample.image, size, size), mask, sample.category, sample.defect_type)


def _draw(by_type: dict[str, list[Sample]], good: list[Sample], rng: np.random.Generator) -> Sample:
    members = good
    if rng.random() < 0.5:
        names = sorted(by_type)
        members = by_type[names[rng.integers(len(names))]]
    return members[rng.integers(len(members))]


@torch.no_grad()
def _judge(model: nn.Module, samples: Sequence[Sample], config: PaperConfig) -> Judged:
    found = Judged([], [], [], [])
    for start in range(0, len(samples), config.batch_size):
        batch = samples[start : start + config.batch_size]
        maps = model(tensors.from_images([s.image for s in batch]).to(config.device)).sigmoid().float().cpu().numpy()
        for sample, anomaly in zip(batch, maps[:, 0], strict=True):
            found.levels.append(scores.levels(anomaly))
            found.masks.append(sample.mask)
            found.image_scores.append(scores.image_score(anomaly))
            found.types.append(sample.defect_type if sample.mask.any() else GOOD)
    return found
