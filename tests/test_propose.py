"""Proposed reference masks: right on an even surface, silent where nothing or too much stands out, always shown."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import fakes
import flawsmith
from flawsmith import images
from flawsmith.errors import FlawsmithError
from flawsmith.masks.propose import propose, write_proposal


def surface(seed: int, size: tuple[int, int] = (150, 200)) -> np.ndarray:
    """A shaded, grained, even surface."""
    rng = np.random.default_rng(seed)
    shade = 120 + 40 * np.linspace(-0.5, 0.5, size[1])[None, :, None] + np.zeros((*size, 3))
    grain = cv2.GaussianBlur(rng.normal(0, 12, (*size, 3)).astype(np.float32), (0, 0), 1.0)
    return np.clip(shade + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["hole", "crack"])
@pytest.mark.parametrize("enlarged", [1, 3])
def test_a_defect_on_an_even_surface_is_found(kind: str, enlarged: int) -> None:
    for seed in range(6):
        image, mask = fakes.with_defect(surface(seed), kind, seed)
        size = (mask.shape[0] * enlarged, mask.shape[1] * enlarged)
        image, mask = images.resize(image, *size), images.resize_mask(mask, *size)
        found = propose(image)
        assert found is not None and found.shape == mask.shape
        overlap = (found & mask).sum() / (found | mask).sum()
        assert overlap > (0.6 if kind == "hole" else 0.3), (seed, overlap)


def test_nothing_is_proposed_where_nothing_or_too_much_stands_out() -> None:
    assert all(propose(surface(seed)) is None for seed in range(6))
    for seed in range(6):
        several = surface(seed)
        for place in range(3):
            several[20 + 40 * place : 32 + 40 * place, 30 + 50 * place : 42 + 50 * place] = 20
        assert propose(several) is None
    assert propose(np.full((80, 90, 3), 128, np.uint8)) is None
    assert propose(surface(1, (9, 200))) is None


def test_the_proposal_is_shown_beside_the_output(tmp_path: Path) -> None:
    image, mask = fakes.with_defect(surface(3), "hole", 3)
    photograph = fakes.save(tmp_path / "part.png", image)
    path, shown = write_proposal(photograph, tmp_path / "out")
    assert path == tmp_path / "out-reference-mask.png" and not (tmp_path / "out").exists()
    assert (images.read_mask(path) & mask).sum() > 0.6 * mask.sum()
    assert not np.array_equal(images.read_image(shown), image)
    plain = fakes.save(tmp_path / "plain.png", surface(3))
    with pytest.raises(FlawsmithError, match="paint one"):
        write_proposal(plain, tmp_path / "other")
    assert not (tmp_path / "other-reference-mask.png").exists()


def test_python_takes_a_proposal_as_the_command_does(tmp_path: Path) -> None:
    image, _ = fakes.with_defect(surface(3), "hole", 3)
    bad = fakes.save(tmp_path / "part.png", image)
    for seed in range(2):
        fakes.save(tmp_path / "photos" / f"{seed}.png", surface(seed))
    own = {"reference": bad, "reference_mask": "auto", "n": 1, "gate": "off"}
    made = flawsmith.generate("copypaste", f"folder:{tmp_path / 'photos'}", tmp_path / "out", **own)
    assert made.kept == 1 and any("out-reference-mask.png" in note for note in made.notes)
