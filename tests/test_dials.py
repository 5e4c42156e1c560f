"""The dials of a request: severity for every method, heat maps, several defects, untouched photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import spearmanr

import fakes
from flawsmith import compose, images, masks
from flawsmith.config import GenerateConfig
from flawsmith.datasets.writer import read_manifest
from flawsmith.errors import FlawsmithError
from flawsmith.generation import run as generation
from flawsmith.methods import METHODS, load
from flawsmith.records import Request, Sample

Run = Callable[..., tuple[int, str, str]]
LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def plate(seed: int = 0, size: tuple[int, int] = (160, 200)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    clouds = cv2.GaussianBlur(rng.normal(0, 1, size).astype(np.float32), (0, 0), 8)[..., None]
    grey = 140 + 20 * clouds / clouds.std() + rng.normal(0, 2, (*size, 1))
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8), 3, axis=2)


def real(seed: int = 5) -> Sample:
    """A photograph with a dark, ragged stain and its mask."""
    image, mask = plate(seed), masks.draw("blob", np.ones((160, 200), bool), np.random.default_rng(seed))[0]
    dark = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)[..., None] * 45
    return Sample(np.clip(image - dark, 0, 255).astype(np.uint8), mask, "plate", "stain")


def measured(method: str, seed: int, severity: float) -> tuple[float, int] | None:
    """(contrast in grey levels, pixels) of the same request at a severity; None where it was refused."""
    painter, reference = load(method), real() if load(method).references != "none" else None
    kind = painter.default_mask("stain")
    options = masks.MaskOptions(severity=severity)
    rng = np.random.default_rng(seed)
    ground = np.ones((160, 200), bool)
    mask, warp = masks.draw(kind, ground, rng, options, reference, plate(seed))
    normal = Sample(plate(seed), np.zeros((160, 200), bool), "plate")
    (made,) = painter.generate([Request(normal, mask, "stain", "", reference, seed, warp, (), severity)])
    if "rejected" in made.info:
        return None
    return made.info["scores"]["visibility"], int(made.mask.sum())


@pytest.mark.parametrize(
    "method", [name for name in METHODS if name not in ("anomalycontrol", "anomalyxfusion", "inpaint")]
)
def test_severity_ranks_contrast_and_size(method: str) -> None:
    """Paired: the same request at rising severity. Mean rank correlation at least 0.9, as the diffusion methods'."""
    found = []
    for seed in (1, 2, 3, 4):
        values = [measured(method, seed, severity) for severity in LEVELS]
        rows = [(s, *value) for s, value in zip(LEVELS, values, strict=True) if value is not None]
        assert len(rows) >= 5
        levels, contrasts, sizes = zip(*rows, strict=True)
        found.append((spearmanr(levels, contrasts).statistic, spearmanr(levels, sizes).statistic))
    assert np.mean(found, axis=0).min() >= 0.9, found


def test_at_severity_keeps_the_change_at_one_half_and_ends_at_the_stated_factors() -> None:
    normal, mask = np.full((40, 40, 3), 120, np.uint8), np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    painted = np.where(mask[..., None], np.uint8(160), normal)

    def change(severity: float) -> float:
        done = compose.at_severity(normal, painted, mask, severity)
        assert np.array_equal(done[~mask], painted[~mask])
        return float(done[mask].mean()) - 120

    assert change(0.5) == 40
    assert change(1.0) == pytest.approx(1.8 * 40, abs=0.5)
    assert change(0.0) == pytest.approx(1.35 * 8, abs=0.5)
    assert change(0.25) == pytest.approx(np.sqrt(10.8 * 40), abs=0.5)
    assert compose.finish(normal, compose.at_severity(normal, painted, mask, 0.0), mask).rejected == ""


def test_without_a_severity_masks_and_pixels_are_as_before() -> None:
    ground = np.ones((160, 200), bool)
    for name in ("blob", "scratch", "spots"):
        one, other = (
            masks.draw(name, ground, np.random.default_rng(3), masks.MaskOptions(**more))[0]
            for more in ({}, {"severity": None})
        )
        assert np.array_equal(one, other)


