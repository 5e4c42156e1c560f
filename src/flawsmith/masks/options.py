"""The dials of the mask families and their defaults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flawsmith.config import validated
from flawsmith.records import Growth, hash_seed

MINIMUM = 12  # pixels; a smaller mask could not be told from a dead pixel

Span = tuple[float, float]


def between(least: float, most: float) -> AfterValidator:
    """For a field of two numbers: low, then high, both within these bounds."""

    def check(pair: Span) -> Span:
        if not least <= pair[0] <= pair[1] <= most:
            raise ValueError(f"give two numbers, low then high, between {least:g} and {most:g}")
        return pair

    return AfterValidator(check)


# Share of the object, elongation, number of parts. Lines have a width and a length instead.
DEFAULTS: dict[str, tuple[Span, Span, tuple[int, int]]] = {
    "blob": ((0.002, 0.03), (1.0, 2.5), (1, 1)),
    "box": ((0.002, 0.03), (1.0, 3.0), (1, 1)),
    "polygon": ((0.002, 0.03), (1.0, 2.5), (1, 1)),
    "perlin": ((0.005, 0.06), (1.0, 2.0), (1, 3)),
    "spots": ((0.0005, 0.008), (1.0, 1.4), (3, 12)),
}
# Mean widths in pixels of a 384-pixel photograph; the widest spot is about twice that. Cracks of the public tile set
# are 4 to 8 at their widest, rims included.
LINE_WIDTH: dict[str, Span] = {"scratch": (1.5, 5.0), "crack": (1.2, 3.8)}
LINE_LENGTH: dict[str, Span] = {"scratch": (0.12, 0.7), "crack": (0.2, 0.9)}  # of the square root of the object's area


class MaskOptions(BaseModel):
    """Dials of every family; None means the family's own default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    size: Annotated[Span, between(1e-7, 1)] | None = Field(
        default=None, description="share of the object's area, 0 to 1, drawn log-uniformly"
    )
    elongation: Annotated[Span, between(1, 1000)] | None = Field(
        default=None, description="long side over short side, at least 1"
    )
    count: Annotated[tuple[int, int], between(1, 500)] | None = Field(
        default=None, description="number of parts; reference: parts kept"
    )
    place: Literal["anywhere", "edge", "centre"] = Field(default="anywhere", description="where on the object")
    severity: float | None = Field(
        default=None, ge=0, le=1, description="0 = smallest, 1 = largest of the sizes; default drawn"
    )
    rotate: float | None = Field(
        default=None,
        ge=0,
        le=180,
        description="reference: largest turn in degrees; default by the surface",
    )
    scale: Annotated[Span, between(0.05, 20)] = Field(
        default=(0.8, 1.25), description="reference: enlargement, drawn log-uniformly"
    )
    longer: float = Field(
        default=1.0, ge=0.05, le=20, description="varied: how much longer a line is made, at its own width"
    )
    bend: float = Field(default=0.2, ge=0, le=1, description="reference: strength of the elastic warp")
    flip: bool = Field(default=True, description="reference: mirror half of the masks")
    spread: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="real masks: 0 = where the real ones were, 1 = anywhere; default 0.65 of varied, else 1",
    )
    colour: str | None = Field(default=None, description="component: of this colour; default the caption's")
    run: str | None = Field(default=None, description="learned: the run whose mask model draws; default the method's")

    def grown(self, growth: Growth) -> MaskOptions:
        """The same, of real masks that are larger, or lines that are longer, by these factors."""
        scale = self.scale[0] * growth.side, self.scale[1] * growth.side
        return self.model_copy(update={"scale": scale, "longer": self.longer * growth.length})


def log_uniform(rng: np.random.Generator, pair: Span, severity: float | None = None) -> float:
    """A number between the two, every factor equally likely; with a severity (0 to 1) that share of the way."""
    drawn = rng.uniform(math.log(pair[0]), math.log(pair[1]))  # always drawn, so that what follows stays the same
    if severity is None:
        return math.exp(drawn)
    return float(pair[0] ** (1 - severity) * pair[1] ** severity)


def severity_of(span: Sequence[float] | None, seed: int) -> float | None:
    """The severity of the image of a seed: drawn once, between the ends that were asked for; None where none were."""
    if span is None:
        return None
    low, high = span
    return round(low + (high - low) * (hash_seed(seed, "severity") % 10_001) / 10_000, 4)


def mask_options(given: dict[str, Any]) -> MaskOptions:
    """Check dials and fill in the defaults. Raises FlawsmithError naming the dial."""
    return validated(MaskOptions, given, "Mask dial")
