"""What `flawsmith evaluate` is told, of one folder or of several methods against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from flawsmith.config.values import OF_METHODS, Told

METHODS = (
    "copypaste", "analogy", "perlin", "cutpaste", "nsa", "procedural", "inpaint", "anomalyxfusion", "anomalycontrol",
)  # fmt: skip
EVERYTHING = 100_000  # shots of a method whose data set holds nothing but its support


class JudgingConfig(Told):
    """What every evaluation is told: real data, what may be seen of it, and how it is looked at."""

    real: str = Field(description="READER:DIR with good photographs and real defects with masks")
    out: Path = Field(description="folder of the results; the same command again resumes")
    category: str | None = Field(None, description="one category of the data set")
    defect: tuple[str, ...] = Field((), description="defect types to judge; default: all")
    group_by: str = Field("group", description="column of origin.csv that names the physical part")
    features: str = Field("compact", description="vision model: a folder, a hub id, or compact (smoke only)")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="one downstream run per seed")
    seen: Path | None = Field(None, description="text file of images the weights have seen: never tested on")
    device: str = Field("cpu", description="cpu, or cuda where there is one")
    segmentation: dict[str, Any] = Field(default_factory=dict, description="see SegmentationConfig")
    classification: dict[str, Any] = Field(default_factory=dict, description="see ClassificationConfig")
    one_class: dict[str, Any] = Field(default_factory=dict, description="see OneClassConfig")

    @field_validator("seeds", "shots", "ratios", "arms", "metrics", "export", check_fields=False)
    @classmethod
    def _distinct(cls, value: Any) -> Any:
        """A thing named twice is done once."""
        return tuple(dict.fromkeys(value)) if isinstance(value, tuple) else value


class EvaluateConfig(JudgingConfig):
    """What `flawsmith evaluate OUT` was asked for."""

    parts: ClassVar[dict[str, str]] = {name: name for name in ("segmentation", "classification", "one_class", "paper")}

    generated: str = Field(description="the folder of generated images, flawsmith's or another tool's")
    metrics: tuple[str, ...] = Field(("kid", "ic-lpips", "prdc", "copies"), description="see evaluation.run.METRICS")
    shots: int | None = Field(
        None, ge=1, description="real defects per type used for training; default: those the generator saw"
    )
    protocol: Literal["leak-safe", "paper-protocol"] = Field("leak-safe", description="how the segmenter is selected")
    export: tuple[str, ...] = Field((), description="onnx, openvino: formats of the trained segmenter")
    paper: dict[str, Any] = Field(default_factory=dict, description="see PaperConfig")


class CompareConfig(JudgingConfig):
    """What `flawsmith evaluate --compare` was asked for."""

    parts: ClassVar[dict[str, str]] = {
        name: name for name in ("segmentation", "classification", "one_class", *OF_METHODS)
    }

    metrics: tuple[str, ...] = Field(("segmentation",), description="see evaluation.run.METRICS")
    arms: tuple[str, ...] = Field(
        ("real", *METHODS),
        min_length=1,
        description="real, a method, several with + or -or-, or NAME=FOLDER made elsewhere ({seed} is replaced)",
    )
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1, description="each redoes support, images, training")
    support: Literal["redrawn", "fixed"] = Field(
        "redrawn", description="redrawn by every seed, or fixed: that of the first seed, with its test images"
    )
    shots: tuple[int | Literal["third"], ...] = Field(("third",), min_length=1, description="real defects per type")
    ratios: tuple[float, ...] = Field(
        (0.5,), min_length=1, description="shares of generated among the defects trained on"
    )
    images: int = Field(100, ge=2, le=100_000, description="generated per defect type and arm")
    normals: int = Field(120, ge=1, description="good photographs that are painted on and trained on")
    backbone: str = Field("compact", description="of the diffusion methods: compact, a folder, or a hub id")
    jobs: int = Field(1, ge=1, description="networks trained at a time, each in a process of one thread")
    fit: dict[str, Any] = Field(
        default_factory=dict, description="settings of the few-shot fit, see FitConfig; under a method's name its own"
    )
    generate: dict[str, Any] = Field(
        default_factory=dict, description="options of the diffusion methods; under a method's name its own"
    )

    def drawn(self, seed: int) -> int:
        """The seed that divides the real data for a seed's networks."""
        return seed if self.support == "redrawn" else self.seeds[0]

    @field_validator("shots")
    @classmethod
    def _shots(cls, value: Any) -> Any:
        if any(isinstance(one, int) and one < 0 for one in value):
            raise ValueError("give 0 or more, or third")
        return value

    @field_validator("ratios")
    @classmethod
    def _ratios(cls, value: Any) -> Any:
        if any(not 0 < one <= 1 for one in value):
            raise ValueError("a share lies above 0 and up to 1; the arm real is the share 0")
        return value
