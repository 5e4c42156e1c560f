"""Targeted generation: what an evaluation says it missed, and the run that is planned by it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import fakes
from flawsmith import config as configs
from flawsmith import images
from flawsmith.config import GenerateConfig
from flawsmith.datasets.writer import read_manifest
from flawsmith.errors import FlawsmithError
from flawsmith.generation import misses
from flawsmith.generation import run as generation

Run = Callable[..., tuple[int, str, str]]


def row(kind: str, number: int, found: float, **more: Any) -> dict[str, Any]:
    told = {"arm": "", "seed": 0, "type": kind, "image": f"test/{kind}/{number}.png", "sha": f"{kind}{number}"}
    return {**told, "found": found, "size": 0.01, "contrast": 40.0, "place": [0.5, 0.5], **more}


def results(folder: Path, rows: list[dict[str, Any]], tested: list[str] | None = None) -> Path:
    fakes.write(folder / "misses.jsonl", "".join(json.dumps(one) + "\n" for one in rows))
    fakes.write(folder / "results.json", json.dumps({"tested": tested or ["nothing"]}))
    return folder


def aligned(root: Path, shift: int = 0) -> Path:
    """Bright bars on the same side of every photograph, or, with a shift, each somewhere else."""
    for number in range(6):
        image = np.full((96, 128, 3), 60, np.uint8)
        image[:, 10 + shift * number : 118] = 170
        if shift:
            image = np.ascontiguousarray(np.rot90(image, 2 * number)[:96, :128])
        grain = np.random.default_rng(number).normal(0, 4, image.shape)
        fakes.save(root / "train" / "good" / f"{number}.png", np.clip(image + grain, 0, 255).astype(np.uint8))
    return root


def prepared(data: Path, out: Path, **more: Any) -> Any:
    values = {"method": "copypaste", "normal": f"mvtec_ad:{data}", "out": out, "shots": 2, **more}
    return generation.prepare(configs.load(GenerateConfig, values))


@pytest.fixture(scope="module")
def widget(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.mvtec_tree(tmp_path_factory.mktemp("misses"), good=5, defects={"crack": 4, "hole": 4}, size=(96, 128))


def test_types_come_by_their_missed_share_and_what_is_found_still_comes(widget: Path, tmp_path: Path) -> None:
    found = results(tmp_path / "r", [row("crack", 0, 0.2), row("crack", 1, 0.4), row("hole", 0, 1.0)])
    made, _, _ = prepared(widget, tmp_path / "o", n=77, from_misses=found)
    # cracks: 0.7 missed in the mean; holes: nothing, so a tenth of that: 70 and 7 of 77
    assert Counter(job.defect_type for job in made.jobs) == {"crack": 70, "hole": 7}
    cracks = Counter(job.target.image for job in made.jobs if job.target is not None)
    assert cracks == {"test/crack/0.png": 40, "test/crack/1.png": 30}  # by 0.8 and 0.6
    assert all((job.target is None) == (job.defect_type == "hole") for job in made.jobs)
    shorter, _, _ = prepared(widget, tmp_path / "o", n=9, from_misses=found)
    assert list(shorter.jobs) == made.jobs[:9]


def test_arms_and_seeds_are_averaged(tmp_path: Path) -> None:
    rows = [row("crack", 0, 0.0, arm="a"), row("crack", 0, 1.0, arm="b"), row("crack", 0, 0.5, seed=1)]
    (one,) = misses.read(results(tmp_path / "r", rows))
    assert one.found == pytest.approx(0.5)


def test_sizes_lie_near_those_of_missed_defects(run: Run, widget: Path, tmp_path: Path) -> None:
    """Paired with the same run without: labels by share of the object, which lie elsewhere by themselves."""
    rows = [row("hole", 0, 0.0, size=0.08), row("crack", 0, 0.0, size=0.02)]
    command = ["generate", "procedural", "--normal", widget, "--gate", "off", "-n", 16, "--seed", 2]
    command += ["--defect", "crack", "--defect", "hole"]
    assert run(*command, "--from-misses", results(tmp_path / "r", rows), "--out", tmp_path / "aimed")[0] == 0
    assert run(*command, "--out", tmp_path / "plain")[0] == 0
    for kind, size in (("crack", 0.02), ("hole", 0.08)):
        off = {}
        for name in ("aimed", "plain"):
            lines = [line for line in read_manifest(tmp_path / name) if line["defect_type"] == kind and "mask" in line]
            areas = [images.read_mask(tmp_path / name / line["mask"]).sum() for line in lines]
            objects = [fakes_object(widget / line["normal"]["file"]) for line in lines]
            off[name] = np.abs(np.log(np.array(areas) / np.array(objects) / size)).mean()
        assert off["aimed"] < 0.25 < 0.5 < off["plain"], (kind, off)
    told = json.loads((tmp_path / "aimed" / "generate.json").read_text())
    assert told["aim"]["mix"] == {"crack": 1.0, "hole": 1.0}
    assert told["aim"]["seen"] == {"test/hole/0.png": "hole0", "test/crack/0.png": "crack0"}


def fakes_object(path: Path) -> int:
    from flawsmith.masks import foreground

    return int(foreground(images.read_image(path)).sum())


def test_centres_lie_around_missed_ones_where_products_lie_alike(tmp_path: Path) -> None:
    data = aligned(tmp_path / "bars")
    found = results(tmp_path / "r", [row("stain", 0, 0.0, place=[0.25, 0.75])])
    values = {"method": "procedural", "normal": f"mvtec_ad:{data}", "out": tmp_path / "o", "n": 24}
    values |= {"mask": "blob", "defect": ("stain",)}
    made, _, loader = generation.prepare(configs.load(GenerateConfig, values | {"from_misses": found}))
    centres = []
    for job in made.jobs:
        mask = loader.request(job).mask
        y, x = (float(side.mean()) for side in np.nonzero(mask))
        centres.append((x / mask.shape[1], y / mask.shape[0]))
    away = np.array(centres) - (0.25, 0.75)
    assert np.abs(away.mean(axis=0)).max() < 0.07 and 0.03 < away.std(axis=0).min() < away.std(axis=0).max() < 0.13
    named, _, _ = generation.prepare(
        configs.load(GenerateConfig, values | {"from_misses": found, "mask_options": {"place": "edge"}})
    )
    assert all(job.target.place is None for job in named.jobs)  # a dial is the user's word


def test_places_are_left_alone_where_products_lie_differently(tmp_path: Path) -> None:
    data = aligned(tmp_path / "bars", shift=18)
    made, _, _ = generation.prepare(
        configs.load(
            GenerateConfig,
            {
                "method": "procedural", "normal": f"mvtec_ad:{data}", "out": tmp_path / "o", "defect": ("stain",),
                "from_misses": results(tmp_path / "r", [row("stain", 0, 0.0)]),
            },
        )
    )  # fmt: skip
    assert all(job.target.place is None and job.target.size is not None for job in made.jobs)
    assert any("left alone" in note for note in made.notes)


def test_severity_is_what_makes_found_ones_as_faint_as_missed_ones() -> None:
    def one(found: float, contrast: float) -> misses.Missed:
        return misses.Missed("a", "a", str(contrast), found, 0.01, contrast, (0.5, 0.5))

    seen = 10.8 * 4
    low, high = misses.strength([one(0.9, seen), one(0.1, 10.8 * 2)]) or (0, 0)
    assert (low + high) / 2 == pytest.approx(0.25)  # half the way from 10.8 to four times that, on a geometric path
    assert misses.strength([one(0.9, seen), one(0.1, 5.0)]) == (0.0, 0.1)
    assert misses.strength([one(0.9, 20.0), one(0.1, 30.0)]) is None  # not fainter
    assert misses.strength([one(0.1, 20.0)]) is None  # nothing to compare with


@pytest.mark.parametrize(
    ("rows", "tested", "said"),
    [
        ([row("crack", 0, 0.1)], ["crack0"], "test image"),
        ([row("scratch", 0, 0.1)], None, "another data set"),
        ([row("crack", 0, 1.0), row("hole", 0, 1.0)], None, "was missed"),
        ([], None, "empty"),
        ([row("crack", 0, 1.5)], None, "line 1"),
        ([{"type": "crack"}], None, "line 1"),
    ],
)
def test_results_that_cannot_be_planned_by_are_refused(
    run: Run, widget: Path, tmp_path: Path, rows: list[dict[str, Any]], tested: list[str] | None, said: str
) -> None:
    found = results(tmp_path / "r", rows, tested)
    code, _, err = run(
        "generate", "copypaste", "--normal", widget, "--out", tmp_path / "o", "--from-misses", found, "--shots", 2
    )
    assert code == 2 and said in " ".join(err.split()), err
    assert not (tmp_path / "o").exists()


def test_a_folder_without_misses_and_odd_companions_are_refused(widget: Path, tmp_path: Path) -> None:
    with pytest.raises(FlawsmithError, match="holds no misses"):
        prepared(widget, tmp_path / "o", from_misses=tmp_path)
    found = results(tmp_path / "r", [row("crack", 0, 0.1)])
    mask = fakes.save(tmp_path / "mask.png", np.ones((96, 128), bool))
    with pytest.raises(FlawsmithError, match="leave out one"):
        prepared(widget, tmp_path / "o", from_misses=found, mask=str(mask))
    with pytest.raises(FlawsmithError, match="per-defect"):
        prepared(widget, tmp_path / "o", from_misses=found, per_defect=True)


def test_contrast_is_the_step_that_was_painted() -> None:
    torch = pytest.importorskip("torch")
    assert torch
    from flawsmith.evaluation import misses as told
    from flawsmith.records import Sample

    image = np.full((60, 80, 3), 120, np.uint8)
    mask = cv2.circle(np.zeros((60, 80), np.uint8), (20, 30), 8, 1, -1).astype(bool)
    image[mask] = 85
    image[:, 60:] = 250  # far away
    assert told.contrast(Sample(image, mask)) == pytest.approx(35)
    everywhere = Sample(image, np.ones((60, 80), bool))
    assert told.contrast(everywhere) >= 0  # no ring is left: against itself
