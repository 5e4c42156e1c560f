"""The small segmenter: it can learn, it repeats itself, it refuses what it cannot train on. Seconds, not minutes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fakes  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.evaluation.detectors import networks, segmentation  # noqa: E402
from flawsmith.evaluation.detectors.segmentation import SegmentationConfig  # noqa: E402
from flawsmith.records import Sample  # noqa: E402

QUICK = SegmentationConfig(steps=60, batch_size=6, crop=48, scale=1.0, seed=3)


def defect(kind: str, seed: int) -> Sample:
    return Sample(*fakes.with_defect(fakes.photo(seed, (64, 80)), kind, seed), "widget", kind)


def good(seed: int) -> Sample:
    return Sample(fakes.photo(seed, (64, 80)), np.zeros((64, 80), bool), "widget")


pytestmark = pytest.mark.usefixtures("one_thread")


def weights(trained: segmentation.Trained) -> list[torch.Tensor]:
    return [p.detach() for p in trained.model.parameters()]


def untrained(config: SegmentationConfig = QUICK) -> segmentation.Trained:
    return segmentation.Trained(networks.NETWORKS["light-unet"]().eval(), "last", 0, config)


def test_learns_a_tiny_set_and_scores_it() -> None:
    real = [defect(kind, seed) for seed, kind in enumerate(["hole", "hole", "crack", "crack"])]
    normals = [good(seed) for seed in range(20, 24)]
    model = segmentation.train(real, [], normals, QUICK)
    found = segmentation.pixel_ap(model, real, normals)
    assert set(found) == {"hole", "crack", "mean"}
    assert found["hole"] > 0.9 and found["mean"] > 0.7
    assert found["mean"] == pytest.approx((found["hole"] + found["crack"]) / 2)


def test_same_seed_same_weights_another_seed_others() -> None:
    config = replace(QUICK, steps=3)
    data = [defect("hole", 0)], [defect("crack", 1)], [good(2)]
    first, second = (segmentation.train(*data, config) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))
    other = segmentation.train(*data, replace(config, seed=4))
    assert not all(torch.equal(a, b) for a, b in zip(weights(first), weights(other), strict=True))


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    segmentation.train([defect("hole", 0)], [], [good(1)], replace(QUICK, steps=1))
    assert torch.equal(torch.rand(3), expected)


def test_all_steps_are_reported_and_only_generated_defects_will_do() -> None:
    seen: list[tuple[int, int]] = []
    config = replace(QUICK, steps=4)
    segmentation.train(
        [], [defect("hole", 0)], [good(1)], config, progress=lambda what, done, total, facts: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_refuses_without_normals_or_defects() -> None:
    with pytest.raises(FlawsmithError, match="normal images"):
        segmentation.train([defect("hole", 0)], [], [], QUICK)
    with pytest.raises(FlawsmithError, match="defect"):
        segmentation.train([], [], [good(0)], QUICK)


def test_prediction_has_the_size_of_the_shrunk_mask_whatever_the_photograph() -> None:
    for size in ((50, 70), (33, 41), (64, 64)):
        image, mask = fakes.with_defect(fakes.photo(1, size), "hole", 1)
        config = replace(QUICK, scale=0.7)
        scores, truth = segmentation.predict(untrained(config), Sample(image, mask, "w", "hole"))
        assert scores.shape == truth.shape == tuple(round(0.7 * side) for side in size)
        assert scores.min() >= 0 and scores.max() <= 1 and truth.any()


def test_shrinking_keeps_a_mask_of_one_pixel() -> None:
    mask = np.zeros((64, 80), bool)
    mask[31, 17] = True
    item = segmentation.shrink(Sample(fakes.photo(0, (64, 80)), mask, "w", "spot"), replace(QUICK, scale=0.3))
    assert len(item.places) >= 1 and item.mask.shape == (19, 24)


def test_an_all_normal_test_set_scores_none() -> None:
    model = untrained()
    empty = replace(defect("hole", 0), mask=np.zeros((64, 80), bool))
    assert segmentation.pixel_ap(model, [empty], [good(1)]) == {"hole": None, "mean": None}
    assert segmentation.pixel_ap(model, [], [good(1)]) == {"mean": None}


def test_picking_follows_the_shares() -> None:
    rng = np.random.default_rng(0)
    pools = [
        segmentation._by_type([segmentation.shrink(s, QUICK) for s in group])
        for group in ([defect("hole", 0)], [defect("crack", 1)])
    ]
    normals = [segmentation.shrink(good(2), QUICK)]
    config = replace(QUICK, normals=0.3, synthetic=0.25)
    drawn = [segmentation._draw(pools, normals, config, rng).defect_type for _ in range(4000)]
    shares = {name: drawn.count(name) / len(drawn) for name in ("good", "hole", "crack")}
    assert shares == {
        "good": pytest.approx(0.3, abs=0.03),
        "hole": pytest.approx(0.525, abs=0.03),
        "crack": pytest.approx(0.175, abs=0.03),
    }
