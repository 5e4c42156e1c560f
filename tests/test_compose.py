"""Windows, blending and the verified label, on chosen and on random masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from flawsmith import compose
from flawsmith.errors import FlawsmithError

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
CALM = settings(max_examples=60, deadline=None)


def images(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, 256, (2, *shape, 3)).astype(np.uint8))  # type: ignore[return-value]


@CALM
@given(MASKS, st.integers(1, 80), st.floats(1.0, 3.0))
def test_windows_hold_the_mask_and_stay_inside(mask: np.ndarray, minimum: int, context: float) -> None:
    if not mask.any():
        with pytest.raises(FlawsmithError, match="empty"):
            compose.window(mask, minimum, context)
        return
    box = compose.mask_box(mask)
    for make in (compose.window, compose.square_window):
        area = make(mask, minimum, context)
        assert 0 <= area.top <= box.top and 0 <= area.left <= box.left
        assert box.bottom <= area.bottom <= mask.shape[0] and box.right <= area.right <= mask.shape[1]
        for side, limit, length in zip(area.shape, mask.shape, box.shape, strict=True):
            assert side >= min(limit, minimum, max(minimum, length))
    height, width = compose.square_window(mask, minimum, context).shape
    assert height == width or height == mask.shape[0] or width == mask.shape[1]


@CALM
@given(MASKS, st.floats(0, 12), st.integers(0, 99))
def test_blend_touches_only_the_mask(mask: np.ndarray, width: float, seed: int) -> None:
    normal, painted = images(mask.shape, seed)
    alpha = compose.feather(mask, width)
    assert alpha.shape == mask.shape and ((alpha > 0) == mask).all() and alpha.max(initial=0) <= 1
    mixed = compose.blend(normal, painted, alpha)
    assert np.array_equal(mixed[~mask], normal[~mask])
    low, high = np.minimum(normal, painted), np.maximum(normal, painted)
    assert (mixed >= low).all() and (mixed <= high).all()
    full = alpha == 1
    assert np.array_equal(mixed[full], painted[full])


@CALM
@given(MASKS, st.integers(0, 99), st.floats(0, 200), st.floats(0, 1))
def test_finish_keeps_its_promises(mask: np.ndarray, seed: int, least: float, share: float) -> None:
    normal, painted = images(mask.shape, seed)
    rng = np.random.default_rng(seed)
    painted = np.where(rng.random(mask.shape)[..., None] < 0.5, painted, normal)
    before = normal.copy()
    done = compose.finish(normal, painted, mask, min_visibility=least, min_share=share)
    assert np.array_equal(normal, before)
    assert not (done.label & ~mask).any()
    assert np.array_equal(done.image[~done.label], normal[~done.label])
    assert np.array_equal(done.image[done.label], painted[done.label])
    changed = compose.changed_region(normal, done.image, done.scores["tolerance"])
    assert not (changed & ~done.label).any()
    if not done.rejected:
        assert done.label.any() and done.scores["visibility"] >= least
        assert done.label.sum() >= share * mask.sum() - 1e-9


def test_finish_says_why_it_refuses() -> None:
    normal = np.full((40, 40, 3), 100, dtype=np.uint8)
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:30, 10:30] = True

    def reason(painted: np.ndarray, **options: float) -> str:
        return compose.finish(normal, painted, mask, **options).rejected

    assert reason(normal) == "nothing visible changed"
    faint = normal + np.uint8(6)
    assert "too faint (mean 6.0" in reason(faint)
    assert reason(faint, min_visibility=5) == ""
    small = normal.copy()
    small[15:20, 15:20] = 200
    assert "6% of the mask" in reason(small)
    dot = normal.copy()
    dot[15:17, 15:18] = 200
    assert "only 6 pixels" in reason(dot)
    assert reason(small, min_share=0.05) == ""


def test_label_closes_gaps_fills_holes_and_drops_specks() -> None:
    normal = np.full((60, 60, 3), 100, dtype=np.uint8)
    painted, mask = normal.copy(), np.ones((60, 60), dtype=bool)
    painted[10:30, 10:30] = 180
    painted[18:22, 18:22] = 100  # a hole: surrounded by change
    painted[10:30, 20] = 100  # a hair gap
    painted[50, 50] = 180  # a speck
    done = compose.finish(normal, painted, mask)
    expected = np.zeros((60, 60), dtype=bool)
    expected[10:30, 10:30] = True
    assert (done.label ^ expected).sum() <= 4
    assert np.array_equal(done.image[50, 50], normal[50, 50])
    assert done.scores["area"] == done.label.sum()


def test_many_equal_spots_are_all_kept() -> None:
    normal = np.full((60, 60, 3), 100, dtype=np.uint8)
    painted = normal.copy()
    for row in range(5, 60, 10):
        for column in range(5, 60, 10):
            painted[row : row + 3, column : column + 3] = 20
    done = compose.finish(normal, painted, np.ones((60, 60), dtype=bool), min_share=0.01)
    assert done.label.sum() == 36 * 9


def test_noise_level_measures_the_grain_not_the_edges() -> None:
    rng = np.random.default_rng(0)
    for sigma in (2.0, 6.0, 12.0):
        grey = 120 + rng.normal(0, sigma, (200, 200, 1)) + np.where(np.arange(200) < 100, -60, 60)[None, :, None]
        image = np.clip(grey.repeat(3, axis=2), 0, 255).astype(np.uint8)
        assert compose.noise_level(image) == pytest.approx(sigma, rel=0.15)
    assert compose.noise_level(np.zeros((2, 50, 3), dtype=np.uint8)) == 0


def test_the_frame_is_no_edge_of_the_defect() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[:, :8] = True
    alpha = compose.feather(mask, 3)
    assert (alpha[:, 0] == 1).all() and (alpha[:, 7] < 0.5).all()


def test_holes_are_filled_as_scipy_fills_them() -> None:
    rng = np.random.default_rng(0)
    for share in np.linspace(0.05, 0.95, 60):
        mask = rng.random(rng.integers(1, 40, 2)) < share
        np.testing.assert_array_equal(compose._filled(mask.astype(np.uint8)), ndimage.binary_fill_holes(mask))
