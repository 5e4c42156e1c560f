"""What every command's settings have in common: kinds of numbers, and paths that are spelled from home."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from flawsmith import inputs

OF_METHODS = ("fit", "generate")  # parts of which a method may have settings of its own

# Of the dataclasses whose fields `--set` reaches, see `overlay`: a number is no text, and lies within bounds.
SETTINGS = ConfigDict(strict=True, allow_inf_nan=False)
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


def _pair(value: Any) -> Any:
    """One number stands for both ends of a span."""
    return (value, value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _ordered(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    if pair[0] > pair[1]:
        raise ValueError("give the lower number first")
    return pair


Span = Annotated[tuple[Share, Share], BeforeValidator(_pair), AfterValidator(_ordered)]
MOST_DEFECTS = 20  # of an image
Few = Annotated[int, Field(ge=1, le=MOST_DEFECTS)]
Counts = Annotated[tuple[Few, Few], BeforeValidator(_pair), AfterValidator(_ordered)]


class Told(BaseModel):
    """What a command was told: unknown names, numbers that are none and odd paths are refused.

    `parts`: what may stand before the dot of `--set PART.KEY=VALUE`, and the field that it fills; "" takes every name
    that is no field.
    """

    parts: ClassVar[dict[str, str]] = {}
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator(
        *(
            "out",
            "roi",
            "heat",
            "from_misses",
            "reference",
            "reference_mask",
            "mask",
            "method",
            "backbone",
            "features",
            "words",
            "seen",
        ),
        check_fields=False,
    )
    @classmethod
    def _home(cls, value: Any) -> Any:
        """`--out=~/x` reaches us unexpanded by most shells."""
        return value if value is None else inputs.home(value)
