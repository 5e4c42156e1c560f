"""Defect types by a logistic head on a frozen encoder: separable types are told apart, settings say what is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import fakes  # noqa: E402
from flawsmith.comparison import shared  # noqa: E402
from flawsmith.config import CompareConfig  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.evaluation.detectors import downstream, frozen  # noqa: E402
from flawsmith.evaluation.protocol import read_real  # noqa: E402


def some(seed: int, count: int, gap: float = 4.0) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    kinds = ["crack", "hole"] * (count // 2)
    return rng.normal(size=(count, 6)) + gap * np.array([[kind == "hole"] * 6 for kind in kinds]), kinds


def test_a_head_tells_separable_types_apart_and_is_chosen_on_validation() -> None:
    none = np.zeros((0, 6)), list[str]()
    head = frozen.fit(some(0, 20), none, 0.9, some(1, 10))
    seen, kinds = some(2, 40)
    assert head.predict(seen) == kinds and head.selected == "val-selected" and head.types == ("crack", "hole")
    blind = frozen.fit(some(0, 20), none, 0.9, none)
    assert (blind.selected, blind.strength) == ("last", frozen.UNCHOSEN)
    with pytest.raises(FlawsmithError, match="at least two"):
        frozen.fit((seen[:3], ["hole"] * 3), none, 0.9, none)


def test_an_image_given_twice_changes_nothing_and_the_share_decides_between_the_kinds() -> None:
    none = np.zeros((0, 6)), list[str]()
    x, kinds = some(3, 12)
    once, twice = frozen.fit((x, kinds), none, 0.9, none), frozen.fit((np.tile(x, (2, 1)), kinds * 2), none, 0.9, none)
    # Twice as many rows of the same weights: the data weigh twice against the flat answer, the direction stays.
    a, b = (head.coefficients[1] - head.coefficients[0] for head in (once, twice))
    assert float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) > 0.99
    order = np.random.default_rng(0).permutation(12)
    mixed = frozen.fit((x[order], [kinds[i] for i in order]), none, 0.9, none)
    np.testing.assert_allclose(mixed.coefficients, once.coefficients, atol=1e-4)
    swapped = x, ["hole" if kind == "crack" else "crack" for kind in kinds]  # generated images that lie
    seen, truth = some(4, 40)
    assert frozen.fit((x, kinds), swapped, 0.1, none).predict(seen) == truth
    assert all(a != b for a, b in zip(frozen.fit((x, kinds), swapped, 0.9, none).predict(seen), truth, strict=True))


def test_what_is_taken_follows_from_the_settings() -> None:
    assert frozen.settings_of({}, "compact", "cpu").encoder == ""
    assert frozen.settings_of({}, "models/dino", "cpu").encoder == "models/dino"
    assert frozen.settings_of({"network": "small"}, "models/dino", "cpu").encoder == ""
    assert frozen.settings_of({"encoder": "models/clip"}, "models/dino", "cpu").encoder == "models/clip"
    with pytest.raises(FlawsmithError, match="name one"):
        frozen.settings_of({"encoder": "models/clip", "network": "small"}, "compact", "cpu")


def test_accuracy_stands_under_the_encoder_and_the_window(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    fakes.mvtec_tree(tmp_path / "data", good=6, defects={"crack": 9, "hole": 9}, size=(72, 96), test_good=4)
    torch.manual_seed(0)
    config = transformers.MobileNetV2Config(depth_multiplier=0.1, image_size=64, num_labels=4, initializer_range=0.3)
    transformers.MobileNetV2ForImageClassification(config).save_pretrained(tmp_path / "mobilenet")
    division = shared.divide(
        read_real(CompareConfig(real=f"mvtec_ad:{tmp_path / 'data/widget'}", out=tmp_path / "unused")), 0
    )
    support = shared.support_of(division, "third", 0)
    chosen = frozen.settings_of({}, str(tmp_path / "mobilenet"), "cpu")
    values = downstream.classify(support, [], division.validation, division.test, chosen, "3 real")
    assert {value.key for value in values} == {"accuracy/mobilenet/window"}
    whole = next(value for value in values if value.type == "all")
    assert whole.settings["count"] == whole.n_real and whole.settings["selected"] == "val-selected"
    assert whole.value is not None and whole.value > whole.settings["majority"]
