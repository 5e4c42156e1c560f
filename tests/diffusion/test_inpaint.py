"""`inpaint` paints on a tiny real backbone: the whole contract, tiles, ways to start, and grain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from small import reference, request

import fakes
from contract import MASKS, Contract, check
from flawsmith import compose, images
from flawsmith.config import GenerateConfig
from flawsmith.datasets.writer import read_manifest
from flawsmith.errors import FlawsmithError
from flawsmith.generation import run as generation
from flawsmith.masks import draw
from flawsmith.methods.analogy.synthesizer import Analogy
from flawsmith.methods.base import Synthesizer
from flawsmith.methods.diffusion.finishing import only_real_change, with_grain
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.methods.diffusion.tiles import reduction, resized, tiles
from flawsmith.records import Request, Sample


@pytest.fixture
def method(folder: Path) -> Synthesizer:
    return DiffusionSynthesizer(str(folder), steps=2)


class TestContract(Contract):
    """Every promise, on a tiny backbone of our own."""


def test_tiles_cover_every_pixel_and_never_shrink_too_far() -> None:
    rng = np.random.default_rng(0)
    for _ in range(25):
        mask = np.zeros((int(rng.integers(80, 500)), int(rng.integers(80, 500))), bool)
        walk = np.cumsum(rng.normal(0, 9, (60, 2)), axis=0) + np.array(mask.shape) / 2
        for row, column in np.clip(walk, 2, np.array(mask.shape) - 3).astype(int):
            mask[row - 2 : row + 3, column - 2 : column + 3] = True
        found = tiles(mask, 32, 1.5, 2.0)
        covered = np.zeros_like(mask)
        for tile in found:
            assert max(tile.shape) <= 64
            assert tile.top >= 0 and tile.left >= 0 and tile.bottom <= mask.shape[0] and tile.right <= mask.shape[1]
            covered[tile.slices] = True
        assert not (mask & ~covered).any()


def test_a_small_mask_gets_one_window_of_the_models_size() -> None:
    mask = np.zeros((200, 200), bool)
    mask[90:100, 90:100] = True
    assert [tile.shape for tile in tiles(mask, 32, 1.5, 2.0)] == [(32, 32)]


@pytest.mark.parametrize(("thickness", "expected"), [(1, 1.0), (5, 1.0), (15, 1.0), (25, 1.5), (63, 2.0)])
def test_only_thick_masks_may_shrink(thickness: int, expected: float) -> None:
    """A bar is as thick at the photograph's border as inside; its length does not matter."""
    for start in (0, 60):
        mask = np.zeros((200, 200), bool)
        mask[start : start + thickness] = True
        assert reduction(mask, 128, 2.0) == pytest.approx(expected, abs=0.15)
        assert reduction(mask, 512, 2.0) == 1.0


@pytest.mark.parametrize(
    "options",
    [{"sampler": "ddim"}, {"guidance_scale": 1.0}, {"start": "normal"}, {"start": "reference"}, {"start": "painted"}],
)
def test_every_way_of_sampling(folder: Path, options: dict) -> None:
    (sample,) = DiffusionSynthesizer(str(folder), steps=3).generate([request()], **options)
    normal = request().normal.image
    assert np.array_equal(sample.image[~sample.mask], normal[~sample.mask])


def on(mask: np.ndarray) -> Request:
    """`request` on a photograph of a mask's size."""
    return request(normal=Sample(fakes.photo(0, mask.shape), np.zeros_like(mask), "widget"), mask=mask)


@pytest.mark.parametrize("name", MASKS)
def test_the_whole_image_as_window_keeps_every_promise(folder: Path, name: str) -> None:
    asked = on(MASKS[name])
    (sample,) = DiffusionSynthesizer(str(folder), steps=2, window="full").generate([asked])
    check(asked, sample)
    assert sample.info["window"] == [0, 0, *asked.mask.shape] and sample.info["tiles"] == 1


def test_only_the_whole_image_as_window_sees_what_is_far_from_the_mask(folder: Path) -> None:
    mask = np.zeros((60, 160), bool)  # not square: the model's 32 px see all of it reduced, and then a border
    mask[20:32, 6:18] = True
    near = on(mask)
    image = near.normal.image.copy()
    image[:, 120:] = 255 - image[:, 120:]
    far = replace(near, normal=replace(near.normal, image=image))
    free = {"steps": 2, "min_visibility": 0, "min_share": 0, "contrast": 0}
    for window, same in (("defect", True), ("full", False)):
        method = DiffusionSynthesizer(str(folder), window=window, **free)
        made = [method.generate([asked])[0].image[mask] for asked in (near, far)]
        assert np.array_equal(*made) == same


