"""The verdict: pairs stay pairs, intervals are honest for few seeds, and the words say what the numbers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from flawsmith.comparison import verdict
from flawsmith.comparison.verdict import Difference, Scored
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.detectors.segmentation import Judged
from flawsmith.evaluation.metrics import scores

LEVELS = 32
THREE_POINTS = 0.077  # advantage of an arm of `seeds` whose mean AP is .03 higher


def scored(quality: float, parts: list[int], noise: np.random.Generator, difficulty: np.ndarray) -> Scored:
    """A run's test set: one image per part, defects ranked the higher the better the run and the easier the part."""
    positives, negatives = np.zeros((len(parts) + 10, LEVELS)), np.zeros((len(parts) + 10, LEVELS))
    for row in range(len(parts) + 10):
        if row < len(parts):
            centre = LEVELS / (1 + np.exp(difficulty[parts[row]] - quality))
            positives[row] = _histogram(noise.normal(centre, 4, 60))
        negatives[row] = _histogram(noise.normal(0.3 * LEVELS, 4, 300))
    types = ("crack",) * len(parts) + ("good",) * 10
    return Scored(positives, negatives, types, (*(f"part {i}" for i in parts), *(f"good {i}" for i in range(10))))


def _histogram(values: np.ndarray) -> np.ndarray:
    return np.histogram(np.clip(LEVELS - values, 0, LEVELS - 0.01), LEVELS, (0, LEVELS))[0]


