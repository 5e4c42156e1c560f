"""`flawsmith train`: few-shot fitting of one adapter per defect type; adding a type leaves the others alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from flawsmith import __version__, datasets, generation, images, planning
from flawsmith.config import GenerateConfig, TrainConfig
from flawsmith.datasets.splits import few_shot
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.fewshot import FitConfig, fit, save_adapter
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.loading import Loader
from flawsmith.methods import METHODS
from flawsmith.methods.latent import DiffusionSynthesizer, fingerprint
from flawsmith.records import Record, Request, Sample
from flawsmith.registry import resolve

Progress = Callable[[str, int, int, dict[str, Any]], None]
NORMALS, DRAWN = 40, 33  # good photographs and painted defects a fit draws its windows from


def fit_config(config: TrainConfig) -> FitConfig:
    """The fit's settings from `--steps`, `--seed` and `--set`. Raises FlawsmithError for an unknown one."""
    known = {field.name: field for field in fields(FitConfig)}
    changes = dict(config.options)
    for key, value in changes.items():
        if key not in known:
            raise unknown("Training option", key, known)
        kind = type(known[key].default)
        if kind in (int, float) and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise FlawsmithError(f"Training option {key}={value!r} must be a number.")
    if config.steps is not None:
        changes["steps"] = config.steps
    return replace(FitConfig(seed=config.seed % (2**31)), **changes)


