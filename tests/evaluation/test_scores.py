"""Every score against literals worked by hand, brute force, scikit-learn and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest

from flawsmith.evaluation.metrics import scores
from flawsmith.evaluation.metrics.scores import auroc, paired_bootstrap

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
TRUTH = np.array([1, 0, 1, 1, 0, 0], bool)


def average_precision(found: np.ndarray, truth: np.ndarray) -> float | None:
    return scores.count(found, truth).ap()


def test_average_precision_of_six_by_hand() -> None:
    # Positives at ranks 1, 3, 4: precisions 1, 2/3, 3/4, each a third of the recall.
    assert average_precision(SCORES, TRUTH) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_average_precision_is_not_the_trapezoid() -> None:
    # Precision-recall points (0, 1), (1/3, 1), (1/3, 1/2), (2/3, 2/3), (1, 3/4): their trapezoids.
    trapezoid = 1 / 3 + (1 / 2 + 2 / 3) / 6 + (2 / 3 + 3 / 4) / 6
    assert abs(average_precision(SCORES, TRUTH) - trapezoid) > 0.03


def test_ties_are_one_threshold() -> None:
    # 0.8 (positive); 0.5 three times, one positive among them; 0.1 (positive).
    scores, truth = np.array([0.8, 0.5, 0.5, 0.5, 0.1]), np.array([1, 0, 1, 0, 1], bool)
    expected = (1 + 2 / 4 + 3 / 5) / 3
    for order in ([0, 1, 2, 3, 4], [4, 2, 3, 1, 0], [0, 3, 1, 2, 4]):
        assert average_precision(scores[order], truth[order]) == pytest.approx(expected)
    assert average_precision(np.zeros(10), np.arange(10) < 3) == pytest.approx(0.3)


def test_auroc_by_hand_ties_half() -> None:
    # Pairs won: 0.9 beats three, 0.7 and 0.6 beat two each: 7 of 9.
    assert auroc(SCORES, TRUTH) == pytest.approx(7 / 9)
    assert auroc(np.array([1.0, 1.0, 0.0]), np.array([1, 0, 0], bool)) == pytest.approx(0.75)
    assert auroc(np.zeros(10), np.arange(10) < 3) == pytest.approx(0.5)
    assert auroc(-SCORES, TRUTH) == pytest.approx(2 / 9)


@pytest.mark.parametrize("score", [average_precision, auroc])
def test_perfect_and_undefined(score) -> None:
    truth = np.array([[0, 1], [1, 0]], bool)
    assert score(truth.astype(float), truth) == 1.0
    assert score(np.ones(4), np.zeros(4, bool)) is None
    assert score(np.ones(4), np.ones(4, bool)) is None


def test_aupr_of_six_by_hand_is_not_ap() -> None:
    found = scores.count(SCORES, TRUTH).aupr()
    # (0, 1), (1/3, 1), (1/3, 1/2), (2/3, 2/3), (1, 3/4), then straight down: trapezoids.
    assert found == pytest.approx(1 / 3 + (1 / 2 + 2 / 3) / 6 + (2 / 3 + 3 / 4) / 6)
    assert abs(found - average_precision(SCORES, TRUTH)) > 0.03


def test_f1max_of_six_by_hand_and_its_threshold() -> None:
    # Thresholds from the top: F1 = 2/4, 2/5, 4/6, 6/7, 6/8, 6/9.
    value, level = scores.count(SCORES, TRUTH).f1max()
    assert (value, level) == (pytest.approx(6 / 7), 3)
    assert scores.count(SCORES, TRUTH).iou(level) == pytest.approx(3 / 4)


def aupro_slowly(maps: list[np.ndarray], masks: list[np.ndarray], limit: float = 0.3) -> float:
    """AUPRO by its definition: every distinct threshold, every region on its own."""
    from scipy import ndimage

    points = [(0.0, 0.0)]
    normal = np.concatenate([m[~t] for m, t in zip(maps, masks, strict=True)])
    for threshold in sorted({float(v) for m in maps for v in m.ravel()}, reverse=True):
        overlaps = []
        for anomaly, mask in zip(maps, masks, strict=True):
            regions, count = ndimage.label(mask, np.ones((3, 3)))
            overlaps += [float((anomaly[regions == i] >= threshold).mean()) for i in range(1, count + 1)]
        points.append((float((normal >= threshold).mean()), float(np.mean(overlaps))))
    x, y = np.array(points).T
    grid = np.unique(np.append(x[x <= limit], limit))
    # several thresholds may share a false positive rate: the curve is vertical there
    upper, lower = (
        np.array([end(y[x == g]) if (x == g).any() else np.interp(g, x, y) for g in grid]) for end in (max, min)
    )
    return float(((grid[1:] - grid[:-1]) * (upper[:-1] + lower[1:]) / 2).sum() / limit)


def test_aupro_equals_its_definition() -> None:
    rng = np.random.default_rng(3)
    masks = [np.zeros((24, 30), bool) for _ in range(3)]
    masks[0][2:6, 3:9] = masks[0][15:17, 20:22] = True
    masks[0][10, 10] = masks[0][11, 11] = True  # one region: they touch at a corner
    masks[1][0, 0] = True  # a mask of one pixel works
    maps = [np.clip(rng.normal(0.4 + 0.25 * m, 0.2), 1e-3, 1 - 1e-3) for m in masks]
    whole = sum((scores.tally(scores.levels(a), m) for a, m in zip(maps, masks, strict=True)), scores.empty())
    assert whole.regions == 4
    assert whole.aupro() == pytest.approx(aupro_slowly(maps, masks), abs=1e-4)
    # On the very same levels there is no difference left.
    same = [1 - scores.levels(a) / scores.LEVELS for a in maps]
    assert whole.aupro() == pytest.approx(aupro_slowly(same, masks), abs=1e-9)


def test_saturated_overlap_equals_its_definition() -> None:
    """sPRO by Bergmann et al.: mean over the defects of min(marked / saturation, 1); regions may overlap."""
    rng = np.random.default_rng(5)
    anomaly = np.clip(rng.normal(0.4, 0.2, (24, 30)), 1e-3, 1 - 1e-3)
    first, second = np.zeros((2, 24, 30), bool)
    first[2:12, 3:15], second[10:20, 10:12] = True, True
    mask = first | second
    found = scores.levels(anomaly)
    whole = scores.tally(found, mask, [(first, 30.0), (second, 0.5 * second.sum())])
    points = [(0.0, 0.0)]
    for level in np.unique(found):
        marked = found <= level
        spro = [min((marked & first).sum() / 30, 1), min((marked & second).sum() / 10, 1)]
        points.append(((marked & ~mask).sum() / (~mask).sum(), np.mean(spro)))
    x, y = np.array(points).T
    grid = np.append(x[x <= 0.05], 0.05)
    curve = np.append(y[x <= 0.05], np.interp(0.05, x, y))
    assert whole.aupro(0.05) == pytest.approx(np.trapezoid(curve, grid) / 0.05, abs=1e-9)
    own = [(first, float(first.sum())), (second, float(second.sum()))]
    assert whole.aupro() > scores.tally(found, mask, own).aupro()
    apart = np.zeros_like(mask)
    apart[18:22, 20:26] = True
    both = scores.tally(found, first | apart, [(first, float(first.sum())), (apart, float(apart.sum()))])
    assert both.aupro() == pytest.approx(scores.tally(found, first | apart).aupro())  # then it is AUPRO


def test_aupro_of_a_perfect_and_of_a_random_map() -> None:
    mask = np.zeros((200, 200), bool)
    mask[20:80, 30:90] = True
    assert scores.tally(scores.levels(mask.astype(float)), mask).aupro() == pytest.approx(1.0)
    noise = np.random.default_rng(0).random((200, 200))
    assert scores.tally(scores.levels(noise), mask).aupro() == pytest.approx(0.15, abs=0.01)
    assert scores.tally(scores.levels(noise), np.zeros_like(mask)).aupro() is None


def test_levels_cost_about_a_ten_thousandth() -> None:
    rng = np.random.default_rng(1)
    mask = np.zeros((300, 300), bool)
    mask[50:90, 60:140] = True
    anomaly = 1 / (1 + np.exp(-rng.normal(-3 + 4 * mask, 1.5)))
    coarse, exact = scores.tally(scores.levels(anomaly), mask), scores.count(anomaly, mask)
    for name in ("auroc", "ap", "aupr"):
        assert getattr(coarse, name)() == pytest.approx(getattr(exact, name)(), abs=1e-4)
    value, level = coarse.f1max()
    assert value == pytest.approx(exact.f1max()[0], abs=2e-4)  # a maximum of a jagged curve
    assert coarse.iou(level) == pytest.approx(((anomaly >= scores.probability(level)) & mask).sum() / (
        (anomaly >= scores.probability(level)) | mask).sum(), abs=1e-4)  # fmt: skip


def test_extreme_scores_have_levels() -> None:
    assert scores.levels(np.array([1.0, 0.0, 0.5])).tolist() == [0, scores.LEVELS - 1, scores.LEVELS // 2]


def test_image_score_is_the_highest_mean_of_21_by_21() -> None:
    anomaly = np.zeros((60, 50), np.float32)
    anomaly[30:33, 20:27] = 1
    assert scores.image_score(anomaly) == pytest.approx(21 / 441)
    assert scores.image_score(np.ones((5, 5), np.float32)) == pytest.approx(25 / 441)  # outside counts as zero


def test_agrees_with_torchmetrics_where_it_is() -> None:
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    values, truth = rng.integers(1, 40, 800) / 40, rng.random(800) < 0.2
    a, b = torch.from_numpy(values), torch.from_numpy(truth).long()
    precision, recall, _ = metrics.binary_precision_recall_curve(a, b)
    counted = scores.count(values, truth)
    assert counted.auroc() == pytest.approx(float(metrics.binary_auroc(a, b)), abs=1e-4)
    assert counted.ap() == pytest.approx(float(metrics.binary_average_precision(a, b)), abs=1e-4)
    assert counted.aupr() == pytest.approx(float(-torch.trapezoid(precision, recall)), abs=1e-4)
    f1 = 2 * precision * recall / (precision + recall)
    assert counted.f1max()[0] == pytest.approx(float(f1.nan_to_num().max()), abs=1e-4)


def test_agrees_with_scikit_learn_where_it_is() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 9, 500) / 9, rng.random(500) < 0.2
    assert average_precision(scores, truth) == pytest.approx(metrics.average_precision_score(truth, scores))
    assert auroc(scores, truth) == pytest.approx(metrics.roc_auc_score(truth, scores))


def test_bootstrap_of_equal_differences_has_no_width() -> None:
    assert paired_bootstrap([0.1, 0.1, 0.1]) == pytest.approx((0.1, 0.1, 0.1))


def test_bootstrap_interval_holds_the_mean_and_is_seeded() -> None:
    values = [0.1, -0.05, 0.2, 0.0, 0.15]
    mean, low, high = paired_bootstrap(values)
    assert mean == pytest.approx(0.08) and low < mean < high
    assert (mean, low, high) == paired_bootstrap(values) != paired_bootstrap(values, seed=1)
    # 95 % of the means of n values lie within about 1.96 s / sqrt(n) (s: the values' own deviation).
    many = np.random.default_rng(0).normal(1, 1, 400)
    _, low, high = paired_bootstrap(many)
    assert (high - low) / 2 == pytest.approx(1.96 * many.std() / 20, rel=0.1)
