"""Oracles of the classics: what each paper's formula says, checked on the pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fakes
from flawsmith import compose, images
from flawsmith.errors import FlawsmithError
from flawsmith.masks import MaskOptions, Warp, draw
from flawsmith.methods import load
from flawsmith.methods.classic import patches
from flawsmith.methods.classic.copypaste import fit, match_surroundings
from flawsmith.methods.classic.poisson import seamless
from flawsmith.records import Request, Sample

ANYTHING: dict[str, Any] = {"min_visibility": 0, "min_share": 0, "tolerance": 0}


def sample(image: np.ndarray, mask: np.ndarray | None = None) -> Sample:
    return Sample(image, np.zeros(image.shape[:2], dtype=bool) if mask is None else mask)


def noise(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def a_mask(size: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[20:40, 30:55] = True
    mask[25:30, 35:40] = False
    return mask


def laplacian(image: np.ndarray) -> np.ndarray:
    inner = 4 * image[1:-1, 1:-1] - image[:-2, 1:-1] - image[2:, 1:-1] - image[1:-1, :-2] - image[1:-1, 2:]
    return np.pad(inner, ((1, 1), (1, 1), (0, 0)))


# -- Poisson -----------------------------------------------------------------------------------------------------------


def test_poisson_keeps_the_boundary_and_the_laplacian() -> None:
    normal, source, mask = noise(0), noise(1), a_mask()
    joined = seamless(normal, source, mask)
    assert np.array_equal(joined[~mask], normal[~mask].astype(float))
    gap = laplacian(joined) - laplacian(source.astype(float))
    assert np.abs(gap[mask]).max() < 5e-4  # float32: a few parts in ten million of values up to some hundreds


def test_poisson_of_the_same_image_changes_nothing() -> None:
    normal, mask = noise(0), a_mask()
    assert np.abs(seamless(normal, normal, mask) - normal).max() < 1e-6


def test_poisson_removes_a_constant_offset() -> None:
    """A source that is the photograph 30 grey levels brighter blends into the photograph itself."""
    normal = fakes.photo(0, (60, 80))
    assert np.abs(seamless(normal, normal.astype(float) + 30, a_mask()) - normal).max() < 1e-6


def test_poisson_mixed_keeps_the_stronger_gradient() -> None:
    normal, mask = noise(0), a_mask()
    flat = np.full_like(normal, 90)
    assert np.abs(seamless(normal, flat, mask, mixed=True) - normal).max() < 1e-6
    smooth = seamless(normal, flat, mask)  # a membrane: within the values around it
    assert smooth.min() >= -1e-6 and smooth.max() <= 255 + 1e-6 and smooth[mask].std() < 0.7 * normal[mask].std()


@pytest.mark.parametrize("mixed", [False, True])
def test_poisson_at_the_frame_and_everywhere(mixed: bool) -> None:
    normal, source = noise(0), noise(1)
    corner = np.zeros((60, 80), dtype=bool)
    corner[:20, :25] = True
    assert np.isfinite(seamless(normal, source, corner, mixed)).all()
    whole = seamless(normal, source, np.ones((60, 80), dtype=bool))
    assert np.abs(whole - source).max() < 1e-3  # nothing to meet: the source itself
    assert np.array_equal(seamless(normal, source, np.zeros((60, 80), dtype=bool)), normal)


def test_poisson_solvers_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    normal, source = fakes.photo(0, (90, 120)), fakes.photo(1, (90, 120))
    mask = np.zeros((90, 120), dtype=bool)
    mask[10:80, 15:100] = True
    exact = seamless(normal, source, mask)
    monkeypatch.setattr("flawsmith.methods.classic.poisson.DIRECT", 500)
    assert np.abs(seamless(normal, source, mask) - exact).max() < 0.5


# -- nsa ---------------------------------------------------------------------------------------------------------------


def test_nsa_is_the_patch_up_to_the_blending() -> None:
    """At resize 1 the Laplacian inside the mask is that of the patch at the recorded source."""
    photo, mask = noise(3, (100, 120)), np.zeros((100, 120), dtype=bool)
    mask[40:60, 50:75] = True
    options = {"resize": (1, 1), "flip": False, **ANYTHING}
    method = load("nsa", **options)
    request = Request(sample(photo), mask, "hole", seed=4)
    area = compose.window(mask, method.window_minimum, method.window_context)
    painted, facts = method.paint(
        photo[area.slices], mask[area.slices], request, area, np.random.default_rng(4), method.options
    )
    top, left, height, width = facts["source"]
    assert (height, width) == (22, 27)
    patch = photo[top : top + height, left : left + width]
    joined = seamless(photo[39:61, 49:76], patch, mask[39:61, 49:76])
    placed = np.clip(np.rint(joined), 0, 255)
    local = (slice(39 - area.top, 61 - area.top), slice(49 - area.left, 76 - area.left))
    assert np.array_equal(painted[local], placed)
    (made,) = method.generate([request])
    assert made.info["source"] == facts["source"]


def test_nsa_takes_a_normal_reference_and_not_a_defect() -> None:
    photo, mask = fakes.photo(0), fakes.defect_mask("hole", 0)
    bright = np.where(np.indices((48, 64)).sum(axis=0)[..., None] % 8 < 4, 250, 30).repeat(3, 2).astype(np.uint8)
    other = load("nsa").generate([Request(sample(photo), mask, "hole", reference=sample(bright))])[0]
    assert other.info["source_photo"] == "reference"
    defect = sample(*fakes.with_defect(fakes.photo(5), "hole", 5))
    assert (
        load("nsa").generate([Request(sample(photo), mask, "hole", reference=defect)])[0].info["source_photo"]
        == "normal"
    )


# -- perlin ------------------------------------------------------------------------------------------------------------


def test_perlin_with_beta_one_is_the_texture(tmp_path: Path) -> None:
    """A texture of one colour, not augmented: the mask holds exactly this colour, at half opacity the mean."""
    images.write_image(tmp_path / "t.png", np.full((50, 50, 3), (200, 30, 90), dtype=np.uint8))
    photo, mask = fakes.photo(0), a_mask((48, 64))
    method = load("perlin", beta=(1, 1), textures=str(tmp_path), augment=0)
    (made,) = method.generate([Request(sample(photo), mask, "hole", seed=1)], tolerance=0, min_visibility=0)
    assert made.info["texture"] == "folder" and made.info["texture_file"] == "t.png"
    assert (made.image[made.mask & mask] == (200, 30, 90)).all() and np.array_equal(made.mask, mask)
    (half,) = method.generate([Request(sample(photo), mask, "hole", seed=1)], beta=(0.5, 0.5), tolerance=0)
    mean = np.rint(0.5 * photo[mask].astype(float) + 0.5 * np.array([200, 30, 90]))
    assert np.abs(half.image[mask] - mean).max() <= 1


def test_perlin_textures_are_grey_on_grey_photographs() -> None:
    grey = np.repeat(noise(0)[..., :1], 3, axis=2)
    for seed in range(6):
        (made,) = load("perlin", **ANYTHING).generate([Request(sample(grey), a_mask(), "hole", seed=seed)])
        assert (made.image == made.image[..., :1]).all()


def test_perlin_refusals(tmp_path: Path) -> None:
    request = Request(sample(fakes.photo(0)), a_mask((48, 64)), "hole")
    for options, word in (
        ({"textures": str(tmp_path)}, "no image"),
        ({"source": "folder"}, "textures"),
        ({"beta": (0.9, 0.2)}, "beta"),
    ):
        with pytest.raises(FlawsmithError, match=word):
            load("perlin", **options).generate([request])


# -- cutpaste ----------------------------------------------------------------------------------------------------------


def test_cutpaste_without_jitter_is_found_at_its_source() -> None:
    photo, mask = noise(7, (90, 100)), np.zeros((90, 100), dtype=bool)
    mask[30:45, 20:50] = True
    (made,) = load("cutpaste", jitter=0, **ANYTHING).generate([Request(sample(photo), mask, "hole", seed=2)])
    top, left, height, width = made.info["source"]
    assert (height, width) == (15, 30)
    assert np.array_equal(made.image[30:45, 20:50], photo[top : top + height, left : left + width])


def test_cutpaste_stays_grey_on_grey_photographs() -> None:
    grey = np.repeat(noise(0)[..., :1], 3, axis=2)
    (made,) = load("cutpaste").generate([Request(sample(grey), a_mask(), "hole", seed=3)])
    assert made.mask.any() and (made.image == made.image[..., :1]).all()


def test_patches_come_from_inside_the_photograph() -> None:
    photo = noise(1, (30, 40))
    for seed in range(20):
        patch, (top, left, height, width) = patches.take(photo, (25, 39), np.random.default_rng(seed), (0.5, 2.0))
        assert patch.shape == (25, 39, 3) and top + height <= 30 and left + width <= 40


# -- copypaste ---------------------------------------------------------------------------------------------------------


def identity() -> dict[str, Any]:
    return {"blend": "hard", "match": 0, "brightness": 0, "contrast": 0}


def test_copypaste_identity_gives_the_references_pixels() -> None:
    image, mask = fakes.with_defect(fakes.photo(1), "hole", 1)
    normal = fakes.photo(2)
    request = Request(sample(normal), mask, "hole", reference=sample(image, mask), warp=Warp())
    (made,) = load("copypaste", **identity(), **ANYTHING).generate([request])
    assert np.array_equal(made.image[mask], image[mask]) and np.array_equal(made.image[~mask], normal[~mask])


def test_copypaste_moved_by_whole_pixels_gives_the_references_pixels() -> None:
    image, mask = fakes.with_defect(fakes.photo(1, (80, 90)), "hole", 1)
    normal = fakes.photo(2, (80, 90))
    options = MaskOptions(rotate=0, flip=False, scale=(1, 1), bend=0)
    reference = sample(image, mask)
    drawn, warp = draw("reference", np.ones((80, 90), dtype=bool), np.random.default_rng(3), options, reference)
    assert warp is not None
    request = Request(sample(normal), drawn, "hole", reference=reference, warp=warp)
    (made,) = load("copypaste", **identity(), **ANYTHING).generate([request])
    right, down = round(warp.matrix[0][2]), round(warp.matrix[1][2])
    rows, columns = np.nonzero(drawn)
    assert np.array_equal(made.image[drawn], image[rows - down, columns - right])
    assert np.array_equal(np.sort(made.image[drawn], axis=0), np.sort(image[mask], axis=0))


def test_copypaste_follows_the_exposure() -> None:
    """The same part under half the light: the defect keeps its contrast against its surroundings, seamless."""
    surface = fakes.photo(3, (120, 140))
    surface[:] = np.clip(140 + np.random.default_rng(0).normal(0, 3, (120, 140, 1)), 0, 255).astype(np.uint8)
    image, mask = surface.copy(), np.zeros((120, 140), dtype=bool)
    mask[50:70, 60:85] = True
    image[mask] = 60
    dark = np.rint(surface * 0.5).astype(np.uint8)
    request = Request(sample(dark), mask, "hole", reference=sample(image, mask), warp=Warp())
    for blend in ("feather", "poisson", "hard"):
        (made,) = load("copypaste", blend=blend, brightness=0, contrast=0).generate([request])
        core = made.image[55:65, 65:80].mean()
        assert core == pytest.approx(30, abs=4)
        assert made.info["gain"] == pytest.approx([0.5] * 3, abs=0.02)


def test_match_is_exact_for_gain_and_shading_and_blind_to_structure() -> None:
    rng = np.random.default_rng(0)
    carried = rng.integers(80, 120, (80, 100, 3)).astype(np.uint8)
    defect, seen = np.zeros((80, 100), dtype=bool), np.ones((80, 100), dtype=bool)
    defect[30:50, 40:60] = True
    gain, shading = match_surroundings(carried, carried, defect, seen)
    assert gain == pytest.approx([1, 1, 1]) and np.abs(shading - 1).max() < 1e-6
    brighter = np.rint(carried * 1.5).astype(np.uint8)
    gain, shading = match_surroundings(carried, brighter, defect, seen)
    assert gain == pytest.approx([1.5] * 3, rel=0.01) and np.abs(shading - 1).max() < 0.015
    # Light that grows from left to right: the shading follows it into the defect.
    sloped = np.rint(carried * np.linspace(0.8, 1.2, 100)[None, :, None]).astype(np.uint8)
    gain, shading = match_surroundings(carried, sloped, defect, seen)
    left, right = ((gain * shading)[30:50, column].mean() for column in (40, 59))
    assert left == pytest.approx(0.96, abs=0.04) and right == pytest.approx(1.04, abs=0.04) and left < right - 0.02
    # Black and white artwork: a third of the ring is another track; nothing may turn grey.
    board = np.where(np.arange(100)[None, :, None] < 50, 0, 255).repeat(80, 0).repeat(3, 2).astype(np.uint8)
    other = board.copy()
    other[:38] = 255
    gain, shading = match_surroundings(board, other, defect, seen)
    assert gain == pytest.approx([1, 1, 1]) and np.abs(shading - 1).max() < 0.01
    off = match_surroundings(carried, brighter, defect, seen, strength=0)
    assert (off[0] == 1).all() and (off[1] == 1).all()


def test_copypaste_on_black_and_white_stays_black_and_white() -> None:
    board = np.where(np.arange(64)[None, :, None] < 30, 0, 255).repeat(48, 0).repeat(3, 2).astype(np.uint8)
    mask = np.zeros((48, 64), dtype=bool)
    mask[20:28, 10:20] = True
    image = board.copy()
    image[mask] = 255
    request = Request(sample(board), mask, "pin_hole", reference=sample(image, mask), warp=Warp())
    (made,) = load("copypaste").generate([request])
    assert set(np.unique(made.image)) == {0, 255} and np.array_equal(made.mask, mask)


def test_copypaste_contrast_and_brightness_do_what_they_say() -> None:
    image, mask = fakes.with_defect(fakes.photo(1), "hole", 1)
    request = Request(sample(fakes.photo(2)), mask, "hole", reference=sample(image, mask), warp=Warp())
    plain = load("copypaste", brightness=0, contrast=0).generate([request])[0]
    levels = {
        name: [
            float(load("copypaste", **options).generate([replace(request, seed=seed)])[0].image[mask].mean())
            for seed in range(8)
        ]
        for name, options in {"b": {"brightness": 0.05, "contrast": 0}, "c": {"brightness": 0, "contrast": 0.3}}.items()
    }
    base = float(plain.image[mask].mean())
    for values in levels.values():
        assert min(values) < base - 1 and max(values) > base + 1 and np.ptp(values) < 70


@pytest.mark.parametrize("angle", [0, 40, 90, 200])
def test_fit_lays_a_mask_on_a_requested_mask(angle: float) -> None:
    """A lopsided defect, turned, enlarged and moved: the moments find it again, the right way round."""
    source = np.zeros((120, 120), dtype=bool)
    source[40:80, 50:62] = True
    source[40:52, 50:75] = True  # an L: no symmetry
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    for mirror in (1, -1):
        linear = 1.3 * np.array([[cos * mirror, -sin], [sin * mirror, cos]])
        shift = np.array([110.0, 100.0]) - linear @ np.array([60.0, 60.0])
        true = Warp(((linear[0, 0], linear[0, 1], shift[0]), (linear[1, 0], linear[1, 1], shift[1])))
        target = true.apply(source, (220, 240), (0, 0, 220, 240))
        found = fit(source, target).apply(source, target.shape, (0, 0, 220, 240))
        assert (found & target).sum() / (found | target).sum() > 0.9


def test_copypaste_on_a_users_own_mask() -> None:
    image, defect = fakes.with_defect(fakes.photo(1), "hole", 1)
    for seed in range(5):
        asked, _ = draw(
            "blob", np.ones((96, 128), dtype=bool), np.random.default_rng(seed), MaskOptions(size=(0.03, 0.03))
        )
        request = Request(sample(fakes.photo(2, (96, 128))), asked, "hole", reference=sample(image, defect))
        (made,) = load("copypaste").generate([request])
        assert made.mask.sum() > 0.4 * asked.sum()
        Warp.from_json(made.info["warp"])


def test_copypaste_border_is_soft_and_inside() -> None:
    image, mask = fakes.with_defect(fakes.photo(1, (80, 80)), "hole", 1)
    normal = fakes.photo(1, (80, 80))
    request = Request(sample(normal), mask, "hole", reference=sample(image, mask), warp=Warp())
    hard, soft = (
        load("copypaste", blend=blend, feather=4, brightness=0, contrast=0, **ANYTHING).generate([request])[0]
        for blend in ("hard", "feather")
    )
    change = {
        name: np.abs(made.image.astype(int) - normal).max(axis=2) for name, made in (("hard", hard), ("soft", soft))
    }
    assert change["soft"][mask].mean() < change["hard"][mask].mean()
    assert not change["soft"][~mask].any()
