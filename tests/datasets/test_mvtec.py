"""The MVTec AD reader, LOCO's folders of masks too: pairing by stem, names people really use."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from counts import kinds

import fakes
from flawsmith import datasets
from flawsmith.errors import FlawsmithError


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
        fakes.write(folder / "train/good" / noise, "no image")
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
    with pytest.raises(FlawsmithError, match="Reader 'voisa' is not known"):
        datasets.read("voisa", tmp_path)
