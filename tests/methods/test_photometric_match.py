"""The dial `match`: from the reference's own light and contrast, 0, to those of the new surroundings, 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from flawsmith.methods import load
from flawsmith.records import Request, Sample
from flawsmith.warp import Warp

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
PLAIN = {"copypaste": {"brightness": 0, "contrast": 0}, "analogy": {"grain": 0}}
Run = Callable[..., tuple[int, str, str]]


def surface(seed: int, exposure: float) -> np.ndarray:
    """A grained plate of mean 130 under an exposure, (96, 112, 3) uint8."""
    rng = np.random.default_rng(seed)
    grain = cv2.GaussianBlur(rng.normal(0, 1, (96, 112)).astype(np.float32), (0, 0), 1.2)[..., None]
    return np.repeat(np.clip(exposure * (130 + 25 * grain), 0, 255).astype(np.uint8), 3, axis=2)


def painted(method: str, exposure: float, match: float) -> tuple[float, float]:
    """Mean and contrast to the surroundings of a pit photographed under `exposure`, laid on a plate under 1."""
    mask = np.hypot(*(np.mgrid[:96, :112] - np.array([48, 56])[:, None, None])) < 13
    rim = ~mask & cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    real = surface(1, exposure)
    real[mask] = np.rint(real[mask] * 0.5)
    plate = surface(2, 1.0)
    none = np.zeros(mask.shape, dtype=bool)
    asked = Request(Sample(plate, none, "plate"), mask, "pit", "", Sample(real, mask, "plate", "pit"), 3, Warp())
    (made,) = load(method, match=match, **PLAIN[method]).generate([asked])
    core = cv2.erode(mask.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
    return float(made.image[core].mean()), float(made.image[core].mean() / plate[rim].mean())


@pytest.mark.parametrize("method", ["copypaste", "analogy"])
@pytest.mark.parametrize("exposure", [0.6, 1.5])
def test_light_and_contrast_go_from_the_references_to_the_surroundings(method: str, exposure: float) -> None:
    """Of a pit half as bright as its plate: 0 leaves its grey levels, 1 its ratio, and between them all is in order."""
    found = [painted(method, exposure, match) for match in LEVELS]
    means, ratios = zip(*found, strict=True)
    assert means[0] == pytest.approx(130 * exposure * 0.5, rel=0.08)
    assert ratios[-1] == pytest.approx(0.5, abs=0.04)
    steps = np.diff(means) * np.sign(1 - exposure)
    assert (steps > 1).all(), means


def test_the_command_hands_it_to_the_method_or_says_which_have_it(run: Run, tmp_path: Any) -> None:
    import fakes
    from flawsmith.datasets.writer import read_manifest

    data = fakes.mvtec_tree(tmp_path / "data", good=2, defects={"crack": 3}, size=(72, 96))
    command = ("generate", "copypaste", "--normal", data, "-n", 1, "--gate", "off", "--out", tmp_path / "out")
    assert run(*command, "--match", "0.25")[0] == 0
    assert read_manifest(tmp_path / "out")[0]["options"]["match"] == 0.25
    code, _, err = run("generate", "nsa", "--normal", data, "--match", "0.25", "--out", tmp_path / "nsa")
    assert code == 2 and "match" in err
    code, _, err = run(*command, "--match", "1.5")
    assert code == 2 and "match=1.5" in err
