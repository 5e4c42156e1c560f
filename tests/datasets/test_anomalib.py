"""flawsmith.anomalib with anomalib's own models and engine, where anomalib is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fakes
import fakes_annotated as painted
import interop
from flawsmith.errors import FlawsmithError

SIZE = (96, 96)


@pytest.fixture(autouse=True)
def installed() -> None:
    interop.need_anomalib()


@pytest.fixture
def widget(tmp_path: Path) -> Path:
    return fakes.mvtec_tree(tmp_path / "data", good=8, defects={"crack": 6, "hole": 6}, size=SIZE)


@pytest.fixture
def made(widget: Path, tmp_path: Path, run: Callable) -> Path:
    code, _, err = run(
        *("generate", "copypaste", "--normal", widget, "-n", 4, "--shots", 2, "--gate", "off"),
        *("--out", tmp_path / "made"),
    )
    assert code == 0, err
    return tmp_path / "made"


def engine(folder: Path, batches: int = 2) -> Any:
    from anomalib.engine import Engine

    quick = {"max_epochs": 1, "limit_train_batches": batches, "accelerator": "cpu", "logger": False}
    return Engine(default_root_dir=folder, enable_progress_bar=False, **quick)


def padim() -> Any:
    from anomalib.models import Padim

    return Padim(pre_trained=False, n_features=20, visualizer=False)


def supersimplenet(supervised: bool) -> Any:
    from anomalib.models import Supersimplenet

    return Supersimplenet(supervised=supervised, backbone="resnet18.tv_in1k", visualizer=False)


def test_a_one_class_model_trains_on_good_images_and_validates_on_generated_defects(
    widget: Path, made: Path, tmp_path: Path
) -> None:
    from flawsmith.anomalib import DataModule

    data = DataModule(str(widget), str(made), val=0.5, train_batch_size=2, eval_batch_size=3)
    model = padim()
    runner = engine(tmp_path / "runs")
    runner.fit(model, datamodule=data)
    assert set(data.train_data.samples.label_index) == {0} and len(data.train_data) == 4
    bad = data.val_data.samples[data.val_data.samples.label_index == 1]
    assert len(bad) and all(str(made) in path for path in bad.image_path)
    assert 0 <= float(model.post_processor.image_threshold) < np.inf  # chosen on the validation images
    told = runner.test(model, datamodule=data)[0]
    assert {"image_AUROC", "pixel_AUROC"} <= told.keys() and all(0 <= value <= 1 for value in told.values())
    assert all(str(widget) in path for path in data.test_data.samples.image_path)


@pytest.mark.parametrize("make", [padim, lambda: supersimplenet(False)])
def test_a_one_class_model_is_not_trained_on_defects(
    widget: Path, made: Path, tmp_path: Path, make: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flawsmith.anomalib import DataModule

    untrained(monkeypatch)
    data = DataModule(str(widget), str(made), supervised=True)
    with pytest.raises(FlawsmithError) as refused:
        engine(tmp_path / "runs").fit(make(), datamodule=data)
    kinds = data.train_data.samples.label.value_counts()
    said = str(refused.value)
    assert f"{kinds['crack'] + kinds['hole']} of {len(data.train_data)} training images show defects" in said
    assert "learns good images only (one_class)" in said and "supervised=False" in said


def test_a_supervised_model_learns_from_generated_defects(
    widget: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flawsmith.anomalib import DataModule

    untrained(monkeypatch)
    data = DataModule(str(widget), str(made), supervised=True, train_batch_size=4)
    paths = {side: list(getattr(data, f"{side}_data").samples.image_path) for side in ("train", "val", "test")}
    assert sum(str(made) in path for path in paths["train"]) == 4
    assert not any(str(made) in path for side in ("val", "test") for path in paths[side])
    runner = engine(tmp_path / "runs")
    runner.fit(supersimplenet(True), datamodule=data)
    assert runner.trainer.global_step == 2


def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's networks with random weights: nothing is downloaded."""
    import timm

    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *given, **chosen: made(*given, **{**chosen, "pretrained": False}))


def test_items_are_the_records_of_any_reader(tmp_path: Path) -> None:
    """Polygons of an annotation file, which anomalib's own classes cannot read."""
    from flawsmith.anomalib import Records
    from flawsmith.datasets import read

    truth = painted.coco_tree(tmp_path / "set")
    records = read("coco", tmp_path / "set")
    whole = Records(records, "segmentation")
    assert len(whole) == 3 and whole.has_normal and whole.has_anomalous
    for number in range(3):
        item = whole[number]
        labels, mask = truth[Path(item.image_path).name]
        assert item.image.shape == (3, 48, 64) and item.image.max() <= 1 and bool(item.gt_label) == bool(labels)
        assert np.array_equal(item.gt_mask.numpy().astype(bool), mask)
    assert Records(records, "classification")[0].gt_mask is None
    batch = whole.collate_fn([whole[0], whole[1]])
    assert batch.image.shape == (2, 3, 48, 64) and batch.gt_mask.shape == (2, 48, 64)


def test_what_cannot_be_divided_is_refused(widget: Path, made: Path, tmp_path: Path) -> None:
    from flawsmith.anomalib import DataModule

    with pytest.raises(FlawsmithError, match="holds no image that flawsmith has generated"):
        DataModule(str(made), str(widget))
    with pytest.raises(FlawsmithError, match=r"val=0 and test=0\.2 are shares"):
        DataModule(str(widget), str(made), val=0)
    fakes.mvtec_tree(tmp_path / "data", "gadget", good=4)
    with pytest.raises(FlawsmithError, match="several products, gadget, widget: name one with category="):
        DataModule(str(tmp_path / "data"))
