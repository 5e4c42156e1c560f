"""Every classic method on every real data set, two images each: the promises hold on real photographs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flawsmith import datasets, images
from flawsmith.config import GenerateConfig
from flawsmith.datasets.exports.run import export
from flawsmith.datasets.writer import read_manifest
from flawsmith.generation import run as generation

SETS = ("magnetic_tile", "cookie", "ball_screw", "deeppcb", "mvtec_ad/bottle", "mvtec_ad/transistor")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("method", ["copypaste", "cutpaste", "nsa", "perlin", "procedural"])
def test_exact_on_real_photographs(method: str, name: str, shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    root = shared_data(name)
    out = tmp_path / "out"
    summary = generation.run(GenerateConfig(method=method, normal=f"mvtec_ad:{root}", out=out, n=2, seed=11))
    lines = read_manifest(out)
    assert summary.kept + summary.rejected == len(lines) == 2
    support = {line["reference"]["file"] for line in lines if line["reference"]}
    test = {record.name for record in datasets.read("mvtec_ad", root, split="test") if record.is_good}
    for line in (line for line in lines if line["status"] == "kept"):
        image, mask = images.read_image(out / line["image"]), images.read_mask(out / line["mask"])
        normal = images.read_image(root / line["normal"]["file"])
        assert np.array_equal(image[~mask], normal[~mask])
        assert mask.any() and (image[mask] != normal[mask]).any()
        assert line["normal"]["file"] not in test  # no image that an evaluation will use
    assert bool(support) == (method == "copypaste")  # nobody else has seen a real defect


@pytest.mark.parametrize("name", ["ball_screw", "cookie"])
def test_exports_give_the_same_pixels_back(name: str, shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    root = shared_data(name)
    export(f"mvtec_ad:{root}", tmp_path / "out", ["coco", "yolo-seg"])
    before = {record.name: record for record in datasets.read("mvtec_ad", root)}
    for reader, folder in (("coco", "coco"), ("yolo", "yolo-seg")):
        with open(tmp_path / "out" / folder / "origin.csv", encoding="utf-8") as file:
            origin = {row["file"]: before[row["origin_file"]] for row in csv.DictReader(file)}
        after = datasets.read(reader, tmp_path / "out" / folder)
        assert len(after) == len(before)
        for record in [one for one in after if not one.is_good][::4]:
            old = origin[record.name]
            assert (record.defect_type, record.group) == (old.defect_type, old.group)
            assert np.array_equal(record.load().mask, old.load().mask)
