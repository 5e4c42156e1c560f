"""The classifier: learns two types, repeats itself, counts honestly, and takes a pretrained network by folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.evaluation.detectors import classification, paper  # noqa: E402
from flawsmith.evaluation.detectors.classification import ClassificationConfig  # noqa: E402
from flawsmith.records import Sample  # noqa: E402

QUICK = ClassificationConfig(steps=40, batch_size=8, size=32, looks=2, seed=1)

pytestmark = pytest.mark.usefixtures("one_thread")


def image(kind: str, seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 140, (40, 40, 3), dtype=np.uint8)
    mask = np.zeros((40, 40), bool)
    top, left = rng.integers(4, 20, 2)
    if kind == "spot":
        mask[top : top + 14, left : left + 14] = True
    else:
        mask[top : top + 2, 2:38] = True
    image[mask] = 10
    return Sample(image, mask, "widget", kind)


def some(start: int, count: int = 4) -> list[Sample]:
    return [image(kind, start + i) for kind in ("line", "spot") for i in range(count)]


def test_learns_two_types_and_is_chosen_on_validation() -> None:
    found = classification.train(some(0), some(100, 8), QUICK, some(200))
    assert found.types == ("line", "spot") and found.selected == "val-selected"
    assert set(found.validation) == {30, 40}
    test = some(300, 8)
    right = np.mean([a == b.defect_type for a, b in zip(classification.predict(found, test), test, strict=True)])
    assert right > 0.85


def test_same_seed_same_answers_and_global_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    config = replace(QUICK, steps=2)
    first, second = (classification.train(some(0), [], config) for _ in range(2))
    assert torch.equal(torch.rand(2), expected)
    assert first.selected == "last"
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_accuracy_by_hand() -> None:
    truth = ["a", "a", "a", "b"]
    found = classification.accuracy(["a", "a", "b", "b"], truth)
    assert found["all"] == {"value": 0.75, "right": 3, "count": 4, "majority": 0.75}
    assert found["a"]["value"] == pytest.approx(2 / 3) and found["b"]["value"] == 1
    assert found["mean"]["value"] == pytest.approx(5 / 6)
    with pytest.raises(FlawsmithError, match="at least one"):
        classification.accuracy([], [])


def test_one_type_is_refused() -> None:
    with pytest.raises(FlawsmithError, match="at least two"):
        classification.train([image("line", 0)], [], QUICK)


def test_a_pretrained_network_by_folder(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    config.num_labels = 5
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "resnet_34")
    found = classification.train(some(0), [], replace(QUICK, network=str(tmp_path / "resnet_34"), steps=2))
    assert found.name == "resnet-34" and found.preprocessing.mean[0] == pytest.approx(0.485)
    assert set(classification.predict(found, some(9))) <= {"line", "spot"}
    with pytest.raises(FlawsmithError, match="cannot be loaded"):
        classification.train(some(0), [], replace(QUICK, network=str(tmp_path / "none")))


def test_focal_loss_by_hand() -> None:
    logits, truth = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])
    wrong = 1 / (1 + np.exp(-2.0))  # probability of the wrong class of the second
    expected = (0.25 * np.log(2) + wrong**2 * -np.log(1 - wrong)) / 2
    assert float(paper.focal(logits, truth)) == pytest.approx(expected, rel=1e-5)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    assert float(paper.focal(logits, truth, gamma=0.0)) == pytest.approx(float(plain), rel=1e-5)


def test_paper_protocol_keeps_the_best_epoch_of_the_test_set() -> None:
    normals = [Sample(s.image, np.zeros_like(s.mask), "widget") for s in some(50, 2)]
    config = paper.PaperConfig(size=64, epochs=3, samples=8, batch_size=4, base=2)
    seen = []
    found = paper.run(
        some(0), normals, [*some(300, 2), *normals], config, lambda what, done, total, facts: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)] and set(found) == {"test-selected", "last"}
    total = {which: sum(rows[name]["all"] for name in paper.SUM) for which, rows in found.items()}
    assert total["test-selected"] >= total["last"]
    with pytest.raises(FlawsmithError, match="paper-protocol needs"):
        paper.run([], normals, [], config)
