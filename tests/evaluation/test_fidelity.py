"""KID, FID, IS and manifolds against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.metrics import fidelity


def normal(seed: int, count: int, width: int = 6, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(mean, scale, (count, width))).astype(np.float32)


def exactly(seed: int, count: int, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Rows whose sample mean and unbiased sample covariance are exactly `mean` and diag(spread^2)."""
    rows = np.random.default_rng(seed).normal(size=(count, len(mean)))
    rows -= rows.mean(axis=0)
    whitened = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return whitened * spread + mean


def test_kid_of_two_halves_of_one_set_is_zero_on_average() -> None:
    values = [fidelity.kid(normal(s, 60), normal(s + 1000, 40)) for s in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0 < max(values)


def test_kid_by_hand() -> None:
    # One dimension, kernel (xy + 1)^3. x = {0, 1}: k(0, 1) = 1. y = {2, 3}: k(2, 3) = 343.
    # Across: k(0, .) = 1, 1; k(1, 2) = 27, k(1, 3) = 64. KID = 1 + 343 - 2 * (1 + 1 + 27 + 64) / 4.
    assert fidelity.kid(np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])) == pytest.approx(344 - 46.5)


def test_kid_sees_a_shift_and_is_symmetric_and_ignores_order() -> None:
    a, b = normal(0, 80), normal(1, 70, mean=0.7)
    assert fidelity.kid(a, b) > 10 * abs(fidelity.kid(a, normal(2, 70)))
    assert fidelity.kid(a, b) == pytest.approx(fidelity.kid(b, a))
    assert fidelity.kid(a, b) == pytest.approx(fidelity.kid(a[::-1], np.random.default_rng(0).permutation(b)))


def test_kid_spread_is_seeded_and_a_full_subset_is_the_value() -> None:
    a, b = normal(0, 30), normal(1, 30, mean=0.3)
    assert fidelity.kid_spread(a, b) == fidelity.kid_spread(a, b) != fidelity.kid_spread(a, b, seed=1)
    mean, spread = fidelity.kid_spread(a, b, size=30)
    assert mean == pytest.approx(fidelity.kid(a, b)) and spread == pytest.approx(0, abs=1e-12)
    with pytest.raises(FlawsmithError, match="choose 2 to 30"):
        fidelity.kid_spread(a, b, size=31)


@pytest.mark.parametrize("count", [200, 9])  # more and, with the warning, hardly more images than dimensions
def test_fid_of_gaussians_in_closed_form(count: int) -> None:
    means, spreads = np.array([[0.0, 1.0, -2.0], [1.0, 1.0, 0.5]]), np.array([[1.0, 2.0, 0.5], [3.0, 1.0, 0.5]])
    a, b = (exactly(i, count, means[i], spreads[i]) for i in range(2))
    expected = np.sum((means[0] - means[1]) ** 2) + np.sum((spreads[0] - spreads[1]) ** 2)
    assert fidelity.fid(a, b) == pytest.approx(expected)
    assert fidelity.fid(a, a) == pytest.approx(0, abs=1e-9)


def test_fid_equals_the_definition_for_full_covariances() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(40, 4)) @ rng.normal(size=(4, 4)) + 1
    first, second = np.cov(a.T), np.cov(b.T)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert fidelity.fid(a, b) == pytest.approx(expected)


def test_fid_warns_of_too_few_images_and_refuses_one() -> None:
    with pytest.warns(UserWarning, match="FID of 5 images in 6 dimensions"):
        fidelity.fid(normal(0, 5), normal(1, 20))
    with pytest.raises(FlawsmithError, match="at least 2"):
        fidelity.fid(normal(0, 1), normal(1, 20))
    with pytest.raises(FlawsmithError, match="one for both"):
        fidelity.kid(normal(0, 5), normal(1, 5, width=7))


def test_inception_score_between_one_and_the_number_of_classes() -> None:
    assert fidelity.inception_score(np.eye(7)[np.arange(70) % 7]) == pytest.approx(7)
    assert fidelity.inception_score(np.full((20, 5), 0.2)) == pytest.approx(1)
    assert fidelity.inception_score(np.eye(5)[np.zeros(20, int)]) == pytest.approx(1)
    p = fidelity.softmax(normal(0, 40) * 3)
    assert p.sum(axis=1) == pytest.approx(np.ones(40))
    assert fidelity.inception_score(p) == pytest.approx(fidelity.inception_score(p[::-1]))
    # Two images, p = (1, 0) and (1/2, 1/2): marginal (3/4, 1/4).
    kl = np.log(4 / 3), 0.5 * np.log(2 / 3) + 0.5 * np.log(2)
    assert fidelity.inception_score(np.array([[1, 0], [0.5, 0.5]])) == pytest.approx(np.exp(np.mean(kl)))


def test_softmax_survives_large_logits() -> None:
    assert fidelity.softmax(np.array([[1000.0, 0.0]])) == pytest.approx(np.array([[1.0, 0.0]]))


def test_manifold_of_the_same_distribution_of_copies_and_of_strangers() -> None:
    real = normal(0, 200)
    same = fidelity.manifold(real, normal(1, 200))
    assert min(same["precision"], same["recall"], same["coverage"]) > 0.8 and same["density"] == pytest.approx(
        1, abs=0.2
    )
    copies = fidelity.manifold(real, real)
    assert copies["precision"] == copies["recall"] == copies["coverage"] == 1
    far = fidelity.manifold(real, normal(1, 200, mean=50))
    assert set(far.values()) == {0.0}
    narrow = fidelity.manifold(real, normal(1, 200, scale=0.05))  # all from the middle: precise, hardly any recall
    assert narrow["precision"] > 0.95 and narrow["recall"] < 0.1 and narrow["coverage"] < same["coverage"]


def test_manifold_by_hand() -> None:
    # Real 0, 1, 3 with one neighbour: radii 1, 1, 2. Generated 0.5 lies in the balls of 0 and 1, 2.5 in that of 3,
    # and 9 in none. Generated radii: 2, 2, 6.5: real 0 and 1 lie within 2 of 0.5, and 3 within 2 of 2.5.
    real, made = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [2.5], [9.0]])
    found = fidelity.manifold(real, made, neighbours=1)
    assert found == {"precision": pytest.approx(2 / 3), "recall": 1.0, "density": pytest.approx(1.0), "coverage": 1.0}


def test_squared_distances_are_exact_for_equal_rows() -> None:
    rows = normal(0, 30, width=500) + 30
    found = fidelity.squared_distances(rows, rows[::2].copy(), block=7)
    expected = ((rows[:, None].astype(float) - rows[None, ::2].astype(float)) ** 2).sum(-1)
    assert found == pytest.approx(expected, rel=1e-3)
    assert (found[np.arange(0, 30, 2), np.arange(15)] == 0).all()
