"""Pascal VOC without XML: classes by colour or number, objects where there are any, refusals that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fakes
import fakes_annotated as painted
from flawsmith import datasets
from flawsmith.datasets import levels
from flawsmith.datasets.check import check
from flawsmith.datasets.exports.run import export
from flawsmith.errors import FlawsmithError


@pytest.mark.parametrize("objects", [True, False])
@pytest.mark.parametrize("colours", [True, False])
def test_class_images_are_read_and_recognised(tmp_path: Path, objects: bool, colours: bool) -> None:
    truth = painted.voc_classes_tree(tmp_path / "set", objects, colours)
    assert datasets.told(tmp_path / "set") == (
        "Read as voc: SegmentationClass/both.png is a class image of Pascal VOC."
    )
    records = datasets.read_source(tmp_path / "set")
    assert {record.image.name for record in records} == set(truth)
    for record in records:
        labels, mask = truth[record.image.name]
        assert set(record.labels) == labels and np.array_equal(record.load().mask, mask) and not record.is_proposed
        assert record.split == ("validation" if record.image.stem == "both" else "train")
        for label, part in record.parts((48, 64), lambda: None):
            assert np.array_equal(part, painted.rectangle(painted.HOLE if label == "hole" else painted.CRACK))
    assert not [one for one in check(tmp_path / "set").findings if one.severity in ("error", "warning")]


def test_two_objects_of_one_class_are_two_defects_and_travel_as_such(tmp_path: Path) -> None:
    painted.voc_classes_tree(tmp_path / "set")
    numbers = np.zeros(painted.SIZE, np.uint8)
    numbers[10:20, 8:16], numbers[10:20, 16:24] = 1, 2  # the hole in two halves, which touch
    fakes.save(tmp_path / "set/SegmentationObject/hole.png", numbers)
    export(tmp_path / "set", tmp_path / "out", ["coco"])
    halves = next(r for r in datasets.read("coco", tmp_path / "out") if r.defect_type == "hole")
    parts = [part for _, part in halves.parts(painted.SIZE, lambda: None)]
    assert [np.array_equal(part, numbers == n) for n, part in enumerate(parts, start=1)] == [True, True]
    assert halves.labels == ("hole",)


def test_without_a_labelmap_the_colours_are_vocs(tmp_path: Path) -> None:
    painted.photos(tmp_path / "JPEGImages")
    classes = np.zeros((*painted.SIZE, 3), np.uint8)
    classes[10:20, 8:24], classes[9, 8:24] = (128, 128, 0), (224, 224, 192)  # class 3, and a rim of no matter
    fakes.save(tmp_path / "SegmentationClass/hole.png", classes)
    records = {record.image.stem: record for record in datasets.read("voc", tmp_path)}
    assert records["hole"].defect_type == "class_3" and records["good"].is_good
    assert np.array_equal(records["hole"].load().mask, painted.rectangle(painted.HOLE))


def test_numbers_and_colours_are_one_another() -> None:
    colours = np.array([levels.colour(number) for number in range(256)], np.uint8)[None]
    assert levels.numbered(colours).tolist() == [list(range(256))]
    assert levels.colour(15) == (192, 128, 128) and levels.colour(255) == (224, 224, 192)  # the devkit's own table


def test_an_xml_file_without_objects_leaves_the_word_to_the_class_image(tmp_path: Path) -> None:
    truth = painted.voc_classes_tree(tmp_path)
    fakes.write(tmp_path / "Annotations/hole.xml", "<annotation><filename>hole.jpg</filename></annotation>")
    hole = next(record for record in datasets.read("voc", tmp_path) if record.image.stem == "hole")
    assert hole.defect_type == "hole" and np.array_equal(hole.load().mask, truth["hole.jpg"][1])


REFUSED = {
    "colour": ("labelmap.txt", "hole:250,50,83::\n", r"both\.png holds the colour 61,61,245, which is no class"),
    "no colour": ("labelmap.txt", "hole:250,50::\n", r"labelmap\.txt, line 1: 'hole:250,50::' is no class"),
    "twice": ("labelmap.txt", "a:1,2,3::\nb:1,2,3::\n", r"labelmap\.txt, line 2: 'b' has the colour of a"),
    "nameless": ("labelmap.txt", ":1,2,3::\n", r"labelmap\.txt, line 1: the label is ''"),
    "no text": ("labelmap.txt", b"\xff\xfe\x00", r"labelmap\.txt cannot be read"),
    "no image": ("SegmentationClass/both.png", b"PNG", r"both\.png cannot be read"),
    "no object": ("SegmentationObject/both.png", b"PNG", r"SegmentationObject/both\.png cannot be read"),
    "alone": ("SegmentationClass/other.png", b"PNG", r"other\.png: no image is called 'other'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_file(tmp_path: Path, case: str) -> None:
    file, content, message = REFUSED[case]
    painted.voc_classes_tree(tmp_path)
    fakes.write(tmp_path / file, content)
    with pytest.raises(FlawsmithError, match=message):
        datasets.read("voc", tmp_path)


def test_shades_and_other_sizes_are_refused(tmp_path: Path) -> None:
    painted.voc_classes_tree(tmp_path / "set")
    fakes.save(tmp_path / "set/SegmentationObject/both.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(FlawsmithError, match=r"both\.png is 8 x 8 pixels"):
        datasets.read("voc", tmp_path / "set")
    (tmp_path / "set/SegmentationObject/both.png").unlink()
    fakes.save(tmp_path / "set/SegmentationClass/both.png", fakes.photo(3))
    with pytest.raises(FlawsmithError, match=r"both\.png holds \d+ colours: a class image has 256 at most"):
        datasets.read("voc", tmp_path / "set")
