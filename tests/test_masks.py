"""Mask families: every dial does what it says, every mask lies on the allowed area and repeats."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from areas import a_reference, disc, parts
from flawsmith import registry
from flawsmith.errors import FlawsmithError
from flawsmith.masks import MASKS, MaskOptions, draw
from flawsmith.masks.shapes import perlin_noise

SHAPES = sorted(set(MASKS) - {"reference", "varied", "whole", "component", "learned"})
LINES = ("scratch", "crack")


def elongation(mask: np.ndarray) -> float:
    y, x = np.nonzero(mask)
    values = np.linalg.eigvalsh(np.cov(np.stack([x, y]).astype(float)) + np.eye(2) / 12)
    return float(np.sqrt(values[1] / values[0]))


@pytest.mark.parametrize("name", sorted(MASKS))
def test_every_name_resolves(name: str) -> None:
    if name == "learned":
        pytest.importorskip("torch")
    assert callable(registry.resolve(name, MASKS))


@pytest.mark.parametrize("name", [*SHAPES, "reference", "varied", "whole"])
def test_a_mask_lies_on_the_allowed_area_and_repeats(name: str) -> None:
    allowed, reference = disc(), a_reference()
    for seed in range(12):
        mask, warp = draw(name, allowed, np.random.default_rng(seed), reference=reference)
        again, _ = draw(name, allowed, np.random.default_rng(seed), reference=reference)
        assert mask.shape == allowed.shape and mask.dtype == bool and mask.any()
        assert not (mask & ~allowed).any() and mask.sum() < 0.5 * allowed.sum()
        assert np.array_equal(mask, again)
        assert (warp is not None) == (name in ("reference", "whole"))
    other, _ = draw(name, allowed, np.random.default_rng(99), reference=reference)
    assert not np.array_equal(mask, other)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("share", [0.005, 0.03, 0.1])
def test_size_is_the_share_of_the_object(name: str, share: float) -> None:
    allowed = disc()
    options = MaskOptions(size=(share, share))
    got = [draw(name, allowed, np.random.default_rng(seed), options)[0].sum() / allowed.sum() for seed in range(10)]
    assert np.median(got) == pytest.approx(share, rel=0.3)
    # Where a shape does not fit it is clipped or redrawn smaller, never larger. Lines overlap themselves.
    assert all(0.3 * share <= value <= 1.45 * share for value in got)


def test_size_is_drawn_between_the_bounds() -> None:
    allowed = disc()
    options = MaskOptions(size=(0.004, 0.08))
    got = [draw("blob", allowed, np.random.default_rng(seed), options)[0].sum() / allowed.sum() for seed in range(40)]
    assert min(got) > 0.003 and max(got) < 0.09
    assert 0.01 < np.median(got) < 0.035  # log-uniform: the middle is the geometric mean, 0.018


@pytest.mark.parametrize("name", ["blob", "box", "polygon", "perlin", "scratch"])
def test_elongation_is_monotone(name: str) -> None:
    allowed = np.ones((300, 300), dtype=bool)
    means = []
    for asked in (1.0, 3.0, 9.0):
        options = MaskOptions(size=(0.01, 0.01), elongation=(asked, asked), count=(1, 1))
        found = [elongation(draw(name, allowed, np.random.default_rng(seed), options)[0]) for seed in range(12)]
        means.append(float(np.median(found)))
    assert means[0] * 1.3 < means[1] and means[1] * 1.3 < means[2]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_count_is_the_number_of_parts(name: str, count: int) -> None:
    allowed = np.ones((320, 400), dtype=bool)
    options = MaskOptions(count=(count, count), size=(0.02, 0.02))
    found = [parts(draw(name, allowed, np.random.default_rng(seed), options)[0]) for seed in range(6)]
    assert found == [count] * 6


@pytest.mark.parametrize("name", ["blob", "polygon", "spots", "scratch"])
def test_edge_and_centre(name: str) -> None:
    allowed = disc()
    depth = cv2.distanceTransform(allowed.astype(np.uint8), cv2.DIST_L2, 5)
    nearest = {}
    for place in ("edge", "centre"):
        options = MaskOptions(place=place, size=(0.005, 0.01))
        masks = [draw(name, allowed, np.random.default_rng(seed), options)[0] for seed in range(8)]
        nearest[place] = [float(depth[mask].min()) for mask in masks]
        middle = [float(depth[mask].mean()) for mask in masks]
        if place == "centre":
            assert np.median(middle) > 50
    assert np.median(nearest["edge"]) <= 3 < np.median(nearest["centre"])


@pytest.mark.parametrize("name", LINES)
def test_lines_are_thin_at_any_resolution(name: str) -> None:
    for side, most in ((256, 9), (512, 11), (2048, 22)):
        widths = []
        for seed in range(8):
            mask, _ = draw(name, np.ones((side, side), dtype=bool), np.random.default_rng(seed))
            widths.append(2 * float(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5).max()))
            assert parts(mask) == 1
        assert max(widths) <= most and min(widths) >= 1.5


def test_tiny_and_odd_areas() -> None:
    for height, width in ((1, 1), (1, 30), (5, 5), (3, 200)):
        for name in SHAPES:
            mask, _ = draw(name, np.ones((height, width), dtype=bool), np.random.default_rng(3))
            assert mask.any() and (height * width == 1 or mask.sum() < height * width)
    dots = np.zeros((300, 300), dtype=bool)
    dots[7, 250] = dots[280, 3] = True
    for name in SHAPES:
        mask, _ = draw(name, dots, np.random.default_rng(4))
        assert mask.any() and not (mask & ~dots).any()
    with pytest.raises(FlawsmithError, match="No place was found"):
        draw("reference", dots, np.random.default_rng(4), reference=a_reference())


def test_whole_object_only_when_asked() -> None:
    allowed = disc(64, 20)
    assert draw("blob", allowed, np.random.default_rng(0))[0].sum() < allowed.sum()
    options = MaskOptions(size=(1.0, 1.0))
    assert draw("box", allowed, np.random.default_rng(0), options)[0].sum() > 0.6 * allowed.sum()


def test_refusals() -> None:
    rng, allowed = np.random.default_rng(0), disc()
    with pytest.raises(FlawsmithError, match="Did you mean 'scratch'"):
        draw("scrach", allowed, rng)
    with pytest.raises(FlawsmithError, match="No pixel is allowed"):
        draw("blob", np.zeros((20, 20), dtype=bool), rng)
    with pytest.raises(FlawsmithError, match="needs a reference"):
        draw("reference", allowed, rng)
    with pytest.raises(FlawsmithError, match="bool"):
        draw("blob", allowed.astype(np.uint8), rng)
    for wrong in ({"size": (0.2, 0.1)}, {"size": (0, 0.1)}, {"elongation": (0.5, 2)}, {"count": (0, 1)}, {"sise": 1}):
        with pytest.raises(ValidationError):
            MaskOptions(**wrong)  # type: ignore[arg-type]


def test_an_own_family_by_import_path() -> None:
    mask, _ = draw("flawsmith.masks.shapes:box", disc(), np.random.default_rng(0), MaskOptions(size=(0.01, 0.01)))
    box = np.argwhere(mask)
    assert mask.sum() == np.prod(np.ptp(box, axis=0) + 1)


def test_perlin_noise_is_zero_on_its_lattice_mean_and_smooth() -> None:
    noise = perlin_noise((128, 128), (4, 4), np.random.default_rng(0))
    assert abs(float(noise.mean())) < 0.15 and 0.5 < float(np.abs(noise).max()) <= 1.01
    assert float(np.abs(np.diff(noise, axis=0)).max()) < 0.15
    # At the lattice points gradient noise vanishes; pixel centres lie half a pixel beside them.
    assert float(np.abs(noise[31::32, 31::32]).max()) < 0.1


@pytest.mark.parametrize("name", SHAPES)
def test_speed_and_memory_on_a_large_photograph(name: str) -> None:
    import tracemalloc

    allowed = np.ones((3000, 4000), dtype=bool)
    draw(name, allowed, np.random.default_rng(1))
    tracemalloc.start()
    start = time.process_time()
    mask, _ = draw(name, allowed, np.random.default_rng(0))
    assert time.process_time() - start < 1.5
    assert tracemalloc.get_traced_memory()[1] < 4 * mask.nbytes
    tracemalloc.stop()


def test_components_are_the_parts_of_the_product() -> None:
    """Three coloured parts on a tray: every one is found, whole, and nothing else; the grain is none."""
    rng = np.random.default_rng(0)
    image = np.full((200, 300, 3), (120, 120, 115), np.uint8)
    parts = {(200, 60, 50): (30, 30, 90, 110), (50, 80, 190): (40, 170, 120, 240), (60, 160, 70): (130, 60, 180, 200)}
    for colour, (top, left, bottom, right) in parts.items():
        image[top:bottom, left:right] = colour
    image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    allowed = np.ones((200, 300), bool)
    found = set()
    for seed in range(30):
        mask, warp = draw("component", allowed, np.random.default_rng(seed), MaskOptions(size=(0.02, 0.3)), image=image)
        assert warp is None
        matches = []
        for colour, (top, left, bottom, right) in parts.items():
            box = np.zeros_like(mask)
            box[top:bottom, left:right] = True
            if (mask & box).sum() > 0.8 * (mask | box).sum():
                assert not (box & ~mask).sum() > 0.02 * box.sum()  # the component is covered
                matches.append(colour)
        assert len(matches) == 1
        found.add(matches[0])
    assert found == set(parts)
    for colour, (top, left, bottom, right) in zip(("red", "blue", "green"), parts.values(), strict=True):
        options = MaskOptions(size=(0.02, 0.3), colour=colour)
        mask, _ = draw("component", allowed, np.random.default_rng(1), options, image=image)
        assert mask[top:bottom, left:right].all() and mask.sum() < 1.4 * (bottom - top) * (right - left)
    plain = np.clip(rng.normal(120, 4, (120, 120, 3)), 0, 255).astype(np.uint8)
    with pytest.raises(FlawsmithError, match="No component"):
        draw("component", np.ones((120, 120), bool), rng, image=plain)
    with pytest.raises(FlawsmithError, match=r"mask\.run"):
        draw("learned", allowed, rng)
