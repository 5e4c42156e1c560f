"""The one-class detector: neighbours by brute force, a coreset that covers, tuning that finds the planted channel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import fakes  # noqa: E402
from flawsmith.comparison import shared  # noqa: E402
from flawsmith.config import CompareConfig  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.evaluation.detectors import one_class, segmentation  # noqa: E402
from flawsmith.evaluation.detectors.one_class import OneClassConfig, neighbours, thresholds  # noqa: E402
from flawsmith.evaluation.detectors.one_class.memory import centred  # noqa: E402
from flawsmith.evaluation.detectors.one_class.neighbours import Detector, Patches  # noqa: E402
from flawsmith.evaluation.metrics import scores  # noqa: E402
from flawsmith.evaluation.protocol import read_real  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def test_distances_are_those_of_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, memory = (torch.randn(n, 7, generator=generator) for n in (40, 25))
    weights = torch.rand(7, generator=generator)
    brute = ((rows[:, None] - memory[None]) ** 2 * weights).sum(2)
    assert torch.equal(neighbours.nearest(rows, memory, weights), brute.argmin(1))
    detector = Detector(memory, weights)
    torch.testing.assert_close(detector.squared(rows) @ weights, brute.min(1).values)
    assert float((detector.squared(memory) @ weights).max()) == 0


def test_a_coreset_takes_one_of_each_heap_and_covers_better_than_chance() -> None:
    generator = torch.Generator().manual_seed(1)
    heaps = torch.randn(6, 5, generator=generator) * 20
    owner = torch.arange(120) % 6
    rows = heaps[owner] + torch.randn(120, 5, generator=generator) * 0.1
    assert len(set(owner[neighbours.coreset(rows, 6)].tolist())) == 6
    cloud = torch.randn(400, 5, generator=generator)
    radius = [
        float(torch.cdist(cloud, cloud[chosen]).min(1).values.max())
        for chosen in (neighbours.coreset(cloud, 40), torch.arange(40))
    ]
    assert radius[0] < radius[1]
    assert sorted(neighbours.coreset(cloud, 1000).tolist()) == list(range(400))


def planted(seed: int, lift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared differences of 12 channels, of which the fifth alone is larger in defects."""
    rng = np.random.default_rng(seed)
    truth = np.repeat([1.0, 0.0], [150, 450])
    squared = rng.chisquare(1, (600, 12))
    squared[truth == 1, 5] *= lift
    return squared, truth, np.where(truth == 1, 0.5 / 150, 0.5 / 450)


def test_tuning_finds_the_planted_channel_and_is_held_by_its_pull() -> None:
    start = np.full(12, 1 / 12)
    found = neighbours.tune(*planted(0, 12.0), start, 0.001)
    assert found.argmax() == 5 and found[5] > 3 * np.delete(found, 5).max() and (found >= 0).all()
    assert found.sum() == pytest.approx(1)
    other = planted(1, 12.0)
    truth = other[1] == 1
    before, after = scores.auroc(other[0] @ start, truth), scores.auroc(other[0] @ found, truth)
    assert before is not None and after is not None and after > before + 0.05
    np.testing.assert_allclose(neighbours.tune(*planted(0, 12.0), start, 1e6), start, rtol=1e-3)
    # Defects nearer to the memory than normal patches: nothing can be learnt, nothing is changed.
    squared, truth_, share = planted(0, 1.0)
    squared[truth_ == 1] *= 0.01
    assert np.array_equal(neighbours.tune(squared, truth_, share, start, 0.001), start)


def test_tuning_does_not_depend_on_the_order_of_patches() -> None:
    squared, truth, share = planted(2, 6.0)
    order = np.random.default_rng(0).permutation(len(truth))
    start = np.full(12, 1 / 12)
    first = neighbours.tune(squared, truth, share, start, 0.01)
    again = neighbours.tune(squared[order], truth[order], share[order], start, 0.01)
    np.testing.assert_allclose(again, first, atol=1e-5)


def judged(image_scores: list[float], kinds: list[str], maps: list[np.ndarray], masks: list[np.ndarray]):
    return segmentation.Judged([scores.levels(one) for one in maps], masks, image_scores, kinds)


