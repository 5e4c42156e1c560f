"""The segmenter leaves torch and says the same; formats whose packages are missing are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fakes  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.evaluation.detectors import exporting, networks, segmentation  # noqa: E402
from flawsmith.evaluation.detectors.segmentation import SegmentationConfig, Trained  # noqa: E402
from flawsmith.records import Sample  # noqa: E402


@pytest.fixture
def trained() -> Trained:
    torch.manual_seed(0)
    model = networks.NETWORKS["light-unet"]()
    model(torch.randn(4, 3, 64, 64))  # batch statistics that are not the initial ones
    return Trained(model.eval(), "val-selected", 7, SegmentationConfig(steps=7))


def test_saved_and_loaded_predicts_the_same(trained: Trained, tmp_path: Path) -> None:
    exporting.save_segmenter(trained, tmp_path, 0.25)
    again = exporting.load_segmenter(tmp_path)
    sample = Sample(fakes.photo(1), np.zeros((48, 64), bool), "widget")
    assert np.array_equal(segmentation.predict(trained, sample)[0], segmentation.predict(again, sample)[0])
    assert again.config == trained.config and again.selected == "val-selected"
    assert json.loads((tmp_path / "segmenter.json").read_text())["threshold"] == 0.25
    (tmp_path / "segmenter.safetensors").write_bytes(b"half")
    with pytest.raises(FlawsmithError, match="no whole segmenter"):
        exporting.load_segmenter(tmp_path)


@pytest.mark.parametrize("name", exporting.FORMATS)
def test_an_export_agrees_with_torch_at_several_sizes(name: str, trained: Trained, tmp_path: Path) -> None:
    for package in exporting.NEEDED[name]:
        pytest.importorskip(package)
    found = exporting.export(trained, tmp_path, (name,))
    assert found[name]["largest_difference"] < 1e-4
    assert (tmp_path / found[name]["file"]).stat().st_size > 1000


def test_unknown_and_missing_formats_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FlawsmithError, match="known: onnx, openvino"):
        exporting.check(("onx",))
    monkeypatch.setitem(exporting.NEEDED, "onnx", ("surely_not_installed",))
    with pytest.raises(FlawsmithError, match=r"pip install 'flawsmith\[onnx\]'"):
        exporting.check(("onnx",))