def train(config: TrainConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Fit every asked-for defect type that the run does not hold yet; returns the card.

    Writes `out/card.json`, `out/adapters/<category>/<defect>.safetensors`, and under `out/train/` metrics, previews
    and the resumable state. Only the few-shot support pictures and the training normals are read.
    """
    settings = fit_config(config)
    kind = resolve(config.method, METHODS, "Method")
    if not issubclass(kind, DiffusionSynthesizer):
        raise FlawsmithError(
            f"Method {config.method!r} has nothing to train: use `flawsmith generate {config.method}`."
        )
    reader, root = datasets.parse_source(config.data)
    records = datasets.read(reader, root, category=config.category, group_by=config.group_by)
    wanted = _wanted(config, records)
    card = _card(config, settings)
    for category, defect in wanted:
        _fit_one(config, settings, kind, records, card, category, defect, progress)
    return card


def _fit_one(
    config: TrainConfig,
    settings: FitConfig,
    kind: type[DiffusionSynthesizer],
    records: Sequence[Record],
    card: dict[str, Any],
    category: str,
    defect: str,
    progress: Progress | None,
) -> None:
    """Fit one adapter and enter it on the card, unless the run already holds it."""
    key = f"{category}/{defect}"
    file = config.out / "adapters" / category / f"{defect}.safetensors"
    support = [r for r in _support(config, records, category) if r.defect_type == defect]
    seen = {record.name: images.file_sha(record.image) for record in support}
    if key in card["adapters"] and file.is_file():
        if card["adapters"][key]["support"] != seen:
            raise FlawsmithError(
                f"{config.out} holds an adapter for {key} fitted on other pictures: choose another --out."
            )
        return
    backbone = Backbone.from_pretrained(config.backbone).freeze()
    card["backbone_fingerprint"] = fingerprint(backbone)
    normals = [r.load() for r in _some(_training_normals(records, category), NORMALS, config.seed)]
    real = [record.load() for record in support]
    folder = config.out / "train" / f"{category}-{defect}"

    def tell(line: dict[str, Any]) -> None:
        if progress:
            progress(key, line["step"], settings.steps, line)

    def preview(step: int) -> None:
        picture = _preview(kind, backbone, real, normals, config)
        images.write_image(folder / "previews" / f"{step:06d}.png", picture)

    drawn = _drawn(config, category, config.seed)
    result = fit(backbone, "adapter", real, normals, drawn, folder, settings, preview, tell)
    preview(result["steps"])
    save_adapter(backbone, "adapter", file, settings)
    card["adapters"][key] = {
        "file": file.relative_to(config.out).as_posix(),
        "sha": images.file_sha(file),
        **result,
        "fit": asdict(settings),
        "support": seen,
    }
    images.write_bytes(
        config.out / "card.json", (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
    )


def _wanted(config: TrainConfig, records: Sequence[Record]) -> list[tuple[str, str]]:
    found = dict.fromkeys((r.category, r.defect_type) for r in records if not r.is_good)
    names = {defect for _, defect in found}
    for defect in config.defect:
        if defect not in names:
            raise unknown("Defect", defect, names, f"in {config.data}")
    pairs = []
    for category, defect in found:
        if config.defect and defect not in config.defect:
            continue
        support = [r for r in _support(config, records, category) if r.defect_type == defect]
        if not support:
            if config.defect:
                raise FlawsmithError(
                    f"{category}/{defect} offers no picture with a mask to learn from: raise --shots, or add masks."
                )
            continue
        pairs.append((category, defect))
    if not pairs:
        raise FlawsmithError(f"{config.data} holds no defect with masks to learn from (test/, ground_truth/).")
    if not any(r.is_good for r in records):
        raise FlawsmithError(f"{config.data} has no good photographs: put them under train/good.")
    return pairs


def _support(config: TrainConfig, records: Sequence[Record], category: str) -> list[Record]:
    defects = [r for r in records if r.category == category and not r.is_good]
    split = few_shot(defects, shots=config.shots, seed=config.split_seed)
    return [record for record in split.support if record.masks]


def _training_normals(records: Sequence[Record], category: str) -> list[Record]:
    good = [r for r in records if r.category == category and r.is_good]
    return [r for r in good if r.split == "train"] or good


def _some(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    order = np.random.default_rng(seed).permutation(len(records))[:count]
    return [records[i] for i in sorted(order)]


def _drawn(config: TrainConfig, category: str, seed: int) -> list[Sample]:
    """Painted defects of every kind on the same product: what keeps a handful of real ones from being copied."""
    settings = GenerateConfig(
        method="procedural", normal=config.data, category=category, n=DRAWN, seed=seed, out=config.out / "unused"
    )
    synthesizer = generation.load_method("procedural", {})
    made = planning.plan(settings, planning.read_records(settings), synthesizer)
    loader = Loader(settings)
    samples = [synthesizer.generate([loader.request(job)])[0] for job in made.jobs]
    return [sample for sample in samples if "rejected" not in sample.info]


def _preview(
    kind: type[DiffusionSynthesizer], backbone: Backbone, real: list[Sample], normals: list[Sample], config: TrainConfig
) -> np.ndarray:
    """Four rows: a real defect (the reference), a normal, what the present weights paint there, and its zoom."""
    from flawsmith import compose, masks

    synthesizer = kind(backbone=backbone)
    rows = []
    for number in range(4):
        rng = np.random.default_rng([config.seed % (2**31), number])
        reference, normal = real[number % len(real)], normals[number % len(normals)]
        mask, warp = masks.draw(
            "reference", masks.foreground(normal.image), rng, reference=reference, image=normal.image
        )
        caption = reference.caption or synthesizer.default_caption(reference.category, reference.defect_type)
        request = Request(normal, mask, reference.defect_type, caption, reference, number, warp)
        sample = synthesizer.generate([request])[0]
        shown, view = (compose.square_window(m, 64, 1.6).slices for m in (reference.mask, mask))
        rows.append(
            [reference.image[shown], normal.image[view], sample.image[view], images.mask_picture(sample.mask[view])]
        )
    return images.contact_sheet(rows, ("real", "normal", "generated", "label"))


def _card(config: TrainConfig, settings: FitConfig) -> dict[str, Any]:
    path = config.out / "card.json"
    fresh = {"method": config.method, "backbone": config.backbone, "flawsmith": __version__, "adapters": {}}
    if not path.is_file():
        if config.out.is_dir() and any(entry.name != "train" for entry in config.out.iterdir()):
            raise FlawsmithError(
                f"Folder {config.out} is not empty and holds no run (no card.json): choose another --out."
            )
        return fresh
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        for key in ("method", "backbone"):
            if card[key] != fresh[key]:
                raise FlawsmithError(
                    f"{config.out} holds a run with {key} {card[key]!r}, now it is {fresh[key]!r}: "
                    "choose another --out."
                )
        changed = [
            key for key, item in card["adapters"].items() if item["fit"] != json.loads(json.dumps(asdict(settings)))
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FlawsmithError):
            raise
        raise FlawsmithError(f"{path} is damaged ({error}): choose another --out or remove it.") from error
    if changed and config.defect == () and set(changed) == set(card["adapters"]):
        raise FlawsmithError(
            f"{config.out} was trained with other settings: choose another --out, or give the same ones."
        )
    return card
