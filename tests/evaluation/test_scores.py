"""AP, AUROC and the bootstrap against literals worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from flawsmith.evaluation.scores import auroc, average_precision, paired_bootstrap

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
TRUTH = np.array([1, 0, 1, 1, 0, 0], bool)


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
