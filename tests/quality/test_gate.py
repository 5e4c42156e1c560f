"""The gate's checks on images whose fault is known, its refusals, and its rates on labelled images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from flawsmith.compose import changed_region
from flawsmith.datasets.leaks import near
from flawsmith.errors import FlawsmithError
from flawsmith.methods import METHODS
from flawsmith.methods.calls import make as make_all
from flawsmith.quality import CHECKS, Gate
from flawsmith.quality import labels as labelling
from flawsmith.quality.appearance import appearance, nearest, spread_of, veil
from flawsmith.quality.borders import broken_lines, edges_made
from flawsmith.quality.gate import settled
from flawsmith.quality.looks import Look, signed
from flawsmith.quality.places import Homes, beside
from flawsmith.quality.repeats import RECENT, Prints, brief, copied, poses, print_of
from flawsmith.quality.visibility import contrast, seen
from flawsmith.quality.watch import Watch
from flawsmith.records import Request, Sample
from flawsmith.registry import resolve
from flawsmith.warp import Warp

SIDE = 128


def surface(grain: float = 2.0, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """An even grey surface with grain of this standard deviation, (side, side, 3) uint8."""
    noise = np.random.default_rng(seed).normal(0, grain, (side, side, 1))
    return np.repeat(np.clip(np.rint(140 + noise), 0, 255).astype(np.uint8), 3, axis=2)


def disc(radius: float, centre: tuple[int, int] = (SIDE // 2, SIDE // 2), side: int = SIDE) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray(np.hypot(rows - centre[0], columns - centre[1]) <= radius)


def darker(photo: np.ndarray, mask: np.ndarray, by: int) -> np.ndarray:
    return np.where(mask[..., None], np.clip(photo.astype(int) - by, 0, 255), photo).astype(np.uint8)


def look(photo: np.ndarray, image: np.ndarray, mask: np.ndarray, product: np.ndarray | None = None) -> Look:
    return Look.at(image, mask, photo, product)


def asked(photo: np.ndarray, mask: np.ndarray, kind: str = "hole", **more: object) -> Request:
    return Request(Sample(photo, np.zeros(mask.shape, bool), "plate"), mask, kind, seed=1, **more)


def made(image: np.ndarray, mask: np.ndarray, kind: str = "hole") -> Sample:
    return Sample(image, mask, "plate", kind)


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


# -- verdicts -------------------------------------------------------------------------------------------------------


def test_a_dark_hole_passes_and_a_speck_does_not() -> None:
    photo, mask, speck = surface(), disc(12), disc(1.5)
    gate = Gate("normal")
    good = gate.judge(made(darker(photo, mask, 90), mask), asked(photo, mask))
    assert good.refusal is None and set(good.scores) <= set(CHECKS)
    bad = gate.judge(made(darker(photo, speck, 10), speck), asked(photo, speck))
    assert bad.refusal is not None and bad.refusal.check == "visibility"
    assert {"ghost", "seam"} <= good.scores.keys() and not {"ghost", "seam"} & bad.scores.keys()  # no longer asked
    assert str(bad.refusal.limit) in bad.refusal.reason or f"{bad.refusal.limit:g}" in bad.refusal.reason


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (5, 5)])
@pytest.mark.parametrize("part", [1.0, 0.3])
def test_photographs_of_any_size_are_judged(size: tuple[int, int], part: float) -> None:
    photo, mask = np.full((*size, 3), 120, np.uint8), np.zeros(size, bool)
    mask[: max(1, int(size[0] * part)), : max(1, int(size[1] * part))] = True
    real = [Sample(darker(photo, mask, 70), mask, "plate", "hole")]
    sample = made(darker(photo, mask, 60), mask)
    verdict = Gate.of("normal", real).judge(sample, asked(photo, mask), np.ones(size, bool))
    assert all(np.isfinite(score) for score in verdict.scores.values())


def test_strict_refuses_whatever_normal_refuses() -> None:
    for name, check in CHECKS.items():
        for score in np.linspace(-1, 20, 400):
            assert check.refuses(score, "strict") or not check.refuses(score, "normal"), name


def test_a_mask_far_beyond_the_limit_is_refused_before_it_is_painted() -> None:
    """Sides of the photograph's: .32 is the limit, and what changes may be smaller than the mask by a quarter."""
    for side, large in ((0.30, False), (0.38, False), (0.42, True), (0.9, True)):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[: round(side * SIDE), : round(side * SIDE)] = True
        one = asked(surface(), mask)
        found = Gate("normal").too_large(one)
        assert (found is not None) == large and (found is None or found.check == "extent")
        assert Gate("normal", unasked=settled(False, True, False)).too_large(one) is None
        assert Gate("normal", limits={"extent": None}).too_large(one) is None
        assert Gate("normal", limits={"extent": 0.8}).too_large(one) is None


