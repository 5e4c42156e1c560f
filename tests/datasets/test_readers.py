"""What all readers share: links, groups, sources, filters, errors that help, and known counts of real data."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from counts import kinds

import fakes
from flawsmith import datasets
from flawsmith.datasets import tree
from flawsmith.errors import FlawsmithError


def test_link_loops_end_and_links_elsewhere_are_followed(tmp_path):
    real = fakes.folder_tree(tmp_path / "elsewhere", good=2, defects={}, good_folder="")
    root = fakes.folder_tree(tmp_path / "set", good=1)
    os.symlink(real, root / "good/more", target_is_directory=True)
    os.symlink(root, root / "good/loop", target_is_directory=True)
    os.symlink(root / "good", real / "back", target_is_directory=True)
    os.symlink(root / "nowhere.jpg", root / "good/dead.jpg")
    os.symlink("self.jpg", root / "good/self.jpg")
    loops = []
    assert list(tree.walk(root, loops.append))
    assert {loop.name for loop in loops} == {"loop", "back"}
    assert kinds(datasets.read("folder", root))["train", "good"] == 3


def test_groups_come_from_origin_csv(tmp_path):
    groups = {"test/crack/000.png": "p1", "test\\crack\\001.png": "p1", "test/hole/000.png": "p2"}
    folder = fakes.mvtec_tree(tmp_path, groups=groups)
    for root in (folder, tmp_path):
        found = {
            record.image.relative_to(folder).as_posix(): record.group for record in datasets.read("mvtec_ad", root)
        }
        assert found["test/crack/000.png"] == found["test/crack/001.png"] == "p1"
        assert found["test/hole/000.png"] == "p2"
        assert found["test/hole/001.png"].endswith("test/hole/001.png")
        assert len(set(found.values())) == len(found) - 1


def test_group_column_can_be_chosen(tmp_path):
    folder = fakes.mvtec_tree(tmp_path)
    fakes.write(
        folder / "origin.csv", "\ufefffile;group;day\ntest/crack/000.png;a;monday\ntest/crack/001.png;b;monday\n"
    )
    by_day = datasets.read("mvtec_ad", folder, defect="crack", group_by="day")
    assert [record.group for record in by_day] == ["monday", "monday", "test/crack/002.png"]
    with pytest.raises(FlawsmithError, match=r"'dya' is not known.*Did you mean 'day'"):
        datasets.read("mvtec_ad", folder, group_by="dya")
    fakes.write(folder / "origin.csv", "name,group\nx,y\n")
    with pytest.raises(FlawsmithError, match="no column 'file'"):
        datasets.read("mvtec_ad", folder)
    (folder / "origin.csv").unlink()
    with pytest.raises(FlawsmithError, match=r"origin\.csv"):
        datasets.read("mvtec_ad", folder, group_by="day")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mvtec_ad:data/mvtec", ("mvtec_ad", "data/mvtec")),
        ("folder:C:\\Bilder\\neu", ("folder", "C:\\Bilder\\neu")),
        ("folder:a: b/ü", ("folder", "a: b/ü")),
        ("my_package.readers:visa:some/where", ("my_package.readers:visa", "some/where")),
    ],
)
def test_parse_source(text, expected):
    assert datasets.parse_source(text) == (expected[0], Path(expected[1]))


def test_parse_source_guesses_the_layout(tmp_path, monkeypatch):
    fakes.mvtec_tree(tmp_path / "set: one")
    monkeypatch.chdir(tmp_path)
    assert datasets.parse_source("set: one") == ("mvtec_ad", Path("set: one"))
    assert datasets.parse_source("set: one/widget/train") == ("folder", Path("set: one/widget/train"))
    monkeypatch.chdir(tmp_path / "set: one" / "widget")
    records = datasets.read_source(".")
    assert records[0].category == "widget" and records[0].name == "train/good/000.png"


def test_a_reader_of_ones_own(tmp_path):
    fakes.folder_tree(tmp_path)
    assert len(datasets.read_source(f"flawsmith.datasets.folder:read:{tmp_path}")) == 10


def test_filters(tmp_path):
    folder = fakes.mvtec_tree(tmp_path)
    assert len(datasets.read("mvtec_ad", folder, defect=["crack", "hole"])) == 6
    assert len(datasets.read("mvtec_ad", folder, split="train")) == 4
    assert datasets.defect_types(datasets.read("mvtec_ad", folder)) == ["crack", "hole"]
    for wrong, message in (
        ({"defect": "crak"}, "'crak' is not known.*Did you mean 'crack'"),
        ({"split": "tset"}, "'tset' is not known.*Did you mean 'test'"),
        ({"categry": "x"}, "'categry' is not known.*Did you mean 'category'"),
    ):
        with pytest.raises(FlawsmithError, match=message):
            datasets.read("mvtec_ad", folder, **wrong)


@pytest.mark.parametrize("reader", sorted(datasets.DATASETS))
def test_errors_name_the_folder_and_the_remedy(tmp_path, reader):
    fakes.mvtec_tree(tmp_path / "bottles", category="bottle")
    fakes.write(tmp_path / "file.txt", "x")
    (tmp_path / "empty").mkdir()
    fakes.write(tmp_path / "texts/test/crack/note.txt", "x")
    for name, message in (
        ("botles", "does not exist.*Did you mean .*bottles"),
        ("bottles/botle/train", "does not exist.*Did you mean .*bottle"),
        ("file.txt", "is a file, not a folder"),
        ("empty", "is empty"),
        ("texts", r"(holds no image.*png|texts holds no |texts is not )"),
    ):
        with pytest.raises(FlawsmithError, match=f"(?s){message}"):
            datasets.read(reader, tmp_path / name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mvtec_ad/bottle", {"good": 229, "broken_large": 20, "broken_small": 22, "contamination": 21}),
        ("magnetic_tile", {"good": 320, "blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 97}),
        ("cookie", {"good": 31, "broken": 32}),
    ],
)
def test_real_data_has_the_known_counts(shared_data, name, expected):
    records = datasets.read_source(shared_data(name))
    assert Counter(record.defect_type for record in records) == expected
    assert all(record.masks for record in records if not record.is_good)
    assert next(record for record in records if record.masks).load().mask.any()
