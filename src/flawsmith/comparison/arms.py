"""The arms of a comparison: their names, the data set a method may see, and the images it makes from that."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flawsmith import config as configs
from flawsmith import datasets, images
from flawsmith.config import CompareConfig, GenerateConfig, TrainConfig
from flawsmith.datasets.tree import ORIGIN
from flawsmith.diffusion.compact import SHIPPED
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.evaluation.protocol import Division, lookalikes, refuse_leaks, used_by
from flawsmith.generation import run as generation
from flawsmith.methods import METHODS
from flawsmith.records import Progress, Record, Region, under
from flawsmith.registry import resolve
from flawsmith.training import run as training
from flawsmith.training.settings import settings_of

REAL = "real"
OR = "-or-"  # between methods of which each defect type takes one
BY_VALIDATION = "by validation"  # in place of a share: the one of --ratios that validation likes best


@dataclass(frozen=True)
class Arm:
    """One row: real defects, plus the images of some methods. `folders` names those made elsewhere.

    chooses: of each defect type only one method's images are taken, see `choice.chosen`.
    """

    name: str
    methods: tuple[str, ...]
    folders: dict[str, str]
    chooses: bool = False

    def label(self, shots: int | str, share: float | str | None = None) -> str:
        """The arm's name in tables, for example "4 real + copypaste, share 0.5"; no share where there is one side."""
        count = {0: "no real", "third": "a third real"}.get(shots, f"{shots} real")
        own = f" + {self.name}" if self.methods else ""
        told = f"{share:g}" if isinstance(share, float) else share
        return f"{count}{own}" + (f", share {told}" if share and self.methods and shots else "")


def parse(text: str) -> Arm:
    """Parse "real", "copypaste", "real+copypaste", "copypaste+inpaint", "copypaste-or-inpaint" or "NAME=FOLDER".

    Refuses unknown methods.
    """
    if "=" in text:
        name, folder = text.split("=", 1)
        return Arm(name, (name,), {name: folder})
    text = text.removeprefix("real+")
    chooses = OR in text
    methods = tuple(part for part in text.split(OR if chooses else "+") if part != REAL)
    for method in methods:
        if method not in METHODS and ":" not in method:
            raise unknown("Arm", method, (REAL, *METHODS), "(or write NAME=FOLDER)")
    return Arm(text, methods, {}, chooses)


def check_choices(arms: Sequence[Arm], metrics: Sequence[str]) -> None:
    """Refuse an arm that chooses between methods of which nothing will be known."""
    names = [one.name for one in arms]
    for one in (one for one in arms if one.chooses):
        lacking = [method for method in one.methods if method not in names]
        if lacking or "segmentation" not in metrics:
            raise FlawsmithError(
                f"Arm {one.name} takes of each defect type the method that did better alone on validation images: "
                + (f"add {','.join(lacking)} to --arms." if lacking else "add segmentation to --metrics.")
            )


def own_settings(settings: dict[str, Any], method: str) -> dict[str, Any]:
    """The settings that all methods share, and on top those under this method's name."""
    shared = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    return {**shared, **settings.get(method, {})}


def fit_config(config: CompareConfig, method: str, data: str, out: Path, seed: int) -> TrainConfig:
    """How a method of a comparison is fitted on its support. Raises FlawsmithError for a setting of the wrong kind."""
    fit = own_settings(config.fit, method)
    values: dict[str, Any] = {"method": method, "data": data, "out": out, "shots": configs.EVERYTHING, "seed": seed}
    values |= {"backbone": config.backbone, "steps": fit.pop("steps", None)}
    return configs.load(
        TrainConfig, values | {"options": {"mask_steps": 0, **fit}}
    )  # masks are moved real ones, for every arm


def check_settings(config: CompareConfig, arms: Sequence[Arm]) -> None:
    """Refuse settings of a fit or of generation that no arm's method knows, before anything slow."""
    own = dict.fromkeys(method for one in arms for method in one.methods if method not in one.folders)
    learned = [method for method in own if resolve(method, METHODS, "Method").learns != "nothing"]
    for settings in (config.fit, config.generate):
        for name, value in settings.items():
            if isinstance(value, dict) and name not in learned:
                raise unknown("Diffusion method", name, learned, "among the arms")
    for method in learned:
        kind = resolve(method, METHODS, "Method")
        kind.parse_options(own_settings(config.generate, method))
        settings_of(fit_config(config, method, config.real, config.out, 0), kind)


