"""Readers of published industrial data sets against painted ones: pixels, types, splits, parts, recognition."""

from __future__ import annotations

import numpy as np
import pytest

import fakes_annotated as painted
from flawsmith import datasets
from flawsmith.datasets.check import check
from flawsmith.datasets.exports.run import export
from flawsmith.errors import FlawsmithError

# reader -> (painter, what a folder alone is recognised as)
SETS = {
    "btad": (painted.btad_tree, "mvtec_ad"),
    "ksdd": (painted.ksdd_tree, "ksdd"),
    "ksdd2": (painted.ksdd2_tree, "ksdd2"),
    "mpdd": (painted.mpdd_tree, "mvtec_ad"),
    "mvtec_ad": (painted.visa_one_class_tree, "mvtec_ad"),
    "mvtec_ad2": (painted.mvtec_ad2_tree, "mvtec_ad2"),
    "real_iad": (painted.real_iad_tree, "real_iad"),
    "visa": (painted.visa_tree, "visa"),
}


@pytest.mark.parametrize("reader", SETS)
def test_pixels_and_types_are_those_that_were_painted(tmp_path, reader):
    paint, recognised = SETS[reader]
    truth = paint(tmp_path)
    records = datasets.read(reader, tmp_path)
    assert {record.name for record in records} == truth.keys()
    for record in records:
        kinds, mask = truth[record.name]
        assert {record.defect_type} == (kinds or {"good"})
        assert np.array_equal(record.load().mask, mask)
    assert datasets.parse_source(tmp_path)[0] == recognised
    assert datasets.told(tmp_path).startswith(f"Read as {recognised}: ")
    found = {finding.kind for finding in check(f"{reader}:{tmp_path}").findings if finding.severity == "error"}
    assert not found


@pytest.mark.parametrize("reader", SETS)
def test_another_layout_is_refused_by_name(tmp_path, reader):
    (tmp_path / "x").mkdir()
    with pytest.raises(FlawsmithError, match=str(tmp_path)):
        datasets.read(reader, tmp_path)


@pytest.mark.parametrize("reader", SETS)
def test_every_one_can_be_exported(tmp_path, reader):
    truth = SETS[reader][0](tmp_path / "set")
    export(f"{reader}:{tmp_path / 'set'}", tmp_path / "out", ["coco"])
    after = datasets.read("coco", tmp_path / "out")
    assert len(after) == len(truth)
    assert sum(record.load().mask.sum() for record in after) == sum(mask.sum() for _, mask in truth.values())


def splits(reader, root):
    return {record.name.rpartition("/")[2]: record.split for record in datasets.read(reader, root)}


def test_splits_are_the_data_sets_own(tmp_path):
    painted.visa_tree(tmp_path / "visa")
    assert splits("visa", tmp_path / "visa") == {
        **{"0000.JPG": "train", "0001.JPG": "test"},
        **{"000.JPG": "test", "001.JPG": "test"},
    }
    painted.real_iad_tree(tmp_path / "iad")
    assert splits("real_iad", tmp_path / "iad") == {
        **{"audiojack_0001_OK_C1_1.jpg": "train", "audiojack_0001_OK_C2_1.jpg": "test"},
        **{"audiojack_0005_AK_C1_1.jpg": "test", "audiojack_0005_AK_C2_1.jpg": "test"},
    }
    painted.ksdd2_tree(tmp_path / "ksdd2")
    assert splits("ksdd2", tmp_path / "ksdd2") == {"10000.png": "train", "10001.png": "train", "20000.png": "test"}


def test_what_shows_one_part_is_one_group(tmp_path):
    for reader, count in (("ksdd", 2), ("mvtec_ad2", 4), ("real_iad", 2)):
        SETS[reader][0](tmp_path / reader)
        assert len({record.group for record in datasets.read(reader, tmp_path / reader)}) == count


def test_one_object_of_visa_alone_and_by_its_name(tmp_path):
    painted.visa_tree(tmp_path)
    whole = datasets.read("visa", tmp_path, "capsules")
    alone = datasets.read("visa", tmp_path / "capsules")
    assert [record.image for record in whole] == [record.image for record in alone]
    assert {(r.category, r.split) for r in whole} == {(r.category, r.split) for r in alone}
    (tmp_path / "capsules/image_anno.csv").unlink()
    assert {record.defect_type for record in datasets.read("visa", tmp_path)} == {"good", "anomaly"}
    table = tmp_path / "split_csv/1cls.csv"
    table.write_text(table.read_text().replace("capsules/Data/Images/Normal/0000.JPG", "../../etc/passwd"))
    with pytest.raises(FlawsmithError, match=r"1cls\.csv, line 2: .* leads out"):
        datasets.read("visa", tmp_path)
