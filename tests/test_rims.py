"""A defect that reaches its object's edge reaches an edge again; one that lies clear of it is left alone."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from areas import disc
from flawsmith.masks import Ground, MaskOptions, draw
from flawsmith.masks.rims import Rim
from flawsmith.records import Sample


def box(shape: tuple[int, int], top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def surface(seed: int, shape: tuple[int, int] = (160, 200)) -> np.ndarray:
    """A cloudy surface that fills the frame, (H, W, 3) uint8: what is around a defect looks like many a place."""
    clouds = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, shape), (0, 0), 12)
    grey = 120 + 25 * clouds / clouds.std()
    return np.clip(grey[..., None], 0, 255).astype(np.uint8).repeat(3, axis=2)


def cracked(top: int) -> Sample:
    """A surface with a dark upright line of 40 px from row `top`."""
    image, mask = surface(0), box((160, 200), top, 98, top + 40, 103)
    image[mask] = 40
    return Sample(image, mask, defect_type="crack")


def gaps(reference: Sample, spread: float | None = None) -> np.ndarray:
    """Pixels from twenty drawn masks to the frame, (20,)."""
    found = []
    allowed = np.ones((160, 200), dtype=bool)
    depth = cv2.distanceTransform(np.pad(allowed, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1] - 1
    for seed in range(20):
        options = MaskOptions(spread=spread)
        mask, _ = draw("varied", allowed, np.random.default_rng(seed), options, reference, surface(1 + seed))
        found.append(float(depth[mask].min()))
    return np.array(found)


@pytest.mark.parametrize("side", ["top", "right", "bottom", "left"])
def test_the_rim_is_the_side_that_meets_the_edge_and_looks_out(side: str) -> None:
    shape = (120, 140)
    spans = {
        "top": (20, 60, 30, 80),
        "bottom": (90, 60, 100, 80),
        "left": (50, 30, 70, 40),
        "right": (50, 100, 70, 110),
    }
    mask, outward = box(shape, *spans[side]), {"top": (0, -1), "bottom": (0, 1), "left": (-1, 0), "right": (1, 0)}
    rim = Rim.of(Ground.of(box(shape, 20, 30, 100, 110)), mask, mask, np.zeros(2))
    assert rim is not None and rim.outward == pytest.approx(outward[side], abs=0.1)
    x, y = rim.point
    assert {"top": y - 20, "bottom": 99 - y, "left": x - 30, "right": 109 - x}[side] == 0
    assert (abs(x - 69.5) if side in ("top", "bottom") else abs(y - 59.5)) <= 1  # the middle of that side


def test_what_lies_clear_of_the_edge_has_no_rim() -> None:
    ground, clear = Ground.of(box((120, 140), 20, 30, 100, 110)), box((120, 140), 50, 60, 70, 80)
    assert Rim.of(ground, clear, clear, np.zeros(2)) is None


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_poses_move_along_their_own_way_out_until_the_edge(angle: int, scale: float) -> None:
    """A chip of the right side, turned: each way out ends at that side of the product, and nothing moves along it."""
    product = Ground.of(box((200, 240), 40, 60, 160, 200))
    rim = Rim(np.array([5.0, 0.0]), np.array([1.0, 0.0]))
    cos, sin = round(math.cos(math.radians(angle))), round(math.sin(math.radians(angle)))
    linear = scale * np.array([[[cos, -sin], [sin, cos]]], dtype=float)
    centre = np.array([[110.0, 90.0]])
    shift = rim.shifts(centre, linear, np.array([scale]), product)[0]
    x, y = linear[0] @ rim.point + centre[0] + shift
    edge = {0: x - 200, 90: y - 160, 180: 59 - x, 270: 39 - y}[angle]
    assert abs(edge) <= 1  # the first point beyond
    assert shift[1 if angle in (0, 180) else 0] == 0


def test_a_crack_from_the_edge_starts_at_an_edge_of_another_surface_and_one_inside_does_not() -> None:
    assert np.mean(gaps(cracked(0)) <= 2) >= 0.9
    assert np.mean(gaps(cracked(60)) <= 2) <= 0.2
    assert np.mean(gaps(cracked(0), spread=1.0) <= 2) <= 0.5  # 1 = anywhere


def test_a_chip_reaches_the_rim_of_another_part() -> None:
    old, new = disc(200, 70), disc(260, 90)
    y, x = np.ogrid[:200, :200]
    chip = (np.hypot(y - 100, x - 170) < 14) & old
    image = np.where(old & ~chip, 190, 40)[..., None].repeat(3, 2).astype(np.uint8)
    target = np.where(new, 185, 40)[..., None].repeat(3, 2).astype(np.uint8)
    depth = cv2.distanceTransform(new.astype(np.uint8), cv2.DIST_L2, 5)
    found = []
    for seed in range(20):
        mask, _ = draw("varied", new, np.random.default_rng(seed), MaskOptions(), Sample(image, chip), target)
        found.append(float(depth[mask].min()) <= 2)
    assert np.mean(found) >= 0.9


def test_a_region_inside_the_product_has_no_edge_of_its_own() -> None:
    """Its border is none of the product's: what cannot reach the edge stays where it was wanted."""
    region = box((160, 200), 40, 40, 130, 170)
    depth = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 5)
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mask, _ = draw("varied", region, rng, MaskOptions(scale=(0.5, 0.5)), cracked(0), surface(1 + seed))
        assert mask.any() and not (mask & ~region).any()
        found.append(float(depth[mask].min()) <= 1.5)
    assert np.mean(found) <= 0.3


@pytest.mark.parametrize("family", ["varied", "reference"])
def test_a_defect_that_would_shrink_to_nothing_is_drawn_as_small_as_can_be_seen(family: str) -> None:
    """Seven pixels of side at a twentieth: a third of a pixel."""
    image, mask = surface(0), box((160, 200), 70, 90, 77, 97)
    image[mask] = 40
    reference, options = Sample(image, mask, defect_type="pit"), MaskOptions(scale=(0.05, 0.06))
    for seed in range(6):
        rng = np.random.default_rng(seed)
        drawn, _ = draw(family, np.ones(mask.shape, bool), rng, options, reference, surface(1 + seed))
        assert 1 <= drawn.sum() <= 20
