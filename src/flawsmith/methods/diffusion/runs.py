"""A diffusion method's run on disk: its card, the weights of what it learned, and the backbone it was learned on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from safetensors.torch import save as to_bytes
from torch import nn

from flawsmith import images, inputs, methods
from flawsmith.diffusion import tensor_files
from flawsmith.diffusion.adapters import load_adapter, merge_adapter, save_adapter
from flawsmith.diffusion.backbone import Backbone, fingerprint
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.methods import base
from flawsmith.records import Sample

__all__ = ["LORA", "WEIGHTS", "fingerprint", "load", "merge", "save"]

WEIGHTS, LORA = "weights.safetensors", "lora.safetensors"  # of a method that learns one model


class Learner(Protocol):
    """What is saved of a diffusion method, and how it takes it up again; see DiffusionSynthesizer."""

    learns: ClassVar[base.Learns]
    backbone: Backbone
    config: Any
    options: Any
    card: dict[str, Any]
    folder: Path | None
    adapters: dict[str, str]
    lora: dict[str, nn.Parameter]

    def trainable(self) -> dict[str, nn.Module]: ...
    def extend(self, support: Mapping[str, Sequence[Sample]]) -> None: ...


Kind = TypeVar("Kind", bound=Learner)


def load(kind: Callable[..., Kind], folder: Path, **place: Any) -> Kind:
    """The synthesizer of a run; `device`, `memory` and `runtime` as for a new one.

    Raises FlawsmithError when the backbone is another one or a file is damaged.
    """
    card = base.read_card(folder)
    named, config, options = card.get("backbone", "compact"), card.get("config"), card.get("options", {})
    made = kind(named, config, **place, **options)
    expected, actual = card.get("backbone_fingerprint"), fingerprint(made.backbone)
    if expected and expected != actual:
        raise FlawsmithError(
            f"{folder} was trained on backbone {card['backbone']!r} with fingerprint {expected}, this one has "
            f"{actual}: install the flawsmith version named on its card, or train again."
        )
    made.card, made.folder = {**card, "learned": card.get("learned", {})}, folder
    if made.learns == "model" and made.card["learned"]:
        _load_model(made, folder)
    if made.learns == "adapters":
        for number, (key, entry) in enumerate(made.card["learned"].items()):
            made.adapters[key] = f"adapter{number}"
            load_adapter(made.backbone, made.adapters[key], inputs.inside(folder, entry["file"], "card.json"))
    return made


def _load_model(made: Learner, folder: Path) -> None:
    made.extend({name: () for name in made.card["learned"]})
    try:
        stored, _ = tensor_files.read(folder / WEIGHTS)
        for part, module in made.trainable().items():
            # A run that was stopped while it learned another name may hold more than its card says.
            module.load_state_dict({key: stored[f"{part}.{key}"] for key in module.state_dict()})
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise FlawsmithError(f"{folder / WEIGHTS} does not fit its card ({error}): train again.") from error
    if made.config.lora_rank:
        load_adapter(made.backbone, "shared", folder / LORA)
        made.lora = {key: p for key, p in made.backbone.unet.named_parameters() if ".shared." in key}


def merge(folder: Path, name: str | None, out: Path) -> str:
    """Write a backbone with one of a run's LoRA adapters added into its denoiser; returns the adapter's name.

    `name` is "category/defect_type", not needed where there is one adapter only. What else such a method learned
    stays in its run. Raises FlawsmithError for an unknown name, or a folder that is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise FlawsmithError(f"Folder {out} is not empty: choose another --out.")
    made: Any = methods.load(folder)
    adapters = {"shared": "shared"} if getattr(made, "lora", None) else dict(getattr(made, "adapters", {}))
    if not adapters:
        raise FlawsmithError(f"{folder} holds no LoRA adapter that could be merged.")
    if name is None and len(adapters) > 1:
        raise FlawsmithError(f"{folder} holds several adapters, name one: {', '.join(sorted(adapters))}.")
    name = name or next(iter(adapters))
    if name not in adapters:
        raise unknown("Adapter", name, adapters, f"in {folder}")
    merge_adapter(made.backbone, adapters[name])
    made.backbone.save_pretrained(out)
    return name


def save(method: Learner, folder: Path) -> None:
    """Write what was learned, then the card, each file whole or not at all."""
    from flawsmith import __version__

    card: dict[str, Any] = {**method.card, "options": method.options.model_dump(mode="json"), "flawsmith": __version__}
    card["backbone_fingerprint"] = fingerprint(method.backbone)
    if method.learns == "model":
        card["config"] = method.config.model_dump(mode="json")
        if card["learned"]:  # a run that was only begun has nothing but its card
            parts = method.trainable().items()
            weights = {f"{part}.{key}": v.contiguous() for part, m in parts for key, v in m.state_dict().items()}
            images.write_bytes(folder / WEIGHTS, to_bytes(weights))
            if method.lora:
                save_adapter(method.backbone, "shared", folder / LORA)
    elif method.folder is not None and method.folder != folder:
        for entry in card["learned"].values():
            images.write_bytes(folder / entry["file"], (method.folder / entry["file"]).read_bytes())
    images.write_bytes(folder / "card.json", (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode())
