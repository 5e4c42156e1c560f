"""The gate's checks, one by one, on images whose fault is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from plates import SIDE, asked, darker, disc, made, surface

from flawsmith.compose import changed_region
from flawsmith.datasets.leaks import near
from flawsmith.quality import Gate
from flawsmith.quality import labels as labelling
from flawsmith.quality.appearance import appearance, nearest, spread_of, veil
from flawsmith.quality.borders import broken_lines, edges_made
from flawsmith.quality.looks import Look, signed
from flawsmith.quality.places import Homes, beside
from flawsmith.quality.repeats import RECENT, Prints, brief, copied, poses, print_of
from flawsmith.quality.visibility import contrast, seen
from flawsmith.records import Sample
from flawsmith.warp import Warp


def look(photo: np.ndarray, image: np.ndarray, mask: np.ndarray, product: np.ndarray | None = None) -> Look:
    return Look.at(image, mask, photo, product)


# -- visibility -----------------------------------------------------------------------------------------------------


def test_contrast_of_an_even_surface_is_the_change_in_just_noticeable_differences() -> None:
    photo, mask = np.full((SIDE, SIDE, 3), 140, np.uint8), disc(10)
    shown = look(photo, darker(photo, mask, 30), mask)
    difference = np.linalg.norm(shown.lab - shown.lab_before, axis=2)[shown.label].mean()
    assert contrast(shown) == pytest.approx(difference, rel=1e-3)


def test_contrast_falls_with_the_grain() -> None:
    mask = disc(3)
    found = [contrast(look(p := surface(grain), darker(p, mask, 30), mask)) for grain in (1.0, 8.0, 24.0)]
    assert found[0] > 1.5 * found[1] > 2.25 * found[2] > 0


def test_an_unchanged_image_has_no_contrast() -> None:
    photo = surface()
    assert contrast(look(photo, photo, disc(10))) == 0.0


def test_a_mark_that_is_coarser_than_the_gravel_shows_where_the_gravel_blurs_away() -> None:
    photo, mask = surface(25.0), disc(24)
    image = darker(photo, mask, 25)
    change = np.sqrt(np.square(look(photo, image, mask).lab - look(photo, photo, mask).lab).sum(axis=2))
    fine = change[look(photo, image, mask).label].mean() / 25 * 2.55  # what the finest scale alone would give
    assert contrast(look(photo, image, mask)) > 3 * fine


@pytest.mark.parametrize(("grain", "radius"), [(2.0, 40), (25.0, 40), (10.0, 70)])
def test_a_reduced_copy_tells_the_same_contrast(grain: float, radius: int, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, mask = surface(grain, side=256), disc(radius, (128, 128), 256)
    soft = np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 6)[..., None] * 40)
    painted = np.clip(photo - soft, 0, 255).astype(np.uint8)
    reduced = contrast(look(photo, painted, mask))
    monkeypatch.setattr("flawsmith.quality.visibility.WIDE", 1_000_000)
    assert reduced == pytest.approx(contrast(look(photo, painted, mask)), rel=0.04)


def test_seen_grows_with_the_defect_as_its_side_does() -> None:
    photo = surface(side=256)
    small, large = (seen(look(photo, darker(photo, m, 40), m)) for m in (disc(5, side=256), disc(20, side=256)))
    assert large > 2.5 * small


# -- label ----------------------------------------------------------------------------------------------------------


def test_agreement_is_the_share_of_the_label_that_changed() -> None:
    photo = np.full((40, 40, 3), 100, np.uint8)
    label = np.zeros((40, 40), bool)
    label[10:30, 10:30] = True
    half = label.copy()
    half[:, 20:] = False
    assert labelling.agreement(changed_region(photo, darker(photo, half, 50), 5), label) == 0.5
    assert labelling.agreement(changed_region(photo, darker(photo, label, 50), 5), label) == 1.0


def test_a_label_loses_what_did_not_change_and_nothing_else() -> None:
    photo = np.full((60, 60, 3), 100, np.uint8)
    label, ring = disc(25, (30, 30), 60), disc(25, (30, 30), 60) & ~disc(15, (30, 30), 60)
    smaller = labelling.shrunk(changed_region(photo, darker(photo, ring, 60), 5), label)
    assert not smaller[30, 30] and not (smaller & ~label).any()
    assert (smaller & ring).sum() == ring.sum()
    assert np.array_equal(labelling.shrunk(changed_region(photo, darker(photo, label, 60), 5), label), label)


def test_a_shrunk_label_leaves_the_photograph_untouched_outside() -> None:
    photo, label = surface(3.0), disc(30)
    ring = label & ~disc(18)
    image = darker(photo, ring, 70)
    image[SIDE // 2, SIDE // 2] += 2  # a change too small to be one
    verdict = Gate("normal").judge(made(image, label), asked(photo, label))
    rest = ~verdict.sample.mask
    assert verdict.sample.mask.sum() < label.sum()
    assert np.array_equal(verdict.sample.image[rest], photo[rest])


# -- place ----------------------------------------------------------------------------------------------------------


def test_beside_is_the_share_of_the_change_off_the_product() -> None:
    photo = np.full((SIDE, SIDE, 3), 120, np.uint8)
    mask, product = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
    mask[50:70, 40:60] = True
    product[:, :50] = True
    assert beside(look(photo, darker(photo, mask, 50), mask, product)) == pytest.approx(0.5, abs=0.01)
    broken = darker(photo, mask & product, 50)  # the background shows on the background: nothing changed there
    assert beside(look(photo, broken, mask, product)) == 0.0


def test_a_piece_over_the_products_edge_is_refused() -> None:
    photo = np.full((SIDE, SIDE, 3), 30, np.uint8)
    product = disc(40)
    photo[product] = 150
    mask = disc(14, (SIDE // 2, SIDE // 2 + 38)) & (disc(60) | product)
    image = darker(photo, np.zeros_like(mask), 0)
    image[mask] = 220
    verdict = Gate("normal").judge(made(image, mask), asked(photo, mask), product)
    assert verdict.refusal is not None and verdict.refusal.check == "place"


def test_homes_are_asked_only_of_a_product_that_lies_alike() -> None:
    rows = np.mgrid[:SIDE, :SIDE][0]
    still = np.repeat((rows * 2 % 256).astype(np.uint8)[..., None], 3, axis=2)
    real = Sample(still, disc(8, (30, 30)), "plate", "hole")
    homes = Homes.of([real])
    assert homes.away(still, disc(8, (30, 30))) == pytest.approx(0.0)
    assert homes.away(still, disc(8, (30, 94))) == pytest.approx(0.5, abs=0.01)
    assert homes.away(np.rot90(still).copy(), disc(8, (30, 94))) is None
    assert Homes.of(()).away(still, disc(8)) is None


def test_of_a_round_product_only_the_distance_from_the_middle_counts() -> None:
    photo = np.full((SIDE, SIDE, 3), 230, np.uint8)
    photo[disc(50)] = 60
    homes = Homes.of([Sample(photo, disc(6, (64, 94)), "plate", "hole")])
    assert homes.away(photo, disc(6, (34, 64))) == pytest.approx(0.0, abs=0.01)
    assert homes.away(photo, disc(6, (64, 64))) == pytest.approx(30 / SIDE, abs=0.02)


# -- border and appearance ------------------------------------------------------------------------------------------


def stripes(shift: int = 0) -> np.ndarray:
    columns = np.mgrid[:SIDE, :SIDE][1]
    return np.repeat(np.where((columns + shift) // 8 % 2, 180, 90).astype(np.uint8)[..., None], 3, axis=2)


def test_stripes_that_go_on_are_not_broken_and_displaced_ones_are() -> None:
    photo, mask = stripes(), np.zeros((SIDE, SIDE), bool)
    mask[44:84, 40:88] = True
    same, moved = (
        broken_lines(look(photo, np.where(mask[..., None], inner, photo), mask)) for inner in (photo, stripes(8))
    )
    assert max(same) < 0.1 < 1.0 < min(moved)


def test_a_veil_makes_no_edges_and_a_hole_does() -> None:
    photo, mask = surface(1.0), disc(28)
    depth = np.clip(signed(mask) / 25, 0, 1)[..., None]
    haze = np.clip(photo + 12 * depth, 0, 255).astype(np.uint8)
    assert edges_made(look(photo, haze, mask)) < 0.5 * edges_made(look(photo, darker(photo, mask, 60), mask))


def test_a_ghost_is_nearer_to_the_surface_than_to_real_defects() -> None:
    mask = disc(14)
    real = [Look.at(darker(surface(seed=s), mask, 80), mask) for s in range(5)]
    rows = np.array([appearance(one) for one in real])
    spread = spread_of(list(rows))
    photo = surface(seed=9)
    strong, faint = (look(photo, darker(photo, mask, by), mask) for by in (78, 8))
    before = appearance(strong.before)
    assert veil(appearance(strong), before, rows, spread) < 0.2 < 0.5 < veil(appearance(faint), before, rows, spread)
    assert nearest(rows[0], rows, spread) < nearest(appearance(faint), rows, spread)


def test_appearance_does_not_change_when_the_image_is_turned() -> None:
    image, mask = darker(surface(5.0), disc(12, (60, 70)), 50), disc(12, (60, 70))
    one, other = Look.at(image, mask), Look.at(np.rot90(image).copy(), np.rot90(mask).copy())
    assert np.allclose(appearance(one), appearance(other), atol=0.05)


@pytest.mark.parametrize("painted", [(0, 0, 0), (0, 12, 0)])
def test_a_grey_window_is_judged_by_lightness_alone_to_the_same_scores(
    painted: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, mask = stripes(), disc(14)
    image = darker(photo, mask, 40) + (np.array(painted, np.uint8) * mask[..., None])

    def scores() -> tuple[int, list[float]]:
        shown = look(photo, image.astype(np.uint8), mask)
        numbers = *appearance(shown), *appearance(shown.before), *broken_lines(shown), edges_made(shown), seen(shown)
        return shown.channels, [float(one) for one in numbers]

    channels, found = scores()
    assert channels == (3 if any(painted) else 1)
    monkeypatch.setattr("flawsmith.quality.looks._is_grey", lambda image: False)
    assert scores()[1] == pytest.approx(found, abs=1e-4)


# -- memory and duplicates ------------------------------------------------------------------------------------------


def blotch(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    grey = np.clip(120 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def test_a_copy_is_found_turned_mirrored_and_in_other_light() -> None:
    mask = disc(20)
    real, other = Sample(blotch(1), mask, "plate", "hole"), Sample(blotch(2), mask, "plate", "hole")
    known = poses([real])
    copy = np.clip(np.fliplr(np.rot90(blotch(1))) * 0.7 + 20, 0, 255).astype(np.uint8)
    turned = np.fliplr(np.rot90(mask)).copy()
    assert copied(made(copy, turned), asked(surface(), turned), known) > 0.97
    assert copied(other, asked(surface(), mask), known) < 0.7


def test_a_copy_laid_by_the_requests_warp_is_found_wherever_it_lies() -> None:
    mask = disc(20)
    real = Sample(blotch(1), mask, "plate", "hole")
    angle = 0.6
    cos, sin = np.cos(angle), np.sin(angle)
    warp = Warp(((cos, -sin, 30.0), (sin, cos, -10.0)))
    box = (0, 0, SIDE, SIDE)
    laid, where = warp.apply(real.image, (SIDE, SIDE), box), warp.apply(mask, (SIDE, SIDE), box)
    photo = surface()
    image = np.where(where[..., None], laid, photo)
    request = asked(photo, where, reference=real, warp=warp)
    assert copied(made(image, where), request, poses([])) > 0.99
    painted = np.where(where[..., None], blotch(5), photo)
    assert copied(made(painted, where), request, poses([])) < 0.7


def test_prints_know_an_image_they_were_shown() -> None:
    prints = Prints()
    first, second = (print_of(made(blotch(seed), disc(30))) for seed in (1, 2))
    assert prints.maybe(first) == []
    prints.add(7, brief(first))
    assert prints.maybe(first) == [7] and prints.maybe(second) == []


def test_a_brief_print_misses_nothing_that_is_near_and_forgets_the_oldest() -> None:
    """Of images that turn into another one: what the whole fingerprints call near, the brief ones do too."""
    one, two = blotch(3).astype(float), blotch(4).astype(float)
    mixed = [(one + share * (two - one)).round().astype(np.uint8) for share in np.linspace(0, 0.2, 60)]
    shown = [print_of(made(image, disc(30))) for image in mixed]
    prints = Prints()
    for number, image in enumerate(shown[1:]):
        prints.add(number, brief(image))
    found = {j for _, j, _ in near(shown[:1], shown[1:])}
    assert 5 < len(found) < 59 and found <= set(prints.maybe(shown[0]))
    other = brief(print_of(made(blotch(4), disc(30))))
    for number in range(RECENT):
        prints.add(100 + number, other)
    assert prints.maybe(shown[0]) == []
