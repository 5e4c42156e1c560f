"""The equations of analogy, each computed a second time: charge, rebate, vote, guides, light, choice, homes, strips."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from flawsmith.masks.homes import DEPTH_COST, PLACE_COST, Homes
from flawsmith.masks.placement import Ground
from flawsmith.methods.analogy.field import RADIUS, Field, Matcher, Side, Weights
from flawsmith.methods.analogy.guidance import gain, guides
from flawsmith.methods.analogy.strips import Strip
from flawsmith.methods.analogy.synthesizer import Analogy
from flawsmith.records import Request, Sample

WEIGHTS = Weights(occurrence=0.3, coherence=0.8)


def matcher() -> Matcher:
    """An 8 x 8 hole in 24 x 24 pixels of noise, and a source of 32 x 32 whose middle may be used."""
    rng = np.random.default_rng(0)
    hole, usable = np.zeros((24, 24), bool), np.zeros((32, 32), bool)
    hole[8:16, 8:16], usable[6:26, 6:26] = True, True
    values = [rng.normal(0, 1, (side, side, 1)).astype(np.float32) for side in (24, 32)]
    plain = [np.zeros((side, side, 1), np.float32) for side in (24, 32)]
    return Matcher(Side(values[0], plain[0], hole), Side(values[1], plain[1], usable), rng, WEIGHTS)


def at_one_place(made: Matcher) -> Field:
    """A field in which every pixel takes the source patch at (15, 15)."""
    count = len(made.y)
    rows, columns = (np.full(count, 15, np.int64) for _ in range(2))
    return Field(made.y, made.x, rows, columns, np.zeros(count, np.float32))


def test_patches_in_use_more_often_than_even_are_charged_up_to_four_times() -> None:
    made = matcher()
    uses = len(made.y)  # all at one place, which a blur of 5 x 5 spreads
    over = uses / (2 * RADIUS + 1) ** 2 / max(1.0, uses / len(made.at)) - 1
    charge = made._worn(at_one_place(made))
    assert np.isclose(charge[15, 15], 0.3 * min(over, 4), atol=1e-5) and charge[15, 15] > 0.3
    assert charge[15 + RADIUS + 1, 15] == 0 and made._worn(None).max() == 0


def test_the_cost_is_the_gap_plus_the_charge_less_a_quarter_of_the_rebate_per_neighbour() -> None:
    made = matcher()
    candidate = made.at[[3, 50]]
    wanted = made.described[candidate] + np.float32(0.5)  # a gap of .5 in every component
    worn = np.zeros((32, 32), np.float32)
    worn.reshape(-1)[candidate] = [0.0, 0.7]
    follow = np.full((4, 2), -1)
    follow[:2, 0], follow[:, 1] = candidate[0], candidate[1]  # two and four neighbours are continued
    expected = 0.25 * wanted.shape[1] + np.array([0.0, 0.7]) - 0.8 / 4 * np.array([2, 4])
    assert np.allclose(made._cost(wanted, candidate, worn, follow), expected, atol=1e-4)


@pytest.mark.parametrize("sharp", [2, 4])
def test_a_pixel_is_the_mean_of_what_the_patches_over_it_say(sharp: int) -> None:
    made, rng = matcher(), np.random.default_rng(3)
    rows, columns = np.divmod(rng.choice(made.at, len(made.y)), made.width)
    cost = rng.uniform(0, 1, len(made.y)).astype(np.float32)
    voted = made.vote(Field(made.y, made.x, rows, columns, cost), made.target.values, sharp)
    weight = np.exp(-cost / np.quantile(cost, 0.25)) * made.trust + 1e-6
    total = mass = 0.0
    for index, (y, x) in enumerate(zip(made.y, made.x, strict=True)):
        down, right = 11 - y, 12 - x  # of the pixel (11, 12) in this patch
        if max(abs(down), abs(right)) <= RADIUS:
            share = weight[index] / (1 + down**2 + right**2) ** sharp
            total += share * made.source.values[rows[index] + down, columns[index] + right, 0]
            mass += share
    assert np.isclose(voted[11, 12, 0], total / mass, atol=1e-4)
    assert np.array_equal(voted[~made.target.mask], made.target.values[~made.target.mask])


def test_guides_are_depth_direction_and_place() -> None:
    y, x = np.mgrid[:65, :65] - 32.0
    disc = np.hypot(y, x) <= 20
    around = np.zeros((65, 65, 1), np.float32)
    found = guides(disc, around, light=2.0)
    assert np.allclose(found[32, 32, :2], [2.5, 1.5], atol=0.1)  # far inside: the rim's bound, and the deepest
    top = found[13, 32]  # just inside the upper border, which faces up: down is where it gets deeper
    assert abs(top[2]) < 0.1 and top[3] > 0.6 * 2.0 * 0.6 and top[3] <= 0.6 * 2.0
    assert np.allclose(found[51, 32, 3], -top[3], atol=0.05)
    assert np.allclose(guides(disc, around, light=0.0)[..., 2:4], 0)
    assert np.isclose(found[12, 32, 4], -0.8, atol=0.01) and np.isclose(found[32, 52, 5], 0.8, atol=0.01)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.9])
def test_the_gain_is_the_exposure_under_which_colours_meet(factor: float) -> None:
    rng = np.random.default_rng(1)
    there = rng.uniform(60, 120, (200, 1)) * np.array([[1.0, 0.95, 0.9]])
    assert np.allclose(gain(factor * there, there), factor, rtol=0.03)


def test_the_darkness_of_a_pit_follows_the_shading_of_its_new_surroundings() -> None:
    flat = np.full((96, 96, 3), 140, np.uint8)
    mask = np.zeros((96, 96), bool)
    mask[36:60, 28:68] = True
    pit = flat.copy()
    pit[mask] = 70
    slope = np.rint(np.broadcast_to(np.linspace(120, 160, 96)[None, :, None], (96, 96, 3))).astype(np.uint8)
    normal = Sample(slope, np.zeros_like(mask))
    (made,) = Analogy(grain=0).generate([Request(normal, mask, "pit", "", Sample(pit, mask, "w", "pit"), 0)])
    share = made.image[48, [34, 62], 0] / slope[48, [34, 62], 0]
    assert np.allclose(share, 0.5, atol=0.02)


def test_the_texture_is_mostly_of_another_defect_than_the_shape() -> None:
    mask = np.zeros((64, 64), bool)
    mask[20:36, 22:44] = True
    one, two = (Sample(np.full((64, 64, 3), level, np.uint8), mask, "w", "pit") for level in (50, 90))
    request = Request(Sample(one.image, np.zeros_like(mask)), mask, "pit", "", one, 0, None, (two,))
    made = Analogy()
    lent = [
        made._choose(mask, request, np.random.default_rng(seed), made.options)[0].image[0, 0, 0] for seed in range(300)
    ]
    # Gumbel noise of scale .6 against a charge of .6: the shape's own defect is drawn in 1 / (1 + e) of all cases
    assert abs(np.mean(np.array(lent) == 50) - 1 / (1 + np.e)) < 0.08


def bar(side: int, across: int, long: int) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[(side - across) // 2 :, (side - long) // 2 :][:across, :long] = True
    return mask


def lenders(mask: np.ndarray, *pool: np.ndarray) -> np.ndarray:
    """How often each of the pool's masks, filled with its number, is the first to lend its texture to `mask`."""
    samples = [Sample(np.full((*one.shape, 3), n, np.uint8), one, "w", "crack") for n, one in enumerate(pool)]
    normal = Sample(np.zeros((*mask.shape, 3), np.uint8), np.zeros_like(mask), "w")
    request = Request(normal, mask, "crack", "", samples[0], 0, None, tuple(samples[1:]))
    made = Analogy()
    lent = [made._choose(mask, request, np.random.default_rng(n), made.options)[0].image[0, 0, 0] for n in range(200)]
    return np.bincount(lent, minlength=len(pool)) / 200


