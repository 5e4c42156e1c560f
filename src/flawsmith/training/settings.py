"""What a fit is told: its own settings, and those of the method that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from flawsmith.config import SETTINGS, Amount, Count, Rate, Share, TrainConfig, Whole, overlay
from flawsmith.errors import unknown
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.training.losses import Norm
from flawsmith.training.tuning import Schedule


@settings(frozen=True, config=SETTINGS)
class FitConfig:
    """Everything that decides an adapter's weights, apart from the images."""

    steps: Count = Field(default=500, description="optimiser steps at most")
    batch_size: Count = Field(default=12, description="windows of a step")
    learning_rate: Rate = Field(default=1e-3, description="at its highest, after the warm-up")
    beta2: Share = Field(default=0.99, description="Adam's, of the squares; the first is 0.9")
    warmup: Whole = Field(default=30, description="steps until the learning rate is at its highest")
    schedule: Schedule = Field(default="linear", description="after the warm-up: falling to 5 %, or constant")
    rank: Count = Field(default=16, description="of the adapter: more remembers more")
    ema: Share = Field(default=0.99, description="average of the weights; 0 = the weights themselves")
    weight_decay: Amount = Field(default=0.01, description="pull of the weights towards 0")
    seed: Whole = Field(default=0, description="same seed, same weights")
    normal: Share = Field(default=0.15, description="share of normal windows, continued under a borrowed mask")
    drawn: Share = Field(default=0.2, description="share of painted defects on the same product")
    reference: Share = Field(default=0.5, description="share of defect windows that come with a reference")
    self_reference: Share = Field(
        default=0.15, description="share of references that are the window's own defect; the rest another's"
    )
    draft: Share = Field(
        default=0.0, description="share of windows with a reference that also have it laid in the hole as a draft"
    )
    drawn_reference: Share = Field(
        default=0.0, description="share of painted windows that come with themselves as the reference"
    )
    views: Whole = Field(
        default=0,
        description="only so many different batches, their latents computed once, for a slow vae; 0 = always new",
    )
    reference_views: Whole = Field(
        default=0, description="of each reference only so many images, for a slow reader; 0 = a new one every time"
    )
    drop_text: Share = Field(default=0.1, description="share of windows without words")
    drop_tokens: Share = Field(default=0.0, description="share of windows without the method's own tokens")
    drop_both: Share = Field(default=0.0, description="share of windows without either")
    name_rate: Amount = Field(
        default=5.0, description="what is learned per name learns this much faster than the rest (one model)"
    )
    widen: Whole = Field(
        default=4, description="masks are widened by up to this many pixels: the surface is continued up to the defect"
    )
    patience: Whole = Field(
        default=4, description="early stop after so many looks without a better held-out loss; 0 = nothing is held out"
    )
    evaluate_every: Count = Field(default=50, description="steps between two looks at the held-out loss")
    save_every: Count = Field(
        default=100, description="steps between two states that a killed fit resumes from, at least every 20 seconds"
    )
    preview_every: Count = Field(default=250, description="steps between two previews")
    outside: Amount = Field(default=0.05, description="weight of the loss outside the mask; as in pretraining")
    edges: Amount = Field(default=0.25, description="weight of the loss of edges; as in pretraining")
    snr_cap: Amount = Field(
        default=10.0,
        description="least noisy steps weigh no more than at this signal-to-noise ratio; as in pretraining",
    )
    min_area: Whole = Field(default=64, description="smaller masks weigh as one of so many pixels; as in pretraining")
    colour: Amount = Field(default=4.0, description="weight of the loss of the mean colour; as in pretraining")
    align: ClassVar[float] = 0.0  # the reader is frozen here
    loss_norm: Norm = Field(
        default="area", description="divide by the mask's area, or as the paper by all of the image"
    )
    mask_steps: Whole = Field(default=0, description="steps of a mask model beside it (`--mask learned`); 0 = none")
    mask_model: Literal["shape", "whole"] = Field(
        default="shape",
        description="what it learns: shapes in their own box, or whole masks, their place and parts too",
    )
    bf16: bool = Field(default=True, description="16-bit numbers where the processor has them")


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
