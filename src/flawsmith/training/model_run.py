"""Training a method that learns one model: one fit for all types; a later fit touches only what its own types own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from flawsmith import images
from flawsmith.config import TrainConfig
from flawsmith.errors import FlawsmithError
from flawsmith.methods.diffusion.runs import WEIGHTS
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.records import Progress, Record, Sample, under
from flawsmith.training import parallel
from flawsmith.training import support as training_data
from flawsmith.training.fitting import Material, fit_model
from flawsmith.training.settings import Settings


def train(
    config: TrainConfig,
    settings: Settings,
    kind: type[DiffusionSynthesizer],
    records: Sequence[Record],
    wanted: Sequence[tuple[str, str]],
    card: dict[str, Any],
    progress: Progress | None,
) -> dict[str, Any]:
    """Learn the wanted types that the run does not know yet; returns its card."""
    _same_config(config, card)
    support, seen = _new(config, records, wanted, card)
    if not support:
        return card
    method, first = _method(config, settings, kind, card)
    categories = dict.fromkeys(name.split("/")[0] for name in support)
    normals = {category: training_data.normals(config, records, category) for category in categories}
    real, held_out = training_data.divided(support, settings.fit.seed, settings.fit.patience > 0)
    material = _material(config, normals, real, held_out)
    method.extend(real)  # what judges the fit enters nothing that is trained, made or kept for it
    own = [parameter for name in support for parameter in method.own(name)]
    parameters = _learning(config, method, None if first else own)
    folder = config.out / "train" / f"fit-{len({json.dumps(e['names']) for e in card['learned'].values()})}"
    plan = {"names": list(support), "support": seen, "fit": asdict(settings.fit), "config": settings.config}
    plan["normals"] = {category: training_data.content(found) for category, found in normals.items()}
    training_data.same_fit(folder, plan)
    for name, parameter in method.parameters().items():
        parameter.requires_grad_(name in parameters)
    what = next(iter(support)) if len(support) == 1 else f"{len(support)} types"

    shown = [found[turn % len(found)] for turn in range(4) for found in real.values()]
    photographs = [photo for found in normals.values() for photo in found]

    def preview(step: int) -> None:
        sheet = training_data.preview(method, shown, photographs, config)
        images.write_image(folder / "previews" / f"{step:06d}.png", sheet)

    result = fit_model(
        method.backbone,
        parameters,
        method.training_condition,
        material,
        folder,
        settings.fit,
        faster=own,
        preview=preview,
        progress=under(progress, what),
    )
    for name in support:
        method.card["learned"][name] = {
            "file": WEIGHTS,
            **result,
            "names": list(support),
            "fit": asdict(settings.fit),
            "support": seen[name],
            **method.remember([*real[name], *held_out[name]]),
        }
    if parallel.main():
        preview(
            result["steps"]
        )  # after the card is filled in: a fit resumed at its end has not trained, but has learned
        method.save_pretrained(config.out)
    return method.card


def _new(
    config: TrainConfig, records: Sequence[Record], wanted: Sequence[tuple[str, str]], card: dict[str, Any]
) -> tuple[dict[str, list[Record]], dict[str, dict[str, str]]]:
    """The support of every wanted type that the run does not know yet, and its checksums, by "category/defect"."""
    support: dict[str, list[Record]] = {}
    seen: dict[str, dict[str, str]] = {}
    for category, defect in wanted:
        found = training_data.missing(config, records, card, category, defect)
        if found is not None:
            support[f"{category}/{defect}"], seen[f"{category}/{defect}"] = found
    return support, seen


def _material(
    config: TrainConfig,
    normals: dict[str, list[Sample]],
    real: dict[str, list[Sample]],
    held_out: dict[str, list[Sample]],
) -> dict[str, Material]:
    """What each type's windows are drawn from: real defects, good photographs, painted defects, and what judges."""
    drawn = {category: training_data.drawn(config, category) for category in normals}
    material = {}
    for name, found in real.items():
        category = name.split("/")[0]
        material[name] = Material(found, normals[category], drawn[category], held_out[name])
    return material


def _learning(config: TrainConfig, method: DiffusionSynthesizer, own: list[str] | None) -> dict[str, nn.Parameter]:
    """The parameters a fit changes: all in the first, later those that its types `own` only."""
    parameters = method.parameters()
    if own is None:
        return parameters
    if not own:
        raise FlawsmithError(
            f"{config.out} is a finished run of {config.method}, which keeps nothing of its own for a defect type: "
            "use it as it is, or choose another --out and train all types together."
        )
    return {name: parameters[name] for name in own}


def _method(
    config: TrainConfig, settings: Settings, kind: type[DiffusionSynthesizer], card: dict[str, Any]
) -> tuple[DiffusionSynthesizer, bool]:
    """The method as the run holds it, or a fresh one; and whether this is its first fit."""
    if not card["learned"]:
        method = kind(config.backbone, settings.config, config.device, config.memory, **settings.options)
        method.begin()
        method.card = {**method.card, "method": config.method}
        if parallel.main():
            method.save_pretrained(config.out)  # a run that is stopped is known as one
        method.add_lora()
        return method, True
    return kind.from_pretrained(config.out, device=config.device, memory=config.memory), False


def _same_config(config: TrainConfig, card: dict[str, Any]) -> None:
    """What is fixed when a run is made cannot be set differently later."""
    for key, value in config.options.items():
        held = card.get("config", {}).get(key, value)
        if held != value:
            raise FlawsmithError(
                f"{config.out} was made with {key}={held!r}, not {value!r}: leave it out, or choose another --out."
            )
