"""The gate's verdicts: what it refuses, what it leaves unasked, and its rates on labelled images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plates import SIDE, asked, darker, disc, made, surface

from flawsmith.errors import FlawsmithError
from flawsmith.methods import METHODS
from flawsmith.methods.calls import make as make_all
from flawsmith.quality import CHECKS, Gate
from flawsmith.quality.gate import settled
from flawsmith.quality.watch import Watch
from flawsmith.records import Request, Sample
from flawsmith.registry import resolve

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
