"""The dials of every method, as `flawsmith generate` has them: their schema for the page, and their check."""

from __future__ import annotations

from typing import Any

from flawsmith import masks
from flawsmith.config import GenerateConfig, validated
from flawsmith.errors import unknown
from flawsmith.masks.options import MaskOptions

OF_MASKS = ("size", "elongation", "place")  # where a mask is drawn; a painted one has them already
OF_DRAWN = ("severity", *OF_MASKS)
OF_ONE = (*OF_DRAWN, "defects", "gate")
OF_MANY = (*OF_ONE, "untouched")
GATE = "what the gate refuses and redraws; default off for a few images, which you judge yourself, normal for a batch"


def schema(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The JSON schema of each dial; the page draws its inputs from it."""
    known = GenerateConfig.model_json_schema()["properties"] | {
        name: field for name, field in MaskOptions.model_json_schema()["properties"].items() if name in OF_MASKS
    }
    known["gate"] |= {"default": None, "description": GATE}
    return {name: known[name] for name in names}


def parted(given: dict[str, Any], names: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings of `generate`, dials of the mask) among what the page gave. Raises FlawsmithError for other names."""
    for name in given:
        if name not in names:
            raise unknown("Dial", name, names)
    of_masks = {name: value for name, value in given.items() if name in OF_MASKS}
    masks.mask_options(of_masks)
    return {name: value for name, value in given.items() if name not in OF_MASKS}, of_masks


def checked(settings: dict[str, Any]) -> GenerateConfig:
    """Settings of a run, refused here rather than by the worker. Raises FlawsmithError naming the setting."""
    return validated(GenerateConfig, {"method": "", "normal": "", "out": "", **settings}, "Dial")
