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
from flawsmith.diffusion.mask_model import FILE, KINDS, LearnedMasks
from flawsmith.errors import FlawsmithError
from flawsmith.masks.segment import foreground
from flawsmith.records import Progress, Record, Sample, under
from flawsmith.registry import resolve
from flawsmith.training import parallel
from flawsmith.training import support as training_data
from flawsmith.training.losses import prediction_target, stratified_steps
from flawsmith.training.settings import FitConfig
from flawsmith.training.tuning import Schedule, tune


@dataclass(frozen=True)
class MaskSettings:
    """How the model is fitted."""

    model: str = "shape"  # a key of KINDS
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
    """Fields (B, 1, S, S) in [-1, 1], type numbers (B,), what is said (B, E); a pure function of the step."""
    rng = np.random.default_rng([settings.seed, step, 5])
    shapes, kinds, words = [], [], []
    for _ in range(settings.batch_size):
        kind = int(rng.integers(len(masks.names)))
        rows = [i for i, one in enumerate(masks.examples) if one.name == masks.names[kind]]
        row = rows[int(rng.integers(len(rows)))]
        field, said = masks.lesson(row, rng, settings.drop_caption)
        shapes.append(torch.from_numpy(field))
        words.append(said)
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
        lambda step: [lambda: loss(masks, step, settings)],
        out,
        settings,
        held_out=None,  # nothing is: all steps are done
        stop_early=False,
        progress=progress,
    )


def fit_folder(run: Path, names: int) -> Path:
    """Where the fit of a mask model for so many types keeps its state and metrics."""
    return run / "train" / f"masks-{names}"


def known(run: Path, model: str) -> LearnedMasks | None:
    """What a run has learned before. Raises FlawsmithError when that is another kind of mask model."""
    found = LearnedMasks.load(run) if (run / FILE).is_file() else None
    if found and found.kind != model:
        raise FlawsmithError(
            f"{run / FILE} is a mask model of the kind {found.kind!r}, now it is {model!r}: give "
            f"--set mask_model={found.kind}, or choose another --out."
        )
    return found


def learn(
    material: Mapping[str, Sequence[tuple[Sample, np.ndarray]]],
    run: Path,
    settings: MaskSettings,
    progress: Progress | None = None,
) -> LearnedMasks:
    """Fit a run's mask model to samples with their foregrounds by name, together with what it has learned before."""
    kind: type[LearnedMasks] = resolve(settings.model, KINDS, "Mask model")
    fresh = [kind.example(name, sample, ground) for name, found in material.items() for sample, ground in found]
    before = known(run, settings.model)
    kept = [one for one in before.examples if one.name not in material] if before else []
    made = kind([*kept, *fresh], settings.seed)
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
    before = known(config.out, settings.mask_model)
    names = before.names if before else []
    missing = [(category, defect) for category, defect in wanted if f"{category}/{defect}" not in names]
    if not missing:
        return

    material, seen = {}, {}
    for category, defect in missing:
        support = training_data.seen_of(config, records, category, defect)
        samples = [record.load() for record in support]
        material[f"{category}/{defect}"] = [(s, foreground(s.image)) for s in samples if s.mask.any()]
        seen[f"{category}/{defect}"] = {record.name: images.file_sha(record.image) for record in support}
    own = MaskSettings(settings.mask_model, settings.mask_steps, seed=settings.seed)
    folder = fit_folder(config.out, len(names) + len(material))
    training_data.same_fit(folder, {"known": names, "support": seen, "fit": asdict(own)})
    learn(material, config.out, own, under(progress, "masks"))
