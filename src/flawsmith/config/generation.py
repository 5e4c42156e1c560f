"""What `flawsmith generate` is told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from flawsmith import images, inputs
from flawsmith.config.values import MOST_DEFECTS, Amount, Counts, Few, Span, Told
from flawsmith.errors import FlawsmithError

GATED_REDRAWS = 11  # the default of `max_redraws` behind a gate


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
    ray: str | None = Field(
        None, min_length=1, description="Ray cluster that paints: local (started here), auto, or its address"
    )
    actors: int | None = Field(None, ge=1, le=10_000, description="Ray actors; default: as many as have room")
    actor_cpus: float = Field(1, ge=0, le=1024, description="cores of a Ray actor")
    actor_gpus: float = Field(0, ge=0, le=64, description="GPUs of a Ray actor, or a share of one")

    def identity(self) -> dict[str, Any]:
        """The fields that decide the pixels: all but where they are made and written and how many there are.

        Data sets stand in the plan by their files. Files stand by name and content, so that a run resumes from any
        folder and however its paths are spelled.
        """
        place = {"out", "n", "normal", "references_from", "with_normals", "untouched", "device", "memory", "jobs"}
        place |= {"ray", "actors", "actor_cpus", "actor_gpus"}
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
