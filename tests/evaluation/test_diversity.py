"""Diversity and copies: closed forms, and a turned copy that must be found."""

from __future__ import annotations

import numpy as np
import pytest

import fakes
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.metrics import diversity


def points(*values: float) -> np.ndarray:
    return np.array([[value] for value in values], dtype=np.float32)


def test_mean_pairwise() -> None:
    assert diversity.mean_pairwise(diversity.distances(points(0, 1, 3))) == pytest.approx((1 + 4 + 9) / 3)
    assert diversity.mean_pairwise(diversity.distances(points(5, 5, 5))) == 0
    assert diversity.mean_pairwise(diversity.distances(points(1))) is None
    with pytest.raises(FlawsmithError, match="square"):
        diversity.mean_pairwise(np.zeros((2, 3)))


def test_mean_pairwise_does_not_depend_on_the_count_on_average() -> None:
    rng = np.random.default_rng(0)
    few = np.mean([diversity.mean_pairwise(diversity.distances(rng.normal(size=(4, 3)))) for _ in range(400)])
    many = np.mean([diversity.mean_pairwise(diversity.distances(rng.normal(size=(60, 3)))) for _ in range(20)])
    assert few == pytest.approx(6, rel=0.05) and many == pytest.approx(6, rel=0.05)


def test_clusters_of_copies_have_no_diversity() -> None:
    centres = points(0, 10, 20)
    found = diversity.cluster_diversity(np.repeat(centres, 4, axis=0), centres)
    assert found.value == 0 and found.sizes == (4, 4, 4) and found.left_out == 0


def test_one_centre_and_two_images_give_their_distance() -> None:
    found = diversity.cluster_diversity(points(1, 4), points(2))
    assert found.value == pytest.approx(9) and found.sizes == (2,)


def test_small_clusters_are_left_out_or_count_zero() -> None:
    found = diversity.cluster_diversity(points(0, 2, 30), points(0, 30))
    assert found.value == pytest.approx(4) and found.empty_as_zero == pytest.approx(2) and found.left_out == 1
    lonely = diversity.cluster_diversity(points(0), points(0, 5))
    assert lonely.value is None and lonely.empty_as_zero == 0 and lonely.left_out == 2


def test_cap_and_order() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    centres = rows[:3] + 0.1
    whole = diversity.cluster_diversity(rows, centres)
    shuffled = diversity.cluster_diversity(rows[::-1], centres[::-1])
    assert shuffled.value == pytest.approx(whole.value) and shuffled.sizes == whole.sizes[::-1]
    assert diversity.cluster_diversity(rows, centres, cap=2).value != pytest.approx(whole.value)
    with pytest.raises(FlawsmithError, match="centre"):
        diversity.cluster_diversity(rows, centres[:0])


def test_memorisation_of_copies_and_of_strangers() -> None:
    rng = np.random.default_rng(0)
    training, real = rng.normal(size=(8, 6)), rng.normal(size=(300, 6))
    judged = diversity.distances(real, training)
    copies = diversity.memorisation(diversity.distances(np.repeat(training, 5, axis=0), training), judged)
    assert copies.ratio == 0 and copies.near_copies == 1
    strangers = diversity.memorisation(diversity.distances(rng.normal(size=(300, 6)), training), judged)
    assert strangers.ratio == pytest.approx(1, abs=0.15) and strangers.near_copies < 0.05
    with pytest.raises(FlawsmithError, match="same training"):
        diversity.memorisation(judged[:, :3], judged)


def test_a_turned_mirrored_moved_copy_is_found() -> None:
    image, mask = fakes.with_defect(fakes.photo(3, (120, 120)), "hole", 3)
    other, there = fakes.with_defect(fakes.photo(9, (120, 120)), "crack", 9)
    turned = np.rot90(image, 1)[:, ::-1], np.rot90(mask, 1)[:, ::-1]
    crops = np.stack(diversity.all_turns(image, mask, angles=8)).astype(float)
    assert crops.shape == (16, 96, 96, 3)

    def nearest(shown: np.ndarray, where: np.ndarray) -> float:
        return np.abs(crops - diversity.aligned_crop(shown, where)).mean(axis=(1, 2, 3)).min()

    moved = np.roll(image, (7, -5), (0, 1)), np.roll(mask, (7, -5), (0, 1))
    assert nearest(*turned) < 1 and nearest(*moved) < 1
    assert nearest(other, there) > 10
    with pytest.raises(FlawsmithError, match="empty"):
        diversity.aligned_crop(image, np.zeros_like(mask))


def test_aligned_crop_of_one_pixel() -> None:
    image, mask = fakes.photo(0, (40, 40)), np.zeros((40, 40), bool)
    mask[0, 39] = True
    assert diversity.aligned_crop(image, mask).shape == (96, 96, 3)
