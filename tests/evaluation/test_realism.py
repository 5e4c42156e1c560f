"""Realism: the probe against closed forms and scikit-learn, the spectrum against decibels known by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.metrics import realism, spectrum


def names(side: str, count: int) -> list[str]:
    return [f"{side} {number}" for number in range(count)]


def test_logistic_is_scikit_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x, y, weights = rng.normal(size=(60, 5)), rng.integers(0, 3, 60), rng.uniform(0.2, 2, 60)
    ours = realism.logistic(x, y, 0.3, weights)
    theirs = linear.LogisticRegression(C=0.3, tol=1e-9, max_iter=2000).fit(x, y, weights)
    np.testing.assert_allclose(ours[0], theirs.coef_, atol=2e-4)
    gap = (x @ ours[0].T + ours[1]) - theirs.decision_function(x)
    np.testing.assert_allclose(gap - gap.mean(axis=1, keepdims=True), 0, atol=5e-4)
    two = realism.logistic(x, (y > 0).astype(int), 0.01 / 2)
    binary = linear.LogisticRegression(C=0.01, tol=1e-9, max_iter=2000).fit(x, y > 0)
    np.testing.assert_allclose(two[0][1] - two[0][0], binary.coef_[0], atol=2e-4)


def test_folds_hold_parts_together_and_are_even() -> None:
    real = [part for part in names("part", 10) for _ in range(4)]
    made = [*names("part", 10), *names("photo", 30)]
    found = realism.folds(real, made)
    for name in set(real) | set(made):  # a part shown by a real and a generated window has one fold
        assert len(set(found[np.array([*real, *made]) == name])) == 1
    assert np.bincount(found[:40], minlength=5).tolist() == [8] * 5
    counts = np.bincount(found[40:], minlength=5)
    assert counts.max() - counts.min() <= 1


def test_probe_of_one_distribution_is_a_coin_and_of_a_shift_its_closed_form() -> None:
    from scipy.stats import norm

    equal, shifted, shift = [], [], 1.5
    for seed in range(12):
        rng = np.random.default_rng(seed)
        real, made = rng.normal(size=(120, 4)), rng.normal(size=(120, 4))
        equal.append(realism.probe(real, made, names("r", 120), names("m", 120), seed))
        made[:, 2] += shift
        shifted.append(realism.probe(real, made, names("r", 120), names("m", 120), seed))
    assert abs(np.mean(equal) - 0.5) < 0.025
    # Two unit Gaussians a distance d apart: AUC = Phi(d / sqrt 2); a learnt direction loses a little of it.
    assert norm.cdf(shift / 2**0.5) - 0.03 < np.mean(shifted) < norm.cdf(shift / 2**0.5) + 0.015


def test_a_probe_learns_no_part_by_heart() -> None:
    rng = np.random.default_rng(3)
    parts = np.repeat(np.arange(24), 5)  # five windows of each part, all alike
    look = rng.normal(size=(24, 40))[parts] + 0.01 * rng.normal(size=(120, 40))
    real, made = look[:60], look[60:]
    owner = [f"p{part}" for part in parts]
    held = realism.probe(real, made, owner[:60], owner[60:])
    leaky = realism.probe(real, made, names("r", 60), names("m", 60))
    assert leaky is not None and held is not None and leaky > 0.95 and held < 0.75


def test_probe_does_not_depend_on_the_order_of_images() -> None:
    rng = np.random.default_rng(5)
    real, made = rng.normal(size=(20, 6)), rng.normal(0.4, 1, size=(25, 6))
    sides = names("r", 20), names("m", 25)
    first = realism.probe(real, made, *sides)
    order = rng.permutation(20), rng.permutation(25)
    mixed = [[side[row] for row in rows] for side, rows in zip(sides, order, strict=True)]
    assert realism.probe(real[order[0]], made[order[1]], *mixed) == pytest.approx(first, abs=1e-6)
    assert realism.probe(real[:4], made[:4], ["a"] * 4, ["b"] * 4) is None  # one part each: nothing to learn from


def grain(seed: int, count: int, size: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(-40, 41, (size, size, 1)) for _ in range(count)]


def test_spectrum_of_equal_sets_is_zero_and_of_doubled_contrast_six_decibels() -> None:
    windows = [(100 + one).astype(np.uint8).repeat(3, 2) for one in grain(0, 4)]
    doubled = [(120 + 2 * one).astype(np.uint8).repeat(3, 2) for one in grain(0, 4)]
    assert spectrum.spectrum_distance(windows, windows) == 0
    assert spectrum.spectrum_distance(windows, windows[::-1]) == pytest.approx(0, abs=1e-12)
    assert spectrum.spectrum_distance(windows, doubled) == pytest.approx(20 * np.log10(2), abs=1e-9)
    assert spectrum.spectrum_distance(doubled, windows) == pytest.approx(20 * np.log10(2), abs=1e-9)


def test_spectrum_of_white_noise_is_its_variance_and_a_wave_stands_in_its_band() -> None:
    rng = np.random.default_rng(1)
    rows = np.array([spectrum.spectrum(rng.normal(0, 8, (96, 128))) for _ in range(40)])
    level = 10 * np.log10((10 ** (rows / 10)).mean(axis=0))
    np.testing.assert_allclose(level, 10 * np.log10(64), atol=0.4)
    wave = 128 + 50 * np.sin(2 * np.pi * np.arange(96) / 10)[None].repeat(96, 0)  # 10 px: between 8 and 11.3
    assert int(spectrum.spectrum(wave).argmax()) == 4
    assert np.isfinite(spectrum.spectrum(np.full((64, 64, 3), 7, np.uint8))).all()
    with pytest.raises(FlawsmithError, match="needs windows"):
        spectrum.spectrum_distance([], [wave])


def side(count: int, kinds: tuple[str, ...], shift: float = 0.0) -> realism.Side:
    rng = np.random.default_rng(int(shift * 10) + count)
    types = np.array([kinds[i % len(kinds)] for i in range(count)])
    windows = [(100 + one).astype(np.uint8).repeat(3, 2) for one in grain(count, count)]
    return realism.Side(windows, rng.normal(shift, 1, (count, 5)), types, names(f"{shift} part", count))


def test_values_are_null_with_a_reason_below_eight() -> None:
    found = realism.judge(side(14, ("crack", "hole")), side(40, ("crack", "hole"), 3.0), "net", "arm", 2)
    by_row = {(value.key, value.type): value for value in found}
    few = by_row["probe_AUC/net/window", "crack"]
    assert few.value is None and few.reason == "7 real and 7 generated defects: 8 of each are needed"
    whole = by_row["probe_AUC/net/window", "all"]
    assert whole.value is not None and whole.value > 0.95 and (whole.n_real, whole.n_generated) == (14, 14)
    assert (whole.method, whole.seed, whole.reason) == ("arm", 2, "")
    assert by_row["spectrum_dB/grey/window", "all"].value is not None
    own_types = realism.judge(side(14, ("crack", "hole")), side(40, ("blob",), 3.0), "net")
    assert [value.type for value in own_types] == ["all", "all"] and own_types[0].n_generated == 14
    assert all(value.value is None for value in realism.judge(side(0, ()), side(0, ()), "net"))


def test_a_folder_without_a_manifest_names_no_photograph(tmp_path: Path) -> None:
    assert realism.photographs(tmp_path) == {} and realism.untouched(tmp_path, [tmp_path]) == ([], [])
