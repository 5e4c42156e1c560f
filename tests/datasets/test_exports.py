"""Exports: every format gives the same pixels and words back, to our readers and to public ones."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import grouped
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

import fakes
import fakes_annotated as painted
from flawsmith import datasets
from flawsmith.datasets import regions
from flawsmith.datasets.exports import FORMATS, outlines
from flawsmith.datasets.exports.naming import slug
from flawsmith.datasets.exports.run import export
from written import READS, origins, unpack


@pytest.fixture
def widget(tmp_path: Path) -> Path:
    return grouped.tree(tmp_path / "data")


@given(arrays.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
@settings(max_examples=150, deadline=None)
def test_outlines_give_exactly_the_same_pixels_back(mask):
    height, width = mask.shape
    again = np.zeros(mask.shape, dtype=bool)
    for top, left, part in outlines.components(mask):
        ring = outlines.polygon(part) + np.array([left, top])
        rounded = np.round(ring / (width, height), 7) * (width, height)  # YOLO's digits
        drawn = regions.fill([ring], height, width)
        assert np.array_equal(drawn, regions.fill([rounded], height, width))
        again |= drawn
    assert np.array_equal(again, mask)


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip_of_pixels_and_words(widget, tmp_path, name):
    export(widget, tmp_path / "out", [name])
    unpack(tmp_path / "out")
    before = {record.name: record for record in datasets.read("mvtec_ad", widget)}
    after = datasets.read(READS[name], tmp_path / "out")
    rows = origins(tmp_path / "out")
    assert len(after) == len(before) == len(rows)
    for record in after:
        row = rows[record.name]
        old = before[row["origin_file"]]
        assert (record.defect_type, record.caption, record.group) == (old.defect_type, old.caption, old.group)
        assert record.category == old.category == "widget" and row["source"] == "real"
        if name != "mvtec" or record.is_good:
            assert record.split == {"val": "validation"}.get(row["split"], row["split"])
        new, first = record.load(), old.load()
        assert np.array_equal(new.image, first.image)
        if name == "yolo":
            assert record.is_proposed == first.mask.any()
        else:
            assert np.array_equal(new.mask, first.mask)
    if name not in ("mvtec", "yolo"):
        assert len(next(r for r in after if rows[r.name]["origin_file"] == "test/hole/000.png").masks) == 2


@pytest.mark.parametrize("shape", ["polygon", "runs"])
def test_several_labels_in_one_image_travel(tmp_path, shape):
    truth = painted.coco_tree(tmp_path / "set", shape)
    formats = ["yolo-seg", "voc", "labelme", "coco", "datumaro", "hf-dataset", "webdataset"]
    export(tmp_path / "set", tmp_path / "out", formats)
    for folder in (tmp_path / "out").iterdir():
        if folder.is_dir():
            unpack(folder)
            for record in datasets.read(READS[folder.name], folder):
                labels, mask = truth[origins(folder)[record.name]["origin_file"].removeprefix("images/")]
                assert set(record.labels) == labels and np.array_equal(record.load().mask, mask)


def test_coco_is_what_pycocotools_reads(widget, tmp_path):
    tools = pytest.importorskip("pycocotools.coco")
    export(widget, tmp_path / "out", ["coco"])
    ours = {record.image.name: record for record in datasets.read("coco", tmp_path / "out")}
    seen = 0
    for path in (tmp_path / "out/annotations").iterdir():
        api = tools.COCO(str(path))
        for image in api.imgs.values():
            mask = np.zeros((image["height"], image["width"]), dtype=bool)
            for one in api.loadAnns(api.getAnnIds(image["id"])):
                drawn = api.annToMask(one).astype(bool)
                rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
                assert one["bbox"][:2] == [columns[0], rows[0]] and one["area"] == drawn.sum()
                mask |= drawn
            assert np.array_equal(mask, ours[image["file_name"]].load().mask)
            seen += 1
    assert seen == len(ours)


def test_webdataset_reads_its_shards(widget, tmp_path, monkeypatch):
    wds = pytest.importorskip("webdataset")
    monkeypatch.setattr("flawsmith.datasets.exports.shards.SHARD", 20_000)
    export(widget, tmp_path / "out", ["webdataset"])
    before = {record.name: record for record in datasets.read("mvtec_ad", widget)}
    shards = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    assert len(shards) > 4
    seen = 0
    for one in wds.WebDataset(shards, shardshuffle=False).decode("rgb8"):
        old = before[one["json"]["origin"]["origin_file"]].load()
        assert np.array_equal(one["png"], old.image) and np.array_equal(one["mask.png"][..., 0] > 0, old.mask)
        assert one["txt"].strip() == old.caption and one["json"]["defect_type"] == old.defect_type
        seen += 1
    assert seen == len(before)


def test_hugging_face_datasets_reads_the_imagefolder(widget, tmp_path):
    load = pytest.importorskip("datasets.load", reason="Hugging Face's datasets is not installed")
    export(widget, tmp_path / "out", ["hf-dataset"])
    before = {record.name: record for record in datasets.read("mvtec_ad", widget)}
    loaded = load.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "validation", "test"}
    seen = 0
    for rows in loaded.values():
        for row in rows:
            old = before[row["origin"]["origin_file"]].load()
            assert np.array_equal(np.asarray(row["image"]), old.image)
            assert np.array_equal(np.asarray(row["mask"].convert("L")) > 0, old.mask)
            assert (row["caption"], row["defect_type"]) == (old.caption, old.defect_type)
            objects = json.loads(row["objects"])
            assert len(objects["bbox"]) == len(objects["categories"]) and bool(objects["bbox"]) == old.mask.any()
            seen += 1
    assert seen == len(before)


def test_datumaro_reads_its_own_format_and_those_of_others(widget, tmp_path):
    dm = pytest.importorskip("datumaro", reason="datumaro is not installed: it needs an environment of its own")
    from datumaro.components.annotation import AnnotationType

    formats = {"datumaro": "datumaro", "coco": "coco", "voc": "voc", "yolo": "yolo"}
    export(widget, tmp_path / "out", list(formats))
    ours = {record.image.stem: record for record in datasets.read("datumaro", tmp_path / "out/datumaro")}
    for name, theirs in formats.items():
        more = {"coordinate_mode": "voc-one-based"} if name == "voc" else {}
        found = dm.Dataset.import_from(str(tmp_path / "out" / name), theirs, **more)
        assert len(found) == len(ours), name
        names = [label.name for label in found.categories()[AnnotationType.label]]
        for item in found:
            old = ours[item.id.rpartition("/")[2]]
            shapes = [one for one in item.annotations if one.type.name in ("polygon", "mask")]
            if name == "voc":  # boxes as the devkit counts: from 1, both ends included
                boxes = sorted(one.get_bbox() for one in item.annotations if one.type.name == "bbox")
                assert boxes == sorted(box_of(part) for _, part in old.parts((48, 64), lambda: None))
            if name == "yolo":
                assert len([one for one in item.annotations if one.type.name == "bbox"]) == len(old.masks)
                continue
            mask = np.zeros((48, 64), dtype=bool)
            for one in shapes:
                drawn = one.image if one.type.name == "mask" else filled(one.points)
                mask |= np.asarray(drawn, dtype=bool)
                assert names[one.label] == old.defect_type
            assert np.array_equal(mask, old.load().mask), (name, item.id)
        if name == "datumaro":
            assert {item.id: item.attributes["part"] for item in found} == {key: r.group for key, r in ours.items()}
            said = {item.id: [one.caption for one in item.annotations if one.type.name == "caption"] for item in found}
            assert said == {key: [record.caption] if record.caption else [] for key, record in ours.items()}


def box_of(mask: np.ndarray) -> list[int]:
    """[x, y, width, height] of all that is marked."""
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


def filled(points) -> np.ndarray:
    """A polygon as pycocotools fills it, which datumaro does."""
    tools = pytest.importorskip("pycocotools.mask")
    return tools.decode(tools.merge(tools.frPyObjects([list(points)], 48, 64)))


@pytest.mark.parametrize("name", ["coco", "yolo-seg", "voc"])
def test_supervision_reads_it(widget, tmp_path, name):
    supervision = pytest.importorskip("supervision")
    out = tmp_path / "out"
    export(widget, out, [name], val=0.0, test=0.0)
    kind = supervision.DetectionDataset
    if name == "coco":
        found = kind.from_coco(str(out / "images/train"), str(out / "annotations/instances_train.json"), True)
    elif name == "voc":
        found = kind.from_pascal_voc(str(out / "JPEGImages"), str(out / "Annotations"))
    else:
        found = kind.from_yolo(str(out / "images/train"), str(out / "labels/train"), str(out / "data.yaml"), True)
    ours = {record.image.name: record for record in datasets.read(READS[name], out)}
    assert sorted(found.classes) == ["crack", "hole"] and len(found) == len(ours)
    for path, _, detections in found:
        assert len(detections) == len(ours[Path(path).name].masks)


def test_voc_and_labelme_by_their_own_rules(widget, tmp_path):
    export(widget, tmp_path / "out", ["voc", "labelme"])
    stem = next(r["file"] for r in origins(tmp_path / "out/voc").values() if r["origin_file"] == "test/hole/000.png")
    stem = Path(stem).stem
    xml = ElementTree.parse(tmp_path / f"out/voc/Annotations/{stem}.xml").getroot()
    boxes = [[int(box.findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax")] for box in xml.iter("bndbox")]
    assert boxes == [[6, 6, 25, 20], [41, 31, 61, 33]]
    levels = np.asarray(Image.open(tmp_path / f"out/voc/SegmentationObject/{stem}.png"))
    assert (levels == 1).sum() == 15 * 20 - 6 * 10 and (levels == 2).sum() == 41
    lists = [
        (tmp_path / f"out/voc/ImageSets/Main/{split}.txt").read_text().split() for split in ("train", "val", "test")
    ]
    assert sum(map(len, lists)) == len(list((tmp_path / "out/voc/JPEGImages").iterdir()))
    content = json.loads(next((tmp_path / "out/labelme").glob(f"*/{stem}.json")).read_text())
    assert [shape["label"] for shape in content["shapes"]] == ["hole", "hole"] and content["imageData"] is None


def test_yaml_is_ready_for_ultralytics(widget, tmp_path):
    export(widget, tmp_path / "out", ["yolo-seg"])
    content = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert content["names"] == {0: "crack", 1: "hole"} and "path" not in content
    for split in ("train", "val", "test"):
        images = list((tmp_path / "out" / content[split]).iterdir())
        assert images and all((tmp_path / f"out/labels/{split}/{p.stem}.txt").is_file() for p in images)


def test_images_that_trainers_would_misread_become_plain(tmp_path):
    folder = fakes.mvtec_tree(tmp_path / "data", good=1, test_good=0, defects={"hole": 1})
    turned = Image.fromarray(fakes.photo(5))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "train/good/001.jpg", exif=exif)
    deep = fakes.photo(6)[..., 0].astype(np.uint16) * 256
    Image.fromarray(deep).save(folder / "train/good/002.png")
    Image.fromarray(fakes.photo(7)).convert("CMYK").save(folder / "train/good/003.jpg")
    export(folder, tmp_path / "out", ["coco"])
    before = {record.name: record for record in datasets.read("mvtec_ad", folder)}
    for record in datasets.read("coco", tmp_path / "out"):
        old = before[origins(tmp_path / "out")[record.name]["origin_file"]]
        assert np.array_equal(record.load().image, old.load().image)
        with Image.open(record.image) as opened:
            assert opened.mode in ("RGB", "L") and opened.getexif().get(0x0112, 1) == 1


def test_names_are_safe_and_never_one_for_two(tmp_path):
    assert slug("../../etc/passwd") == "etc_passwd" and slug("") == "_" and slug("nul.txt") == "_nul.txt"
    assert slug("Kratzer übel.") == "Kratzer_übel" and len(slug("x" * 999)) == 100
    for name in ("a b", "a_b", "A_B", "a.b"):
        fakes.save(tmp_path / f"set/good/{name}.png", fakes.photo(len(name)))
    export(f"folder:{tmp_path / 'set'}", tmp_path / "out", ["coco"])
    stems = [path.stem.casefold() for path in (tmp_path / "out").rglob("*.png")]
    assert len(stems) == len({stem.replace(".", "_") for stem in stems}) == 4
    export(f"coco:{tmp_path / 'out'}", tmp_path / "again", ["coco"])
    assert sorted(path.stem.casefold() for path in (tmp_path / "again").rglob("*.png")) == sorted(stems)
