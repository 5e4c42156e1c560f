"""Compositing and labels in closed form: windows, the feathered blend, the grain, and every number `finish` reports."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flawsmith import compose


def box(top: int, left: int, bottom: int, right: int, shape: tuple[int, int] = (100, 120)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_window_has_context_times_the_box_around_its_middle() -> None:
    mask = box(40, 50, 60, 60)  # 20 x 10 around (50, 55)
    assert compose.window(mask, 1, 1.5).as_list() == [35, 47, 65, 62]
    assert compose.window(mask, 24, 1.5).as_list() == [35, 43, 65, 67]
    assert compose.square_window(mask, 1, 1.5).as_list() == [35, 40, 65, 70]
    assert compose.square_window(mask, 44, 1.5).as_list() == [28, 33, 72, 77]


def test_a_window_is_shifted_inside_and_shrinks_only_with_the_image() -> None:
    assert compose.square_window(box(0, 110, 4, 120), 40).as_list() == [0, 80, 40, 120]
    assert compose.square_window(box(96, 0, 100, 4), 40).as_list() == [60, 0, 100, 40]
    assert compose.square_window(box(10, 10, 20, 20), 110).as_list() == [0, 0, 100, 110]
    assert compose.mask_box(box(3, 4, 8, 6)).as_list() == [3, 4, 8, 6]


@pytest.mark.parametrize("width", [1, 3, 6])
def test_the_feather_rises_by_the_distance_to_the_edge(width: int) -> None:
    """alpha = min(1, d / (width + 1)), d the distance to the nearest pixel outside: 1 at the mask's own edge."""
    alpha = compose.feather(box(20, 20, 60, 60), width)
    for depth in range(1, 12):
        assert alpha[40, 19 + depth] == pytest.approx(min(1, depth / (width + 1)), abs=0.02)
        assert alpha[19 + depth, 40] == pytest.approx(min(1, depth / (width + 1)), abs=0.02)
    assert alpha[20, 20] == pytest.approx(1 / (width + 1), abs=0.02)
    assert np.array_equal(compose.feather(box(20, 20, 60, 60), 0), box(20, 20, 60, 60).astype(np.float32))


def test_a_blend_is_the_rounded_mean_by_weight() -> None:
    rng = np.random.default_rng(0)
    normal, painted = rng.integers(0, 256, (2, 9, 7, 3)).astype(np.uint8)
    alpha = rng.random((9, 7)).astype(np.float32) * (rng.random((9, 7)) < 0.7)
    found = compose.blend(normal, painted, alpha)
    for place in np.ndindex(9, 7, 3):
        share = float(alpha[place[:2]])
        wanted = share * int(painted[place]) + (1 - share) * int(normal[place])
        assert abs(int(found[place]) - wanted) <= 0.5 + 1e-3


def test_the_grain_inside_a_mask_is_that_regions() -> None:
    rng = np.random.default_rng(0)
    spread = np.where(np.arange(200) < 100, 3.0, 9.0)[None, :, None]
    image = np.clip(120 + spread * rng.normal(size=(200, 200, 1)), 0, 255).round().astype(np.uint8).repeat(3, axis=2)
    left = box(0, 0, 200, 95, (200, 200))
    assert compose.noise_level(image, left) == pytest.approx(3, rel=0.1)
    assert compose.noise_level(image, box(0, 105, 200, 200, (200, 200))) == pytest.approx(9, rel=0.1)
    assert compose.noise_level(image, box(0, 0, 1, 1, (200, 200))) == 0


def test_borrowed_grain_is_half_a_window_away_and_cut_at_two_and_a_half_times_the_grain() -> None:
    texture = np.arange(-12, 12, dtype=np.float32).reshape(4, 6)
    moved = [[3, 4, 5, 0, 1, 2], [9, 10, 11, 6, 7, 8], [-9, -8, -7, -12, -11, -10], [-3, -2, -1, -6, -5, -4]]
    assert compose.displaced(texture).tolist() == moved
    assert np.array_equal(compose.borrowed_grain(texture, 2.0), np.clip(moved, -5.5, 5.5))
    assert np.array_equal(compose.borrowed_grain(texture * 2, 9.0), np.clip(np.array(moved) * 2, -12, 12))


