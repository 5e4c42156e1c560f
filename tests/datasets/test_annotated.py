"""Readers of annotation files against painted sets: known pixels, labels, splits, and recognition without a name."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

import fakes
import fakes_annotated as painted
from flawsmith import datasets, images
from flawsmith.datasets import levels, regions
from flawsmith.datasets.check import check
from flawsmith.datasets.exports.run import export
from flawsmith.datasets.exports.voc import PALETTE
from flawsmith.errors import FlawsmithError
from flawsmith.masks import boxes

EXACT = {
    "coco polygons": ("coco", painted.coco_tree),
    "coco runs": ("coco", partial(painted.coco_tree, shape="runs")),
    "yolo outlines": ("yolo", painted.yolo_tree),
    "voc objects": ("voc", painted.voc_tree),
    "labelme polygons": ("labelme", painted.labelme_tree),
    "labelme masks": ("labelme", partial(painted.labelme_tree, kind="mask")),
    "cvat polygons": ("cvat", painted.cvat_tree),
    "cvat masks": ("cvat", partial(painted.cvat_tree, kind="mask")),
    "datumaro polygons": ("datumaro", painted.datumaro_tree),
    "datumaro masks": ("datumaro", partial(painted.datumaro_tree, kind="mask")),
    "hf polygons": ("hf_dataset", painted.hf_tree),
    "webdataset masks": ("webdataset", painted.webdataset_tree),
    "label studio polygons": ("label_studio", painted.label_studio_tree),
    "label studio brushes": ("label_studio", partial(painted.label_studio_tree, kind="brush")),
}
BOXES = {
    "coco boxes": ("coco", partial(painted.coco_tree, shape="box")),
    "yolo boxes": ("yolo", partial(painted.yolo_tree, outlines=False)),
    "voc boxes": ("voc", partial(painted.voc_tree, objects=False)),
    "labelme rectangles": ("labelme", partial(painted.labelme_tree, kind="rectangle")),
    "cvat boxes": ("cvat", partial(painted.cvat_tree, kind="box")),
    "datumaro boxes": ("datumaro", partial(painted.datumaro_tree, kind="bbox")),
    "hf boxes": ("hf_dataset", partial(painted.hf_tree, kind="box")),
    "label studio rectangles": ("label_studio", partial(painted.label_studio_tree, kind="rectangle")),
}


@pytest.mark.parametrize("case", EXACT)
def test_pixels_and_labels_are_those_that_were_marked(tmp_path, case):
    reader, paint = EXACT[case]
    truth = paint(tmp_path)
    records = datasets.read(reader, tmp_path)
    assert {record.image.name for record in records} == truth.keys()
    for record in records:
        labels, mask = truth[record.image.name]
        assert set(record.labels) == labels and not record.is_proposed
        assert record.defect_type in (*labels, "combined") if labels else record.is_good
        assert (record.defect_type == "combined") == (record.image.stem == "both")
        assert np.array_equal(record.load().mask, mask)
        assert record.marks_something() == mask.any()
    assert not [one for one in check(f"{reader}:{tmp_path}").findings if one.severity == "error"]


@pytest.mark.parametrize("case", BOXES)
def test_boxes_become_proposed_masks_inside_them_and_check_says_so(tmp_path, case):
    reader, paint = BOXES[case]
    truth = paint(tmp_path)
    records = datasets.read(reader, tmp_path)
    for record in records:
        labels, box = truth[record.image.name]
        assert set(record.labels) == labels and record.is_proposed == bool(labels)
        found = record.load().mask
        assert not (found & ~box).any() and found.sum() >= 0.5 * box.sum()
        assert np.array_equal(found, record.load().mask)
    kinds = {one.kind: one for one in check(f"{reader}:{tmp_path}").findings}
    assert "1 more images" in kinds["mask-proposed"].reason


def test_the_sheet_shows_what_was_proposed(tmp_path, run):
    painted.coco_tree(tmp_path / "set", shape="box")
    code, said, _ = run("check", f"coco:{tmp_path / 'set'}", "--sheet", tmp_path / "sheet.png")
    assert code == 0 and "2 of 2 proposed masks" in said
    sheet = images.read_image(tmp_path / "sheet.png")
    drawn = images.fit(images.mask_image(datasets.read("coco", tmp_path / "set")[0].load().mask), 192)
    height, width = drawn.shape[:2]
    assert np.array_equal(sheet[28 : 28 + height, 204 : 204 + width], drawn) and drawn.any()
    painted.coco_tree(tmp_path / "drawn")
    assert "2 of 2 masks" in run("check", f"coco:{tmp_path / 'drawn'}", "--sheet", tmp_path / "drawn.png")[1]


@pytest.mark.parametrize("case", [*EXACT, *BOXES])
def test_a_folder_alone_is_recognised_and_the_reason_named(tmp_path, run, case):
    reader, paint = {**EXACT, **BOXES}[case]
    paint(tmp_path)
    code, out, _ = run("check", tmp_path)
    assert code == 0
    first = out.splitlines()[0]
    assert first.startswith(f"Read as {reader}: ") and any(p.name in first for p in tmp_path.rglob("*") if p.is_file())


def test_other_layouts_are_recognised_as_before(tmp_path):
    fakes.mvtec_tree(tmp_path / "a")
    fakes.folder_tree(tmp_path / "b", captions=True)
    assert datasets.told(tmp_path / "a") == "Read as mvtec_ad: widget/ has train/good, test/crack, test/good, ...."
    assert datasets.told(str(tmp_path / "b")).startswith("Read as folder: no data set's layout")
    assert datasets.told(f"folder:{tmp_path / 'b'}") == "Read as folder."


def test_generate_takes_annotated_data_and_says_how_it_read_it(tmp_path, run):
    painted.coco_tree(tmp_path / "set")
    code, _, err = run(
        "generate", "copypaste", "--normal", tmp_path / "set", "--shots", 1, "-n", 2, "--out", tmp_path / "out"
    )
    assert code == 0 and "Read as coco: annotations.json holds" in err
    made = datasets.read("mvtec_ad", tmp_path / "out")
    assert made and all(record.load().mask.any() for record in made)


def test_splits_come_from_folders_names_and_lists(tmp_path):
    painted.voc_tree(tmp_path / "voc")
    splits = {record.image.stem: record.split for record in datasets.read("voc", tmp_path / "voc")}
    assert splits == {"good": "train", "hole": "validation", "both": "validation"}
    painted.coco_tree(tmp_path / "coco")
    (tmp_path / "coco/annotations.json").rename(tmp_path / "coco/instances_val2017.json")
    assert {record.split for record in datasets.read("coco", tmp_path / "coco")} == {"validation"}
    painted.yolo_tree(tmp_path / "yolo")
    (tmp_path / "yolo/train").rename(tmp_path / "yolo/test")
    assert {record.split for record in datasets.read("yolo", tmp_path / "yolo")} == {"test"}


def test_objects_in_vocs_colours_without_a_palette_are_counted(tmp_path):
    truth = painted.voc_tree(tmp_path)
    numbers = np.arange(256, dtype=np.uint8)[None]
    shown = np.array([PALETTE[3 * number : 3 * number + 3] for number in range(256)], np.uint8)[None]
    assert np.array_equal(levels.numbered(shown), numbers)
    for path in (tmp_path / "SegmentationObject").iterdir():
        fakes.save(path, np.asarray(Image.open(path).convert("RGB")))
    for record in datasets.read("voc", tmp_path):
        assert np.array_equal(record.load().mask, truth[record.image.name][1])


def test_compressed_run_lengths_of_cocos_own_tools():
    # 40 outside, 3 inside, 50 outside, 3 inside, 4 outside: a number is 5 bits a character, later ones differences
    assert regions.run_lengths("X13b10bN", "x").tolist() == [40, 3, 50, 3, 4]


def test_compressed_run_lengths_agree_with_pycocotools():
    tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for size in ((7, 9), (48, 64), (1, 5)):
        mask = rng.random(size) < 0.4
        packed = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
        region = regions.RunLengths(None, "x", "hole", counts=packed["counts"].decode(), shape=size)
        assert np.array_equal(region.draw(size, lambda: None), mask)


def test_polygons_agree_with_pycocotools_but_for_the_outline():
    tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(1)
    for _ in range(50):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
        ring = 24 + rng.uniform(8, 20, 9)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        theirs = tools.decode(tools.merge(tools.frPyObjects([ring.ravel().tolist()], 48, 48))).astype(bool)
        ours = regions.fill([ring], 48, 48)
        assert (ours ^ theirs).sum() <= 0.02 * theirs.sum() + 8


def test_fill_counts_pixel_centres():
    square = np.array([[1.4, 1.4], [4.6, 1.4], [4.6, 3.5], [1.4, 3.5]])
    expected = np.zeros((6, 7), dtype=bool)
    expected[1:3, 1:5] = True  # centres 1.5 to 4.5 and 1.5, 2.5; 3.5 lies on the lower edge, which is outside
    assert np.array_equal(regions.fill([square], 6, 7), expected)
    assert regions.fill([square - 100], 6, 7).sum() == 0
    assert regions.fill([(square - 3) * 50], 6, 7).all()
    star = np.array([[0, 0], [6, 0], [6, 6], [0, 6], [0, 0], [2, 2], [4, 2], [4, 4], [2, 4], [2, 2]], dtype=float)
    ring = np.ones((6, 6), dtype=bool)
    ring[2:4, 2:4] = False
    assert np.array_equal(regions.fill([star], 6, 6), ring)


def test_box_proposal_finds_a_disc_better_than_its_box_and_is_never_empty():
    rows, columns = np.mgrid[:80, :100]
    disc = np.hypot(rows - 40, columns - 50) < 15
    image = np.where(disc[..., None], 60, fakes.photo(1, (80, 100)) // 4 + 120).astype(np.uint8)
    found = boxes.within(image, (25, 35, 56, 66))
    truth = disc[25:56, 35:66]
    assert (found & truth).sum() / (found | truth).sum() > 0.9
    for box in ((0, 0, 80, 100), (3, 3, 4, 4), (79, 99, 80, 100), (0, 10, 2, 90)):
        part = boxes.within(image, box)
        assert part.shape == (box[2] - box[0], box[3] - box[1]) and part.any()


def test_captions_groups_and_products_of_origin_csv_reach_annotated_records(tmp_path):
    painted.yolo_tree(tmp_path)
    row = "train/images/hole.jpg,part 4,widget,A deep hole.\n"
    fakes.write(tmp_path / "origin.csv", "file,group,category,caption\n" + row)
    hole = next(r for r in datasets.read("yolo", tmp_path) if r.image.stem == "hole")
    assert (hole.group, hole.category, hole.caption) == ("part 4", "widget", "A deep hole.")
    assert [r.image.stem for r in datasets.read("yolo", tmp_path, "widget")] == ["hole"]


def test_label_good_marks_nothing_and_coco_captions_are_read(tmp_path):
    painted.coco_tree(tmp_path)
    path = tmp_path / "annotations.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "OK"
    path.write_text(json.dumps(content))
    captions = [{"id": 1, "image_id": 9, "caption": " A crack. "}]
    fakes.write(
        tmp_path / "captions.json", json.dumps({"images": content["images"], "annotations": captions, "categories": []})
    )
    found = {record.image.stem: record for record in datasets.read("coco", tmp_path)}
    assert found["hole"].is_good and found["both"].defect_type == "crack" and found["both"].caption == "A crack."


def test_one_source_of_truth_for_every_image(tmp_path):
    painted.coco_tree(tmp_path)
    fakes.write(tmp_path / "more.json", (tmp_path / "annotations.json").read_text())
    with pytest.raises(FlawsmithError, match=r"more\.json, annotations\[0\] marks a defect on hole\.png"):
        datasets.read("coco", tmp_path)


@pytest.mark.parametrize("way", ["../images/{}", "..\\images\\{}", "deeper/../../images/./{}"])
def test_names_may_go_up_as_long_as_they_stay_inside(tmp_path, way):
    """LabelMe writes them where its files are kept apart from the images."""
    truth = painted.labelme_tree(tmp_path / "images")
    for path in sorted((tmp_path / "images").glob("*.json")):
        content = json.loads(path.read_text())
        content["imagePath"] = way.format(content["imagePath"])
        fakes.write(tmp_path / "json" / path.name, json.dumps(content))
        path.unlink()
    fakes.save(tmp_path / "deeper" / "both.png", fakes.photo(60))  # another image of the same name
    records = {record.name: record for record in datasets.read_source(tmp_path)}
    for name in ("hole.png", "both.png"):
        assert np.array_equal(records[f"images/{name}"].load().mask, truth[name][1])
    for lost in ("../../images/both.png", "../images/../../set/images/both.png"):
        (tmp_path / "json/both.json").write_text(json.dumps({**content, "imagePath": lost}))
        with pytest.raises(FlawsmithError, match=r"both\.json: the image's name .* leads out"):
            datasets.read("labelme", tmp_path)


@pytest.mark.parametrize("task", ["stuff", "person_keypoints", "panoptic"])
def test_cocos_other_tasks_do_not_describe_the_images_again(tmp_path, task):
    """Datumaro and COCO itself write a file for each task."""
    truth = painted.coco_tree(tmp_path)
    content = (tmp_path / "annotations.json").read_text()
    fakes.write(tmp_path / f"annotations/{task}_train.json", content)
    (tmp_path / "annotations.json").rename(tmp_path / "annotations/instances_train.json")
    records = datasets.read_source(tmp_path)
    assert all(np.array_equal(record.load().mask, truth[record.image.name][1]) for record in records)
    (tmp_path / "annotations/instances_train.json").unlink()  # alone it is what there is
    assert {record.name for record in datasets.read_source(tmp_path)} == {record.name for record in records}


def test_shards_that_are_not_unpacked_are_recognised_and_the_remedy_told(tmp_path, run):
    painted.coco_tree(tmp_path / "set")
    export(f"coco:{tmp_path / 'set'}", tmp_path / "out", ["webdataset"])
    code, out, err = run("check", tmp_path / "out")
    assert code == 2 and out.startswith("Read as webdataset: it holds shards") and "tar -xf" in err


def test_layouts_without_any_defect_are_no_plain_photographs(tmp_path):
    """Their folders are no defect types: JPEGImages, obj_train_data."""
    painted.photos(tmp_path / "yolo/obj_train_data")
    fakes.write(tmp_path / "yolo/obj.names", "hole\n")
    assert all(record.is_good for record in datasets.read_source(tmp_path / "yolo"))
    painted.photos(tmp_path / "voc/JPEGImages")
    fakes.write(tmp_path / "voc/ImageSets/Main/train.txt", "good\n")
    with pytest.raises(FlawsmithError, match=r"no Pascal VOC annotation"):
        datasets.read_source(tmp_path / "voc")


def test_mask_images_of_any_level_are_checked_by_their_own_rule(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"logical": 1})
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[5:10, 5:10], mask[20:25, 5:10] = 255, 90
    images.write_image(folder / "ground_truth/logical/000_mask.png", mask)
    report = check(f"mvtec_loco:{folder}")
    row = next(row for row in report.rows if row["type"] == "logical")
    assert row["area %"] == round(100 * 50 / (48 * 64), 3) and "mask-grey" not in {f.kind for f in report.findings}


def test_coco_of_annotation_services_has_a_file_and_equal_names_in_every_split(tmp_path):
    for split in ("train", "valid"):
        truth = painted.coco_tree(tmp_path / split)
        for name in truth:
            (tmp_path / split / "images" / name).rename(tmp_path / split / name)
        (tmp_path / split / "images").rmdir()
        (tmp_path / split / "annotations.json").rename(tmp_path / split / "_annotations.coco.json")
    records = datasets.read_source(tmp_path)
    assert {(r.name, r.split) for r in records} == {
        (f"{split}/{name}", named)
        for split, named in (("train", "train"), ("valid", "validation"))
        for name in ("good.png", "hole.png", "both.png")
    }
    assert all(np.array_equal(r.load().mask, truth[r.image.name][1]) for r in records)


def test_texts_and_settings_of_plain_photographs_are_no_annotations(tmp_path):
    fakes.folder_tree(tmp_path, captions=True)
    fakes.write(tmp_path / "camera.yaml", "filenames: [a, b]\nexposure: 3\n")
    fakes.write(tmp_path / "results.json", '{"categories": ["a"], "scores": [1, 2]}')
    fakes.write(tmp_path / "good/IMG_0.txt", "0 a good part\n")
    assert datasets.parse_source(tmp_path)[0] == "folder"