def test_a_line_is_painted_with_the_texture_of_lines() -> None:
    """A crack of 10 px follows one of 5 rather than a blob of 10, and a blob the blob."""
    line, blob = bar(128, 5, 60), bar(128, 10, 16)
    assert lenders(bar(128, 10, 100), line, blob)[0] > 0.9
    assert lenders(bar(128, 14, 16), line, blob)[1] > 0.95


def test_an_exemplar_is_as_large_as_it_will_be_on_a_photograph_of_another_resolution() -> None:
    """Three times the side: 24 px follow the 8 of a small photograph, not the 12 of one that is as large."""
    assert lenders(bar(192, 24, 27), bar(192, 12, 13), bar(64, 8, 9))[1] > 0.75


def test_homes_charge_for_depth_and_for_distance() -> None:
    allowed = np.zeros((100, 140), bool)
    allowed[10:90, 20:120] = True
    ground = Ground.of(allowed)
    homes = Homes(np.array([[0.5, 0.5]]), np.array([0.2, 0.5, 0.8]), spread=0.25, first=ground)
    deepest = float(ground.depth.max())
    points = np.array([[[70.0] * 9, [50.0] * 9], [[30.0] * 9, [50.0] * 9]])  # the middle, and ten pixels from the left
    centres = points.mean(axis=2)
    depth = np.array([ground.deep(np.array([x]), np.array([50.0]))[0] / deepest for x in (70.0, 30.0)])
    away = np.array([0.0, (70 - 30) / 100])
    gap = np.abs(depth[:, None] - homes.depth).mean(axis=1)
    expected = 0.75 * (DEPTH_COST * gap + PLACE_COST * np.minimum(away / 0.2, 2))
    assert np.allclose(homes.cost(centres, points, ground), expected, atol=1e-6) and gap.min() > 0.1