def test_a_heat_map_is_where_defects_are() -> None:
    ground, heat = np.ones((160, 200), bool), np.zeros((160, 200))
    heat[20:40, 20:40] = 1.0
    heat[120:140, 160:180] = 3.0
    small = masks.MaskOptions(size=(0.001, 0.002))
    corners = []
    for seed in range(120):
        mask, _ = masks.draw("blob", ground, np.random.default_rng(seed), small, heat=heat)
        rows, columns = np.nonzero(mask)
        centre = rows.mean(), columns.mean()
        near = [abs(centre[0] - y) < 16 and abs(centre[1] - x) < 16 for y, x in ((30, 30), (130, 170))]
        assert sum(near) == 1
        corners.append(near[1])
    assert 0.6 < np.mean(corners) < 0.9  # three to one


def test_a_heat_map_also_moves_real_masks() -> None:
    heat = np.zeros((160, 200))
    heat[100:140, 120:180] = 1.0
    mask, warp = masks.draw(
        "reference",
        np.ones((160, 200), bool),
        np.random.default_rng(2),
        masks.MaskOptions(),
        real(),
        plate(),
        heat=heat,
    )
    rows, columns = np.nonzero(mask)
    assert warp is not None and 90 < rows.mean() < 150 and 110 < columns.mean() < 190


@pytest.mark.parametrize("heat", [np.zeros((160, 200)), np.ones((3, 3)), np.full((160, 200), -1.0)])
def test_a_heat_map_that_says_nothing_is_refused(heat: np.ndarray) -> None:
    with pytest.raises(FlawsmithError, match="heat map"):
        masks.draw("blob", np.ones((160, 200), bool), np.random.default_rng(0), heat=heat)


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    for number in range(3):
        images.write_image(tmp_path / "plates" / f"{number}.png", plate(number))
    return tmp_path / "plates"


def test_several_defects_have_ids_and_leave_the_rest_untouched(plates: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    generation.run(GenerateConfig(method="procedural", normal=f"folder:{plates}", out=out, n=6, defects=(2, 3), seed=2))
    lines = [line for line in read_manifest(out) if line["status"] == "kept"]
    counts = [len(line["instances"]["defects"]) for line in lines]
    assert max(counts) >= 2 and max(counts) <= 3
    for line in lines:
        ids = images.read_image(out / line["instances"]["file"])[..., 0]
        mask, image = images.read_mask(out / line["mask"]), images.read_image(out / line["image"])
        normal = images.read_image(plates / Path(line["normal"]["file"]).name)
        told = line["instances"]["defects"]
        assert np.array_equal(ids > 0, mask) and np.array_equal(image[~mask], normal[~mask])
        assert [one["id"] for one in told] == sorted(set(np.unique(ids).tolist()) - {0})
        assert [int((ids == one["id"]).sum()) for one in told] == [one["area"] for one in told]


def test_untouched_photographs_make_up_the_share(plates: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    generation.run(GenerateConfig(method="nsa", normal=f"folder:{plates}", out=out, n=2, untouched=0.5))
    copied = sorted((out / "train" / "good").iterdir())
    assert len(copied) == 2
    assert all(path.read_bytes() in [one.read_bytes() for one in plates.iterdir()] for path in copied)


def test_the_command_takes_one_number_or_two(run: Run, plates: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("generate", "procedural", "--normal", f"folder:{plates}", "-n", "4", "--defect", "stain", "--out", out)
    code, _, err = run(*command, "--severity", "0.8,1", "--size", "0.01", "--place", "centre", "--defects", "1,2")
    assert code == 0, err
    lines = read_manifest(out)
    assert all(0.8 <= line["severity"] <= 1 for line in lines) and len({line["severity"] for line in lines}) > 1
    for wrong in (("--severity", "loud"), ("--severity", "2"), ("--severity", "0.9,0.1"), ("--defects", "0")):
        code, _, err = run(*command, *wrong)
        assert code == 2 and wrong[0].strip("-") in err, err


def test_a_mask_image_holds_one_defect(run: Run, plates: Path, tmp_path: Path) -> None:
    mask = fakes.save(tmp_path / "mask.png", real().mask)
    command = (
        "generate",
        "nsa",
        "--normal",
        f"folder:{plates}",
        "--mask",
        mask,
        "--defects",
        "2",
        "--out",
        tmp_path / "o",
    )
    code, _, err = run(*command)
    assert code == 2 and "leave out one of them" in err


def test_a_request_with_a_severity_is_the_same_alone_and_in_a_batch() -> None:
    request = Request(
        Sample(plate(), np.zeros((160, 200), bool), "plate"), real().mask, "stain", "", None, 4, severity=0.9
    )
    other = replace(request, severity=0.1, seed=5)
    painter = load("procedural")
    (alone,) = painter.generate([request])
    together = painter.generate([other, request])[1]
    assert np.array_equal(alone.image, together.image)
