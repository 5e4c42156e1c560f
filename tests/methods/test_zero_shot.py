"""Painting from words alone: a type's name decides mask, caption and contrast, until it has been learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import fakes
from flawsmith import captions, compose
from flawsmith.config import GenerateConfig
from flawsmith.generation import planning, sources
from flawsmith.methods.diffusion import sketches
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.records import Request, Sample


@pytest.fixture(scope="module")
def inpaint() -> DiffusionSynthesizer:
    return DiffusionSynthesizer("compact", steps=3, guidance_scale=1.0)


def request(defect: str, caption: str = "", **more: Any) -> Request:
    image = fakes.photo(1, (96, 96))
    mask = np.zeros((96, 96), bool)
    mask[30:62, 36:60] = True
    return Request(Sample(image, np.zeros_like(mask), "plate"), mask, defect, caption, seed=3, **more)


@pytest.mark.parametrize(("defect", "kind"), [("blowhole", "hole"), ("crack", "crack"), ("mouse_bite", "chip")])
def test_a_name_that_tells_a_kind_is_described_in_full(inpaint: DiffusionSynthesizer, defect: str, kind: str) -> None:
    assert inpaint.default_caption("plate", defect) == ""
    (sample,) = inpaint.generate([request(defect)])
    assert captions.parse(sample.caption, "plate").kind == kind
    assert inpaint.generate([request(defect)])[0].caption == sample.caption


def test_the_users_words_are_kept(inpaint: DiffusionSynthesizer) -> None:
    (sample,) = inpaint.generate([request("blowhole", "A faint dark hole.")])
    assert sample.caption == "A faint dark hole."


def test_a_name_that_tells_nothing_is_said_plainly(inpaint: DiffusionSynthesizer) -> None:
    assert inpaint.default_caption("plate", "type_b") == captions.sentence("plate", "type_b")
    assert inpaint.generate([request("type_b")])[0].caption == ""  # an empty caption means no words


def test_what_was_learned_is_said_as_in_training() -> None:
    inpaint = DiffusionSynthesizer("compact")
    inpaint.card["learned"]["plate/crack"] = {"support": {}}
    assert inpaint.default_caption("plate", "crack") == captions.sentence("plate", "crack")


def test_only_a_bare_name_takes_the_sketchs_contrast(inpaint: DiffusionSynthesizer) -> None:
    """Paired: the dial moves the image of a bare name towards the sketch's strength, and no other."""
    gates = {"min_visibility": 0.0, "min_share": 0.0}

    def change(asked: Request, contrast: float) -> float:
        (sample,) = inpaint.generate([asked], contrast=contrast, **gates)
        return float(np.abs(sample.image.astype(float) - asked.normal.image)[asked.mask].mean())

    bare = request("hole")
    area = compose.window(bare.mask, 128, 1.5)
    sketch = sketches.painted(bare, area, bare.normal.image[area.slices].copy(), bare.mask[area.slices])
    inside = bare.mask[area.slices]
    goal = float(np.abs(sketch.image.astype(float) - bare.normal.image[area.slices])[inside].mean())
    assert abs(change(bare, 1.0) - goal) < abs(change(bare, 0.0) - goal)
    said = request("hole", "A dark hole.")
    assert change(said, 1.0) == change(said, 0.0)


def test_with_a_reference_an_empty_caption_stays_empty(inpaint: DiffusionSynthesizer) -> None:
    shown = request("crack")
    reference = Sample(shown.normal.image, shown.mask, "plate", "crack")
    assert inpaint.generate([request("crack", reference=reference)])[0].caption == ""


@pytest.mark.parametrize(
    ("asked", "family"),
    [
        ({"defect": ("crack",)}, "crack"),
        ({"defect": ("blowhole",)}, "blob"),
        ({"prompt": "long thin rusty scratch"}, "scratch"),
        ({"prompt": "missing screw"}, "component"),
        ({"defect": ("type_b",)}, "blob"),
    ],
)
def test_without_a_reference_the_words_choose_the_mask(
    tmp_path: Path, inpaint: DiffusionSynthesizer, asked: dict[str, Any], family: str
) -> None:
    for number in range(3):
        fakes.save(tmp_path / "photos" / f"{number}.png", fakes.photo(number))
    config = GenerateConfig(method="inpaint", normal=f"folder:{tmp_path / 'photos'}", n=3, out=tmp_path / "o", **asked)
    made = planning.plan(config, sources.read(config), inpaint)
    assert {job.mask for job in made.jobs} == {family}
