"""A run's mask model, fitted to the support's masks beside the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flawsmith import images
from flawsmith.config import TrainConfig
from flawsmith.diffusion.mask_examples import example, varied
from flawsmith.diffusion.mask_model import FILE, LearnedMasks
from flawsmith.masks.segment import foreground
from flawsmith.records import Progress, Record, Sample, under
from flawsmith.training import parallel
from flawsmith.training import support as training_data
from flawsmith.training.losses import prediction_target, stratified_steps
from flawsmith.training.settings import FitConfig
from flawsmith.training.tuning import Schedule, tune


@dataclass(frozen=True)
class MaskSettings:
    """How the model is fitted."""

    steps: int = 600
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    ema: float = 0.995
    beta2: float = 0.99
    schedule: Schedule = "linear"
    warmup: int = 20
    patience: int = 1
    evaluate_every: int = 200
    save_every: int = 200
    preview_every: int = 1_000_000
    seed: int = 0
    drop_caption: float = 0.2


def batch(masks: LearnedMasks, step: int, settings: MaskSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes (B, 1, S, S) in [-1, 1], type numbers (B,), caption features (B, E); a pure function of the step."""
    rng = np.random.default_rng([settings.seed, step, 5])
    shapes, kinds, words = [], [], []
    for _ in range(settings.batch_size):
        kind = int(rng.integers(len(masks.names)))
        rows = [i for i, one in enumerate(masks.examples) if one.name == masks.names[kind]]
        row = rows[int(rng.integers(len(rows)))]
        shapes.append(torch.from_numpy(varied(rng, masks.examples[row])))
        words.append(masks.words[row] * float(rng.random() >= settings.drop_caption))
        kinds.append(kind)
    return torch.stack(shapes)[:, None], torch.tensor(kinds), torch.stack(words)


def loss(masks: LearnedMasks, step: int, settings: MaskSettings) -> Tensor:
    """The denoiser's mean square error of v, a pure function of the step."""
    shapes, kinds, words = batch(masks, step, settings)
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    t = stratified_steps(len(shapes), generator)
    noise = torch.randn(shapes.shape, generator=generator)
    target = prediction_target(masks.scheduler, shapes, noise, t)
    guess = masks.model(masks.scheduler.add_noise(shapes, noise, t), t, kinds, words)
    return (guess - target).square().mean()


def fit(masks: LearnedMasks, out: Path, settings: MaskSettings, progress: Progress | None = None) -> dict[str, Any]:
    """Train on the model's examples; the same `out` resumes. Returns tune's {"steps", "held_out", "stopped"}."""
    return tune(
        dict(masks.model.named_parameters()),
        lambda step: loss(masks, step, settings),
        out,
        settings,
        held_out=None,  # nothing is: all steps are done
        stop_early=False,
        progress=progress,
    )


def fit_folder(run: Path, names: int) -> Path:
    """Where the fit of a mask model for so many types keeps its state and metrics."""
    return run / "train" / f"masks-{names}"


def learn(
    material: Mapping[str, Sequence[tuple[Sample, np.ndarray]]],
    run: Path,
    settings: MaskSettings,
    progress: Progress | None = None,
) -> LearnedMasks:
    """Fit a run's mask model to samples with their foregrounds by name, together with what it has learned before."""
    known = LearnedMasks.load(run).examples if (run / FILE).is_file() else []
    fresh = [example(name, sample, ground) for name, found in material.items() for sample, ground in found]
    kept = [one for one in known if one.name not in material]
    made = LearnedMasks([*kept, *fresh], settings.seed)
    fit(made, fit_folder(run, len(made.names)), settings, progress)
    if parallel.main():
        made.save(run)
    return made


def train(
    config: TrainConfig,
    settings: FitConfig,
    records: Sequence[Record],
    wanted: Sequence[tuple[str, str]],
    progress: Progress | None,
) -> None:
    """Learn the masks of the wanted types; those the run knows already are learned again together with new ones."""
    parallel.wait()  # the same is there for all
    known = LearnedMasks.load(config.out).names if (config.out / FILE).is_file() else []
    missing = [(category, defect) for category, defect in wanted if f"{category}/{defect}" not in known]
    if not missing:
        return

    material, seen = {}, {}
    for category, defect in missing:
        support = training_data.seen_of(config, records, category, defect)
        samples = [record.load() for record in support]
        material[f"{category}/{defect}"] = [(s, foreground(s.image)) for s in samples if s.mask.any()]
        seen[f"{category}/{defect}"] = {record.name: images.file_sha(record.image) for record in support}
    own = MaskSettings(steps=settings.mask_steps, seed=settings.seed)
    folder = fit_folder(config.out, len(known) + len(material))
    training_data.same_fit(folder, {"known": known, "support": seen, "fit": asdict(own)})
    learn(material, config.out, own, under(progress, "masks"))
