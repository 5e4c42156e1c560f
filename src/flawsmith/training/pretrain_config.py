"""Everything that decides the weights of a pretraining run, apart from its shards."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flawsmith.diffusion.compact.recipe import CompactConfig
from flawsmith.errors import FlawsmithError
from flawsmith.training.shards import Mix

__all__ = ["MAY_CHANGE", "PretrainConfig", "read_config"]

MAY_CHANGE = {"steps", "held_out_every", "held_out", "save_every", "preview_every"}  # between a run and its resumption


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides the weights, apart from the shards."""

    steps: int = 12_000
    batch_size: int = 16
    learning_rate: float = 4e-4
    warmup: int = 300
    decay: float = 0.25  # last share of the steps, in which the rate falls to zero
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    outside: float = 0.05  # weight of the loss outside the mask
    colour: float = 4.0  # extra weight of errors in colour: small in numbers, but seen at once
    align: float = 0.05  # weight of "a reference says what its caption says"
    edges: float = 0.25  # weight of the error's gradient: fights the 4 px grid of pixel-unshuffle
    snr_cap: float = 5.0  # above this signal-to-noise ratio a step counts less: there the v loss only sees grain
    even_in: Literal["time", "noise"] = "noise"  # how training steps are spread, see noise_levels
    min_area: int = 64  # pixels; the masked loss is divided by the mask's area, but not by less than this
    bf16: bool = True
    held_out_every: int = 500
    held_out: int = 64  # windows per held-out figure
    save_every: int = 500
    preview_every: int = 1000
    mix: Mix = field(default_factory=Mix)
    recipe: CompactConfig = field(default_factory=CompactConfig)


def read_config(path: Path | str, **changes: Any) -> PretrainConfig:
    """A JSON file of PretrainConfig's fields (mix and recipe nested), with `changes` on top.

    Raises FlawsmithError naming the file where it cannot be read or holds a field that does not exist.
    """
    try:
        given = {**json.loads(Path(path).read_text(encoding="utf-8")), **changes}
        recipe: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.get("recipe", {}).items()}
        nested: dict[str, Any] = {"mix": Mix(**given.get("mix", {})), "recipe": CompactConfig(**recipe)}
        return PretrainConfig(**{**given, **nested})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        known = "; ".join(", ".join(kind.__dataclass_fields__) for kind in (PretrainConfig, Mix, CompactConfig))
        raise FlawsmithError(f"{path}: {error}; known fields, then those of mix and of recipe: {known}.") from error
