"""What a fit is told: its own settings, and those of the method that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass as settings

from flawsmith.config import SETTINGS, Amount, Count, Rate, Share, TrainConfig, Whole, overlay
from flawsmith.errors import unknown
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.training.losses import Norm
from flawsmith.training.tuning import Schedule


@settings(frozen=True, config=SETTINGS)
class FitConfig:
    """Everything that decides an adapter's weights, apart from the images."""

    steps: Count = 500
    batch_size: Count = 12
    learning_rate: Rate = 1e-3
    beta2: Share = 0.99  # Adam's, of the squares; the first is 0.9
    warmup: Whole = 30
    schedule: Schedule = "linear"  # after the warm-up: falling to 5 %, or "constant"
    rank: Count = 16
    ema: Share = 0.99  # average of the weights; 0 = the weights themselves
    weight_decay: Amount = 0.01
    seed: Whole = 0
    normal: Share = 0.15  # share of normal windows, continued under a borrowed mask
    drawn: Share = 0.2  # share of painted defects on the same product
    reference: Share = 0.5  # share of defect windows that come with a reference
    self_reference: Share = 0.15  # share of references that are the window's own defect; the rest another's
    draft: Share = 0.0  # share of the windows with a reference that also have it laid in the hole as a draft
    drawn_reference: Share = 0.0  # share of painted windows that come with themselves as the reference
    views: Whole = 0  # only so many different batches, whose latents are computed once, for a slow vae; 0 = always new
    reference_views: Whole = 0  # of each reference only so many images, for a slow reader; 0 = a new one every time
    drop_text: Share = 0.1  # share of windows without words, ...
    drop_tokens: Share = 0.0  # ... without the method's own tokens, ...
    drop_both: Share = 0.0  # ... without either
    name_rate: Amount = 5.0  # what is learned per name learns this much faster than the rest (one model)
    widen: Whole = 4  # masks are widened by up to this many pixels: the model continues the surface up to the defect
    patience: Whole = 4  # early stop after so many evaluations without a better held-out loss; 0 = nothing is held out
    evaluate_every: Count = 50
    save_every: Count = 100
    preview_every: Count = 250
    outside: Amount = 0.05  # the loss terms are pretraining's
    edges: Amount = 0.25
    snr_cap: Amount = 10.0
    min_area: Whole = 64
    colour: Amount = 4.0
    align: ClassVar[float] = 0.0  # the reader is frozen here
    loss_norm: Norm = "area"  # divide by the mask's area, or as the paper by "all" of the image
    mask_steps: Whole = 0  # steps of a mask model beside it (`--mask learned`); 0 = none
    bf16: bool = True


@dataclass(frozen=True)
class Settings:
    """What `--set`, `--steps`, `--seed` and the preset say: of the fit, of the method's Config, of its Options."""

    fit: FitConfig
    config: dict[str, Any]
    options: dict[str, Any]


def settings_of(config: TrainConfig, kind: type[DiffusionSynthesizer]) -> Settings:
    """Sort a run's settings. Raises FlawsmithError for an unknown or impossible one."""
    given = dict(config.options)
    name = given.pop("preset", "default")
    if name not in kind.presets:
        raise unknown("Preset", str(name), kind.presets, f"of {config.method}")
    fit, own, options = (
        {**kind.presets["default"].get(part, {}), **kind.presets[name].get(part, {})}
        for part in ("fit", "config", "options")
    )
    known = [field.name for field in fields(FitConfig)]
    fixed: Mapping[str, Any] = kind.Config.model_fields if kind.learns == "model" else {}
    for key, value in given.items():
        if key in fixed:
            own[key] = value
            continue
        if key not in known:
            raise unknown("Training option", key, [*known, *fixed, "preset"])
        fit[key] = value
    if config.steps is not None:
        fit["steps"] = config.steps
    seed = config.seed % (2**31)
    return Settings(
        overlay(FitConfig(seed=seed), fit, "Training"), {"seed": seed, **own} if kind.learns == "model" else {}, options
    )
