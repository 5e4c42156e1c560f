"""The contrast of a painted defect follows its reference's, relative to the light."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from flawsmith.methods.diffusion.appearance import appearance_of, match_contrast
from flawsmith.records import Sample

ROW, COLUMN = np.mgrid[:96, :96]


def spot(level: int, share: float, radius: float) -> Sample:
    """A disc that is `share` darker than its even surroundings of brightness `level`."""
    mask = np.hypot(ROW - 48, COLUMN - 48) < radius
    image = np.full((96, 96, 3), level, np.uint8)
    image[mask] = round((level + 24) * (1 - share) - 24)
    return Sample(image, mask)


def depth(image: np.ndarray, level: int, mask: np.ndarray) -> float:
    return float((1 - (image[mask].astype(float) + 24) / (level + 24)).mean())


@pytest.mark.parametrize("level", [60, 200])
def test_a_faint_defect_gets_the_contrast_of_the_reference_under_another_light(level: int) -> None:
    faint, reference = spot(level, 0.15, 8), spot(120, 0.3, 14)
    normal = np.full((96, 96, 3), level, np.uint8)
    matched = match_contrast(normal, faint.image, faint.mask, appearance_of(reference), 1.0)
    assert depth(faint.image, level, faint.mask) == pytest.approx(0.15, abs=0.01)
    assert depth(matched, level, faint.mask) == pytest.approx(0.3, abs=0.02)
    assert np.array_equal(matched[~faint.mask], faint.image[~faint.mask])
    assert np.array_equal(match_contrast(normal, faint.image, faint.mask, appearance_of(reference), 0.0), faint.image)


def test_a_strong_one_is_weakened_and_no_factor_is_larger_than_three() -> None:
    normal = np.full((96, 96, 3), 150, np.uint8)
    strong, weak = spot(150, 0.5, 10), spot(150, 0.05, 10)
    assert (
        depth(
            match_contrast(normal, strong.image, strong.mask, appearance_of(spot(90, 0.35, 10)), 1.0), 150, strong.mask
        )
        < 0.4
    )
    lifted = match_contrast(normal, weak.image, weak.mask, appearance_of(spot(90, 0.6, 10)), 1.0)
    assert depth(lifted, 150, weak.mask) == pytest.approx(0.15, abs=0.02)


def test_grain_is_not_scaled() -> None:
    """Noise of single pixels on the defect grows far less than the defect does."""
    reference, made = spot(120, 0.4, 12), spot(120, 0.15, 20)
    normal = np.full((96, 96, 3), 120, np.uint8)
    noise = np.random.default_rng(0).normal(0, 6, (96, 96, 1)).repeat(3, 2)
    grained = np.clip(made.image + noise, 0, 255).astype(np.uint8)
    matched = match_contrast(normal, grained, made.mask, appearance_of(reference), 1.0)
    inner = np.hypot(ROW - 48, COLUMN - 48) < 16
    assert depth(matched, 120, inner) > 0.3
    assert matched[inner].std() < 1.5 * grained[inner].std()


@pytest.mark.parametrize("shape", [(96, 33), (17, 96), (200, 64)])
def test_windows_of_any_shape(shape: tuple[int, int]) -> None:
    normal, mask = np.full((*shape, 3), 150, np.uint8), np.zeros(shape, bool)
    mask[5:12, 10:20] = True
    painted = np.where(mask[..., None], np.uint8(120), normal)
    assert match_contrast(normal, painted, mask, appearance_of(spot(120, 0.4, 12)), 1.0)[mask].mean() < 100


def test_tints_that_the_reference_has_not_are_taken_out_and_its_colour_is_kept() -> None:
    normal = np.full((96, 96, 3), 120, np.uint8)
    made, grey, red = spot(120, 0.2, 14), spot(120, 0.2, 14), spot(120, 0.2, 14)
    tint = 40 * np.sin(COLUMN / 5.0)[..., None] * np.array([1.0, -1.0, 0.0])
    painted = np.where(made.mask[..., None], np.clip(made.image + tint, 0, 255), made.image).astype(np.uint8)
    red.image[red.mask] = (150, 70, 70)
    inner = np.hypot(ROW - 48, COLUMN - 48) < 11

    def colour(image: np.ndarray) -> float:
        return float(np.ptp(image[inner].astype(float), axis=1).mean())

    assert colour(painted) > 40
    assert colour(match_contrast(normal, painted, made.mask, appearance_of(grey), 1.0)) < 12
    assert colour(match_contrast(normal, painted, made.mask, appearance_of(red), 1.0)) > 30
    assert np.array_equal(match_contrast(normal, painted, made.mask, appearance_of(grey), 0.0), painted)


def test_only_colours_that_the_reference_has_together_are_left() -> None:
    """Yellow and blue patches, after a reference whose bright patches are yellow: no blue is left."""
    rng = np.random.default_rng(0)
    normal, made, reference = np.full((96, 96, 3), 120, np.uint8), spot(120, 0.2, 20), spot(120, 0.2, 20)
    patches = cv2.GaussianBlur(rng.normal(size=(96, 96, 2)), (0, 0), 3.0)
    patches /= patches.std()
    yellow = np.array([1.0, 1.0, -1.0])
    paint = 120 + 12 * patches[..., :1] * yellow + 12 * patches[..., 1:]
    shown = 120 + 20 * np.clip(patches[..., :1], 0, None) * np.array([1.0, 0.9, 0.1])
    painted = np.where(made.mask[..., None], np.clip(paint, 0, 255), normal).astype(np.uint8)
    reference.image[reference.mask] = np.clip(shown, 0, 255).astype(np.uint8)[reference.mask]
    inner = np.hypot(ROW - 48, COLUMN - 48) < 17

    def blue(image: np.ndarray) -> float:
        found = image[inner].astype(float) - 120
        return float((found[:, 2] - found[:, :2].mean(1)).max())

    matched = match_contrast(normal, painted, made.mask, appearance_of(reference), 1.0)
    assert blue(painted) > 25
    assert blue(matched) < 8
    bright = matched[inner].astype(float).mean(1) > 130
    assert (matched[inner][bright][:, 0].astype(float) - matched[inner][bright][:, 2]).mean() > 5  # and yellow is