def test_centres_move_to_the_homes_unless_they_are_kept_or_may_be_anywhere() -> None:
    ground = Ground.of(np.ones((100, 200), bool))
    homes = Homes(np.array([[0.25, 0.75]]), np.zeros(3), spread=0.0, first=ground)
    far = np.tile([190.0, 5.0], (400, 1))
    moved = homes.seek(far, ground, 3, np.random.default_rng(0))
    assert np.array_equal(moved[:3], far[:3])
    assert np.allclose(moved[3:].mean(axis=0), [50, 75], atol=1.5) and moved[3:, 0].std() < 0.05 * 200
    anywhere = replace(homes, spread=1.0).seek(far, ground, 0, np.random.default_rng(0))
    assert np.array_equal(anywhere, far)


def test_a_strip_gives_back_every_pixel_where_it_took_it() -> None:
    mask = np.zeros((60, 120), np.uint8)
    cv2.line(mask, (12, 20), (108, 40), 1, 3)
    slope = np.add.outer(np.arange(60.0) * 3, np.arange(120.0) * 0.5)[..., None].astype(np.float32)
    strip = Strip(mask > 0)
    back, reached = strip.give(strip.take(slope), mask > 0)
    gap = np.abs(back - slope)[mask > 0]
    assert reached[mask > 0].all() and np.quantile(gap, 0.9) < 0.4  # an eighth of a pixel, but at the line's ends


@pytest.mark.parametrize("wider", [0.5, 1.0, 2.0])
def test_a_line_of_another_width_has_its_exemplars_profile_stretched(wider: float) -> None:
    """Across a strip that is told another width a row is so many pixels; a wave across comes back as it was."""
    mask = np.zeros((80, 160), bool)
    mask[34:46, 20:140] = True
    plain = Strip(mask)
    strip = Strip(mask, like=plain.half / wider)
    assert strip.step == pytest.approx(wider) and (strip.reach - 6) * wider == pytest.approx(plain.half, abs=wider)
    across = np.repeat(np.arange(80.0, dtype=np.float32)[:, None, None], 160, axis=1)
    rows = strip.take(across)[:, 60, 0]
    assert np.allclose(np.abs(np.diff(rows)), wider, atol=0.01)
    back, reached = strip.give(strip.take(across), mask)
    assert reached[mask].all() and np.abs(back - across)[:, 30:130][mask[:, 30:130]].max() < 0.05


def test_a_crack_grown_thicker_has_one_dark_core() -> None:
    """Of 3 in 5 px, so about 7 in 12."""
    image, normal = (np.full((90, 120, 3), 150, np.uint8) for _ in range(2))
    thin, thick = np.zeros((90, 120), bool), np.zeros((90, 120), bool)
    image[:, 59:62], thin[10:80, 58:63], thick[10:80, 40:52] = 40, True, True
    request = Request(Sample(normal, ~thick & thick, "part"), thick, "crack", "", Sample(image, thin, "part"), 0)
    made = Analogy().generate([request])[0]
    dark = np.flatnonzero(made.image[20:70, 40:52].mean(axis=(0, 2)) < 110)
    assert made.info["unrolled"] and np.ptp(dark) == len(dark) - 1 and 6 <= len(dark) <= 9


def test_a_wide_crack_is_painted_along_its_line() -> None:
    """A dark core of 5 in 9 px, in a mask of 20: it is dark in the middle and bright beside, nowhere plain."""
    image, normal = (np.full((140, 120, 3), 150, np.uint8) for _ in range(2))
    thin, thick = np.zeros((140, 120), bool), np.zeros((140, 120), bool)
    image[:, 58:63], thin[10:130, 56:65], thick[10:130, 40:60] = 40, True, True
    request = Request(Sample(normal, ~thick & thin, "part"), thick, "crack", "", Sample(image, thin, "part"), 0)
    made = Analogy().generate([request])[0]
    across = made.image[20:120, 40:60].mean(axis=(0, 2))
    assert made.info["unrolled"] and across[8:12].max() < 60 and across[[1, 2, -3, -2]].min() > 130
