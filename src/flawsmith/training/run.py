"""`flawsmith train`: one adapter per defect type, or one model for all of them; a type can be added to either later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from flawsmith import __version__, datasets, images, inputs
from flawsmith.config import TrainConfig
from flawsmith.datasets.lock import PARTIAL, Lock
from flawsmith.diffusion.adapters import save_adapter
from flawsmith.diffusion.backbone import Backbone
from flawsmith.errors import FlawsmithError
from flawsmith.methods import METHODS
from flawsmith.methods.diffusion.runs import fingerprint
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.records import Progress, Record, under
from flawsmith.registry import resolve
from flawsmith.training import mask_run as mask_training
from flawsmith.training import model_run, parallel
from flawsmith.training import support as training_data
from flawsmith.training.fitting import fit_adapter
from flawsmith.training.settings import FitConfig, settings_of


def train(config: TrainConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Fit every asked-for defect type that the run does not hold yet; returns the card.

    Writes `out/card.json`, `out/adapters/<category>/<defect>.safetensors` or `out/weights.safetensors`, and under
    `out/train/` metrics, previews and the resumable state. Only the few-shot support images and the training
    normals are read.
    """
    kind = resolve(config.method, METHODS, "Method")
    if not issubclass(kind, DiffusionSynthesizer):
        raise FlawsmithError(
            f"Method {config.method!r} has nothing to train: use `flawsmith generate {config.method}`."
        )
    settings = settings_of(config, kind)
    reader, root = datasets.parse_source(config.data)
    records = datasets.read(reader, root, category=config.category, group_by=config.group_by)
    wanted = training_data.wanted(config, records)
    parallel.join(config.device)
    with Lock(config.out) if parallel.main() else nullcontext():
        parallel.wait()
        card = _card(config, settings.fit)
        parallel.wait()
        if parallel.main():
            images.clear_partial(config.out)
        if kind.learns == "model":
            card = model_run.train(config, settings, kind, records, wanted, card, progress)
        else:
            for category, defect in wanted:
                _fit_one(config, settings.fit, kind, records, card, category, defect, progress)
        if settings.fit.mask_steps:
            mask_training.train(config, settings.fit, records, wanted, progress)
        parallel.wait()
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
    found = training_data.missing(config, records, card, category, defect)
    if found is None:
        return
    support, seen = found
    backbone = Backbone.from_pretrained(config.backbone).freeze().place(config.device or "cpu", config.memory)
    card["backbone_fingerprint"] = fingerprint(backbone)
    normals = training_data.normals(config, records, category)
    real, held_out = (part[key] for part in training_data.divided({key: support}, settings.seed, settings.patience > 0))
    folder = config.out / "train" / f"{category}-{defect}"

    def preview(step: int) -> None:
        image = training_data.preview(kind(backbone=backbone), real, normals, config)
        images.write_image(folder / "previews" / f"{step:06d}.png", image)

    plan = {"backbone": config.backbone, "support": seen, "normals": training_data.content(normals)}
    training_data.same_fit(folder, {**plan, "fit": asdict(settings)})
    drawn = training_data.drawn(config, category)
    told = under(progress, key)
    result = fit_adapter(backbone, "adapter", real, normals, drawn, folder, settings, preview, told, held_out)
    file = config.out / "adapters" / category / f"{defect}.safetensors"
    if parallel.main():
        preview(result["steps"])
        save_adapter(backbone, "adapter", file)
    parallel.wait()
    card["learned"][key] = {
        "file": file.relative_to(config.out).as_posix(),
        "sha": images.file_sha(file),
        **result,
        "fit": asdict(settings),
        "support": seen,
    }
    if parallel.main():
        content = (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
        images.write_bytes(config.out / "card.json", content)


def _card(config: TrainConfig, settings: FitConfig) -> dict[str, Any]:
    path = config.out / "card.json"
    fresh = {"method": config.method, "backbone": config.backbone, "flawsmith": __version__, "learned": {}}
    if not path.is_file():
        # a fit that was killed has no card yet, perhaps its adapter or a part of the card's file
        names = {entry.name for entry in config.out.iterdir()} - {"train", "adapters", PARTIAL}
        if any(not images.PARTIAL.fullmatch(name) for name in names):
            raise FlawsmithError(
                f"Folder {config.out} is not empty and holds no run (no card.json): choose another --out."
            )
        return fresh
    try:
        card: dict[str, Any] = inputs.parse_json(path.read_text(encoding="utf-8"))
        for key in ("method", "backbone"):
            if card[key] != fresh[key]:
                raise FlawsmithError(
                    f"{config.out} holds a run with {key} {card[key]!r}, now it is {fresh[key]!r}: "
                    "choose another --out."
                )
        now = json.loads(json.dumps(asdict(settings)))
        changed = [key for key, item in card["learned"].items() if item["fit"] != now]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FlawsmithError):
            raise
        raise FlawsmithError(f"{path} is damaged ({error}): choose another --out or remove it.") from error
    if changed and config.defect == () and set(changed) == set(card["learned"]):
        raise FlawsmithError(
            f"{config.out} was trained with other settings: choose another --out, or give the same ones."
        )
    return card
