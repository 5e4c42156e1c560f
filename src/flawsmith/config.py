"""Run configurations: everything a command was told, checked before anything slow starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from flawsmith import images, inputs
from flawsmith.errors import FlawsmithError, short, unknown
from flawsmith.registry import OUTSIDE

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

Model = TypeVar("Model", bound=BaseModel)
Command = TypeVar("Command", bound="Told")

GATED_REDRAWS = 11  # the default of `max_redraws` behind a gate
EVERYTHING = 100_000  # shots of a method whose data set holds nothing but its support
OF_METHODS = ("fit", "generate")  # parts of which a method may have settings of its own


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


class GenerateConfig(Told):
    """What `flawsmith generate` was asked for. `generate.json` holds it, and a resumed run must agree with it."""

    parts: ClassVar[dict[str, str]] = {"mask": "mask_options", "options": "options", "": "options"}

    method: str = Field(description="a name in METHODS, a checkpoint folder, or package.module:Class")
    normal: str = Field(description="READER:DIR or DIR with photographs of good parts")
    out: Path = Field(description="folder for the generated images")
    category: str | None = Field(None, description="one category of the data set; default: all")
    defect: tuple[str, ...] = Field((), description="defect types to make; default: all the method or data set knows")
    n: int = Field(20, ge=1, le=10_000_000, description="images in total, or per defect type with per_defect")
    per_defect: bool = Field(False, description="count n for each defect type instead of in total")
    mix: dict[str, Amount] = Field(
        default_factory=dict, description="shares of the defect types among the images, as weights: crack 3, hole 1"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="same seed, same images")
    prompt: str | None = Field(None, description="caption for every image; steers methods that read text")
    mask: str | None = Field(None, description="mask family (flawsmith.masks.MASKS) or a mask image")
    mask_options: dict[str, Any] = Field(default_factory=dict, description="dials of the mask family")
    roi: Path | None = Field(None, description="image that is white where defects may sit")
    heat: Path | None = Field(None, description="grey image: the brighter, the likelier a defect's centre lies there")
    severity: Span | None = Field(
        None, description="how strong the defects are, 0 (barely visible) to 1: one number or low and high"
    )
    defects: Counts = Field((1, 1), description="defects of an image, 1 to 20: one number or least and most")
    combine: dict[str, Few] = Field(
        default_factory=dict, description='defects of an image by type: crack 1, hole 2; such images are "combined"'
    )
    from_misses: Path | None = Field(
        None, description="results folder of an evaluation: more is made of what its segmenter missed of validation"
    )
    untouched: float = Field(0.0, ge=0, lt=1, description="share of photographs without a defect among the images")
    # off here, for what measures a method as it is; the command and `flawsmith.generate` take normal where nobody asks
    gate: Literal["strict", "normal", "off"] | str = Field(
        "off", description="what quality.Gate refuses and redraws: strict, normal, off, or a profile (FILE.json)"
    )
    features: str | None = Field(None, description="vision model of the gate's realism: a folder or a hub id")
    words: str | None = Field(
        None, description="model of images and texts (CLIP) of the gate's words: a folder or a hub id"
    )
    reference: Path | None = Field(None, description="a photograph of a defect to imitate")
    reference_mask: Path | None = Field(None, description="the defect's mask in the reference")
    reference_text: str | None = Field(None, description="what the reference shows")
    references_from: str | None = Field(None, description="READER:DIR whose defects are imitated, of other products")
    references: int = Field(1, ge=1, le=8, description="references of an image, where a method reads several")
    shots: int | None = Field(None, ge=1, description="real defects per type a method may see; default: first third")
    group_by: str = Field("group", description="column of origin.csv that names the physical part")
    split_seed: int = Field(0, ge=0, description="which real defects the method may see; 0 = in file order")
    backbone: str | None = Field(None, description="diffusion methods: compact, a folder, or a hub id")
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own options")
    device: Literal["cpu", "cuda"] | None = Field(None, description="diffusion methods: cpu (default), cuda")
    memory: Literal[8, 12, 16, 24] | None = Field(None, description="GiB of the GPU they may take; default: no limit")
    runtime: Literal["torch", "openvino"] | None = Field(
        None, description="what computes the denoiser: torch (default), openvino (CPU only, other roundings)"
    )
    max_redraws: int = Field(5, ge=0, le=100, description="tries with new seeds when an image is refused")
    batch_size: int = Field(8, ge=1, le=4096, description="images per block; part of what makes bytes repeatable")
    with_normals: bool = Field(False, description="also copy the good photographs to train/good")
    jobs: int | None = Field(
        None, ge=1, le=1024, description="processes that paint; default: 1, of the command all cores where it pays"
    )

    def identity(self) -> dict[str, Any]:
        """The fields that decide the pixels: all but where they are made and written and how many there are.

        Data sets stand in the plan by their files. Files stand by name and content, so that a run resumes from any
        folder and however its paths are spelled.
        """
        place = {"out", "n", "normal", "references_from", "with_normals", "untouched", "device", "memory", "jobs"}
        # named only where used: older folders do not hold them
        later = ("mix", "combine", "heat", "severity", "defects", "features", "words", "from_misses")
        given = self.model_dump(exclude_defaults=True)
        unused = {key for key in later if key not in given}
        if self.gate == "off":
            unused.add("gate")
        fields = json.loads(self.model_dump_json(exclude=place | unused))
        fields["max_redraws"] = self.redraws()
        fields["runtime"] = None if self.runtime == "torch" else self.runtime
        for key in ("roi", "heat", "reference", "reference_mask", "mask", "gate"):
            if key in unused:
                continue
            if fields[key] is not None and Path(fields[key]).is_file():
                fields[key] = f"{Path(fields[key]).name} {images.file_sha(fields[key])}"
        if self.from_misses is not None and (self.from_misses / "misses.jsonl").is_file():
            fields["from_misses"] = f"{self.from_misses.name} {images.file_sha(self.from_misses / 'misses.jsonl')}"
        if (Path(self.method) / "card.json").is_file():
            fields["method"] = _run_identity(Path(self.method))
        if isinstance(self.mask_options.get("run"), str):
            fields["mask_options"]["run"] = _run_identity(inputs.home(Path(self.mask_options["run"])))
        return fields

    @field_validator("mix")
    @classmethod
    def _shares(cls, mix: dict[str, float], told: ValidationInfo) -> dict[str, float]:
        """Types of weight 0 are left out."""
        if mix and not any(mix.values()):
            raise ValueError("at least one weight must be above 0")
        if mix and told.data.get("defect"):
            raise ValueError("the mixture names the types by itself: leave --defect out")
        if mix and told.data.get("per_defect"):
            raise ValueError("--per-defect makes the same number of each type: leave one of them out")
        return {name: weight for name, weight in mix.items() if weight}

    @field_validator("combine")
    @classmethod
    def _several(cls, combine: dict[str, int], told: ValidationInfo) -> dict[str, int]:
        if not combine:
            return combine
        if len(combine) < 2:
            raise ValueError("name two types or more; of one type, --defect and --defects make several")
        if sum(combine.values()) > MOST_DEFECTS:
            raise ValueError(f"an image holds {MOST_DEFECTS} defects at most")
        if told.data.get("defect"):
            raise ValueError("it names the types by itself: leave --defect out")
        if told.data.get("defects", (1, 1)) != (1, 1):
            raise ValueError("it counts the defects by itself: leave --defects out")
        return combine

    @field_validator("from_misses")
    @classmethod
    def _by_type(cls, results: Path | None, told: ValidationInfo) -> Path | None:
        if results is not None and told.data.get("per_defect"):
            raise ValueError("misses decide the shares of the types: leave --per-defect out")
        if results is not None and told.data.get("combine"):
            raise ValueError("misses are of one defect each: leave --combine out")
        return results

    @field_validator("gate")
    @classmethod
    def _level_or_profile(cls, gate: str) -> str:
        if gate in ("strict", "normal", "off"):
            return gate
        file = inputs.home(Path(gate))
        if not file.is_file():
            raise ValueError("give strict, normal, off, or a profile that `flawsmith review --refit FILE` wrote")
        return str(file)

    @property
    def asked(self) -> tuple[str, ...]:
        """The kinds of images that were named; none = all that the method or data set knows."""
        return self.defect or tuple(self.mix)

    def gated(self) -> GenerateConfig:
        """With the gate's usual level where none was named."""
        return self if "gate" in self.model_fields_set else self.model_copy(update={"gate": "normal"})

    def redraws(self) -> int:
        """How often a refused image is drawn again: `max_redraws`, or more by default where a gate refuses."""
        asked = "max_redraws" in self.model_fields_set or self.gate == "off"
        return self.max_redraws if asked else GATED_REDRAWS

    def mask_run(self) -> Path | None:
        """The run whose mask model draws, for mask "learned". Raises FlawsmithError where none is named."""
        if self.mask != "learned":
            return None
        named = self.mask_options.get("run")
        run = inputs.home(Path(str(named))) if named else Path(self.method)
        if not (run / "card.json").is_file():
            raise FlawsmithError(
                f"Mask 'learned' needs a trained run, and {run} is none (no card.json): name one with "
                "--set mask.run=RUN."
            )
        return run


