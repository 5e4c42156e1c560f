"""Analogy against oracles: what must come out when the answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

import fakes
from flawsmith import images
from flawsmith.masks import MaskOptions, draw, foreground
from flawsmith.masks.reshape import is_line, overlap, reshape
from flawsmith.methods.analogy.strips import Strip, centre_lines, is_thin
from flawsmith.methods.analogy.synthesizer import Analogy
from flawsmith.records import Request, Sample

SIDE = 128


def ellipse(centre: tuple[float, float], half: tuple[float, float], side: int = SIDE, turn: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:side, :side].astype(float)
    x, y = x - centre[0], y - centre[1]
    cos, sin = np.cos(turn), np.sin(turn)
    return np.hypot((cos * x + sin * y) / half[0], (cos * y - sin * x) / half[1]) <= 1


def surface(seed: int, level: float = 130.0, side: int = SIDE) -> np.ndarray:
    """A plain grained surface with a little shading, float."""
    rng = np.random.default_rng(seed)
    grain = cv2.GaussianBlur(rng.normal(0, 9, (side, side)).astype(np.float32), (0, 0), 0.8)
    return (level + 10 * np.linspace(-1, 1, side)[None, :] + grain)[..., None] * np.array([1.0, 0.96, 0.9])


def crater(image: np.ndarray, mask: np.ndarray, seed: int = 0) -> np.ndarray:
    """A dark pit with a rim that is bright where it faces the upper left, uint8."""
    rng = np.random.default_rng([seed, 3])
    depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    slope = np.gradient(cv2.GaussianBlur(depth.astype(np.float32), (0, 0), 1.5))
    facing = (slope[0] + slope[1]) * (np.abs(depth) < 4)
    grain = cv2.GaussianBlur(rng.normal(0, 20, mask.shape).astype(np.float32), (0, 0), 1.5)
    factor = np.where(depth > 3, 0.45, 1.0) + 0.25 * facing * mask
    painted = image * factor[..., None] + (grain * (depth > 1))[..., None]
    return np.clip(np.where(mask[..., None], painted, image), 0, 255).astype(np.uint8)


def sample(image: np.ndarray, mask: np.ndarray | None = None) -> Sample:
    image = np.clip(image, 0, 255).astype(np.uint8)
    return Sample(image, np.zeros(image.shape[:2], dtype=bool) if mask is None else mask, "widget", "pit")


def paint(normal: np.ndarray, mask: np.ndarray, *references: Sample, seed: int = 0, **options: object) -> Sample:
    request = Request(sample(normal), mask, "pit", "", references[0], seed, None, tuple(references[1:]))
    (made,) = Analogy(min_visibility=0, min_share=0, tolerance=0, **options).generate([request])
    return made


@pytest.mark.parametrize("half", [(26, 18), (7, 6)])
def test_its_own_mask_and_exemplar_reproduce_the_real_one(half: tuple[float, float]) -> None:
    mask = ellipse((60, 66), half, turn=0.5)
    real = crater(surface(1), mask)
    made = paint(surface(1), mask, sample(real, mask), variety=0)
    error = made.image[mask].astype(float) - real[mask]
    assert 10 * np.log10(255**2 / max(1e-9, (error**2).mean())) > 35


def test_a_constant_texture_stays_constant() -> None:
    mask, other = ellipse((60, 66), (26, 18)), ellipse((50, 70), (15, 22))
    flat = np.full((SIDE, SIDE, 3), 140.0)
    made = paint(flat, mask, sample(np.full((SIDE, SIDE, 3), 90.0), other))
    assert np.abs(made.image.astype(int) - 140).max() <= 1


@pytest.mark.parametrize("phase", [0.0, 1.3, 2.6, 3.9, 5.2])
def test_stripes_continue_in_phase(phase: float) -> None:
    def stripes(shift: float) -> np.ndarray:
        wave = 128 + 60 * np.sin(2 * np.pi * (np.arange(SIDE) / 9.0) + shift)
        return np.broadcast_to(wave[None, :, None], (SIDE, SIDE, 3))

    mask = ellipse((60, 66), (20, 14))
    reference = sample(stripes(0.7), ellipse((64, 64), (22, 22)))
    made = paint(stripes(phase), mask, reference, variety=0)
    assert np.corrcoef(made.image[mask].ravel(), stripes(phase)[mask].ravel())[0, 1] > 0.85


def test_light_scales_the_result() -> None:
    mask, other = ellipse((60, 66), (22, 18)), ellipse((64, 60), (17, 22))
    normal, real = surface(2).astype(np.uint8) & 0xFE, crater(surface(3), other) & 0xFE
    bright = paint(normal, mask, sample(real, other), grain=0)
    dark = paint(normal // 2, mask, sample(real // 2, other), grain=0)
    assert np.abs(bright.image.astype(float) / 2 - dark.image).max() <= 1


def test_a_pit_is_as_dark_against_any_surroundings() -> None:
    mask, other = ellipse((60, 66), (18, 15)), ellipse((64, 60), (17, 19))
    reference = sample(crater(surface(3, 170), other), other)
    for level in (60, 110, 200):
        made = paint(surface(4, level), mask, reference)
        floor = cv2.erode(mask.astype(np.uint8), np.ones((13, 13))).astype(bool)
        assert made.image[floor].mean() / surface(4, level)[floor].mean() == pytest.approx(0.45, abs=0.08)


def test_a_rim_stays_lit_from_the_upper_left() -> None:
    mask, other = ellipse((60, 66), (26, 16), turn=2.2), ellipse((64, 60), (17, 22))
    made = paint(surface(5), mask, sample(crater(surface(3), other), other))
    depth = ndimage.distance_transform_edt(mask)
    rim = (depth > 0) & (depth <= 3)
    y, x = np.mgrid[:SIDE, :SIDE]
    towards = (x - 60) + (y - 66)
    change = made.image.mean(axis=2) - surface(5).mean(axis=2)
    assert change[rim & (towards < -12)].mean() > change[rim & (towards > 12)].mean() + 15


def test_no_large_piece_of_the_exemplar_is_copied() -> None:
    """In a new shape, at most six tenths of the mask are one connected piece of exemplar (docs/methods/analogy.md)."""
    mask, other = ellipse((60, 66), (24, 15), turn=0.4), ellipse((64, 60), (17, 20))
    flat = np.full((SIDE, SIDE, 3), 130.0)
    real = crater(flat, other)
    made = paint(flat, mask, sample(real, other)).image[..., 0].astype(int)
    largest = 0
    for down in range(-45, 46):
        for right in range(-45, 46):
            same = (np.abs(np.roll(real[..., 0], (down, right), (0, 1)) - made) <= 3) & mask
            if same.sum() > largest:
                parts, count = ndimage.label(same)
                largest = max(largest, int(np.bincount(parts.ravel(), minlength=count + 1)[1:].max()))
    assert 0.02 * mask.sum() < largest <= 0.6 * mask.sum()


def test_several_exemplars_are_mixed() -> None:
    mask = ellipse((60, 66), (26, 20))
    references = []
    for factor, centre in (((1.0, 0.3, 0.3), 60), ((0.3, 0.3, 1.0), 66)):
        other = ellipse((centre, 60), (24, 20))
        references.append(sample(np.where(other[..., None], surface(6) * factor, surface(6)), other))
    alone, mixed = (paint(surface(7), mask, *references, exemplars=count) for count in (1, 2))
    assert alone.info["exemplars"] == 1 and mixed.info["exemplars"] == 2


def line(points: list[tuple[int, int]], side: int = SIDE, width: int = 3) -> np.ndarray:
    drawn = cv2.polylines(np.zeros((side, side), np.uint8), [np.array(points)], False, 1, width)
    return drawn.astype(bool)


def test_a_crack_is_dark_all_along_its_new_line() -> None:
    upright = line([(60, 15), (64, 60), (58, 115)])
    bent = line([(15, 90), (50, 70), (80, 40), (115, 35)])
    reference = sample(np.where(upright[..., None], 0.3 * surface(8), surface(8)), upright)
    made = paint(surface(9), bent, reference)
    assert made.info["unrolled"] and is_thin(upright)
    (centre,) = centre_lines(bent)
    at = np.rint(centre[3:-3]).astype(int)
    there = made.image[at[:, 1], at[:, 0]].mean(axis=1) / surface(9)[at[:, 1], at[:, 0]].mean(axis=1)
    assert (there < 0.6).mean() > 0.9


def test_unrolled_and_rolled_back_a_line_is_what_it_was() -> None:
    bent = line([(15, 90), (50, 70), (80, 40), (115, 35)])
    smooth = cv2.GaussianBlur(surface(9).astype(np.float32), (0, 0), 2)
    strip = Strip(bent)
    back, reached = strip.give(strip.take(smooth), bent)
    assert reached[bent].all() and np.abs(back - smooth)[bent].max() < 4
    assert not is_thin(ellipse((60, 60), (20, 12)))


def test_new_shapes_are_new() -> None:
    shapes = [ellipse((60, 66), (22, 18)), ellipse((64, 60), (8, 6)), line([(60, 15), (64, 60), (58, 115)])]
    shapes.append(ellipse((50, 60), (12, 20)) | ellipse((66, 72), (16, 8)))
    new = []
    for shape in shapes:
        for seed in range(10):
            drawn = reshape(shape, np.random.default_rng(seed), [other for other in shapes if other is not shape])
            assert 0.4 * shape.sum() <= drawn.sum() <= 2.3 * shape.sum()
            new.append(overlap(drawn, shape) < 0.8)
    assert np.mean(new) >= 0.9
    assert overlap(shapes[0], np.roll(shapes[0][:, ::-1], 9, 0)) > 0.97  # what is only moved and mirrored is not new


def test_a_line_gets_longer_at_its_own_width_and_nothing_else_does() -> None:
    crack = np.pad(line([(40, 60), (75, 62), (110, 58)]), 100)
    found = []
    for longer in (1.0, 2.0):
        drawn = [reshape(crack, np.random.default_rng(seed), longer=longer) for seed in range(12)]
        widths = [float(cv2.distanceTransform(one.astype(np.uint8), cv2.DIST_L2, 5).max()) for one in drawn]
        found.append((np.median([one.sum() for one in drawn]), np.median(widths)))
    (area, width), (larger, wide) = found
    assert 1.8 < larger / area < 2.2 and wide == pytest.approx(width, rel=0.15)
    blob = ellipse((60, 66), (22, 18))
    plain, asked = (reshape(blob, np.random.default_rng(3), longer=longer) for longer in (1.0, 2.0))
    assert (plain == asked).all()


def test_a_line_through_the_whole_frame_gets_a_new_shape_though_it_cannot_get_longer() -> None:
    crack = line([(0, 40), (60, 66), (127, 80)])
    drawn = [reshape(crack, np.random.default_rng(seed), longer=4.0) for seed in range(6)]
    assert all((one != crack).any() and one.sum() > 0.4 * crack.sum() for one in drawn)


def test_pieces_of_a_line_are_lines_and_many_spots_are_none() -> None:
    crack = line([(20, 20), (100, 100)])
    broken = crack.copy()
    broken[54:66] = False
    spots = np.zeros_like(crack)
    for at in range(15, 110, 16):
        spots |= ellipse((at, 110 - at), (6, 5))
    assert is_line(crack) and is_line(broken) and not is_line(spots) and not is_line(np.zeros_like(crack))


def on_a_disc(mask: np.ndarray, seed: int) -> Sample:
    away = np.hypot(*(np.mgrid[:200, :200] - 100))
    noise = np.random.default_rng(seed).normal(0, 2, (200, 200))
    grey = np.where(away < 80, 150.0, 40.0) - 80 * mask + noise
    return sample(np.repeat(grey[..., None], 3, axis=2), mask)


def test_a_defect_of_the_rim_stays_at_the_rim_and_one_inside_inside() -> None:
    away = np.hypot(*(np.mgrid[:200, :200] - 100))
    normal = on_a_disc(np.zeros((200, 200), dtype=bool), 5)
    allowed = foreground(normal.image)
    for centre, at_rim in (((100, 27), True), ((100, 95), False)):
        real = ellipse(centre, (14, 10), 200) & (away < 80)
        hits = []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            mask, _ = draw("varied", allowed, rng, MaskOptions(), on_a_disc(real, seed), normal.image)
            assert not (mask & ~allowed).any()
            hits.append(bool(away[mask].max() > 74) == at_rim)
        assert np.mean(hits) >= 0.8


def test_spread_is_from_where_they_were_to_anywhere() -> None:
    normal, real = surface(2, side=200).astype(np.uint8), ellipse((150, 60), (10, 8), 200)
    away = {}
    for spread in (0.0, 1.0):
        found = []
        for seed in range(16):
            rng, options = np.random.default_rng(seed), MaskOptions(spread=spread)
            reference = sample(crater(surface(seed + 20, side=200), real), real)
            mask, _ = draw("varied", np.ones((200, 200), dtype=bool), rng, options, reference, normal)
            rows, columns = np.nonzero(mask)
            found.append(np.hypot(columns.mean() - 150, rows.mean() - 60))
        away[spread] = float(np.median(found))
    assert away[0.0] < 20 and away[1.0] > 40


def test_a_command_paints_as_many_as_were_asked_for(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    fakes.mvtec_tree(tmp_path / "data", category="widget", good=3, defects={"crack": 3, "hole": 5}, size=(96, 120))
    source, out = f"mvtec_ad:{tmp_path / 'data'}", tmp_path / "out"
    words = ("--shots", "4", "--defect", "hole", "-n", "4", "--out", str(out))
    code, _, err = run("generate", "analogy", "--normal", source, *words)
    assert code == 0, err
    lines = [json.loads(text) for text in (out / "manifest.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and all(entry["status"] == "kept" for entry in lines)
    assert all(images.read_mask(out / entry["mask"]).any() for entry in lines)
