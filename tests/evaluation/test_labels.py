"""Labels are judged by what changed: a true label scores 1 and 0, a lie is measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fakes
from flawsmith import images
from flawsmith.config import GenerateConfig
from flawsmith.datasets import read
from flawsmith.datasets.leaks import fingerprint
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.metrics import labels
from flawsmith.generation import run as generation


def painted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    normal = np.full((40, 50, 3), 100, np.uint8)
    label = np.zeros((40, 50), bool)
    label[10:20, 10:30] = True
    image = normal.copy()
    image[label] = (130, 100, 90)
    return normal, image, label


def test_a_true_label() -> None:
    assert labels.change(*painted()) == {"label_IoU": 1.0, "changed_outside_label": 0.0, "visibility": 30.0}


def test_a_label_too_large_too_small_and_elsewhere() -> None:
    normal, image, label = painted()
    larger = label.copy()
    larger[20:30, 10:30] = True
    assert labels.change(normal, image, larger)["label_IoU"] == pytest.approx(0.5)
    assert labels.change(normal, image, larger)["visibility"] == pytest.approx(15)
    smaller = label.copy()
    smaller[15:] = False
    found = labels.change(normal, image, smaller)
    assert found["label_IoU"] == pytest.approx(0.5) and found["changed_outside_label"] == 100
    image[0, 0, 2] += 1  # one grey level in one channel of one pixel is a change outside
    assert labels.change(normal, image, label)["changed_outside_label"] == 1
    assert labels.change(normal, normal, np.zeros_like(label)) == {
        "label_IoU": 1.0,
        "changed_outside_label": 0.0,
        "visibility": 0.0,
    }
    with pytest.raises(FlawsmithError, match="must be equal"):
        labels.change(normal[1:], image, label)


def test_duplicates_count_both_of_a_pair() -> None:
    prints = [fingerprint(fakes.photo(seed)) for seed in (0, 0, 1, 2)]
    assert labels.duplicates(["a", "a", "b", "c"], prints) == (0.5, 0.5)
    assert labels.duplicates(["a", "b", "c", "d"], [fingerprint(fakes.photo(s)) for s in range(4)]) == (0, 0)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    data = fakes.mvtec_tree(tmp_path / "data", good=4, defects={"crack": 6}, size=(72, 96))
    out = tmp_path / "out"
    generation.run(GenerateConfig(method="copypaste", normal=f"mvtec_ad:{data}", out=out, n=4))
    return data, out


def by_key(values) -> dict:
    return {one.key.split("/")[0]: one for one in values}


def test_a_generated_folder(made: tuple[Path, Path]) -> None:
    _, out = made
    found = by_key(labels.judge(out))
    assert found["changed_outside_label"].value == 0 and found["label_IoU"].value > 0.8
    assert found["visibility"].value > 8 and found["refused_share"].value == 0
    assert found["label_IoU"].n_generated == 4 and found["label_IoU"].type == "crack"
    # Somebody edits an image outside its label.
    path = next((out / "test" / "crack").glob("*.png"))
    image = images.read_image(path).copy()
    image[0, 0] ^= 1
    images.write_image(path, image)
    assert by_key(labels.judge(out))["changed_outside_label"].value == 1


def test_photographs_that_moved_are_found_or_missed(made: tuple[Path, Path]) -> None:
    data, out = made
    moved = data.with_name("elsewhere")
    data.rename(moved)
    gone = by_key(labels.judge(out))["label_IoU"]
    assert gone.value is None and "4 of 4 photographs were not found" in gone.reason
    assert by_key(labels.judge(out, moved))["label_IoU"].value > 0.8
    for path in (moved / "train" / "good").iterdir():
        images.write_image(path, 255 - images.read_image(path))  # same names, other images
    assert by_key(labels.judge(out, moved))["label_IoU"].value is None


def test_refusals_are_counted_and_a_strange_folder_says_so(made: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = made
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    lines[0] |= {"status": "rejected", "reason": "too faint"}
    (out / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert by_key(labels.judge(out))["refused_share"].value == 0.25
    (out / "manifest.jsonl").unlink()
    assert all(one.value is None and "manifest" in one.reason for one in labels.judge(out))
    assert by_key(labels.repeats([r for r in read("mvtec_ad", out) if not r.is_good]))["duplicates"].value == 0