@pytest.mark.parametrize(("grain", "tolerance"), [(0.0, 4.0), (2.5, 7.5), (9.0, 12.0)])
def test_change_counts_above_three_times_the_grain_between_four_and_twelve(grain: float, tolerance: float) -> None:
    rng = np.random.default_rng(1)
    normal = np.clip(120 + grain * rng.normal(size=(100, 120, 1)), 0, 255).round().astype(np.uint8).repeat(3, axis=2)
    done = compose.finish(normal, normal, box(20, 20, 60, 60))
    assert done.scores["tolerance"] == pytest.approx(tolerance, rel=0.12)


def test_a_change_is_one_channel_above_the_tolerance() -> None:
    normal = np.full((1, 4, 3), 100, np.uint8)
    painted = normal.copy()
    painted[0, 0, 1], painted[0, 1, 2], painted[0, 2] = 110, 111, (89, 100, 100)
    assert compose.changed_region(normal, painted, 10.0).tolist() == [[False, True, True, False]]


def flat(height: int = 100, width: int = 120) -> np.ndarray:
    return np.full((height, width, 3), 100, np.uint8)


def test_every_score_of_a_half_painted_mask() -> None:
    """A 20 x 40 mask, its left half painted by (30, 0, 0), and a stripe outside it that goes back."""
    normal, painted, mask = flat(), flat(), box(30, 40, 50, 80)
    painted[30:50, 40:60, 0] = 130
    painted[70:74, 0:50] = 200
    done = compose.finish(normal, painted, mask, tolerance=5)
    assert np.array_equal(done.label, box(30, 40, 50, 60)) and done.rejected == ""
    wanted = normal.copy()
    wanted[30:50, 40:60, 0] = 130
    assert np.array_equal(done.image, wanted)
    assert done.scores == {
        "change_iou": 0.5, "visibility": 30.0, "area": 400, "tolerance": 5.0,
        "restored": pytest.approx(200 / 600, abs=1e-4),
    }  # fmt: skip


def test_repairs_close_two_pixels_and_fill_holes_but_never_leave_the_mask() -> None:
    normal, painted = flat(), flat()
    mask = box(20, 20, 60, 80)
    mask[30:34, 30:34] = False  # a hole in what may change
    painted[20:60, 20:80] = 160
    painted[20:60, 50:52] = 100  # a gap of two pixels
    painted[40:52, 60:72] = 100  # a hole, enclosed
    label = compose.finish(normal, painted, mask).label
    assert np.array_equal(label[21:59], mask[21:59]) and not (label & ~mask).any()  # the gap's open ends aside
    painted[20:60, 50:58] = 100  # a gap of eight stays open
    assert not compose.finish(normal, painted, mask).label[30, 54]


@pytest.mark.parametrize(("side", "kept"), [(1, False), (2, True), (3, True)])
def test_a_speck_is_below_four_pixels(side: int, kept: bool) -> None:
    normal, painted = flat(), flat()
    painted[20:32, 20:32] = painted[70:72, 20:22] = 160
    painted[70 : 70 + side, 70 : 70 + side] = 160
    label = compose.finish(normal, painted, np.ones((100, 120), bool), min_share=0).label
    assert label[70, 70] == kept and label[70, 20] and label[25, 25]


def test_a_part_below_a_fiftieth_of_the_largest_is_a_speck_too() -> None:
    for side, kept in ((4, False), (5, True)):  # of 1000: 16 and 25 pixels
        normal, painted = flat(), flat()
        painted[20:45, 20:60] = 160
        painted[70 : 70 + side, 70 : 70 + side] = painted[70:80, 100:110] = 160
        label = compose.finish(normal, painted, np.ones((100, 120), bool), min_share=0).label
        assert bool(label[72, 72]) == kept and label[75, 105] and label[30, 30]


def test_refusals_stand_at_their_limits() -> None:
    normal, mask = flat(), box(20, 20, 60, 60)

    def reason(height: int, width: int, value: int, asked: np.ndarray = mask, **limits: float) -> str:
        painted = flat()
        painted[20 : 20 + height, 20 : 20 + width] = value
        return compose.finish(normal, painted, asked, tolerance=4, **limits).rejected

    assert reason(4, 40, 150) == "" and "of the mask" in reason(4, 39, 150)  # a tenth of 1600
    assert reason(40, 40, 108) == "" and "too faint" in reason(40, 40, 107)
    assert reason(2, 4, 150, min_share=0) == "" and "only 7 pixels" in reason(1, 7, 150, min_share=0)
    assert reason(2, 3, 150, box(20, 20, 22, 23)) == ""  # no more was asked for
    assert reason(40, 40, 104) == "nothing visible changed"
    assert math.isclose(compose.finish(normal, flat(), mask).scores["restored"], 0)