def test_little_strength_stays_near_its_start(folder: Path) -> None:
    """From the normal with hardly any noise, hardly anything may change; from noise, much does (untrained weights)."""
    synthesizer = DiffusionSynthesizer(str(folder), steps=20, min_visibility=0, min_share=0, threshold=0, contrast=0)
    near = synthesizer.generate([request()], start="normal", strength=0.05)[0]
    far = synthesizer.generate([request()], start="noise")[0]
    normal = request().normal.image.astype(int)
    assert np.abs(near.image - normal).sum() < 0.5 * np.abs(far.image - normal).sum()


@pytest.mark.parametrize("start", ["reference", "analogy"])
def test_without_a_reference_a_start_from_it_is_noise_beside_others_that_have_one(folder: Path, start: str) -> None:
    made = DiffusionSynthesizer(str(folder), steps=2, strength=0.5, min_visibility=0, min_share=0, contrast=0)
    bare, shown = replace(request(), reference=None), request()
    mixed = made.generate([shown, bare], start=start)
    assert np.array_equal(mixed[1].image, made.generate([bare], start="noise")[0].image)
    assert np.array_equal(mixed[0].image, made.generate([shown], start=start)[0].image)
    assert not np.array_equal(mixed[0].image, made.generate([shown], start="noise")[0].image)


def test_little_strength_stays_near_the_analogy(folder: Path) -> None:
    """From the analogy's image with hardly any noise, its image hardly changes (untrained weights)."""
    free: dict[str, float] = {"min_visibility": 0, "min_share": 0}
    made = DiffusionSynthesizer(str(folder), steps=20, threshold=0, contrast=0, keep_grain=False, **free)
    asked = request()
    (near,) = made.generate([asked], start="analogy", strength=0.05)
    (laid,) = Analogy(**free).generate([asked])
    normal = asked.normal.image.astype(int)
    assert np.abs(near.image.astype(int) - laid.image).sum() < 0.5 * np.abs(laid.image - normal).sum()


def test_painting_begins_from_real_texture_but_where_the_users_words_decide(folder: Path) -> None:
    made = DiffusionSynthesizer(str(folder), steps=2, min_visibility=0, min_share=0)
    same = made.default_caption("widget", "defect")  # what is said of each
    told = replace(reference(0, "defect"), caption="a pit on the left")
    plain = request(defect_type="defect", reference=told)
    for words, begun in (
        ("", "analogy"),
        (same, "analogy"),
        (told.caption, "analogy"),
        ("a red spot", "noise"),
    ):
        asked = replace(plain, caption=words)
        assert np.array_equal(made.generate([asked])[0].image, made.generate([asked], start=begun)[0].image), words
    asked = replace(plain, caption=same)
    apart = [made.generate([asked], start=start)[0].image for start in ("analogy", "noise")]
    assert not np.array_equal(*apart)
    lost = "the nut is missing"  # by the reference's own words: a whole part has no texture
    gone = replace(plain, caption=lost, reference=replace(told, caption=lost))
    assert np.array_equal(made.generate([gone])[0].image, made.generate([gone], start="noise")[0].image)
    mask, warp = draw("whole", np.ones((60, 90), bool), np.random.default_rng(1), reference=told)
    laid = replace(gone, mask=mask, warp=warp, whole=True)  # but where a real one is carried
    assert np.array_equal(made.generate([laid])[0].image, made.generate([laid], start="analogy")[0].image)
    how = [made.parse_options({"start": start}).noised for start in ("auto", "reference", "normal")]
    assert how == [0.3, 0.5, 0.7] and made.parse_options({"strength": 0.2, "start": "normal"}).noised == 0.2


def test_what_begins_from_real_texture_follows_real_defects_as_analogy_does(folder: Path) -> None:
    """Its shapes, its several exemplars, its growth; what begins from noise has none of them."""
    real = [reference(seed) for seed in range(4)]
    parts, like = [str(n) for n in range(4)], Analogy()
    for start, same in (("auto", True), ("analogy", True), ("noise", False), ("reference", False)):
        made = DiffusionSynthesizer(str(folder), start=start)
        own = (made.default_mask("hole"), made.reference_count, made.spread(real, parts))
        assert own == (("varied", 4, like.spread(real, parts)) if same else ("reference", 1, None))
    free = DiffusionSynthesizer(str(folder), steps=2, start="analogy", min_visibility=0, min_share=0)
    plain, strong = (free.generate([request(contrast=contrast)])[0].image.astype(int) for contrast in (1.0, 2.0))
    mask, warp = draw("whole", np.ones((60, 90), bool), np.random.default_rng(1), reference=reference(0))
    carried = request(mask=mask, warp=warp, whole=True)
    mixed = free.generate([request(1), carried, request(2)])
    assert np.array_equal(mixed[1].image, Analogy(min_visibility=0, min_share=0).generate([carried])[0].image)
    assert all(np.array_equal(mixed[n].image, free.generate([request(s)])[0].image) for n, s in ((0, 1), (2, 2)))
    normal, mask = request().normal.image, request().mask
    assert np.abs(strong - normal)[mask].mean() > 1.3 * np.abs(plain - normal)[mask].mean() > 0


