"""Procedural: the image does what its parameters and its caption say."""

from __future__ import annotations

import numpy as np
import pytest

from flawsmith import captions
from flawsmith.errors import FlawsmithError
from flawsmith.methods import load
from flawsmith.methods.procedural.painters import PAINTERS
from flawsmith.methods.procedural.scene import lens_blur, light_direction, survey
from flawsmith.methods.procedural.structure import fill
from flawsmith.methods.procedural.synthesizer import Procedural, measure
from flawsmith.records import Request, Sample

KINDS = tuple(PAINTERS)
LINES = {"scratch", "crack", "fibre"}


def surface(
    seed: int = 0, size: int = 96, grey: bool = False, tone: tuple[int, int, int] = (128, 122, 110)
) -> np.ndarray:
    """A plain surface with grain, (size, size, 3) uint8."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 2.5, (size, size, 1 if grey else 3))
    return np.clip((120 if grey else np.array(tone)) + np.repeat(grain, 3 if grey else 1, axis=2), 0, 255).astype(
        np.uint8
    )


def disc(size: int = 96, radius: float = 20, stretch: float = 1.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    return np.hypot(x, y * stretch) < radius


def mask_for(kind: str) -> np.ndarray:
    return disc(radius=34, stretch=14) if kind in LINES else disc()


def make(kind: str, seed: int = 0, mask: np.ndarray | None = None, image: np.ndarray | None = None, caption: str = "",
         **options: object) -> Sample:  # fmt: skip
    image = surface(seed) if image is None else image
    mask = mask_for(kind) if mask is None else mask
    request = Request(Sample(image, np.zeros(mask.shape, bool), "plate"), mask, kind, caption, seed=seed)
    return load("procedural", **options).generate([request])[0]


def change(sample: Sample, before: np.ndarray) -> np.ndarray:
    """Mean change per channel inside the label, (3,)."""
    return (sample.image.astype(float) - before)[sample.mask].mean(axis=0)


# -- words and pixels agree ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_colours_are_what_they_say(kind: str) -> None:
    shifts = {}
    for colour in ("white", "bright", "black", "dark", "red", "blue", "green"):
        found = []
        for seed in range(6):
            sample = make(kind, seed, colour=colour)
            assert "rejected" not in sample.info, (colour, seed, sample.info)
            found.append(change(sample, surface(seed)))
        shifts[colour] = np.mean(found, axis=0)
    assert shifts["white"].mean() > 3 and shifts["bright"].mean() > 2
    assert shifts["black"].mean() < -3 and shifts["dark"].mean() < -3
    for channel, colour in enumerate(("red", "green", "blue")):
        others = np.delete(shifts[colour], channel)
        assert shifts[colour][channel] > others.max() + 3, (colour, shifts[colour])


@pytest.mark.parametrize("kind", KINDS)
def test_caption_tells_the_parameters(kind: str) -> None:
    for seed in range(8):
        sample = make(kind, seed)
        said = captions.parse(sample.caption, "plate")
        assert said.kind == kind == sample.info["kind"]
        assert said.colour == sample.info["colour"]
        assert said.severity == captions.level(sample.info["severity"])
        assert (said.size, said.shape) == (sample.info["size"], sample.info["shape"])


def test_caption_is_obeyed_and_kept() -> None:
    text = "A deep rusty scratch on the plate."
    sample = make("scratch", 3, caption=text)
    assert sample.caption == text
    assert sample.info["colour"] == "rusty" and sample.info["severity"] > 0.7
    assert make("stain", 3, caption="a faint blue stain").info["severity"] < 0.3
    assert make("stain", 3, caption="a blue stain", colour="red").info["colour"] == "red"  # options win


def test_kind_from_name_caption_or_synonym() -> None:
    assert Procedural.kind("dent", "a scratch") == "dent"
    assert Procedural.kind("defect", "a long rusty scratch") == "scratch"
    assert Procedural.kind("blowhole") == "hole" and Procedural.kind("Missing Part") == "missing_part"
    assert Procedural.kind("contamination", "a white fibre on the bottle", "bottle") == "fibre"
    with pytest.raises(FlawsmithError, match=r"known: bend, chip, crack.*Did you mean 'dent'"):
        make("dnet", mask=disc())


def test_severity_is_monotone() -> None:
    for kind in KINDS:
        means = []
        for severity in (0.2, 0.55, 0.9):
            samples = [make(kind, seed, severity=severity) for seed in range(5)]
            before = [surface(seed) for seed in range(5)]
            # Summed over the mask: a stronger defect may also show on more pixels.
            means.append(
                np.mean(
                    [
                        np.abs(s.image.astype(float) - b)[mask_for(kind)].mean()
                        for s, b in zip(samples, before, strict=True)
                    ]
                )
            )
        assert means[0] < means[1] < means[2], (kind, means)


# -- light ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dent", "hole"])
@pytest.mark.parametrize("light", [0, 90, 180, 270])
def test_light_lies_on_the_far_slope(kind: str, light: float) -> None:
    """In a hollow the slope away from the light faces it: that half is the brighter one."""
    y, x = np.mgrid[:96, :96] - 48.0
    towards = x * np.cos(np.deg2rad(light)) - y * np.sin(np.deg2rad(light))
    for seed in range(4):
        sample = make(kind, seed, light=light, severity=0.8)
        grey = sample.image.mean(axis=2)
        near, far = disc(radius=18) & (towards > 3), disc(radius=18) & (towards < -3)
        assert grey[far].mean() > grey[near].mean() + 3


def test_light_is_estimated_from_the_bright_side() -> None:
    rng = np.random.default_rng(0)
    ramp = np.repeat(np.linspace(60, 200, 64)[None, :, None], 64, axis=0).repeat(3, axis=2).astype(np.uint8)
    assert abs(np.rad2deg(light_direction(ramp, rng))) < 5
    assert abs(np.rad2deg(light_direction(ramp.transpose(1, 0, 2)[::-1], rng)) - 90) < 5


def test_lens_blur_follows_the_edges() -> None:
    import cv2

    sharp = np.full((64, 64, 3), 60, np.uint8)
    sharp[:, 32:] = 180
    assert (
        lens_blur(sharp)
        < lens_blur(cv2.GaussianBlur(sharp, (0, 0), 1.0))
        <= lens_blur(cv2.GaussianBlur(sharp, (0, 0), 2.5))
    )


# -- promises ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_grey_stays_grey_and_words_neutral(kind: str) -> None:
    image = surface(grey=True)
    for seed in range(6):
        sample = make(kind, seed, image=image)
        assert (sample.image[..., 0] == sample.image[..., 1]).all() and (
            sample.image[..., 1] == sample.image[..., 2]
        ).all()
        assert sample.info["colour"] in ("", "black", "dark", "grey", "white", "bright")
    red = make(kind, image=image, colour="red")  # named: then it is red
    assert change(red, image)[0] > change(red, image)[1:].max() + 3


def masks(height: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {"pixel": np.zeros((height, width), bool), "corner": np.zeros((height, width), bool)}
    found["pixel"][height // 2, width // 2] = True
    found["corner"][: height // 3 + 1, : width // 2 + 1] = True
    found["full"] = np.ones((height, width), bool)
    found["row"] = np.zeros((height, width), bool)
    found["row"][height // 2] = True
    found["dust"] = rng.random((height, width)) < 0.3
    found["dust"][0, 0] = True
    return found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (33, 70), (120, 24)])
def test_any_mask_and_any_size(kind: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for image in (rng.integers(40, 220, (*shape, 3)).astype(np.uint8), np.zeros((*shape, 3), np.uint8)):
        for name, mask in masks(*shape).items():
            before = image.copy()
            sample = make(kind, mask=mask, image=image)
            assert (image == before).all()
            assert not (sample.mask & ~mask).any(), name
            assert (sample.image[~sample.mask] == image[~sample.mask]).all(), name
            assert sample.mask.any() != ("rejected" in sample.info)


def test_deterministic_alone_and_in_a_batch() -> None:
    method = load("procedural")
    requests = [
        Request(Sample(surface(i), np.zeros((96, 96), bool), "plate"), mask_for(kind), kind, seed=7 + i)
        for i, kind in enumerate(KINDS)
    ]
    together = method.generate(requests)
    for request, sample in zip(requests, together, strict=True):
        alone = method.generate([request])[0]
        assert (alone.image == sample.image).all() and alone.caption == sample.caption and alone.info == sample.info
    other = method.generate([Request(requests[0].normal, requests[0].mask, "scratch", seed=99)])[0]
    assert (other.image != together[0].image).any()


@pytest.mark.parametrize("kind", KINDS)
def test_nearly_never_refused(kind: str) -> None:
    """Bright, dark, coloured and strongly textured surfaces: the change shows and covers half of the mask."""
    refused, shares = 0, []
    for seed in range(12):
        tone = [(128, 122, 110), (235, 235, 230), (34, 32, 40), (150, 90, 60)][seed % 4]
        sample = make(kind, seed, image=surface(seed, tone=tone))
        refused += "rejected" in sample.info
        shares.append(sample.info["scores"]["change_iou"])
    assert refused == 0
    assert np.mean(shares) > 0.45


# -- parts ---------------------------------------------------------------------------------------------------------


def test_fill_restores_an_even_surface() -> None:
    image = surface(4)
    mask = disc(radius=14)
    spoiled = image.copy()
    spoiled[mask] = (250, 20, 20)
    scene = survey(spoiled, mask, np.random.default_rng(0))
    filled = fill(scene, np.random.default_rng(0))
    assert np.abs(filled[mask].mean(axis=0) - image[mask].mean(axis=0)).max() < 3
    # ... with the surface's grain, not plastic
    assert 0.5 < filled[mask].std(axis=0).mean() / image[mask].std(axis=0).mean() < 2


@pytest.mark.parametrize("kind", ["chip", "missing_part"])
def test_a_loss_at_the_outline_shows_the_background(kind: str) -> None:
    rng = np.random.default_rng(0)
    part = disc(128, 40)
    image = np.where(part[..., None], 190, 40) + rng.normal(0, 2, (128, 128, 3))
    image = np.clip(image, 0, 255).astype(np.uint8)
    y, x = np.mgrid[:128, :128]
    mask = part & (np.hypot(x - 103, y - 64) < 16)
    for seed in range(4):
        sample = make(kind, seed, mask=mask, image=image, severity=0.9)
        assert "rejected" not in sample.info
        seen = sample.image[mask & (np.hypot(x - 103, y - 64) < 8)].mean()
        assert seen < 70, seen  # the dark background, not the bright part


@pytest.mark.parametrize("kind", ["hole", "chip", "fibre", "spots"])
def test_covered_pixels_keep_the_grain(kind: str) -> None:
    """Without grain the covering colour is smoother than with it, and than the photograph."""

    def rough(sample: Sample) -> float:
        grey = sample.image.mean(axis=2)
        return float(np.abs(np.diff(grey, axis=1))[sample.mask[:, 1:] & sample.mask[:, :-1]].mean())

    with_grain = np.mean([rough(make(kind, s, severity=0.6, softness=0.5)) for s in range(4)])
    without = np.mean([rough(make(kind, s, severity=0.6, softness=0.5, grain=0.0)) for s in range(4)])
    assert with_grain > without


def test_measured_words() -> None:
    assert measure(disc(radius=34, stretch=14), (96, 96), "scratch") == ("long", "thin")
    assert measure(disc(radius=4), (400, 400), "hole") == ("tiny", "round")
    assert measure(disc(radius=20, stretch=4), (96, 96), "stain")[1] == "elongated"


def test_options_are_checked() -> None:
    with pytest.raises(FlawsmithError, match="colour"):
        load("procedural", colour="mauve")
    with pytest.raises(FlawsmithError, match="known: "):
        load("procedural", color="red")
    for kind in KINDS:
        assert Procedural().default_mask(kind) in {"blob", "box", "polygon", "perlin", "scratch", "crack", "spots"}
    assert Procedural().default_mask("specks") == "spots" and Procedural().default_mask("nonsense") == "blob"