def _run_identity(run: Path) -> str:
    """A run's name and the content of its files."""
    files = sorted(path for path in run.rglob("*") if path.is_file())
    listed = "\n".join(f"{path.relative_to(run).as_posix()} {images.file_sha(path)}" for path in files)
    return f"{run.resolve().name} {hashlib.sha256(listed.encode()).hexdigest()[:16]}"


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
        ("real", "copypaste", "perlin", "cutpaste", "nsa", "procedural", "inpaint", "anomalyxfusion", "anomalycontrol"),
        min_length=1,
        description="real, a method, several with + or -or-, or NAME=FOLDER made elsewhere ({seed} is replaced)",
    )
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1, description="each redoes support, images, training")
    support: Literal["redrawn", "fixed"] = Field(
        "redrawn", description="redrawn by every seed, or fixed: that of the first seed, with its test images"
    )
    shots: tuple[int | Literal["third"], ...] = Field(("third",), min_length=1, description="real defects per type")
    ratios: tuple[float, ...] = Field(
        (0.9,), min_length=1, description="shares of generated among the defects trained on"
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


def overlay(defaults: Any, changes: dict[str, Any], what: str) -> Any:
    """A dataclass of settings (`SETTINGS`) with some fields changed.

    Raises FlawsmithError for an unknown field, or a value of another kind or out of its bounds.
    """
    known = [field.name for field in fields(defaults)]
    for key in changes:
        if key not in known:
            raise unknown(f"{what} setting", key, known)
    try:
        return replace(defaults, **changes)
    except ValidationError as error:
        raise refused(error, f"{what} setting") from None


def load(model: type[Command], values: dict[str, Any], file: Path | None = None, sets: Sequence[str] = ()) -> Command:
    """A command's settings: a JSON or YAML file, then the command line's `values` (None = not given), then the texts of
    `--set key=value`; what comes later wins.

    `--set mask.size=[0.01,0.05]` sets a value of a part (see `Told.parts`), `--set n=5` a field, and any other name one
    of the part that is named "". In a comparison `--set fit.METHOD.KEY=VALUE` is for one of its methods alone.
    Raises FlawsmithError naming the setting.
    """
    merged: dict[str, Any] = _read_file(file) if file else {}
    merged.update({key: value for key, value in values.items() if value is not None and value != ()})
    for text in sets:
        key, value = _parse_set(text)
        start, _, name = key.partition(".")
        if start in model.parts and name:
            part = model.parts[start]
        elif key in model.model_fields and key not in model.parts.values():
            merged[key] = value
            continue
        elif "" in model.parts:
            part, name = model.parts[""], key
        else:
            known = ", ".join(f"{part}.KEY=VALUE" for part in model.parts)
            raise FlawsmithError(f"--set {text!r} names no part and no setting: write {known}.")
        settings = merged[part] = _group(merged, part)
        method, dot, own = name.rpartition(".")
        if dot and part in OF_METHODS:
            settings[method] = {**_group(settings, method), own: value}
        else:
            settings[name] = value
    return validated(model, merged, "Setting", f"in {file}" if file else "")


def validated(model: type[Model], given: dict[str, Any], what: str = "Setting", where: str = "") -> Model:
    """`given` as a `model`: the one way from names and values to settings, options and dials.

    Raises FlawsmithError for an unknown name, a missing one, or a value that is not allowed. `what` is the kind of name
    ("Option"), `where` an optional place ("for nsa").
    """
    for key in given:
        if key not in model.model_fields:
            raise unknown(what, str(key), model.model_fields, where)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise refused(error, what, where, model) from None


def refused(error: ValidationError, what: str, where: str = "", model: type[BaseModel] | None = None) -> FlawsmithError:
    """The first problem that pydantic found, in one sentence: what was given, what is allowed."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"])) or "all together"
    if first["type"] == "missing" and model is not None and field in model.model_fields:
        return FlawsmithError(f"{field} is missing: {model.model_fields[field].description or 'it must be given'}.")
    reason = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    place = f" {where}" if where else ""
    return FlawsmithError(
        f"{what} {field}={short(first['input'])}{place} is not allowed: {reason[:1].lower()}{reason[1:]}."
    )


def _group(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """The settings under a name, none where there are none yet. Raises FlawsmithError where it holds something else."""
    group = settings.get(name)
    if group is not None and not isinstance(group, dict):
        raise FlawsmithError(f"{name}={short(group)} must hold key: value pairs for --set to add to.")
    return dict(group or {})


def _parse_set(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise FlawsmithError(f"--set {short(text)} is not key=value: write for example --set mask.size=[0.01,0.05].")
    try:
        parsed = inputs.parse_yaml(value)
    except ValueError:
        parsed = value
    inputs.refuse_odd_value(parsed, f"--set {key}")
    return key, parsed


def _read_file(file: Path) -> dict[str, Any]:
    """A configuration file's settings. It may come from a stranger: no name in it makes flawsmith import a module."""
    file = inputs.home(file)
    try:
        content = inputs.parse_yaml(file.read_text(encoding="utf-8"))  # JSON is YAML
    except FileNotFoundError:
        raise FlawsmithError(f"Configuration file {file} does not exist.") from None
    except (OSError, ValueError) as error:
        raise FlawsmithError(f"Configuration file {file} cannot be read as JSON or YAML: {error}.") from error
    if not isinstance(content, dict):
        raise FlawsmithError(f"Configuration file {file} must hold key: value pairs, not a {type(content).__name__}.")
    inputs.refuse_odd_value(content, f"Configuration file {file}")
    for key in ("method", "arms", "normal", "references_from", "data", "real", "generated"):
        for name in content[key] if isinstance(content.get(key), list) else [content.get(key)]:
            named = str(name).split("+") if key in ("method", "arms") else [str(name).rpartition(":")[0]]
            if any(map(OUTSIDE.match, named)):
                raise FlawsmithError(
                    f"Configuration file {file}: {key} {short(name)} would import Python code, which only a name typed "
                    "on the command line may do: give it there, or a known name here."
                )
    return content
