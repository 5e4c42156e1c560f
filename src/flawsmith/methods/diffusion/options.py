"""What may be set of every diffusion method: its architecture once, its dials at every call, and named samplings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from flawsmith.methods import base

FAST = {"sampler": "dpm++", "steps": 10, "eta": 0.0}
# begins from the real defect laid in place; what it is worth to a detector: docs/results.md, "inpaint"
REFERENCE = {"sampler": "dpm++", "steps": 12, "eta": 0.0, "start": "reference", "strength": 0.5, "guidance_scale": 1.0}


Start = Literal["auto", "noise", "normal", "reference", "analogy", "painted"]
STRENGTHS = {"auto": 0.3, "analogy": 0.3, "reference": 0.5}  # where none is given; of the other starts 0.7


class DiffusionConfig(BaseModel):
    """What a method that learns one model is built like: fixed when it is made, written on the card."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seed: int = Field(0, ge=0, lt=2**31, description="of the first weights")
    lora_rank: int = Field(0, ge=0, le=128, description="shared adapter on the denoiser; 0 = frozen, as in the papers")


class DiffusionOptions(base.FollowingOptions):
    """Dials of every diffusion method."""

    growth: float = base.growth_field(1.0)

    steps: int = Field(8, ge=1, le=1000, description="denoising steps")
    sampler: Literal["dpm++", "ddim"] = Field("dpm++", description="DPM-Solver++ or DDIM")
    eta: float = Field(0.0, ge=0, le=1, description="DDIM's fresh noise at every step; 0 = none")
    guidance_scale: float = Field(1.5, ge=0, le=30, description="1 = none; above 3 oversaturates")
    guidance_floor: float = Field(
        0.25, ge=0, description="noise over signal up to which steps go without guidance; 0 = all are guided"
    )
    start: Start = Field(
        "auto",
        description="begin from noise, the normal, the reference laid in place, its texture in the mask (analogy), or "
        "a sketch; auto = analogy, but noise where no real defect is shown or your words say what to paint",
    )
    draft: Literal["laid", "analogy", "none"] = Field(
        "laid",
        description="what a backbone that takes drafts sees of the reference in the hole: it, or its texture",
    )
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="how far a start other than noise is noised first; default 0.3 of an analogy, 0.5 of a reference, "
        "0.7 of the others",
    )
    window: Literal["defect", "full"] = Field(
        "defect", description="what the model sees: squares around the mask, or the whole image, as in the papers"
    )
    context: float = Field(1.5, ge=1, le=8, description="window side over the mask's box")
    max_reduction: float = Field(
        2.0,
        ge=1,
        le=16,
        description="what a window over a thick mask may shrink by, before it is tiled; thin ones keep their scale",
    )
    keep_grain: bool = Field(True, description="keep the photograph's grain, also in reduced windows")
    contrast: float = Field(
        1.0,
        ge=0,
        le=1,
        description="how far contrast follows the reference's, or a sketch's of a bare name; 0 = as painted",
    )
    threshold: float = Field(0.8, ge=0, le=10, description="change that counts, in local standard deviations")

    @property
    def follows(self) -> bool:
        """Whether images begin from the texture of real defects, where some are shown."""
        return self.start in ("auto", "analogy")

    @property
    def noised(self) -> float:
        """How far a start is noised, 0 to 1: as asked, or what suits it."""
        return STRENGTHS.get(self.start, 0.7) if self.strength is None else self.strength
