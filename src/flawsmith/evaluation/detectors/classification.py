"""Which defect is it? A classifier of whole images, trained on generated (and few real) defects, tested on real ones.

Reference: docs/evaluation.md. "small" is a residual network for CPUs, trained from nothing; any image classifier in
transformers format (the papers use an ImageNet ResNet-34) may be named instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from flawsmith import images
from flawsmith.config import SETTINGS, Count, Rate, Share, Whole
from flawsmith.diffusion import tensors
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.detectors import loop
from flawsmith.evaluation.features import Preprocessing
from flawsmith.evaluation.features import load as load_extractor
from flawsmith.records import Progress, Sample

SMALL = "small"


@settings(frozen=True, config=SETTINGS)
class ClassificationConfig:
    """Training of the classifier. Images are brought to a square of `size` pixels."""

    network: str = SMALL  # or a folder or hub id in transformers format
    encoder: str = ""  # instead: a logistic head on this frozen encoder's features of windows, see frozen.py
    steps: Count = 500
    batch_size: Count = 16
    size: Count = 160
    learning_rate: Rate = 2e-3  # of the small network; a pretrained one takes a tenth
    synthetic: Share = 0.5  # share of images that are generated, where a type has both kinds
    looks: Whole = 5  # at the validation images, over the second half of the steps
    device: str = "cpu"
    seed: Whole = 0


@dataclass(frozen=True)
class Classifier:
    """A trained classifier: `types` names its outputs in order; `selected` is "val-selected" or "last"."""

    model: nn.Module
    name: str
    types: tuple[str, ...]
    preprocessing: Preprocessing
    selected: str
    config: ClassificationConfig
    validation: dict[int, float] = field(default_factory=dict)


def train(
    real: Sequence[Sample],
    synthetic: Sequence[Sample],
    config: ClassificationConfig,
    validation: Sequence[Sample] = (),
    progress: Progress | None = None,
) -> Classifier:
    """Train on defect images, types in equal shares; keeps the look with the best validation accuracy.

    Raises FlawsmithError for fewer than two defect types.
    """
    pools = [{}, {}]  # type: list[dict[str, list[np.ndarray]]]
    for pool, group in zip(pools, (real, synthetic), strict=True):
        for sample in group:
            pool.setdefault(sample.defect_type, []).append(images.resize(sample.image, config.size, config.size))
    types = tuple(sorted({*pools[0], *pools[1]}))
    if len(types) < 2:
        raise FlawsmithError(f"Classification needs at least two defect types, got {list(types)}.")
    rng = np.random.default_rng(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model, name, preprocessing = _network(config, len(types))
        model.to(config.device).train()
        rate = config.learning_rate * (1 if config.network == SMALL else 0.1)
        usable = [sample for sample in validation if sample.defect_type in types]

        def loss() -> Tensor:
            picked = [_draw(pools, types, config, rng) for _ in range(config.batch_size)]
            x = _batch([image for image, _ in picked], preprocessing, config.device)
            y = torch.tensor([label for _, label in picked], device=config.device)
            with torch.autocast(torch.device(config.device).type, torch.bfloat16):
                logits = model(pixel_values=x).logits
            return nn.functional.cross_entropy(logits.float(), y)

        def judge() -> float:
            now = Classifier(model.eval(), name, types, preprocessing, "", config)
            right = [kind == sample.defect_type for kind, sample in zip(predict(now, usable), usable, strict=True)]
            model.train()
            return float(np.mean(right))

        learnt = loop.learn(
            loss,
            torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4),
            config.steps,
            judge,
            lambda: {key: value.detach().clone() for key, value in model.state_dict().items()},
            loop.looks_of(config.steps, config.looks) if usable else (),
            progress=progress,
        )
    if learnt.weights:
        model.load_state_dict(learnt.weights)
    return Classifier(model.eval(), name, types, preprocessing, learnt.selected, config, learnt.found)


def _network(config: ClassificationConfig, count: int) -> tuple[Any, str, Preprocessing]:
    """The network with `count` outputs, its name in keys, and what it wants done to images."""
    import transformers

    if config.network == SMALL:
        own = transformers.ResNetConfig(
            embedding_size=24, hidden_sizes=[24, 48, 96, 144], depths=[1, 1, 1, 1], layer_type="basic"
        )
        own.num_labels = count
        half = (0.5, 0.5, 0.5)
        return transformers.ResNetForImageClassification(own), "small-resnet", Preprocessing(config.size, half, half)
    extractor = load_extractor(config.network)  # refuses what is no vision model, and knows the preprocessing
    try:
        model = transformers.AutoModelForImageClassification.from_pretrained(
            config.network, num_labels=count, ignore_mismatched_sizes=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise FlawsmithError(f"Classifier {Path(config.network).name} cannot be loaded: {first}.") from error
    return model, extractor.name, extractor.preprocessing


def _draw(
    pools: list[dict[str, list[np.ndarray]]],
    types: tuple[str, ...],
    config: ClassificationConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, int]:
    """A random type, then a real or generated image of it: turned, mirrored, another exposure."""
    label = int(rng.integers(len(types)))
    own, made = (pool.get(types[label], []) for pool in pools)
    members = made if made and (not own or rng.random() < config.synthetic) else own
    image = np.rot90(members[rng.integers(len(members))], int(rng.integers(4)))
    if rng.random() < 0.5:
        image = image[:, ::-1]
    gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-20, 20)
    return np.clip((image.astype(np.float32) - 128) * gain + 128 + offset, 0, 255).astype(np.uint8), label


def _batch(images: Sequence[np.ndarray], preprocessing: Preprocessing, device: str) -> Tensor:
    x = tensors.from_images(images).to(device)
    return tensors.normalise(tensors.resize(x, preprocessing.size).clamp(-1, 1), preprocessing.mean, preprocessing.std)


@torch.no_grad()
def predict(classifier: Classifier, samples: Sequence[Sample]) -> list[str]:
    """The defect type of each image."""
    config, found = classifier.config, []
    for start in range(0, len(samples), 32):
        batch = [images.resize(s.image, config.size, config.size) for s in samples[start : start + 32]]
        logits = classifier.model(pixel_values=_batch(batch, classifier.preprocessing, config.device)).logits
        found += [classifier.types[i] for i in logits.argmax(dim=1).tolist()]
    return found


def accuracy(predicted: Sequence[str], truth: Sequence[str]) -> dict[str, dict[str, float]]:
    """ "all", every defect type and "mean" over the types -> {value, right, count}; "all" with the majority's rate.

    Types that the classifier never saw count as wrong: leave their images out beforehand.
    """
    right = np.array([p == t for p, t in zip(predicted, truth, strict=True)])
    names = np.array(truth)
    if not len(names):
        raise FlawsmithError("Accuracy needs at least one image.")
    rows = {}
    for kind in dict.fromkeys(truth):
        chosen = right[names == kind]
        rows[kind] = {"value": float(chosen.mean()), "right": int(chosen.sum()), "count": len(chosen)}
    mean = float(np.mean([row["value"] for row in rows.values()]))
    majority = max(row["count"] for row in rows.values()) / len(names)
    whole = {"value": float(right.mean()), "right": int(right.sum()), "count": len(right), "majority": majority}
    return {**rows, "all": whole, "mean": {"value": mean, "right": int(right.sum()), "count": len(right)}}
