"""MVTec LOCO: grey levels, how defects saturate, what an export keeps of it, and the score that uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fakes
from flawsmith import datasets, images
from flawsmith.datasets.exports.run import export
from flawsmith.errors import FlawsmithError
from flawsmith.records import Saturation

SIZE = (40, 60)
KINDS = [
    {"defect_name": "missing_pin", "pixel_value": 247, "saturation_threshold": 50, "relative_saturation": False},
    {"defect_name": "scratch", "pixel_value": 255, "saturation_threshold": 0.4, "relative_saturation": True},
]
FIRST, SECOND = np.s_[5:15, 5:25], np.s_[20:30, 30:34]  # 200 and 40 pixels


def tree(root: Path) -> Path:
    """A category with one logical defect (two files of two kinds), one structural one (a file), and good images."""
    folder = fakes.mvtec_tree(root, "pins", good=3, defects={}, size=SIZE, test_good=2)
    for kind, number, marked in (
        ("logical_anomalies", 0, [(FIRST, 247), (SECOND, 255)]),
        ("structural_anomalies", 1, [(SECOND, 255)]),
    ):
        image = fakes.photo(50 + number, SIZE)
        for place, (where, level) in enumerate(marked):
            image[where] //= 3
            grey = np.zeros(SIZE, np.uint8)
            grey[where] = level
            fakes.save(folder / f"ground_truth/{kind}/{number:03d}/{place:03d}.png", grey)
        fakes.save(folder / f"test/{kind}/{number:03d}.png", image)
    fakes.write(folder / "defects_config.json", json.dumps(KINDS))
    return folder


def defects(root: Path) -> list[Any]:
    return [record for record in datasets.read("mvtec_loco", root) if not record.is_good]


def test_saturation_is_read_and_every_file_is_a_defect_of_its_own(tmp_path: Path) -> None:
    tree(tmp_path)
    logical, structural = defects(tmp_path)
    assert logical.saturation == (Saturation(247, 50, False, "missing_pin"), Saturation(255, 0.4, True, "scratch"))
    found = [(int(region.sum()), enough) for region, enough in logical.saturated(SIZE)]
    assert found == [(200, 50), (40, pytest.approx(16))]
    assert [enough for _, enough in structural.saturated(SIZE)] == [pytest.approx(16)]
    assert logical.saturation[0].pixels(30) == 30  # a defect smaller than its threshold needs what it has
    reader, _ = datasets.parse_source(tmp_path)
    assert reader == "mvtec_loco" and "defects_config.json" in datasets.told(tmp_path)
    plain = datasets.read("mvtec_ad", tmp_path)
    assert not any(record.saturation for record in plain)


def test_levels_mixed_in_a_file_and_unknown_ones_are_defects_too(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    grey = np.zeros(SIZE, np.uint8)
    grey[FIRST], grey[SECOND], grey[35:37, :10] = 247, 255, 9
    for path in (folder / "ground_truth/logical_anomalies/000").iterdir():
        path.unlink()
    fakes.save(folder / "ground_truth/logical_anomalies/000/000.png", grey)
    found = [(int(region.sum()), enough) for region, enough in defects(tmp_path)[0].saturated(SIZE)]
    assert found == [(200, 50), (40, pytest.approx(16)), (20, 20)]


def test_an_export_keeps_levels_files_and_the_table(tmp_path: Path) -> None:
    tree(tmp_path / "loco")
    export(f"mvtec_loco:{tmp_path / 'loco'}", tmp_path / "out", ["mvtec"])
    assert json.loads((tmp_path / "out/pins/defects_config.json").read_text()) == KINDS
    before, after = defects(tmp_path / "loco"), defects(tmp_path / "out")
    for old, new in zip(before, after, strict=True):
        assert new.saturation == old.saturation and len(new.masks) == len(old.masks)
        for one, other in zip(old.masks, new.masks, strict=True):
            assert (images.read_image(one) == images.read_image(other)).all()
        assert [enough for _, enough in new.saturated(SIZE)] == [enough for _, enough in old.saturated(SIZE)]
    assert datasets.parse_source(tmp_path / "out")[0] == "mvtec_loco"
    fakes.mvtec_tree(tmp_path / "plain", size=SIZE)
    export(f"mvtec_ad:{tmp_path / 'plain'}", tmp_path / "ad", ["mvtec"])
    assert not list((tmp_path / "ad").rglob("defects_config.json"))


BAD: dict[str, Any] = {
    "no JSON": "{",
    "no list": "{}",
    "no entry": "[3]",
    "no threshold": [{**KINDS[0], "saturation_threshold": None}],
    "negative": [{**KINDS[0], "saturation_threshold": -1}],
    "not finite": '[{"pixel_value": 1, "saturation_threshold": NaN, "relative_saturation": false}]',
    "level of nothing": [{**KINDS[0], "pixel_value": 0}],
    "level too high": [{**KINDS[0], "pixel_value": 256}],
    "share above 1": [{**KINDS[1], "saturation_threshold": 1.5}],
    "twice": [KINDS[0], KINDS[0]],
    "a word": [{**KINDS[0], "relative_saturation": "no"}],
}


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_cannot_be_meant_is_refused_by_file_and_entry(tmp_path: Path, case: str) -> None:
    folder = tree(tmp_path)
    given = BAD[case]
    fakes.write(folder / "defects_config.json", given if isinstance(given, str) else json.dumps(given))
    with pytest.raises(FlawsmithError, match=r"defects_config\.json") as refused:
        datasets.read("mvtec_loco", tmp_path)
    assert isinstance(given, str) or "entry" in str(refused.value)


def test_two_sets_that_score_a_level_differently_are_not_joined(tmp_path: Path) -> None:
    tree(tmp_path / "a")
    folder = tree(tmp_path / "b")
    fakes.write(folder / "defects_config.json", json.dumps([{**KINDS[0], "saturation_threshold": 9}]))
    with pytest.raises(FlawsmithError, match="grey level 247 in another way"):
        export(f"mvtec_loco:{tmp_path / 'a'}", tmp_path / "out", ["mvtec"], merge=[f"mvtec_loco:{tmp_path / 'b'}"])


def test_a_few_pixels_find_a_defect_that_may_be_marked_anywhere(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the evaluation needs flawsmith[diffusion]")
    from flawsmith.evaluation.detectors import saturated, segmentation
    from flawsmith.evaluation.metrics import scores

    tree(tmp_path)
    records = [record for record in datasets.read("mvtec_loco", tmp_path) if record.split == "test"]
    samples = [record.load() for record in records]
    judged = segmentation.Judged([], [], [], [])
    for sample in samples:
        anomaly = np.full(SIZE, 0.1)
        if sample.mask.any():
            anomaly[SECOND] = 0.9
        if sample.defect_type == "logical_anomalies":
            anomaly[5:10, 5:15] = 0.9  # 50 of 200 pixels: enough by the table
        judged.levels.append(scores.levels(anomaly))
        judged.masks.append(sample.mask)
        judged.image_scores.append(float(anomaly.max()))
        judged.types.append(sample.defect_type)
    found = saturated.table(judged, records)["pixel_AUsPRO"]
    assert found == {kind: pytest.approx(1.0) for kind in ("logical_anomalies", "structural_anomalies", "all")}
    judged.levels[0][:2] = 0  # a good image is marked before any defect: 120 of all good pixels
    false = 120 / sum(int((~mask).sum()) for mask in judged.masks)
    assert saturated.table(judged, records)["pixel_AUsPRO"]["all"] == pytest.approx(1 - false / 0.05, abs=1e-6)
    judged.levels[0][:2] = judged.levels[0][2]
    plain = segmentation.table(judged)["pixel_AUPRO"]
    assert plain["logical_anomalies"] < 0.75
    half = saturated.regions(next(r for r in records if r.defect_type == "logical_anomalies"), (20, 30))
    assert [(int(region.sum()), enough) for region, enough in half] == [
        (int(half[0][0].sum()), pytest.approx(50 * half[0][0].sum() / 200)),
        (int(half[1][0].sum()), pytest.approx(16 * half[1][0].sum() / 40)),
    ]
    assert 40 <= half[0][0].sum() <= 72 and saturated.table(judged, datasets.read("mvtec_ad", tmp_path)[3:]) == {}


def test_a_segmenter_is_judged_by_it(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the evaluation needs flawsmith[diffusion]")
    from flawsmith.evaluation.detectors import downstream, segmentation

    tree(tmp_path)
    records = datasets.read("mvtec_loco", tmp_path)
    sides = [[r for r in records if r.is_good == good and (good or r.split == "test")] for good in (False, True)]
    config = segmentation.SegmentationConfig(steps=1, batch_size=2, crop=32)
    for test, kinds in ((records, 3), (datasets.read("mvtec_ad", tmp_path), 0)):
        run = downstream.segment(sides[0], [], sides[1], [], test, config)
        values = [value for value in run.values if value.key == "pixel_AUsPRO/light-unet/last"]
        assert len(values) == kinds and all(0 <= value.value <= 1 for value in values)
