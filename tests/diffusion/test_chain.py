"""A COCO and a YOLO copy of a data set through check, train, generate, export and back, no file touched by hand."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small import Run

import fakes
from flawsmith import datasets, images

COPIES = {"coco": "coco", "yolo-seg": "yolo"}  # format -> the reader that it is recognised as


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): images.file_sha(path) for path in folder.rglob("*") if path.is_file()}


def chain(run: Run, source: Path, format_: str, at: Path, backbone: object, defect: str) -> None:
    """Every command takes what the one before has written; the fit is two steps, so that nothing is said of beauty."""

    def command(*words: object) -> str:
        code, out, err = run(*words)
        assert code == 0, (words, out, err)
        return out + err

    copy, model, made, ready = (at / name for name in ("copy", "model", "made", "ready"))
    command("export", f"mvtec_ad:{source}", "--format", format_, "--split", "part", "--out", copy)
    before = hashes(copy)
    assert f"Read as {COPIES[format_]}: " in command("check", copy)
    small = ("--backbone", backbone, "--steps", 2, "--set", "batch_size=2", "--set", "preview_every=2")
    command("train", "inpaint", "--data", copy, "--defect", defect, "--shots", 3, *small, "--out", model)
    command("generate", model, "--normal", copy, "--defect", defect, "-n", 2, "--set", "steps=2", "--out", made)
    command("export", made, "--merge", copy, "--format", format_, "--out", ready)
    command("check", ready)
    assert hashes(copy) == before

    known = {record.image.name: record for record in datasets.read(COPIES[format_], copy)}
    with open(ready / "origin.csv", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    joined = datasets.read(COPIES[format_], ready)
    painted = [record for record in joined if rows[record.name]["source"] == "generated"]
    assert painted and len(joined) == len(known) + len(painted) == len(rows)
    for record in painted:
        assert record.split == "train" and record.defect_type == defect
        row = rows[record.name]
        assert row["method"] == "inpaint" and record.caption == row["caption"] != ""
        normal = next(one for one in known.values() if row["normal"] == one.name)
        assert normal.is_good and normal.split == "train"
        sample = record.load()
        assert sample.mask.any() and np.array_equal(sample.image[~sample.mask], normal.load().image[~sample.mask])
    real = [record for record in joined if rows[record.name]["source"] == "real"]
    assert sum(int(one.load().mask.sum()) for one in real) == sum(int(one.load().mask.sum()) for one in known.values())


@pytest.mark.parametrize("format_", COPIES)
def test_a_copy_of_painted_images_goes_through_every_command(
    run: Run, tmp_path: Path, folder: Path, format_: str
) -> None:
    source = fakes.mvtec_tree(tmp_path / "data", "widget", good=6, defects={"crack": 6, "hole": 6}, size=(60, 80))
    chain(run, source, format_, tmp_path, folder, "crack")


@pytest.mark.slow
@pytest.mark.parametrize("format_", COPIES)
def test_a_copy_of_ball_screw_goes_through_every_command(
    run: Run, tmp_path: Path, shared_data: Callable[[str], Path], format_: str
) -> None:
    chain(run, shared_data("ball_screw"), format_, tmp_path, "compact", "pitting")
