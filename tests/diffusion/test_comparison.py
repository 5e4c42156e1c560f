"""The diffusion arm of a comparison: fitted on the support where there is one, from words alone where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import fakes
from flawsmith.comparison import run as comparison
from flawsmith.config import CompareConfig
from flawsmith.diffusion.backbone import Backbone


def _only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_ours_by_text_and_ours_fitted(tiny: Backbone, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "backbone")
    data = fakes.mvtec_tree(tmp_path / "data", good=5, defects={"crack": 9}, size=(72, 96), test_good=3)
    config = CompareConfig(
        real=f"mvtec_ad:{data}",
        out=tmp_path / "out",
        arms=("inpaint",),
        shots=(0, 2),
        seeds=(0,),
        images=2,
        backbone=str(tmp_path / "backbone"),
        fit={"steps": 900, "inpaint": {"steps": 2}},  # its own settings come before those of all methods
        generate={"steps": 900, "inpaint": {"steps": 1, "min_visibility": 0, "min_share": 0}},
        segmentation={"steps": 2, "batch_size": 2, "crop": 32},
    )
    values, sentences = comparison.compare(config)
    assert {one.method for one in values} == {"no real + inpaint", "2 real + inpaint, share 0.5"}
    assert sentences == []  # nothing to beat
    by_text, fitted = (next((tmp_path / "out" / "work").glob(f"seed0-{shots}-*")) for shots in (0, 2))
    told = json.loads((_only(by_text, "inpaint-*[!n]/generate.json")).read_text())
    assert told["support"] == {} and told["backbone"] == str(tmp_path / "backbone")
    card = json.loads((_only(fitted, "inpaint-*-run/card.json")).read_text())
    assert len(json.loads((_only(fitted, "inpaint-*[!n]/generate.json")).read_text())["support"]) == 2
    assert card["method"] == "inpaint"
    assert json.loads((_only(fitted, "inpaint-*[!n]/generate.json")).read_text())["options"]["steps"] == 1
    # Other weights are another arm: nothing of the old ones is taken for theirs.
    weights = next((tmp_path / "backbone" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    comparison.compare(config)
    assert len(list(by_text.glob("inpaint-*/generate.json"))) == 2
