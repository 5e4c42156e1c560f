"""How far new defects go beyond the few real ones: the statistics in closed form, and what the plan makes of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

import flawsmith
from flawsmith import compose, datasets
from flawsmith.comparison.arms import materialise
from flawsmith.config import GenerateConfig
from flawsmith.generation import sources
from flawsmith.generation.loading import Loader
from flawsmith.generation.planning import plan
from flawsmith.masks.growth import (
    CONTRAST,
    PARTS,
    SIDE,
    UPWARD,
    WIDEST,
    Spread,
    along,
    contrast_of,
    fitting,
    side_of,
    spread_of,
    unknown,
)
from flawsmith.masks.options import MaskOptions
from flawsmith.masks.structure import following
from flawsmith.methods import load
from flawsmith.records import Growth, Record, Request, Sample


def pit(level: int = 50, side: int = 12, ground: int = 100, at: int = 40) -> Sample:
    """A square of one level on a plain ground, (192, 192)."""
    image, mask = np.full((192, 192, 3), ground, dtype=np.uint8), np.zeros((192, 192), dtype=bool)
    image[at : at + side, at : at + side], mask[at : at + side, at : at + side] = level, True
    return Sample(image, mask, "part", "pit", "")


def test_what_is_unknown_follows_the_closed_form_of_students_t() -> None:
    # one part says nothing of the spread between parts: the prior's variance, twice (of the mean and of the new part)
    assert unknown([1.0, 1.4, 3.0], ["a", "a", "a"], 0.4) == pytest.approx((0.4 * math.sqrt(2), PARTS))
    # two parts at 0 and 2: sum of squares 2, variance 1, freedom PARTS + 1
    scale, freedom = unknown([0.0, 2.0], ["a", "b"], 0.9)
    assert freedom == PARTS + 1
    assert scale**2 == pytest.approx((PARTS * 0.81 + 2) / freedom * 1.5 - 1)
    # shots of a part seen already add nothing; nor does another unit
    assert unknown([-1.0, 1.0, 2.0], ["a", "a", "b"], 0.9) == pytest.approx((scale, freedom))
    assert unknown([5.0, 7.0], ["a", "b"], 0.9) == pytest.approx((scale, freedom))


def test_with_many_parts_hardly_anything_is_left_open() -> None:
    values = np.random.default_rng(0).normal(0, 0.5, 400)
    scales = [unknown(list(values[:count]), [str(n) for n in range(count)], 0.4)[0] for count in (1, 8, 400)]
    assert scales[0] > 2 * scales[1] and scales[2] < 0.05


def test_drawn_factors_have_students_quantiles_around_the_upward_middle() -> None:
    spread = Spread(0.4, 0.2, 4.0)
    drawn = [spread.draw(seed) for seed in range(4000)]
    for scale, factors in ((0.4, [one.side for one in drawn]), (0.2, [one.contrast for one in drawn])):
        found = np.quantile(np.log(factors) / scale - UPWARD, [0.1, 0.25, 0.5, 0.75, 0.9])
        assert found == pytest.approx(stats.t.ppf([0.1, 0.25, 0.5, 0.75, 0.9], 4), abs=0.12)
    assert abs(np.corrcoef(*np.log([[one.side, one.contrast] for one in drawn]).T)[0, 1]) < 0.06
    assert spread.draw(7) == spread.draw(7) != spread.draw(8)
    assert Spread(9.0, 9.0, 3.0).draw(1).side <= 5 and Spread(9.0, 9.0, 3.0).draw(1).contrast <= 3


def test_small_defects_grow_and_large_ones_do_not() -> None:
    small, large, grown = pit(side=8), pit(side=96), Growth(5.0, 2.0)
    assert side_of(small) == 8 / 192
    assert fitting(grown, small) == Growth(WIDEST / (8 / 192), 2.0)
    assert fitting(grown, large) == Growth(1.0, 2.0)
    assert fitting(Growth(0.5, 1.0), large) == Growth(0.5, 1.0)
    part = replace(small, info={"whole": 1920 * 1920})  # what is kept of a large photograph
    assert side_of(part) == pytest.approx(8 / 1920) and fitting(grown, part) == grown
    empty = replace(small, mask=np.zeros((192, 192), dtype=bool))
    assert fitting(grown, empty) == grown


def test_a_line_grows_along_itself_and_only_where_it_gets_a_new_shape() -> None:
    crack, grown = pit(side=2), Growth(1.5, 2.0)
    crack.mask[40:42, 42:120] = True
    assert following("varied", grown, crack, asked=False) == ("varied", Growth(1.0, 2.0, 2.25))
    assert following("reference", grown, crack, asked=False) == ("reference", fitting(grown, crack))
    assert following("varied", grown, pit(), asked=False) == ("varied", fitting(grown, pit()))
    assert (along(Growth(0.1)).length, along(Growth(9.0)).length) == (0.5, 5.0)
    longer = MaskOptions(scale=(0.5, 2), longer=2).grown(Growth(3.0, 1.0, 1.5))
    assert (longer.scale, longer.longer) == ((1.5, 6.0), 3.0)


def test_contrast_is_the_share_of_the_surroundings_level() -> None:
    assert contrast_of(pit(50, ground=100)) == pytest.approx(0.5)
    assert contrast_of(pit(150, ground=100)) == pytest.approx(0.5)
    assert contrast_of(pit(100, ground=200)) == pytest.approx(0.5)


def test_shots_of_one_part_leave_more_open_than_as_many_parts() -> None:
    shots = [pit(level, side) for level, side in ((40, 8), (50, 10), (60, 12), (70, 14))]
    one, many = spread_of(shots, ["a"] * 4), spread_of(shots, ["a", "b", "c", "d"])
    assert one is not None and many is not None
    assert (one.side, one.contrast) == pytest.approx((SIDE * math.sqrt(2), CONTRAST * math.sqrt(2)), abs=1e-4)
    assert many.side < 0.7 * one.side and many.contrast < 0.7 * one.contrast
    assert spread_of([shots[0], replace(shots[1], mask=np.zeros((192, 192), dtype=bool))], ["a", "b"]) is None
    assert spread_of(shots[:1], ["a"]) is None  # whoever shows one defect wants that one


def test_what_shows_the_background_or_is_black_and_white_keeps_its_contrast() -> None:
    round_part = np.zeros((96, 96, 3), dtype=np.uint8)
    yy, xx = np.mgrid[:96, :96]
    round_part[(yy - 48) ** 2 + (xx - 48) ** 2 < 36**2] = 180
    bitten, mask = round_part.copy(), (yy - 16) ** 2 + (xx - 48) ** 2 < 10**2
    bitten[mask] = 0
    bite = spread_of([Sample(bitten, mask, "cookie", "bite", "")] * 2, ["a", "b"])
    assert bite is not None and bite.contrast == 0 and bite.side > 0
    board = spread_of([pit(255, ground=0)] * 2, ["a", "b"])
    assert board is not None and board.contrast == 0 and board.side > 0


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def pits(tmp_path: Path) -> Path:
    """Two good plates and four pits of two parts, in MVTec layout."""
    root, rng, rows = tmp_path / "plates", np.random.default_rng(0), ["file,group"]
    for number in range(2):
        save(root / f"train/good/{number}.png", np.clip(rng.normal(110, 3, (192, 192, 3)), 0, 255).astype(np.uint8))
    for number in range(4):
        one = pit(50 + 5 * number, 8 + number, 110)
        save(root / f"test/pit/{number}.png", one.image)
        save(root / f"ground_truth/pit/{number}_mask.png", one.mask.astype(np.uint8) * 255)
        rows.append(f"test/pit/{number}.png,{'ab'[number // 2]}")
    (root / "origin.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def planned(root: Path, method: str, **settings: object) -> list[Growth]:
    config = GenerateConfig.model_validate(
        {"method": method, "normal": f"mvtec_ad:{root}", "out": root.parent / "out", "n": 6, "shots": 4, **settings}
    )
    synthesizer = load(method, **config.options)
    return [job.growth for job in plan(config, sources.read(config), synthesizer).jobs]


def test_analogies_go_beyond_the_real_ones_unless_told_how_large_or_strong(pits: Path) -> None:
    as_they_are = [Growth()] * 6
    grown = planned(pits, "analogy")
    assert len({one.side for one in grown}) == 6 == len({one.contrast for one in grown})
    assert planned(pits, "analogy") == grown
    for told in (
        {"options": {"growth": 0}},
        {"severity": (0.2, 0.8)},
        {"mask_options": {"size": [0.01, 0.02]}},
        {"mask_options": {"scale": [1, 1]}},
        {"mask_options": {"longer": 1}},
        {"mask": "whole"},
        {"mask": str(pits / "ground_truth/pit/0_mask.png")},
    ):
        assert planned(pits, "analogy", **told) == as_they_are
    assert planned(pits, "copypaste") == as_they_are
    assert planned(pits, "copypaste", options={"growth": 1}) == grown
    less = planned(pits, "analogy", options={"growth": 0.5})
    assert [math.log(one.side) for one in less] == pytest.approx([0.5 * math.log(one.side) for one in grown], abs=1e-3)


def test_masks_and_changes_grow_by_their_factors(pits: Path) -> None:
    settings = {"method": "copypaste", "normal": f"mvtec_ad:{pits}", "out": pits.parent / "out", "shots": 4}
    settings["mask_options"] = {"scale": [1, 1], "bend": 0}
    config = GenerateConfig.model_validate(settings)
    (job, *_), loader = plan(config, sources.read(config), load("copypaste")).jobs, Loader(config)
    before, after = loader.request(job), loader.request(replace(job, growth=Growth(2.0, 1.5)))
    assert after.mask.sum() / before.mask.sum() == pytest.approx(4, rel=0.2)
    assert (before.contrast, after.contrast) == (1.0, 1.5)


def test_a_contrast_multiplies_the_change_and_a_severity_takes_its_place() -> None:
    reference = pit(70)
    normal = replace(reference, image=np.full_like(reference.image, 100), mask=np.zeros_like(reference.mask))
    method = load("copypaste", contrast=0, brightness=0, blend="hard")

    def change(**settings: float) -> float:
        request = Request(normal, reference.mask, "pit", "", reference, 3, **settings)
        (made,) = method.generate([request])
        return float(np.abs(made.image.astype(int) - normal.image)[reference.mask].mean())

    assert change() == 30
    assert change(contrast=2.0) == 60
    assert change(contrast=2.0, severity=0.5) == change(severity=0.5)


def test_what_stands_out_more_shows_no_negative_of_the_photographs_texture() -> None:
    """Stripes under a plain defect: a stronger one is as plain, a fainter one lets them through.

    Dark or bright, its distance to the level is multiplied.
    """
    normal = np.repeat(np.tile(np.array([80, 80, 80, 120], np.uint8), 24)[None, :, None].repeat(96, 0), 3, axis=2)
    mask = np.zeros((96, 96), dtype=bool)
    mask[30:66, 30:66] = True
    painted = np.where(mask[..., None], np.uint8(40), normal)
    stronger = compose.strengthened(normal, painted, mask, 1.5)
    assert (stronger[mask] == 80 - 1.5 * 40).all()  # the stripes' level is 80
    bright = np.where(mask[..., None], np.uint8(120), normal)
    assert (compose.strengthened(normal, bright, mask, 1.5)[mask] == 80 + 1.5 * 40).all()
    fainter = compose.strengthened(normal, painted, mask, 0.5)
    assert (fainter[mask] == (0.5 * normal[mask] + 20)).all()
    assert (stronger[~mask] == normal[~mask]).all()


def test_a_dark_defect_made_stronger_keeps_its_texture() -> None:
    normal, mask = np.full((64, 64, 3), 100, np.uint8), np.zeros((64, 64), dtype=bool)
    mask[16:48, 16:48] = True
    painted = normal.copy()
    painted[16:48, 16:48] = np.tile(np.array([20, 40], np.uint8), 16)[:, None]
    stronger = compose.strengthened(normal, painted, mask, 1.25)
    dark, less = sorted(set(stronger[mask].ravel().tolist()))  # 0 and 25, were every change multiplied
    assert 0 < dark < 20 < 2 * less and dark + less == pytest.approx(25, abs=1)  # powers of 0.2 and 0.4, the same mean
    assert math.log(dark / 100) / math.log(less / 100) == pytest.approx(math.log(0.2) / math.log(0.4), rel=0.05)
    painted[mask] = 50
    assert set(compose.strengthened(normal, painted, mask, 2.5)[mask].ravel().tolist()) == {
        3
    }  # half to the fifth power


def test_arrays_grow_like_folders_and_keep_to_a_given_mask() -> None:
    goods = [np.clip(np.random.default_rng(n).normal(110, 3, (192, 192, 3)), 0, 255).astype(np.uint8) for n in range(6)]
    call = {"reference": [pit(60), pit(70, 14)], "defect_type": "pit", "seed": 1}
    grown = flawsmith.load("analogy")(goods, **call)
    kept = flawsmith.load("analogy", growth=0)(goods, **call)
    sizes = [[int(one.mask.sum()) for one in made] for made in (grown, kept)]
    assert np.std(sizes[0]) > 2 * np.std(sizes[1])
    assert sizes[1] != sizes[0]
    given = flawsmith.load("analogy")(goods, pit().mask, **call)
    assert all(not (one.mask & ~pit().mask).any() for one in given)


def test_an_arm_is_told_which_images_show_one_part(pits: Path, tmp_path: Path) -> None:
    records = datasets.read("mvtec_ad", pits)
    support = [record for record in records if not record.is_good]
    root = materialise(tmp_path / "arm", support, [record for record in records if record.is_good])
    again: list[Record] = [one for one in datasets.read("mvtec_ad", root) if not one.is_good]
    assert [one.group for one in again] == [one.group for one in support] == ["a", "a", "b", "b"]


def test_what_is_refused_is_drawn_again_nearer_to_the_real_one(pits: Path) -> None:
    assert Growth(4.0, 0.25).nearer(0) == Growth(4.0, 0.25)
    assert Growth(4.0, 0.25).nearer(1) == Growth(2.0, 0.5)
    settings = {"method": "copypaste", "normal": f"mvtec_ad:{pits}", "out": pits.parent / "out", "shots": 4}
    config = GenerateConfig.model_validate(settings)
    (job, *_), loader = plan(config, sources.read(config), load("copypaste")).jobs, Loader(config)
    asked = [loader.request(replace(job, growth=Growth(1.0, 4.0)), redraw).contrast for redraw in range(3)]
    assert asked == pytest.approx([4, 2, math.sqrt(2)])
