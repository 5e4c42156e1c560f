"""The rendered tray of benchmarks/logical.py: its reader is exact, its mask tells nothing, its files are LOCO's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import logical_scene

    yield logical_scene
    sys.modules.pop("logical_scene", None)


def test_the_reader_says_what_was_rendered_and_nothing_else(scene) -> None:
    states = (scene.GOOD, *scene.STATES)
    for seed in range(4):
        for state in states:
            made = scene.render(100 + seed, seed, state)
            seen = scene.read(made.image, made, seed)
            assert [other for other in states if seen.says(other)] == [state], (seed, state, seen)
            assert seen.kind() == state.kind
            for cell in () if state.on_wall else set(range(6)) - {seed}:  # a wall belongs to its neighbour too
                assert scene.read(made.image, made, cell).kind() == "good"


def test_what_is_no_pin_is_not_read_as_one(scene) -> None:
    """Colour all over the compartment, or noise, is no state, and neither is a needle without its head."""
    made = scene.render(7)
    rng = np.random.default_rng(0)
    for paint in (np.array([230, 188, 38]), rng.integers(0, 255, made.image.shape)):
        image = np.where(made.mask(1)[..., None], paint, made.image).astype(np.uint8)
        assert scene.read(image, made, 1).kind() == "none of these"
    top, left = scene.corner(1)
    image = scene.render(7, 1, scene.of_kind("missing")[0]).image
    image[top + 20 : top + 50, left + 30 : left + 33] = 90
    assert scene.read(image, made, 1).kind() == "none of these"


def test_a_mask_covers_its_compartment_alone_and_is_as_large_in_every_state(scene) -> None:
    made = [scene.render(5, 2, state) for state in scene.STATES]
    areas = [one.mask(2).sum() for one in made]
    assert max(areas) < 1.02 * min(areas)
    blank = np.where(made[0].mask(2)[..., None], 128, made[0].image).astype(np.uint8)
    assert [scene.read(blank, made[0], cell).kind() for cell in range(6) if cell != 2] == ["good"] * 5
