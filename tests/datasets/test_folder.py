"""The reader of plain folders: every layout it promises, masks beside, in and under the photographs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from counts import kinds

import fakes
from flawsmith import datasets
from flawsmith.errors import FlawsmithError


def masks_of(records):
    return {record.name: [mask.name for mask in record.masks] for record in records if not record.is_good}


def test_flat_folder_is_all_good(tmp_path):
    fakes.folder_tree(tmp_path, good_folder="", defects={})
    records = datasets.read("folder", tmp_path)
    assert kinds(records) == {("train", "good"): 4}
    assert datasets.parse_source(tmp_path) == ("folder", tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".bmp", ".tif", ".TIFF", ".webp"])
def test_every_image_format_loads(tmp_path, suffix):
    fakes.folder_tree(tmp_path, good=1, defects={"crack": 1}, suffix=suffix)
    records = datasets.read("folder", tmp_path)
    assert [record.load().image.shape for record in records] == [(48, 64, 3)] * 2


def test_flat_photo_with_a_mask_is_a_defect(tmp_path):
    fakes.folder_tree(tmp_path, good_folder="", defects={})
    fakes.save(tmp_path / "IMG_2_mask.png", fakes.defect_mask("hole", 2))
    fakes.save(tmp_path / "masks/IMG_3.png", fakes.defect_mask("hole", 3))
    records = datasets.read("folder", tmp_path)
    assert [record.defect_type for record in records] == ["good", "good", "defect", "defect"]
    assert all(record.load().mask.any() for record in records[2:])


@pytest.mark.parametrize("name", ["good", "OK", "normal", "train/good", "Defect-Free"])
def test_folder_names_for_good(tmp_path, name):
    fakes.folder_tree(tmp_path, good_folder=name)
    assert kinds(datasets.read("folder", tmp_path)) == {
        ("train", "good"): 4,
        ("train", "crack"): 3,
        ("train", "hole"): 3,
    }


@pytest.mark.parametrize(
    "pattern",
    [
        "masks/{kind}/{stem}.png",
        "ground_truth/{kind}/{stem}_mask.png",
        "{kind}/masks/{stem}.png",
        "{kind}/mask/{stem}-mask.PNG",
        "{kind}/{stem}_mask.png",
        "{kind}/{stem}_gt.bmp",
        "labels/{stem}_label.tif",
        "Masks/{kind}/{stem}/part 1.png",
    ],
)
def test_folder_finds_masks(tmp_path, pattern):
    fakes.folder_tree(tmp_path, masks=pattern)
    records = datasets.read("folder", tmp_path)
    assert kinds(records) == {("train", "good"): 4, ("train", "crack"): 3, ("train", "hole"): 3}
    assert [len(record.masks) for record in records if not record.is_good] == [1] * 6
    for record in records:
        sample = record.load()
        expected = fakes.defect_mask(
            record.defect_type, 1000 + int(record.image.stem[-1]) + 1000 * ("hole" in record.name)
        )
        assert record.is_good or np.array_equal(sample.mask, expected)


def test_images_beside_masks_and_splits(tmp_path):
    for split in ("train", "test"):
        fakes.save(tmp_path / split / "images/good/1.png", fakes.photo(len(split)))
        fakes.save(tmp_path / split / "images/scratch/1.png", fakes.photo(20 + len(split)))
        fakes.save(tmp_path / split / "masks/scratch/1.png", fakes.defect_mask("crack", len(split)))
    records = datasets.read("folder", tmp_path)
    assert kinds(records) == {(split, kind): 1 for split in ("train", "test") for kind in ("good", "scratch")}
    for record in records:
        assert [mask.parts[-4] for mask in record.masks] == ([] if record.is_good else [record.split])


def test_segmentation_layout_is_not_taken_for_mvtec(tmp_path):
    for index, split in enumerate(("train", "test")):
        fakes.save(tmp_path / split / "images/1.png", fakes.photo(index))
        fakes.save(tmp_path / split / "images/2.png", fakes.photo(9 + index))
        fakes.save(tmp_path / split / "masks/1.png", fakes.defect_mask("crack", index))
    assert datasets.parse_source(tmp_path)[0] == "folder"
    assert kinds(datasets.read_source(tmp_path)) == {
        (split, kind): 1 for split in ("train", "test") for kind in ("good", "defect")
    }


def test_a_mask_that_fits_two_photos_fits_none(tmp_path):
    for kind in ("crack", "hole"):
        fakes.save(tmp_path / kind / "001.png", fakes.photo(len(kind)))
    fakes.save(tmp_path / "masks/001.png", fakes.defect_mask("crack", 1))
    assert masks_of(datasets.read("folder", tmp_path)) == {"crack/001.png": [], "hole/001.png": []}


def test_names_that_look_like_masks_are_photos_when_nothing_stands_beside(tmp_path):
    for name in ("gas_mask.png", "bottle.png", "bottle_label.png"):
        fakes.save(tmp_path / name, fakes.photo(len(name)))
    assert len(datasets.read("folder", tmp_path)) == 3


def test_folder_captions_beside_and_in_prompt(tmp_path):
    fakes.folder_tree(tmp_path, captions=True)
    fakes.write(tmp_path / "prompt/good/IMG_1.txt", "a clean part")
    fakes.write(tmp_path / "README.txt", "no caption")
    captions = {record.name: record.caption for record in datasets.read("folder", tmp_path)}
    assert captions["crack/crack 2.jpg"] == "crack number 2"
    assert captions["good/IMG_1.jpg"] == "a clean part"
    assert captions["good/IMG_0.jpg"] == ""


def test_folder_depth_and_categories(tmp_path):
    fakes.folder_tree(tmp_path / "bottle", good_folder="good/day 1/camera 2")
    fakes.folder_tree(tmp_path / "can", good_folder="ok", defects={"dent": 2}, masks="{kind}/{stem}_mask.png")
    records = datasets.read("folder", tmp_path)
    assert Counter(record.category for record in records) == {"bottle": 10, "can": 6}
    assert {record.defect_type for record in datasets.read("folder", tmp_path, "can")} == {"good", "dent"}
    with pytest.raises(FlawsmithError, match=r"'botle' is not known.*bottle, can.*Did you mean 'bottle'"):
        datasets.read("folder", tmp_path, "botle")


def test_folder_category_names_the_product(tmp_path):
    fakes.folder_tree(tmp_path)
    assert {record.category for record in datasets.read("folder", tmp_path, "mug")} == {"mug"}


def test_folder_reads_an_mvtec_tree_alike(tmp_path):
    folder = fakes.mvtec_tree(tmp_path)
    one, other = datasets.read("mvtec_ad", folder), datasets.read("folder", folder)
    key = [(r.name, r.defect_type, r.masks, r.caption, r.split) for r in one]
    assert sorted(key) == sorted((r.name, r.defect_type, r.masks, r.caption, r.split) for r in other)
