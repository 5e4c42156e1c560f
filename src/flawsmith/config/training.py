"""What `flawsmith train` is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from flawsmith.config.values import Told


class TrainConfig(Told):
    """What `flawsmith train` was asked for."""

    parts: ClassVar[dict[str, str]] = {"train": "options", "options": "options", "": "options"}

    method: str = Field("inpaint", description="a diffusion method")
    data: str = Field(description="READER:DIR with good photographs and a few defects with masks")
    out: Path = Field(description="folder of the run; the same command again resumes")
    category: str | None = Field(None, description="one category of the data set; default: all")
    defect: tuple[str, ...] = Field((), description="defect types to learn; default: all that have masks")
    shots: int | None = Field(None, ge=1, description="real defects per type; default: the first third")
    split_seed: int = Field(0, ge=0, description="which real defects are seen; 0 = in file order")
    group_by: str = Field("group", description="column of origin.csv that names the physical part")
    backbone: str = Field("compact", description="compact, a folder in diffusers format, or a hub id")
    steps: int | None = Field(None, ge=1, le=1_000_000, description="optimiser steps per defect type")
    seed: int = Field(0, ge=0, lt=2**63, description="same seed, same weights")
    device: Literal["cpu", "cuda"] | None = Field(None, description="cpu (default), or cuda where there is one")
    memory: Literal[8, 12, 16, 24] | None = Field(None, description="GiB of the GPU it may take; default: no limit")
    options: dict[str, Any] = Field(default_factory=dict, description="settings of the fit, see FitConfig")
