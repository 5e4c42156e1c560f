"""Which defects keep their shape: the product's structure, told from aligned images only, and large ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import flawsmith
from flawsmith.config import GenerateConfig
from flawsmith.datasets.writer import read_manifest
from flawsmith.generation import run as generation
from flawsmith.generation import sources
from flawsmith.generation.planning import plan
from flawsmith.masks import draw
from flawsmith.masks.structure import LARGE, following, is_structure
from flawsmith.methods import load
from flawsmith.methods.classic.copypaste import CopyPaste
from flawsmith.records import Growth, Request, Sample

CUT, CHIP = (slice(120, 150), slice(80, 104)), (slice(50, 70), slice(80, 110))  # on the middle lead; on the plain case


def part(seed: int, dx: int = 0, dy: int = 0) -> np.ndarray:
    """A dark case on grey with three bright leads below it, (192, 192, 3) uint8, moved and grainy."""
    rng = np.random.default_rng(seed)
    image = np.full((192, 192), 120.0)
    image[30 + dy : 100 + dy, 30 + dx : 150 + dx] = 40
    for left in (44, 84, 124):
        image[100 + dy : 175 + dy, left + dx : left + 16 + dx] = 220
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)


def defect(seed: int, where: tuple[slice, slice], level: int, **moved: int) -> Sample:
    image, mask = part(seed, **moved), np.zeros((192, 192), dtype=bool)
    image[where], mask[where] = level, True
    return Sample(image, mask, "part", "defect", "")


GOODS = [part(seed, dx=seed % 2) for seed in range(3)]


def test_a_cut_lead_is_structure_and_a_chip_in_the_plain_case_is_not() -> None:
    cut = [defect(10 + seed, CUT, 120) for seed in range(3)]
    chip = [defect(20 + seed, CHIP, 90) for seed in range(3)]
    assert is_structure(cut, GOODS)
    assert not is_structure(chip, GOODS)
    assert is_structure([replace(one, image=one.image // 2) for one in cut], GOODS)  # the light says nothing
    larger = [np.asarray(Image.fromarray(good).resize((384, 384))) for good in GOODS]
    assert is_structure(cut, larger)


def test_parts_that_lie_anyhow_and_even_surfaces_tell_nothing() -> None:
    cut = [defect(10 + seed, CUT, 120) for seed in range(3)]
    turned = [np.ascontiguousarray(np.rot90(good)) for good in GOODS]
    assert not is_structure(cut, turned)
    assert not is_structure(cut, [np.full((192, 192, 3), 120, np.uint8)])
    assert not is_structure([replace(cut[0], mask=np.ones((192, 192), dtype=bool))], GOODS)  # nothing beside it
    assert not is_structure(cut, [])
    assert not is_structure([], GOODS)


def test_arrays_analogy_carries_structure_whole_and_gives_a_chip_a_new_shape() -> None:
    cut, chip = defect(10, CUT, 120), defect(20, CHIP, 90)
    (carried,) = flawsmith.load("analogy")(GOODS[:1], defect_type="defect", reference=[cut], seed=3, gate="off")
    (painted,) = flawsmith.load("analogy")(GOODS[:1], defect_type="defect", reference=[chip], seed=3, gate="off")
    assert carried.info["carried"] and "carried" not in painted.info


def test_a_moved_real_defect_has_copypaste_s_pixels() -> None:
    cut = defect(10, CUT, 120)
    normal = Sample(GOODS[0], np.zeros((192, 192), dtype=bool), "part", "good", "")
    mask, warp = draw("whole", np.ones((192, 192), dtype=bool), np.random.default_rng(1), reference=cut)
    request = Request(normal, mask, "defect", "", cut, 5, warp, (), None, True)
    (ours,), (theirs,) = load("analogy").generate([request]), CopyPaste().generate([request])
    assert np.array_equal(ours.image, theirs.image) and np.array_equal(ours.mask, theirs.mask)
    (painted,) = load("analogy").generate([replace(request, whole=False)])  # the real shape, texture synthesised
    assert not np.array_equal(painted.image, theirs.image) and "carried" not in painted.info


@pytest.mark.parametrize("asked", [None, "varied"])
def test_a_large_defect_is_carried_whole_and_a_small_one_of_its_type_is_not(tmp_path: Path, asked: str | None) -> None:
    rng, large = np.random.default_rng(0), slice(70, 70 + round(192 * LARGE))
    plates = [rng.normal(120, 4, (192, 192, 1)).clip(0, 255).astype(np.uint8).repeat(3, axis=2) for _ in range(4)]
    for number, where in enumerate((large, slice(70, 100))):
        image, mask = plates[number].copy(), np.zeros((192, 192), dtype=bool)
        image[where, where], mask[where, where] = 60, True
        save(tmp_path / f"plates/train/good/{number}.png", plates[2 + number])
        save(tmp_path / f"plates/test/stain/{number}.png", image)
        save(tmp_path / f"plates/ground_truth/stain/{number}_mask.png", mask.astype(np.uint8) * 255)
        (made,) = flawsmith.load("analogy")(plates[2:3], asked, defect_type="stain", reference=[(image, mask)], seed=3)
        assert ("carried" in made.info) == (number == 0 and asked is None)
        shown = Sample(image, mask, "plate", "stain")
        smaller = Growth(0.5, 2.0)
        for name in ("reference", "blob"):
            assert following(name, smaller, shown, asked=False) == (name, smaller)
        assert following("varied", smaller, shown, asked=True) == ("varied", smaller)
        assert following("whole", smaller, shown, asked=True) == ("whole", Growth())
        assert following("varied", smaller, None, asked=False) == ("varied", Growth())  # nothing to be larger than
    config = GenerateConfig(
        method="analogy",
        normal=f"mvtec_ad:{tmp_path}/plates",
        out=tmp_path / "out",
        n=4,
        mask=asked,
        gate="off",
        shots=2,
    )
    generation.run(config)
    for line in read_manifest(tmp_path / "out"):
        whole = "0.png" in line["reference"]["file"] and asked is None
        assert line["mask_source"] == ("whole" if whole else "varied")


@pytest.mark.parametrize("asked", [None, "varied"])
def test_the_plan_keeps_the_shape_of_structure_unless_asked(tmp_path: Path, asked: str | None) -> None:
    for number, good in enumerate(GOODS):
        save(tmp_path / f"train/good/{number}.png", good)
    for kind, where, level in (("cut", CUT, 120), ("chip", CHIP, 90)):
        for seed in range(3):
            one = defect(30 + seed, where, level)
            save(tmp_path / f"test/{kind}/{seed}.png", one.image)
            save(tmp_path / f"ground_truth/{kind}/{seed}_mask.png", one.mask.astype(np.uint8) * 255)
    config = GenerateConfig(
        method="analogy", normal=f"mvtec_ad:{tmp_path}", out=tmp_path / "../out", n=4, mask=asked, shots=2
    )
    made = plan(config, sources.read(config), load("analogy"))
    families = {job.defect_type: job.mask for job in made.jobs}
    assert families == {"cut": asked or "whole", "chip": "varied"}
    assert any("keep their real shapes" in note for note in made.notes) == (asked is None)
    assert ("structure" in made.description) == (asked is None)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