def test_how_large_is_not_asked_of_what_is_carried_whole_onto_a_product_that_lies_alike() -> None:
    rows, mask = np.mgrid[:SIDE, :SIDE][0], np.zeros((SIDE, SIDE), bool)
    mask[:, : SIDE // 2] = True  # its side is .7 of the photograph's
    still = np.repeat((rows * 2 % 256).astype(np.uint8)[..., None], 3, axis=2)
    turned = np.rot90(still).copy()
    other = Sample(still, disc(8, (30, 30)), "plate", "speck")  # the moved part's own photograph is like no good one
    gate = Gate.of("normal", [Sample(darker(turned, mask, 90), mask, "plate", "moved"), other])
    for photo, whole, free in ((still, True, True), (still, False, False), (surface(), True, False)):
        request = asked(photo, mask, "moved", whole=whole)
        verdict = gate.judge(made(darker(photo, mask, 60), mask, "moved"), request)
        assert (gate.too_large(request) is None) == free
        assert (verdict.refusal is None or verdict.refusal.check != "extent") == free
        assert verdict.scores["extent"] > 0.6


def test_what_a_dial_settles_refuses_nothing() -> None:
    photo, speck = surface(), disc(1.5)
    sample, request = made(darker(photo, speck, 10), speck), asked(photo, speck)
    assert Gate("strict").judge(sample, request).refusal is not None
    free = Gate("strict", unasked=settled(placed=False, sized=False, graded=True)).judge(sample, request)
    assert free.refusal is None or free.refusal.check not in ("visibility", "ghost")
    assert "visibility" in free.scores
    assert settled(True, True, False) == {"home", "extent"}


def test_an_unknown_level_lists_the_known_ones() -> None:
    with pytest.raises(FlawsmithError, match=r"normal, off, strict"):
        Gate("strickt")  # type: ignore[arg-type]


def test_a_gate_tells_types_and_products_apart() -> None:
    mask = disc(14)
    dark = [Sample(darker(surface(seed=s), mask, 80), mask, "plate", "hole") for s in range(4)]
    gate = Gate.of("normal", dark)
    assert set(gate.known) == {("plate", "hole")}
    photo = surface(seed=7)
    other = gate.judge(made(darker(photo, mask, 80), mask, "stain"), asked(photo, mask, "stain"))
    same = gate.judge(made(darker(photo, mask, 80), mask), asked(photo, mask))
    assert "realism" in same.scores and "realism" not in other.scores


def test_an_encoder_adds_the_check_features() -> None:
    mask = disc(14)
    real = [Sample(darker(surface(seed=s), mask, 80), mask, "plate", "hole") for s in range(4)]

    def brightness(windows):  # an encoder of two numbers
        return np.array([[w.mean(), w.std() * 10] for w in windows], float)

    photo = surface(seed=7)
    for by, alike in ((80, True), (-100, False)):
        sample = made(darker(photo, mask, by), mask)
        scores = Gate.of("normal", real, brightness).judge(sample, asked(photo, mask)).scores
        assert (scores["features"] < 1e-4) == alike


def test_a_watch_notes_each_refusal_with_reason_score_and_thumbnail() -> None:
    photo, speck = surface(), disc(1.5)
    watch = Watch(Gate("normal"), copies=False)
    judged = watch.judge(3, 2, asked(photo, speck), made(darker(photo, speck, 10), speck), None)
    (entry,) = watch.refused[3]
    assert judged.info["rejected"] == entry["reason"] and np.array_equal(judged.image, photo)
    assert entry["attempt"] == 2 and entry["check"] == "visibility" and entry["score"] < entry["limit"]
    assert watch.thumbnails[3, 0].startswith(b"\xff\xd8")
    said = replace(made(photo, np.zeros_like(speck)), info={"rejected": "nothing visible changed"})
    watch.judge(3, 3, asked(photo, speck), said, None)
    assert watch.refused[3][1]["check"] == "label" and (3, 1) not in watch.thumbnails


def test_what_is_foreseen_is_not_painted_and_the_others_keep_their_places() -> None:
    photo, small, large = surface(), disc(10), np.ones((SIDE, SIDE), bool)
    watch, painted = Watch(Gate("normal"), copies=True), []

    def generate(requests: list[Request]) -> list[Sample]:
        painted.extend(one.seed for one in requests)
        return [made(darker(photo, one.mask, 60), one.mask) for one in requests]

    def request(place: int, redraw: int) -> Request:
        return replace(asked(photo, large if place == 1 and redraw < 2 else small), seed=10 * place + redraw)

    def judge(place: int, redraw: int, one: Request, sample: Sample) -> Sample:
        return watch.judge(place, redraw, one, sample, None)

    found = make_all(generate, request, 3, 4, judge, foresee=watch.foresee)
    assert painted == [0, 20, 12] and [redraws for _, _, redraws in found] == [0, 2, 0]
    assert [one.seed for one, _, _ in found] == [0, 12, 20] and not any("rejected" in s.info for _, s, _ in found)
    assert [(e["attempt"], e["check"]) for e in watch.refused[1]] == [(0, "extent"), (1, "extent")]
    assert not watch.thumbnails and not watch.refused[0]


# -- the labelled list ----------------------------------------------------------------------------------------------

LABELLED = [json.loads(line) for line in (Path(__file__).parent / "labelled.jsonl").read_text().splitlines()]


def rates(half: str, level: str = "normal") -> tuple[float, float]:
    """Shares refused of the unacceptable and of the acceptable images of a half."""
    refused = {True: [], False: []}
    for line in (one for one in LABELLED if one["half"] == half):
        found = any(CHECKS[name].refuses(score, level) for name, score in line["scores"].items())
        refused[line["acceptable"]].append(found)
    return float(np.mean(refused[False])), float(np.mean(refused[True]))


def test_the_labelled_list_is_what_the_page_says() -> None:
    assert len(LABELLED) == 720 and len({line["image"] for line in LABELLED}) == 720
    assert {line["method"] for line in LABELLED} == {"analogy", "copypaste", "anomalyxfusion", "anomalycontrol"}
    assert len({line["set"] for line in LABELLED}) == 5


def test_the_limits_refuse_the_unacceptable_and_keep_the_acceptable() -> None:
    """What docs/quality.md states; the goal of 80 and 10 per cent is not reached on the fresh images."""
    found = {half: rates(half) for half in ("fitted", "judged", "fresh")}
    assert found["fitted"][0] >= 0.74 and found["fitted"][1] <= 0.065
    assert found["judged"][0] >= 0.70 and found["judged"][1] <= 0.11  # the limits were chosen on both
    assert found["fresh"][0] >= 0.70 and found["fresh"][1] <= 0.135


def test_the_labels_of_what_the_gate_keeps_say_what_changed() -> None:
    for half in ("fitted", "judged", "fresh"):
        scores = [one["scores"] for one in LABELLED if one["half"] == half]
        kept = [s for s in scores if not any(CHECKS[name].refuses(s[name], "normal") for name in s)]
        assert np.mean([one["label"] for one in kept]) >= 0.95


def test_of_signals_to_train_on_only_what_concerns_them_is_asked() -> None:
    asked = set(CHECKS) - settled(False, False, False, imitates=False)
    assert asked == {"visibility", "label", "place", "duplicate"}
    signals = {name for name in METHODS if not resolve(name, METHODS, "Method").imitates}
    assert signals == {"perlin", "cutpaste", "nsa"}
