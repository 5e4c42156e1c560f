"""Painting from words alone: a type's name decides mask, caption and contrast, until it has been learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import fakes
from flawsmith import captions, planning
from flawsmith.config import GenerateConfig
from flawsmith.methods.latent import DiffusionSynthesizer
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
    (sample,) = inpaint.generate([request("type_b")])
    assert sample.caption == captions.sentence("plate", "type_b") == inpaint.default_caption("plate", "type_b")


def test_what_was_learned_is_said_as_in_training() -> None:
    inpaint = DiffusionSynthesizer("compact")
    inpaint.card["learned"]["plate/crack"] = {"support": {}}
    assert inpaint.default_caption("plate", "crack") == captions.sentence("plate", "crack")


def test_severity_in_words_sets_the_contrast(inpaint: DiffusionSynthesizer) -> None:
    """Paired: same photograph, place and noise; only the word differs."""
    change = []
    for word in ("faint", "strong"):
        asked = request("hole", f"A {word} dark hole.")
        sample = inpaint.generate([asked], min_visibility=0.0, min_share=0.0)[0]
        apart = np.abs(sample.image.astype(float) - asked.normal.image)
        change.append(float(apart[asked.mask].mean()))
    assert change[1] > 1.5 * change[0]


def test_a_reference_needs_no_sketch(inpaint: DiffusionSynthesizer) -> None:
    shown = request("type_b").normal
    shown = Sample(shown.image, request("type_b").mask, "plate", "type_b")
    (sample,) = inpaint.generate([request("crack", reference=shown)])
    assert sample.caption == captions.sentence("plate", "crack")


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
    made = planning.plan(config, planning.read_records(config), inpaint)
    assert {job.mask for job in made.jobs} == {family}
