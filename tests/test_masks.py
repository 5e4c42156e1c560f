"""Mask families: every dial does what it says; the reference warp moves mask and pixels alike; the object is found."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from flawsmith import images, registry
from flawsmith.errors import FlawsmithError
from flawsmith.masks import MASKS, MaskOptions, Warp, draw, foreground
from flawsmith.masks.shapes import perlin_noise
from flawsmith.records import Sample

SHAPES = sorted(set(MASKS) - {"reference", "varied", "component", "learned"})
LINES = ("scratch", "crack")


def disc(side: int = 256, radius: int = 110) -> np.ndarray:
    y, x = np.ogrid[:side, :side]
    return np.asarray(np.hypot(y - side / 2, x - side / 2) < radius)


def parts(mask: np.ndarray) -> int:
    return int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0]) - 1


def elongation(mask: np.ndarray) -> float:
    y, x = np.nonzero(mask)
    values = np.linalg.eigvalsh(np.cov(np.stack([x, y]).astype(float)) + np.eye(2) / 12)
    return float(np.sqrt(values[1] / values[0]))


def a_reference(side: int = 160, radius: int = 12, at: tuple[int, int] = (60, 70)) -> Sample:
    """A bright spot with a dark core on a shaded grained ground, its mask the spot."""
    y, x = np.mgrid[:side, :side]
    away = np.hypot(y - at[1], x - at[0])
    rng = np.random.default_rng(0)
    grey = 90 + 0.2 * x + rng.normal(0, 2, (side, side)) + 90 * (away < radius) - 60 * (away < radius / 2)
    image = np.clip(np.repeat(grey[..., None], 3, axis=2), 0, 255).astype(np.uint8)
    return Sample(image, away < radius, defect_type="spot")


@pytest.mark.parametrize("name", sorted(MASKS))
def test_every_name_resolves(name: str) -> None:
    if name == "learned":
        pytest.importorskip("torch")
    assert callable(registry.resolve(name, MASKS))


@pytest.mark.parametrize("name", [*SHAPES, "reference", "varied"])
def test_a_mask_lies_on_the_allowed_area_and_repeats(name: str) -> None:
    allowed, reference = disc(), a_reference()
    for seed in range(12):
        mask, warp = draw(name, allowed, np.random.default_rng(seed), reference=reference)
        again, _ = draw(name, allowed, np.random.default_rng(seed), reference=reference)
        assert mask.shape == allowed.shape and mask.dtype == bool and mask.any()
        assert not (mask & ~allowed).any() and mask.sum() < 0.5 * allowed.sum()
        assert np.array_equal(mask, again)
        assert (warp is not None) == (name == "reference")
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


# -- the reference warp ------------------------------------------------------------------------------------------------


def test_warp_carries_mask_and_image_alike() -> None:
    reference, allowed = a_reference(), np.ones((220, 200), dtype=bool)
    painted = np.where(reference.mask[..., None], np.uint8(255), np.uint8(0)).repeat(3, axis=2)[..., :3]
    for seed in range(10):
        mask, warp = draw("reference", allowed, np.random.default_rng(seed), MaskOptions(bend=0.8), reference)
        assert warp is not None
        whole = (0, 0, 220, 200)
        assert np.array_equal(warp.apply(reference.mask, allowed.shape, whole), mask)
        picture = warp.apply(painted, allowed.shape, whole)[..., 0] >= 128
        assert (picture ^ mask).sum() <= 0.04 * mask.sum() + 2
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


# -- the object --------------------------------------------------------------------------------------------------------


def shaded(mask: np.ndarray, inside: int, outside: int, grain: float = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    grey = np.where(mask, inside, outside) + rng.normal(0, grain, mask.shape) + np.linspace(-8, 8, mask.shape[1])
    return np.clip(np.repeat(grey[..., None], 3, axis=2), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("inside", "outside"), [(60, 240), (190, 40), (120, 60)])
def test_one_product_on_a_background(inside: int, outside: int) -> None:
    true = disc(500, 170)
    found = foreground(shaded(true, inside, outside))
    overlap = (found & true).sum() / (found | true).sum()
    assert overlap > 0.93 and not (true & ~found).sum() > 0.01 * true.sum()


def test_a_part_with_a_dark_margin() -> None:
    true = np.zeros((300, 400), dtype=bool)
    true[:, 22:380] = True
    found = foreground(shaded(true, 130, 12))
    assert (found ^ true).mean() < 0.02


def test_surfaces_are_all_object() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(60, 200, (200, 300, 3)).astype(np.uint8)
    stripes = np.tile((120 + 40 * np.sin(np.arange(300) / 9))[None, :, None], (200, 1, 3)).astype(np.uint8)
    flat = np.full((50, 70, 3), 255, dtype=np.uint8)
    checks = (
        np.kron(np.indices((8, 10)).sum(axis=0) % 2, np.ones((32, 32)))[..., None].repeat(3, 2).astype(np.uint8) * 255
    )
    tiny = np.zeros((3, 5, 3), dtype=np.uint8)
    for surface in (noise, stripes, flat, checks, tiny, np.zeros((40, 40, 3), dtype=np.uint8)):
        assert foreground(surface).all()


def test_textures_of_an_installed_library_are_all_object() -> None:
    data = pytest.importorskip("skimage.data")
    for name in ("brick", "gravel", "grass"):
        grey = getattr(data, name)()
        assert foreground(np.repeat(grey[..., None], 3, axis=2)).all()


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("cookie", 0.15, 0.45), ("ball_screw", 1, 1), ("magnetic_tile", 0.8, 1), ("mvtec_ad/bottle", 0.6, 0.7)],
)
def test_real_objects(shared_data, name: str, least: float, most: float) -> None:  # type: ignore[no-untyped-def]
    folder: Path = shared_data(name)
    pictures = sorted((folder / "train" / "good").iterdir())[::40][:5]
    for path in pictures:
        assert least <= foreground(images.read_image(path)).mean() <= most


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
