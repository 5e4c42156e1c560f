"""Readers: every layout they promise, pairing by stem, names people really use, and errors that help."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import fakes
from flawsmith import datasets
from flawsmith.datasets import tree
from flawsmith.errors import FlawsmithError


def kinds(records):
    return Counter((record.split, record.defect_type) for record in records)


def masks_of(records):
    return {record.name: [mask.name for mask in record.masks] for record in records if not record.is_good}


# -- mvtec_ad ----------------------------------------------------------------------------------------------------------


def test_mvtec_reads_splits_masks_captions_and_pixels(tmp_path):
    folder = fakes.mvtec_tree(tmp_path)
    records = datasets.read("mvtec_ad", tmp_path)
    assert kinds(records) == {("train", "good"): 4, ("test", "good"): 2, ("test", "crack"): 3, ("test", "hole"): 3}
    assert {record.category for record in records} == {"widget"}
    crack = next(record for record in records if record.name == "widget/test/crack/001.png")
    assert crack.root == tmp_path
    assert crack.masks == (folder / "ground_truth/crack/001_mask.png",)
    assert crack.caption == "A widget with a crack, number 1."
    sample = crack.load()
    normal = fakes.photo(1001)
    assert sample.mask.any()
    assert np.array_equal(sample.image[~sample.mask], normal[~sample.mask])
    assert np.abs(sample.image[sample.mask].astype(int) - normal[sample.mask]).mean() > 60


def test_root_and_category_folder_give_the_same_records_but_for_the_root(tmp_path):
    folder = fakes.mvtec_tree(tmp_path)
    fakes.mvtec_tree(tmp_path, category="gear", good=2, defects={"chip": 1})
    everything = datasets.read("mvtec_ad", tmp_path)
    assert {record.category for record in everything} == {"gear", "widget"}
    chosen = datasets.read("mvtec_ad", tmp_path, "widget")
    alone = datasets.read("mvtec_ad", folder)
    assert [record.image for record in chosen] == [record.image for record in alone]
    assert [record.image for record in datasets.read("mvtec_ad", folder, "widget")] == [r.image for r in alone]


@pytest.mark.parametrize(
    "pattern", ["{stem}_mask.png", "{stem}.png", "{stem}_MASK.PNG", "{stem}/000.png", "{stem}.bmp"]
)
def test_mvtec_mask_names(tmp_path, pattern):
    fakes.mvtec_tree(tmp_path, defects={"hole": 2}, mask_name=pattern)
    records = datasets.read("mvtec_ad", tmp_path, defect="hole")
    assert [len(record.masks) for record in records] == [1, 1]
    assert [record.load().mask.any() for record in records] == [True, True]


def test_loco_folder_of_masks_is_the_union_of_non_zero_pixels(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"logical_anomalies": 1}, mask_name="{stem}/000.png", size=(40, 40))
    masks = folder / "ground_truth/logical_anomalies/000"
    for name, level, rows in (("000.png", 100, slice(0, 10)), ("001.png", 255, slice(20, 30))):
        grey = np.zeros((40, 40), dtype=np.uint8)
        grey[rows] = level
        fakes.save(masks / name, grey)
    sample = datasets.read("mvtec_ad", folder, defect="logical_anomalies")[0].load()
    assert sample.mask[:10].all() and sample.mask[20:30].all() and sample.mask.sum() == 800


def test_loco_levels_mixed_in_one_file_all_count(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"logical_anomalies": 1}, mask_name="{stem}/000.png", size=(40, 40))
    grey = np.zeros((40, 40), dtype=np.uint8)
    grey[:10], grey[20:30] = 100, 255
    fakes.save(folder / "ground_truth/logical_anomalies/000/000.png", grey)
    assert datasets.read("mvtec_loco", tmp_path, "widget", defect="logical_anomalies")[0].load().mask.sum() == 800
    assert datasets.read("mvtec_ad", folder, defect="logical_anomalies")[0].load().mask.sum() == 400


def test_loco_validation_folder(tmp_path):
    folder = fakes.mvtec_tree(tmp_path)
    fakes.save(folder / "validation/good/000.png", fakes.photo(77))
    assert kinds(datasets.read("mvtec_ad", folder))["validation", "good"] == 1


def test_masks_and_captions_pair_by_stem_never_by_rank(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"crack": 3})
    (folder / "ground_truth/crack/000_mask.png").unlink()
    (folder / "prompt/crack/001.txt").unlink()
    records = datasets.read("mvtec_ad", folder, defect="crack")
    assert [[mask.name for mask in record.masks] for record in records] == [[], ["001_mask.png"], ["002_mask.png"]]
    assert [bool(record.caption) for record in records] == [True, False, True]


def test_stem_one_does_not_take_the_mask_of_ten(tmp_path):
    folder = tmp_path / "widget"
    fakes.save(folder / "train/good/0.png", fakes.photo(0))
    for stem in ("1", "2", "10"):
        fakes.save(folder / f"test/crack/{stem}.png", fakes.photo(int(stem)))
    fakes.save(folder / "ground_truth/crack/10_mask.png", fakes.defect_mask("crack", 1))
    records = datasets.read("mvtec_ad", folder, defect="crack")
    assert [record.image.stem for record in records] == ["1", "2", "10"]  # natural order
    assert [len(record.masks) for record in records] == [0, 0, 1]


def test_generated_folder_without_train(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, good=0, test_good=0)
    fakes.write(folder / "manifest.jsonl", "{}\n")
    fakes.write(folder / "generate.json", "{}\n")
    assert kinds(datasets.read("mvtec_ad", folder)) == {("test", "crack"): 3, ("test", "hole"): 3}
    assert datasets.parse_source(folder)[0] == "mvtec_ad"


def test_caption_is_the_first_line_and_may_have_a_byte_order_mark(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"crack": 3})
    fakes.write(folder / "prompt/crack/000.txt", "first, with comma\r\nsecond\r\n")
    fakes.write(folder / "prompt/crack/001.txt", "\ufeffÄtzung\n")
    fakes.write(folder / "prompt/crack/002.txt", b"\xff\xfe\x00broken")
    captions = [record.caption for record in datasets.read("mvtec_ad", folder, defect="crack")]
    assert captions == ["first, with comma", "Ätzung", ""]


def test_weird_names_and_noise(tmp_path):
    folder = tmp_path / "Gehäuse teil"
    names = ["Bild 2.PNG", "Bild 10.Png", "émail (1).JPG", "日本.webp", "a.b.c.TIFF"]
    for index, name in enumerate(names):
        fakes.save(folder / "train" / "good" / name, fakes.photo(index))
        fakes.save(folder / "test" / "große Kratzer" / name, fakes.photo(50 + index))
        fakes.save(folder / "ground_truth/große Kratzer" / f"{Path(name).stem}_mask.png", fakes.defect_mask("x", index))
    for noise in (".hidden.png", "Thumbs.db", "._Bild 2.PNG", "half.png.partial", ".partial/x.png"):
        fakes.write(folder / "train/good" / noise, "no picture")
    records = datasets.read("mvtec_ad", folder)
    assert kinds(records) == {("train", "good"): 5, ("test", "große Kratzer"): 5}
    assert [r.image.name for r in records if not r.is_good] == [
        "a.b.c.TIFF",
        "Bild 2.PNG",
        "Bild 10.Png",
        "émail (1).JPG",
        "日本.webp",
    ]
    assert all(record.load().mask.any() for record in records if not record.is_good)


def test_decomposed_unicode_mask_names_pair(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"crack": 1})
    composed, decomposed = (unicodedata.normalize(form, "Öse") for form in ("NFC", "NFD"))
    (folder / "test/crack/000.png").rename(folder / f"test/crack/{composed}.png")
    (folder / "ground_truth/crack/000_mask.png").rename(folder / f"ground_truth/crack/{decomposed}_mask.png")
    assert len(datasets.read("mvtec_ad", folder, defect="crack")[0].masks) == 1


def test_sixteen_bit_exif_and_alpha_load(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, good=0, test_good=0, defects={"crack": 1})
    deep = (fakes.photo(1)[..., 0].astype(np.uint16)) << 4  # a 12-bit camera
    fakes.save(folder / "train/good/deep.png", deep)
    fakes.save(folder / "train/good/alpha.png", np.dstack([fakes.photo(2), np.full((48, 64), 9, np.uint8)]))
    from PIL import Image

    turned = Image.fromarray(fakes.photo(3))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "train/good/turned.png", exif=exif)
    loaded = {r.image.stem: r.load().image for r in datasets.read("mvtec_ad", folder, defect="good")}
    assert np.array_equal(loaded["deep"][..., 0], fakes.photo(1)[..., 0])
    assert np.array_equal(loaded["alpha"], fakes.photo(2))
    assert loaded["turned"].shape == (64, 48, 3)


# -- folder ------------------------------------------------------------------------------------------------------------


def test_flat_folder_is_all_good(tmp_path):
    fakes.folder_tree(tmp_path, good_folder="", defects={})
    records = datasets.read("folder", tmp_path)
    assert kinds(records) == {("train", "good"): 4}
    assert datasets.parse_source(tmp_path) == ("folder", tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".bmp", ".tif", ".TIFF", ".webp"])
def test_every_picture_format_loads(tmp_path, suffix):
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


# -- links, groups, sources, errors ------------------------------------------------------------------------------------


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
        ("texts", "holds no picture.*png"),
    ):
        with pytest.raises(FlawsmithError, match=f"(?s){message}"):
            datasets.read(reader, tmp_path / name)


def test_mvtec_errors(tmp_path):
    folder = fakes.mvtec_tree(tmp_path)
    with pytest.raises(FlawsmithError, match="Did you mean 'widget'"):
        datasets.read("mvtec_ad", tmp_path, "wigdet")
    with pytest.raises(FlawsmithError, match="one category's folder"):
        datasets.read("mvtec_ad", folder, "bottle")
    fakes.folder_tree(tmp_path / "plain")
    with pytest.raises(FlawsmithError, match=r"not in MVTec AD layout.*folder:"):
        datasets.read("mvtec_ad", tmp_path / "plain")
    for source, message in (("mvtek_ad:x", "Did you mean 'mvtec_ad'"), ("mvtec_ad:", "names no folder"), ("", "empty")):
        with pytest.raises(FlawsmithError, match=message):
            datasets.parse_source(source)
    with pytest.raises(FlawsmithError, match="Reader 'visa' is not known"):
        datasets.read("visa", tmp_path)


# -- real data ---------------------------------------------------------------------------------------------------------


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
