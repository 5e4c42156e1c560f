"""What evaluations write of the validation defects that a segmenter misses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fakes  # noqa: E402
from flawsmith import datasets, images  # noqa: E402
from flawsmith.comparison import run as comparison  # noqa: E402
from flawsmith.comparison import shared  # noqa: E402
from flawsmith.config import CompareConfig, EvaluateConfig  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.evaluation import misses  # noqa: E402
from flawsmith.evaluation.detectors.segmentation import Judged  # noqa: E402
from flawsmith.evaluation.protocol import read_real, refuse_leaks, used_by  # noqa: E402
from flawsmith.generation import misses as planning  # noqa: E402
from flawsmith.masks import foreground  # noqa: E402

Run = Callable[..., tuple[int, str, str]]
QUICK = {"steps": 2, "batch_size": 2, "crop": 32, "looks": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("missed")
    return fakes.mvtec_tree(root, good=5, defects={"crack": 9, "hole": 9}, size=(72, 96), test_good=3)


def test_a_row_says_what_was_found_and_what_the_defect_is_like(data: Path) -> None:
    records = [record for record in datasets.read("mvtec_ad", data) if record.split == "test"][:7]
    samples = [record.load() for record in records]
    judged = Judged([], [], [], [])
    for number, sample in enumerate(samples):
        levels = np.full(sample.mask.shape, 900, np.uint16)
        hit = np.flatnonzero(sample.mask)[: number * 5]
        levels.flat[hit] = 500  # the threshold itself counts as found
        judged.levels.append(levels)
        judged.masks.append(sample.mask)
    rows = misses.of(records, samples, judged, 500, "an arm", 3)
    bad = [(number, record) for number, record in enumerate(records) if not record.is_good]
    assert [one["image"] for one in rows] == [record.name for _, record in bad] and rows
    for one, (number, record) in zip(rows, bad, strict=True):
        sample = samples[number]
        area = int(sample.mask.sum())
        assert one["found"] == pytest.approx(min(1, number * 5 / area), abs=1e-4)
        assert one["size"] == pytest.approx(area / (foreground(sample.image) | sample.mask).sum(), rel=1e-3)
        assert one["sha"] == images.file_sha(record.image) and (one["arm"], one["seed"]) == ("an arm", 3)
        rows_of, columns_of = np.nonzero(sample.mask)
        assert one["place"] == pytest.approx([(columns_of.mean() + 0.5) / 96, (rows_of.mean() + 0.5) / 72], abs=1e-3)
        assert one["contrast"] > 60  # painted about 90 grey levels darker


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_comparison_tells_every_arm_and_seed_and_a_resumed_one_knows_them(
    data: Path, tmp_path: Path, jobs: int
) -> None:
    config = CompareConfig(
        real=f"mvtec_ad:{data}",
        out=tmp_path / "out",
        arms=("real", "copypaste"),
        seeds=(0, 1),
        support="fixed",
        images=2,
        jobs=jobs,
        segmentation=QUICK,
    )
    comparison.compare(config)
    path = tmp_path / "out" / "misses.jsonl"
    before = path.read_bytes()
    rows = [json.loads(line) for line in before.decode().splitlines()]
    division = shared.divide(read_real(config), 0)
    validation = {r.name for r in division.validation if not r.is_good}
    arms = {"a third real", "a third real + copypaste, share 0.5"}
    assert {(one["arm"], one["seed"]) for one in rows} == {(arm, seed) for arm in arms for seed in (0, 1)}
    assert {one["image"] for one in rows} == validation and len(rows) == 4 * len(validation)
    assert {one.image for one in planning.read(tmp_path / "out")} == validation
    path.unlink()
    comparison.compare(config)  # everything is in the ledger: nothing is trained
    assert path.read_bytes() == before


def test_seeds_that_divide_anew_test_on_what_others_miss(data: Path, tmp_path: Path) -> None:
    config = CompareConfig(
        real=f"mvtec_ad:{data}", out=tmp_path / "out", arms=("real",), seeds=(0, 1, 2), segmentation=QUICK
    )
    comparison.compare(config)
    with pytest.raises(FlawsmithError, match="--support fixed"):
        planning.read(tmp_path / "out")


def test_a_folder_is_evaluated_planned_by_and_what_it_was_planned_by_is_never_tested_on(
    run: Run, data: Path, tmp_path: Path
) -> None:
    first = ["generate", "copypaste", "--normal", data, "--gate", "off", "--shots", 2, "-n", 4]
    assert run(*first, "--out", tmp_path / "first")[0] == 0
    judge = ["evaluate", tmp_path / "first", "--real", data, "--metrics", "segmentation", "--out", tmp_path / "judged"]
    judge += [text for key, value in QUICK.items() for text in ("--set", f"segmentation.{key}={value}")]
    code, _, err = run(*judge)
    assert code == 0, err
    again = (tmp_path / "judged" / "misses.jsonl").read_bytes()
    (tmp_path / "judged" / "misses.jsonl").unlink()
    assert run(*judge)[0] == 0 and (tmp_path / "judged" / "misses.jsonl").read_bytes() == again
    code, told, err = run(*first, "--from-misses", tmp_path / "judged", "--out", tmp_path / "second")
    assert code == 0 and "Missed of" in " ".join((told + err).split()), err
    config = EvaluateConfig(generated=str(tmp_path / "second"), real=f"mvtec_ad:{data}", out=tmp_path / "o")
    real = read_real(config)
    used = used_by(tmp_path / "second", [])
    missed = {json.loads(line)["image"] for line in again.decode().splitlines()}
    assert set(used.misses.values()) == missed and missed
    division = shared.divide(real, 0)
    clean = [r for r in real.records if images.file_sha(r.image) not in used.defects]
    bad = [r for r in clean if not r.is_good]
    told_of = [r for r in bad if r.name in missed]
    rest = [r for r in bad if r.name not in missed]
    make = type(division)
    refuse_leaks(used, [], make((), tuple(told_of), tuple(rest), division.normals))  # validation may be planned by
    with pytest.raises(FlawsmithError, match="by whose misses"):
        refuse_leaks(used, [], make((), tuple(rest), tuple(told_of), division.normals))