def seeds(
    advantage: float, count: int, spread: float = 0.1, seed: int = 0, taste: float = 0.0
) -> tuple[list[Scored], list[Scored]]:
    """Two arms: `spread` of what a training adds, `taste` of what an arm finds easy in one part and not in another."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 0.7, 30)
    own = [difficulty + np.random.default_rng([seed, arm]).normal(0, taste, 30) for arm in (1, 2)]
    pairs = []
    for _ in range(count):
        parts = sorted(rng.permutation(30)[:20].tolist())
        pairs.append(
            [scored(0.3 + a + rng.normal(0, spread), parts, rng, own[n]) for n, a in enumerate((advantage, 0))]
        )
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def differences(first: list[Scored], second: list[Scored]) -> np.ndarray:
    """The difference in mean AP of each seed."""
    once = np.ones((1, 30))
    return np.array(
        [verdict.mean_ap(a, once)[0] - verdict.mean_ap(b, once)[0] for a, b in zip(first, second, strict=True)]
    )


def test_mean_ap_is_the_ap_of_the_pooled_pixels() -> None:
    rng = np.random.default_rng(0)
    judged = Judged([], [], [], [])
    for kind in ("crack", "crack", "hole", "good"):
        mask = np.zeros((40, 40), bool)
        if kind != "good":
            mask[5:15, 5:20] = True
        judged.levels.append(scores.levels(1 / (1 + np.exp(-rng.normal(-2 + 1.5 * mask, 0.4)))))
        judged.masks.append(mask)
        judged.types.append(kind)
    tallies = [scores.tally(*pair) for pair in zip(judged.levels, judged.masks, strict=True)]
    found = verdict.coarsen(judged, [str(i) for i in range(4)])
    crack, hole = tallies[0] + tallies[1] + tallies[3], tallies[2] + tallies[3]
    expected = (crack.ap() + hole.ap()) / 2
    assert verdict.mean_ap(found, np.ones((1, 4)))[0] == pytest.approx(expected, abs=1e-3)
    # An image drawn twice counts twice; a type that was not drawn is left out.
    twice = (tallies[0] + tallies[0] + tallies[3]).ap()
    assert verdict.mean_ap(found, np.array([[2.0, 0, 0, 1]]))[0] == pytest.approx(twice, abs=1e-3)


def test_crowded_scores_keep_their_order_in_few_levels() -> None:
    rng = np.random.default_rng(2)
    mask = np.zeros((60, 60), bool)
    mask[:10] = True
    crowded = 0.5 + 0.2 * rng.random((60, 60)) + 0.1 * mask  # all within a thirtieth of the levels
    judged = Judged([scores.levels(crowded)], [mask], [0.5], ["crack"])
    found = verdict.mean_ap(verdict.coarsen(judged, ["a"]), np.ones((1, 1)))[0]
    assert found == pytest.approx(scores.count(crowded, mask).ap(), abs=2e-3)


def test_an_arm_against_itself_differs_by_nothing() -> None:
    arm, _ = seeds(0.5, 4)
    found = verdict.compare(arm, arm, draws=100)
    assert (found.mean, found.low, found.high, found.sign) == (0, 0, 0, 0)


def test_a_clear_help_is_found_and_its_reverse() -> None:
    better, worse = seeds(1.0, 5)
    found = verdict.compare(better, worse, draws=300)
    assert found.low > 0 and found.low < found.mean < found.high and found.sign == 1
    back = verdict.compare(worse, better, draws=300)
    assert back.sign == -1 and back.mean == pytest.approx(-found.mean)


def test_one_seed_decides_nothing() -> None:
    better, worse = seeds(1.0, 1)
    found = verdict.compare(better, worse, draws=50)
    assert found.sign == 0 and found.mean > 10
    assert "one seed, so no interval" in found.words("real")


def test_three_seeds_are_wider_than_their_own_spread() -> None:
    better, worse = seeds(0.3, 3, spread=0.2)
    own = 100 * differences(better, worse)
    found = verdict.compare(better, worse, draws=300)
    assert found.mean == pytest.approx(np.mean(own))
    student = 4.302 * np.std(own, ddof=1) / 3**0.5
    assert (found.high - found.low) / 2 > student  # whatever the test parts add


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5])
def test_arms_that_do_not_differ_are_rarely_told_apart(count: int) -> None:
    false = alone = 0
    for number in range(100):
        first, second = seeds(0.0, count, spread=0.3, seed=number)
        false += verdict.compare(first, second, draws=300).sign != 0
        _, low, high = scores.paired_bootstrap(differences(first, second), draws=500)
        alone += low > 0 or high < 0
    assert false <= 8
    assert alone >= 15  # why a bootstrap over the seeds alone is not used


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "deviation"), [(0.01, 0.0125), (0.02, 0.0155), (0.03, 0.0195)])
def test_three_points_are_seen_with_five_seeds_and_nothing_where_nothing_is(spread: float, deviation: float) -> None:
    """docs/evaluation.md, "The judge"; deviation: s.d. of the paired difference over the seeds."""
    told = {0.0: 0, THREE_POINTS: 0}
    apart = []
    for advantage in told:
        for number in range(100):
            pair = seeds(advantage, 5, spread=spread, seed=number)
            own = differences(*pair)
            apart.append((own.mean(), own.std(ddof=1)))
            told[advantage] += verdict.compare(*pair, draws=200).sign != 0
    means, spreads = np.array(apart).T
    assert np.mean(means[100:]) - np.mean(means[:100]) == pytest.approx(0.03, abs=0.001)  # the truth is three points
    assert np.mean(spreads**2) ** 0.5 == pytest.approx(deviation, abs=0.001)
    assert told[0.0] <= 5 and told[THREE_POINTS] >= 80, told


@pytest.mark.slow
def test_arms_that_like_other_parts_are_not_told_apart_by_these_parts() -> None:
    false = alone = 0
    for number in range(400):
        pair = seeds(0.0, 5, spread=0.01, seed=number, taste=0.3)
        own = differences(*pair)
        false += verdict.compare(*pair, draws=200).sign != 0
        alone += abs(own.mean()) > 2.776 * own.std(ddof=1) / 5**0.5
    assert false <= 20  # 5 %
    assert alone >= 120  # why Student's t over the seeds alone is not used


def test_pairs_must_be_pairs() -> None:
    first, second = seeds(0.0, 2)
    with pytest.raises(FlawsmithError, match="same seeds"):
        verdict.compare(first, second[:1])
    with pytest.raises(FlawsmithError, match="same test images"):
        verdict.compare(first, second[::-1])


def test_words_say_what_the_numbers_say() -> None:
    helps, none, hurts = Difference(4.1, 2.2, 6.0, 5), Difference(0.5, -1.0, 2.0, 5), Difference(-3.0, -4.0, -2.0, 5)
    assert helps.words("real") == "adds 4.1 AP over real, 95 % interval 2.2 to 6.0"
    assert none.words("real") == "no measurable help over real (+0.5 AP, 95 % interval -1.0 to 2.0)"
    assert hurts.words("real") == "costs 3.0 AP against real, 95 % interval -4.0 to -2.0"
    assert verdict.claim({"real": helps, "copypaste": helps}).startswith("helps: ")
    assert verdict.claim({"real": helps, "copypaste": none}).startswith("helps over real only: ")  # both must be beaten
    assert verdict.claim({"real": hurts}).startswith("does not help: ")
    assert "A first look: 3 seeds" in verdict.claim({"real": Difference(4.1, 2.2, 6.0, 3)})
    assert "first look" not in verdict.claim({"real": helps})


def test_counts_have_one_form_on_disk_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    """safetensors writes several notes in any order: one of a dozen copies would differ."""
    whole = Scored(np.arange(6.0).reshape(2, 3), np.ones((2, 3)), ("dent", "good"), ("part 1", "good 1"))
    for number in range(12):
        whole.save(tmp_path / f"{number}.safetensors")
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 1
    again, content = Scored.load(tmp_path / "0.safetensors"), contents.pop()
    assert np.array_equal(again.positives, whole.positives) and (again.types, again.units) == (whole.types, whole.units)
    odd = [content[:-1], content[:40], b"", (1 << 40).to_bytes(8, "little") + content[8:], b"\xff" * 8 + content[8:]]
    for damaged in odd:
        (tmp_path / "0.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError):
            Scored.load(tmp_path / "0.safetensors")