def test_several_types_in_one_image_are_painted_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", good=2, defects={"crack": 3, "hole": 3}, size=(96, 120))
    given = {"method": "inpaint", "backbone": str(folder), "options": {"steps": 2}, "batch_size": 3}
    generation.run(
        GenerateConfig(normal=f"mvtec_ad:{data}", out=tmp_path / "out", n=3, combine={"crack": 1, "hole": 1}, **given)
    )
    kept = [line for line in read_manifest(tmp_path / "out") if line["status"] == "kept"]
    assert kept
    for line in kept:
        ids = images.read_image(tmp_path / "out" / line["instances"]["file"])[..., 0]
        image, normal = (
            images.read_image(tmp_path / "out" / line["image"]),
            images.read_image(data / line["normal"]["file"]),
        )
        assert [one["defect_type"] for one in line["instances"]["defects"]] == ["crack", "hole"]
        assert set(np.unique(ids)) == {0, 1, 2} and np.array_equal(image[ids == 0], normal[ids == 0])


def test_a_window_is_reduced_by_area_and_keeps_thin_lines() -> None:
    image = fakes.photo(1, (128, 128))
    mask = np.zeros((128, 128), bool)
    mask[:, 64] = True
    small, hole = resized(image, mask, compose.Window(0, 0, 128, 128), 32, keep=True)
    assert small.shape == (32, 32, 3) and hole.any(axis=1).all()


def test_missing_grain_is_added_and_present_grain_kept() -> None:
    rng = np.random.default_rng(0)
    normal = np.clip(120 + rng.normal(0, 5, (96, 96, 1)).repeat(3, axis=2), 0, 255).astype(np.uint8)
    mask = np.zeros((96, 96), bool)
    mask[30:70, 30:70] = True
    smooth = normal.copy()
    smooth[mask] = 60
    grained = with_grain(normal, smooth, mask)
    assert compose.noise_level(smooth, mask) < 0.5
    assert compose.noise_level(grained, mask) == pytest.approx(compose.noise_level(normal), rel=0.35)
    assert np.array_equal(grained[~mask], smooth[~mask])
    assert abs(float(grained[mask].mean()) - 60) < 1
    assert np.array_equal(with_grain(normal, normal, mask), normal)


def test_a_grey_camera_stays_grey(folder: Path) -> None:
    asked = request()
    grey = np.repeat(asked.normal.image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    asked = Request(Sample(grey, asked.normal.mask, "widget"), asked.mask, "hole", "red spot", None, 1)
    (sample,) = DiffusionSynthesizer(str(folder), steps=2).generate([asked])
    assert (sample.image == sample.image[..., :1]).all()


def test_what_change_encloses_stays_and_what_lies_between_does_not() -> None:
    """A painted ring keeps its middle, whose brightness is the surface's; two far specks do not join."""
    rng = np.random.default_rng(0)
    normal = np.full((80, 80, 3), 120, np.uint8)
    painted = np.clip(normal + rng.normal(0, 2, normal.shape), 0, 255).astype(np.uint8)  # other grain everywhere
    row, column = np.mgrid[:80, :80]
    distance = np.hypot(row - 30, column - 30)
    painted[(distance < 18) & (distance > 12)] = 60
    painted[66:72, 10:16] = painted[66:72, 60:66] = 60
    found = only_real_change(normal, painted, np.ones((80, 80), bool), 0.8)
    changed = (found != normal).any(axis=2)
    assert (found[distance < 11] == painted[distance < 11]).all()  # the ring's middle is the painter's
    assert not changed[distance > 24][(row[distance > 24] < 60)].any()
    assert changed[68, 12] and changed[68, 62] and not changed[64:74, 22:54].any()


def test_sampling_from_the_reference_is_a_named_set_that_others_come_on_top_of() -> None:
    options = DiffusionSynthesizer.parse_options({"sampling": "reference", "strength": 0.3})
    assert (options.start, options.strength, options.guidance_scale) == ("reference", 0.3, 1.0)
    with pytest.raises(FlawsmithError, match="fast, reference"):
        DiffusionSynthesizer.parse_options({"sampling": "real"})
