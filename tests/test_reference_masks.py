"""The reference's mask on another photograph: the warp moves mask and pixels alike, to a place that is like its own."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from areas import a_reference, disc, parts
from flawsmith.errors import FlawsmithError
from flawsmith.masks import MaskOptions, Warp, draw
from flawsmith.records import Sample


def test_warp_carries_mask_and_image_alike() -> None:
    reference, allowed = a_reference(), np.ones((220, 200), dtype=bool)
    painted = np.where(reference.mask[..., None], np.uint8(255), np.uint8(0)).repeat(3, axis=2)[..., :3]
    for seed in range(10):
        mask, warp = draw("reference", allowed, np.random.default_rng(seed), MaskOptions(bend=0.8), reference)
        assert warp is not None
        whole = (0, 0, 220, 200)
        assert np.array_equal(warp.apply(reference.mask, allowed.shape, whole), mask)
        image = warp.apply(painted, allowed.shape, whole)[..., 0] >= 128
        assert (image ^ mask).sum() <= 0.04 * mask.sum() + 2
        window = (20, 30, 180, 190)  # any window gives the same pixels
        assert np.array_equal(
            warp.apply(reference.image, allowed.shape, window),
            warp.apply(reference.image, allowed.shape, whole)[20:180, 30:190],
        )
        assert Warp.from_json(warp.to_json()) == warp


def test_warp_identity_is_exact_and_whole_moves_too() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    assert np.array_equal(Warp().apply(image, image.shape, (0, 0, 40, 50)), image)
    moved = Warp(((1, 0, 7), (0, 1, -3))).apply(image, (60, 70), (0, 0, 30, 50))
    assert np.array_equal(moved[:30, 7:], image[3:33, :43])
    assert np.array_equal(moved[:, 6::-1], image[3:33, 1:8])  # mirrored beyond its frame
    turned = Warp(((-1, 0, 49), (0, -1, 39))).apply(image, image.shape, (0, 0, 40, 50))
    assert np.array_equal(turned, image[::-1, ::-1])
    with pytest.raises(FlawsmithError, match="inverted"):
        Warp(((1, 1, 0), (1, 1, 0))).apply(image, image.shape, (0, 0, 5, 5))
    for text in ("{}", "[]", "nonsense", '{"matrix": [[1]], "bend": 0, "bend_seed": 0}'):
        with pytest.raises(FlawsmithError, match="not a warp"):
            Warp.from_json(text)


def test_warp_scales_the_mask() -> None:
    reference = a_reference(radius=14)
    allowed = np.ones((256, 256), dtype=bool)
    for scale in (0.6, 1.0, 2.0):
        options = MaskOptions(scale=(scale, scale), bend=0)
        mask, warp = draw("reference", allowed, np.random.default_rng(1), options, reference)
        assert warp is not None and warp.scale == pytest.approx(scale, rel=1e-6)
        assert mask.sum() == pytest.approx(scale**2 * reference.mask.sum(), rel=0.06)
    options = MaskOptions(size=(0.02, 0.02), bend=0)
    mask, _ = draw("reference", allowed, np.random.default_rng(1), options, reference)
    assert mask.mean() == pytest.approx(0.02, rel=0.1)


def test_warp_turns_and_flips_only_as_asked() -> None:
    options = MaskOptions(rotate=0, flip=False, scale=(1, 1), bend=0)
    for seed in range(5):
        _, warp = draw(
            "reference", np.ones((256, 256), dtype=bool), np.random.default_rng(seed), options, a_reference()
        )
        assert warp is not None
        (a, b, x), (c, d, y) = warp.matrix
        assert (a, b, c, d) == (1, 0, 0, 1) and x == round(x) and y == round(y)


def test_bend_changes_the_outline_but_not_the_size_much() -> None:
    reference = a_reference(radius=20)
    straight = Warp(extent=40.0)
    for seed in range(5):
        bent = Warp(bend=1.0, bend_seed=seed, extent=40.0)
        first, second = (warp.apply(reference.mask, (160, 160), (0, 0, 160, 160)) for warp in (straight, bent))
        assert (first ^ second).sum() > 0.05 * first.sum()
        assert second.sum() == pytest.approx(first.sum(), rel=0.35) and parts(second) == 1


def test_reference_parts_are_picked_by_count() -> None:
    reference = a_reference()
    mask = reference.mask.copy()
    mask[120:126, 120:126] = True
    two = Sample(reference.image, mask)
    one, _ = draw(
        "reference", np.ones((200, 200), dtype=bool), np.random.default_rng(0), MaskOptions(count=(1, 1)), two
    )
    both, _ = draw("reference", np.ones((200, 200), dtype=bool), np.random.default_rng(0), MaskOptions(), two)
    assert parts(one) == 1 and parts(both) == 2


def test_a_chip_at_the_rim_goes_to_a_rim() -> None:
    """The ring of a chip is half background: it fits only another rim, wherever that is."""
    part = np.where(disc(200, 70)[..., None], np.uint8(190), np.uint8(40)).repeat(3, axis=2)[..., :3]
    y, x = np.ogrid[:200, :200]
    chip = (np.hypot(y - 100, x - 170) < 14) & disc(200, 70)
    image = part.copy()
    image[chip] = 40
    target = np.full((260, 260, 3), 40, dtype=np.uint8)
    target[disc(260, 90)] = 185
    depth = cv2.distanceTransform(disc(260, 90).astype(np.uint8), cv2.DIST_L2, 5)
    for photograph in (target, None):
        found = []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            mask, _ = draw("reference", disc(260, 90), rng, MaskOptions(), Sample(image, chip), photograph)
            found.append(float(depth[mask].min()))
        assert np.mean(np.array(found) <= 3) >= 0.8


def test_no_hair_of_rim_is_left_beside_a_breakage() -> None:
    """A piece broken out of one round part, laid on a larger one: its cut reaches the new edge."""
    old, new = disc(200, 70), disc(260, 90)
    y, x = np.ogrid[:200, :200]
    piece = (np.abs(y - 100) < 12) & (x > 140) & old
    image = np.where(old & ~piece, 190, 40)[..., None].repeat(3, 2).astype(np.uint8)
    target = np.where(new, 185, 40)[..., None].repeat(3, 2).astype(np.uint8)
    reached = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        mask, _ = draw("reference", new, rng, MaskOptions(bend=0), Sample(image, piece), target)
        left = cv2.connectedComponentsWithStats((new & ~mask).astype(np.uint8), connectivity=4)[2][1:, cv2.CC_STAT_AREA]
        touching = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~new
        reached.append(len(left) == 1 and bool(touching.sum() > 12))
    assert np.mean(reached) >= 0.8


def test_a_surface_with_a_direction_keeps_it() -> None:
    """Grinding marks run upright in both photographs: the defect is not turned across them."""
    stripes = np.tile((120 + 40 * np.sin(np.arange(200) * 1.1))[None, :, None], (200, 1, 3)).astype(np.uint8)
    mask = np.zeros((200, 200), dtype=bool)
    mask[80:120, 98:103] = True
    for seed in range(8):
        rng = np.random.default_rng(seed)
        _, warp = draw("reference", np.ones((200, 200), dtype=bool), rng, MaskOptions(), Sample(stripes, mask), stripes)
        assert warp is not None
        lean = np.degrees(np.arctan2(warp.matrix[0][1], warp.matrix[1][1])) % 180
        assert min(lean, 180 - lean) < 20