def test_thresholds_by_hand() -> None:
    rng = np.random.default_rng(0)
    none, spot = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    spot[:10, :10] = True
    normal = [rng.uniform(0.1, 0.4, (40, 40)) for _ in range(20)]
    defect = [np.where(spot, 0.9, one) for one in normal[:5]]
    held = judged([float(one.max()) for one in normal], ["good"] * 20, normal, [none] * 20)
    found = judged([0.9, 0.9, 0.9, 0.9, 0.35], ["hole"] * 5, defect, [spot] * 5)
    image, level = thresholds.by_normals(held)
    assert image == pytest.approx(np.quantile(held.image_scores, 0.95))
    tally = segmentation.pooled(held)
    assert tally.negatives[: level + 1].sum() <= 0.005 * tally.negatives.sum() < tally.negatives[: level + 2].sum() + 5
    image, level = thresholds.by_defects(held, found)
    assert image == 0.9 and segmentation.pooled(found).iou(level) == pytest.approx(1)
    assert thresholds.f1(found, 0.9)["hole"] == pytest.approx(2 * 4 / (4 + 5))
    assert thresholds.f1(held, 0.0)["all"] is None


def test_a_map_is_a_half_where_a_normal_image_is_in_the_middle() -> None:
    generator = torch.Generator().manual_seed(0)
    patches = [
        Patches(torch.randn(64, 3, generator=generator).half(), (3,), np.zeros((32, 32), bool), "good")
        for _ in range(5)
    ]
    memory = torch.randn(30, 3, generator=generator)
    detector = centred(Detector(memory, torch.full((3,), 1 / 3)), patches)
    medians = [float(np.median(detector.scored(one))) for one in patches]
    assert np.median(medians) == pytest.approx(0.5, abs=1e-6)
    assert min(detector.scored(one).min() for one in patches) >= 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    fakes.mvtec_tree(root / "data", good=8, defects={"crack": 9, "hole": 9}, size=(72, 96), test_good=4)
    torch.manual_seed(0)
    config = transformers.MobileNetV2Config(depth_multiplier=0.1, image_size=64, num_labels=4, initializer_range=0.3)
    transformers.MobileNetV2ForImageClassification(config).save_pretrained(root / "mobilenet")
    vit = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14, mlp_ratio=2
    )
    transformers.Dinov2Model(vit).save_pretrained(root / "dino")
    return root


def test_both_detectors_are_scored_and_their_order_changes_nothing(made: Path) -> None:
    real = read_real(CompareConfig(real=f"mvtec_ad:{made / 'data/widget'}", out=made / "unused"))
    division = shared.divide(real, 0)
    support = shared.support_of(division, "third", 0)
    for name, size in (("mobilenet", 64), ("dino", 56)):
        config = OneClassConfig(str(made / name), size=64, memory=50)
        sides = division.normals, division.validation, division.test
        found = one_class.run(support, [], *sides, config, "3 real")
        values = {(v.key, v.type): v for v in found.values}
        for metric in ("image_AUROC", "image_F1", "image_F1Max", "pixel_AUPRO", "pixel_AP", "pixel_IoU"):
            for end in ("", "/untuned"):
                for kind in ("crack", "hole", "all"):
                    value = values[f"{metric}/one-class/{name}{end}", kind]
                    assert value.value is not None and 0 <= value.value <= 1 and value.settings["size"] == size
        again = one_class.run(support[::-1], [], sides[0], sides[1], division.test[::-1], config, "3 real")
        for v in again.values:
            assert v.value == pytest.approx(values[v.key, v.type].value, abs=2e-3)
        assert found.judged.types == ["good" if r.is_good else r.defect_type for r in division.test]


def test_a_planted_defect_is_found_and_refusals_say_what_to_do(made: Path) -> None:
    real = read_real(CompareConfig(real=f"mvtec_ad:{made / 'data/widget'}", out=made / "unused"))
    division = shared.divide(real, 0)
    config = OneClassConfig(str(made / "mobilenet"), size=64, memory=100)
    with pytest.raises(FlawsmithError, match="tuned on defects"):
        one_class.run([], [], division.normals, (), division.test, config)
    with pytest.raises(FlawsmithError, match="at least two good"):
        one_class.run(division.support, [], division.normals[:1], (), division.test, config)
    found = one_class.run(division.support, [], division.normals, (), division.test, replace(config, seed=3))
    line = next(v for v in found.values if v.key == "validation_pixel_AP/one-class/mobilenet")
    assert line.value is None and "no real defect was left" in line.reason and line.settings["pull"] == 0.1
