"""The weights that come with the package: complete, small, safe, and obedient to the plainest words."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

import fakes  # noqa: E402
from flawsmith.diffusion.backbone import SHIPPED, Backbone  # noqa: E402
from flawsmith.methods.latent import DiffusionSynthesizer  # noqa: E402
from flawsmith.records import Request, Sample  # noqa: E402

FOLDER = SHIPPED["compact"]


def test_the_folder_is_complete_small_and_without_pickles() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".md"}
    assert sum(path.stat().st_size for path in files) <= 30e6
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for word in ("CC BY-SA 4.0", "MIT", "steps", "seed", "Limits"):
        assert word in card


@pytest.fixture(scope="module")
def shipped() -> DiffusionSynthesizer:
    return DiffusionSynthesizer(Backbone.from_pretrained("compact").freeze(), min_visibility=0, min_share=0)


def brightness(shipped: DiffusionSynthesizer, word: str) -> float:
    """Mean change of grey level under the same four thin masks, when only the colour word differs."""
    requests = []
    for seed in range(4):
        normal = fakes.photo(seed, (160, 160))
        mask = np.zeros((160, 160), bool)
        mask[78:83, 40:120] = True
        none = np.zeros((160, 160), bool)
        requests.append(Request(Sample(normal, none), mask, "scratch", f"a long {word} scratch on metal", None, seed))
    samples = shipped.generate(requests, steps=8, threshold=0)
    changes = [
        float((sample.image.astype(int) - request.normal.image)[request.mask].mean())
        for request, sample in zip(requests, samples, strict=True)
    ]
    return float(np.mean(changes))


def test_white_is_brighter_than_black(shipped: DiffusionSynthesizer) -> None:
    assert brightness(shipped, "white") > brightness(shipped, "black") + 20


def test_a_picture_from_words_alone(shipped: DiffusionSynthesizer) -> None:
    normal = fakes.photo(3, (150, 180))
    mask = np.zeros((150, 180), bool)
    mask[60:72, 80:92] = True
    none = np.zeros((150, 180), bool)
    (sample,) = shipped.generate(
        [Request(Sample(normal, none), mask, "hole", "a deep dark hole", None, 1)], min_share=0.1
    )
    assert "rejected" not in sample.info and sample.mask.any()
    assert np.array_equal(sample.image[~sample.mask], normal[~sample.mask])