@dataclass
class Source:
    """Where one seed's generated images come from; they are made when first asked for, and checked for leaks once."""

    config: CompareConfig
    folder: Path
    data: Path  # what methods may see
    division: Division
    support: list[Record]
    seed: int
    progress: Progress | None
    made: dict[str, list[Record]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)  # method -> images that look like a judged defect

    def images(self, one: Arm, choice: Mapping[str, str] | None = None) -> list[Record]:
        """The generated defect images of an arm; by a `choice` (defect type -> method) one method's of each type."""
        found: list[Record] = []
        for method in one.methods:
            if method not in self.made:
                out = Path(one.folders[method].replace("{seed}", str(self.seed))) if method in one.folders else None
                out = self._generate(method) if out is None else out
                records = [r for r in datasets.read("mvtec_ad", out) if not r.is_good and r.masks]
                records = [r for r in records if r.marks_something()]
                alike = set(lookalikes([record.image for record in records], self.division))
                records = [record for record in records if record.image not in alike]
                self.left_out[method] = len(alike)
                refuse_leaks(used_by(out, [record.image for record in records]), self.support, self.division)
                self.made[method] = records
            found += [r for r in self.made[method] if choice is None or choice.get(r.defect_type) == method]
        if one.methods and not found:
            raise FlawsmithError(f"Arm {one.name} made no image at all: see the reasons in its manifest.jsonl.")
        return found

    def out(self, method: str) -> Path:
        """Where the images of a method are; those of other weights or settings lie elsewhere."""
        return self.folder / f"{method.replace(':', '-')}{self._settings(method).replace(' ', '-')}"

    def stamp(self, one: Arm | None) -> str:
        """What tells an arm's values from others of its name: weights and settings, or a strange folder's content."""
        methods = one.methods if one else ()
        return "".join(self._content(one, m) if one and m in one.folders else self._settings(m) for m in methods)

    def _settings(self, method: str) -> str:
        if resolve(method, METHODS, "Method").learns == "nothing":
            return ""
        chosen = own_settings(self.config.fit, method), own_settings(self.config.generate, method)
        return " " + digest([_weights(self.config.backbone), *chosen])

    def _content(self, one: Arm, method: str) -> str:
        folder = Path(one.folders[method].replace("{seed}", str(self.seed)))
        files = sorted(path for path in folder.rglob("*.png") if path.is_file())
        return " " + digest([images.file_sha(path) for path in files])

    def _generate(self, method: str) -> Path:
        """Make the images of a method, fitted on the support first where it learns; resumes."""
        out, types = self.out(method), self.division.types
        kind = resolve(method, METHODS, "Method")
        values: dict[str, Any] = {"method": method, "normal": f"mvtec_ad:{self.data}", "out": out, "seed": self.seed}
        values |= {"n": self.config.images, "per_defect": True, "defect": tuple(types), "shots": configs.EVERYTHING}
        if kind.learns != "nothing":
            values |= {"options": own_settings(self.config.generate, method)}
            if self.support:
                values["method"] = str(self._fit(method))
            else:
                values["backbone"] = self.config.backbone
        elif kind.references == "none":  # it has types of its own
            values |= {"defect": (), "per_defect": False, "n": self.config.images * len(types)}
        generation.run(GenerateConfig(**values), under(self.progress, f"seed {self.seed}, {method}"))
        return out

    def _fit(self, method: str) -> Path:
        run = self.out(method).with_name(f"{self.out(method).name}-run")
        settings = fit_config(self.config, method, f"mvtec_ad:{self.data}", run, self.seed)
        training.train(settings, under(self.progress, f"seed {self.seed}, fitting {method}"))
        return run


def materialise(folder: Path, support: Sequence[Record], normals: Sequence[Record]) -> Path:
    """A data set in MVTec layout that holds nothing but what a method may see, so that nothing else can leak."""
    root = folder / "data" / (normals[0].category or "product")
    if root.is_dir():
        return root
    partial = root.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    groups = []
    for number, record in enumerate(normals):
        name = f"train/good/{number:04d}{record.image.suffix}"
        _link(record.image, partial / name)
        groups.append((name, record.group))
    for number, record in enumerate(support):
        name = f"test/{record.defect_type}/{number:04d}{record.image.suffix}"
        _link(record.image, partial / name)
        groups.append((name, record.group))
        truth = partial / "ground_truth" / record.defect_type / f"{number:04d}"
        if record.any_level or any(isinstance(mask, Region) for mask in record.masks):
            images.write_image(truth / "0.png", record.load().mask)
        else:
            for part, mask in enumerate(record.files[1:]):
                _link(mask, truth / f"{part}{mask.suffix}")
        if record.caption:
            prompt = partial / "prompt" / record.defect_type / f"{number:04d}.txt"
            images.write_bytes(prompt, record.caption.encode(), durable=False)
    if any(group for _, group in groups):  # which images show one part is told, as in the data set itself
        table = io.StringIO(newline="")
        csv.writer(table, lineterminator="\n").writerows([("file", "group"), *groups])
        images.write_bytes(partial / ORIGIN, table.getvalue().encode(), durable=False)
    partial.rename(root)
    return root


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none across these folders."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def digest(value: Any, length: int = 8) -> str:
    """The first hex digits of a SHA-256 over what JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def _weights(backbone: str) -> list[str]:
    """Hashes of a backbone's weight files; its name where it is no folder (a hub id)."""
    folder = SHIPPED.get(backbone, Path(backbone))
    return [images.file_sha(path) for path in sorted(Path(folder).rglob("*.safetensors"))] or [backbone]
