"""What the page may ask for, checked: names of methods, types, options within bounds, no path of the page's own."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flawsmith import masks
from flawsmith.errors import FlawsmithError, unknown

FAMILIES = tuple(name for name in masks.MASKS if name not in {"learned", *masks.REAL})
NEEDS_REFERENCE = tuple(sorted(masks.REAL))
# flawsmith: MVTec's layout with prompts and manifest, and nothing divided
Format = Literal["flawsmith", "coco", "datumaro", "hf-dataset", "labelme", "voc", "webdataset", "yolo", "yolo-seg"]
Short = Field("", max_length=300)
Metric = Literal["kid", "ic-lpips", "prdc", "copies", "realism", "segmentation", "classification", "one-class"]
Named = Field("", max_length=12, pattern=r"^([0-9a-f]{12})?$", description="id of a file that was handed in")
Features = Field("", max_length=200, description="name of a vision model that the studio was started with")


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Refused(BaseModel):
    """What is answered where something cannot be done."""

    error: str


class Make(Asked):
    """A few images of one photograph."""

    data_set: str
    image: str
    method: str
    defect_type: str = Field("", max_length=80, pattern=r'^[^/\\:*?"<>|.\x00-\x1f][^/\\:*?"<>|\x00-\x1f]*$|^$')
    prompt: str = Short
    family: str = Field("", description="mask family; '' = the painted mask, or the method's own choice")
    reference: str = Field("", description="key of a real defect")
    count: int = Field(4, ge=1, le=16)
    seed: int = Field(0, ge=0, lt=2**53)
    parts: bool = Field(False, description="every part of the painted mask is a defect of its own")
    roi: str = Named
    heat: str = Named
    dials: dict[str, Any] = Field(default_factory=dict, description="see flawsmith.studio.dials")
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own options")


class Batch(Asked):
    """Many images of a data set."""

    data_set: str
    method: str
    category: str = ""
    defect_type: str = Field("", max_length=80)
    prompt: str = Short
    family: str = ""
    reference: str = Field("", description="key of the only real defect to imitate; default: the few-shot support")
    count: int = Field(20, ge=1, le=10_000)
    seed: int = Field(0, ge=0, lt=2**53)
    roi: str = Named
    heat: str = Named
    features: str = Features
    mix: str = Field("", max_length=1000, description="shares of the defect types: crack=3,hole=1")
    combine: str = Field("", max_length=1000, description="defects of an image by type: crack=1,hole=2")
    dials: dict[str, Any] = Field(default_factory=dict, description="see flawsmith.studio.dials")
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own options")


class Fit(Asked):
    """A few-shot model of a data set's defects."""

    data_set: str
    method: Literal["inpaint", "anomalyxfusion", "anomalycontrol"]
    category: str = ""
    name: str = Field(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9_ -]*$")
    steps: int = Field(200, ge=1, le=20_000)
    seed: int = Field(0, ge=0, lt=2**53)
    shots: int | None = Field(None, ge=1, le=10_000, description="real defects of each type; default: the first third")
    settings: dict[str, Any] = Field(default_factory=dict, description="of the fit, see the method's schema")


class Evaluate(Asked):
    """A batch against the real data that it was made from."""

    set: str
    metrics: list[Metric] = Field(min_length=1, max_length=8)
    features: str = Features


class Export(Asked):
    """The images that were kept, of all sets or of one."""

    set: str = ""
    format: Format = "flawsmith"


class Wand(Asked):
    """A box (top, left, bottom, right) in which the likeliest defect is marked."""

    data_set: str
    image: str
    box: tuple[int, int, int, int]


class Family(Asked):
    """A mask of a family, drawn on the object."""

    data_set: str
    image: str
    family: str
    seed: int = Field(0, ge=0, lt=2**53)
    reference: str = ""
    roi: str = Named
    heat: str = Named
    dials: dict[str, Any] = Field(default_factory=dict, description="of masks, and severity")


def family(name: str, has_reference: bool) -> str:
    """Raises FlawsmithError for a mask family the page may not name."""
    if not name or name in FAMILIES or (name in NEEDS_REFERENCE and has_reference):
        return name
    if name in NEEDS_REFERENCE:
        raise FlawsmithError(f"Mask {name!r} needs a reference: choose a real defect.")
    raise unknown("Mask", name, [*FAMILIES, *NEEDS_REFERENCE])
