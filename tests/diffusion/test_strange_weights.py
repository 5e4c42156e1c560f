"""Weights and settings of strangers: what is no model is refused by file and reason, before it paints anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from flawsmith.diffusion import tensor_files
from flawsmith.diffusion.adapters import add_adapter, load_adapter, save_adapter
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.mask_examples import SIDE, Example, whole_example
from flawsmith.diffusion.mask_model import FILE, LearnedMasks
from flawsmith.diffusion.whole_masks import WholeMasks
from flawsmith.errors import FlawsmithError
from flawsmith.records import Sample

Edit = Callable[[dict[str, torch.Tensor], dict[str, str]], None]


def rewrite(path: Path, edit: Edit) -> None:
    tensors, about = tensor_files.read(path)
    edit(tensors, about)
    path.write_bytes(save(tensors, about))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_no_weight(tmp_path: Path, number: float) -> None:
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        (tmp_path / "x.safetensors").write_bytes(
            save({"whole": torch.ones(3), "bad": torch.full((2,), number, dtype=kind)})
        )
        with pytest.raises(ValueError, match="bad holds values that are no numbers"):
            tensor_files.read(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(save({"a": torch.ones(3), "b": torch.arange(3)}, {"rank": "2"}))
    found, about = tensor_files.read(tmp_path / "x.safetensors")
    assert about == {"rank": "2"} and found["b"].tolist() == [0, 1, 2]


ADAPTERS: dict[str, Edit] = {
    "no rank": lambda tensors, about: about.clear(),
    "rank of a word": lambda tensors, about: about.update(rank="x"),
    "rank 0": lambda tensors, about: about.update(rank="0"),
    "rank of a billion": lambda tensors, about: about.update(rank="1000000000"),
    "another rank": lambda tensors, about: about.update(rank="3"),
    "a part gone": lambda tensors, about: tensors.__delitem__(next(iter(tensors))),
    "all parts gone": lambda tensors, about: tensors.clear(),
    "a part more": lambda tensors, about: tensors.update({"other.lora_A.weight": torch.ones(2, 2)}),
    "a part of another shape": lambda tensors, about: tensors.update({next(iter(tensors)): torch.ones(7)}),
    "NaN": lambda tensors, about: next(iter(tensors.values())).view(-1).__setitem__(0, float("nan")),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_that_does_not_fit_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    whole = Backbone.from_pretrained(folder).freeze()
    add_adapter(whole, "one", 2)
    save_adapter(whole, "one", tmp_path / "a.safetensors")
    load_adapter(Backbone.from_pretrained(folder).freeze(), "sound", tmp_path / "a.safetensors")
    rewrite(tmp_path / "a.safetensors", ADAPTERS[name])
    with pytest.raises(FlawsmithError, match=r"a\.safetensors (cannot be read|does not fit)") as refused:
        load_adapter(Backbone.from_pretrained(folder).freeze(), "odd", tmp_path / "a.safetensors")
    assert "\n" not in str(refused.value)


RECIPES: list[dict[str, Any]] = [
    {"size": 10**6}, {"channels": [10**6]}, {"channels": []}, {"channels": 3}, {"heads": 0}, {"layers": 10**4},
    {"width": "x"}, {"spread": float("nan")}, {"spread": -1}, {"more": 1}, {"denoiser": "other"}, {"text_layers": None},
]  # fmt: skip


@pytest.mark.parametrize("changes", RECIPES, ids=json.dumps)
def test_sizes_that_no_memory_holds_or_that_are_none_are_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    shutil.copytree(folder, tmp_path / "odd")
    index = json.loads((folder / "model_index.json").read_text())
    index["info"]["recipe"].update(changes)
    (tmp_path / "odd/model_index.json").write_text(json.dumps(index))
    with pytest.raises(FlawsmithError, match=r"odd holds no whole compact model \(.*: fetch it again"):
        Backbone.from_pretrained(tmp_path / "odd")


def altered(notes: str, **changes: Any) -> str:
    rows = json.loads(notes)
    rows[0].update(changes)
    return json.dumps(rows)


MASKS: dict[str, Edit] = {
    "shapes of another size": lambda tensors, about: tensors.update(shapes=torch.zeros(1, 0, SIDE)),
    "shapes of three axes less": lambda tensors, about: tensors.update(shapes=torch.zeros(1)),
    "more shapes than notes": lambda tensors, about: tensors.update(shapes=torch.zeros(2, SIDE, SIDE)),
    "no examples": lambda tensors, about: about.update(examples="[]"),
    "a name that is none": lambda tensors, about: about.update(examples=altered(about["examples"], name=3)),
    "a size of zero": lambda tensors, about: about.update(examples=altered(about["examples"], size=0)),
    "a share above one": lambda tensors, about: about.update(examples=altered(about["examples"], fill=7)),
    "a place of one number": lambda tensors, about: about.update(examples=altered(about["examples"], centre=[1])),
    "notes that are none": lambda tensors, about: about.update(examples="{"),
    "a model of another kind": lambda tensors, about: tensors.update({"model.more": torch.ones(1)}),
}


WHOLES: dict[str, Edit] = {
    "wholes of another size": lambda tensors, about: tensors.update(wholes=torch.zeros(1, SIDE, SIDE)),
    "a share above one": lambda tensors, about: about.update(examples=altered(about["examples"], share=7)),
    "a share of nothing said": lambda tensors, about: about.update(examples=altered(about["examples"], share=None)),
    "shapes without wholes": lambda tensors, about: tensors.pop("wholes"),
    "wholes without shapes": lambda tensors, about: tensors.pop("shapes"),
}


@pytest.mark.parametrize("name", WHOLES)
def test_whole_masks_that_were_not_learned_here_are_refused(tmp_path: Path, name: str) -> None:
    square = Sample(np.zeros((40, 40, 3), np.uint8), np.pad(np.ones((9, 9), bool), (12, 19)))
    WholeMasks([whole_example("widget/dent", square, np.ones((40, 40), bool))]).save(tmp_path)
    assert isinstance(LearnedMasks.load(tmp_path), WholeMasks)
    rewrite(tmp_path / FILE, WHOLES[name])
    with pytest.raises(FlawsmithError, match=r"masks\.safetensors cannot be read \(.+\): train the run's masks again"):
        LearnedMasks.load(tmp_path)


@pytest.mark.parametrize("name", MASKS)
def test_masks_that_were_not_learned_here_are_refused(tmp_path: Path, name: str) -> None:
    shape = np.linspace(-1, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    LearnedMasks([Example("widget/dent", "a dent", shape, 0.5, (0.5, 0.5), 0.2, 1.0, True)]).save(tmp_path)
    assert LearnedMasks.load(tmp_path).names == ["widget/dent"]
    rewrite(tmp_path / FILE, MASKS[name])
    with pytest.raises(FlawsmithError, match=r"masks\.safetensors cannot be read \(.+\): train the run's masks again"):
        LearnedMasks.load(tmp_path)
