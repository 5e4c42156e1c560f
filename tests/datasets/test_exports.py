"""Exports: every format gives the same pixels and words back, to our readers and to public ones; nothing leaks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

import fakes
import fakes_annotated as painted
from flawsmith import datasets, images
from flawsmith.datasets import regions
from flawsmith.datasets.check import check
from flawsmith.datasets.exports import FORMATS, dividing, outlines
from flawsmith.datasets.exports.naming import slug
from flawsmith.datasets.exports.run import export
from flawsmith.errors import FlawsmithError
from flawsmith.records import Record
from written import READS, origins, unpack

GROUPS = {f"test/crack/{n:03d}.png": f"part {n // 2}" for n in range(6)}


@pytest.fixture
def widget(tmp_path: Path) -> Path:
    """A set with groups and captions, several defects in an image, and a ring: a defect with a hole in it."""
    folder = fakes.mvtec_tree(tmp_path / "data", good=5, defects={"crack": 6, "hole": 4}, groups=GROUPS)
    mask = np.zeros((48, 64), dtype=bool)
    mask[5:20, 5:25], mask[9:15, 10:20], mask[30:32, 40:60], mask[32, 60] = True, False, True, True
    images.write_image(folder / "ground_truth/hole/000_mask.png", mask)
    return folder


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


def test_parts_stay_together_and_every_type_trains(widget, tmp_path):
    records = datasets.read("mvtec_ad", widget)
    for seed in range(5):
        chosen = dividing.by_part(records, 0.2, 0.3, seed)
        sides: dict[str, set[str]] = {}
        for record in records:
            sides.setdefault(record.group, set()).add(chosen[record.image])
        assert all(len(side) == 1 for side in sides.values())
        count = Counter((record.defect_type, chosen[record.image]) for record in records)
        assert all(count[kind, "train"] for kind in ("good", "crack", "hole"))
        assert count["crack", "test"] == 2 and count["hole", "test"] == 1 and count["good", "test"] == 2


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["good", "hole", "crack"])), min_size=1, max_size=20),
    st.floats(0, 0.5),
    st.floats(0, 0.49),
)
@settings(max_examples=100, deadline=None)
def test_any_shares_leave_a_part_of_every_type_to_train(drawn, val, test):
    records = [
        Record(Path(f"/nowhere/{number}.png"), "widget", kind, group=str(group), root=Path("/nowhere"))
        for number, (group, kind) in enumerate(drawn)
    ]
    chosen = dividing.by_part(records, val, test)
    for kind in {record.defect_type for record in records}:
        assert "train" in {chosen[record.image] for record in records if record.defect_type == kind}
    for group in {record.group for record in records}:
        assert len({chosen[record.image] for record in records if record.group == group}) == 1


def test_shares_are_kept_on_many_single_images(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, good=20, test_good=0, defects={"hole": 20}, size=(16, 16))
    chosen = dividing.by_part(datasets.read("mvtec_ad", folder), 0.1, 0.2)
    assert Counter(chosen.values()) == {"train": 28, "val": 4, "test": 8}


def test_own_division_is_kept_where_there_is_one(tmp_path):
    painted.voc_tree(tmp_path / "set")
    fakes.write(tmp_path / "set/ImageSets/Main/train.txt", "good\nhole\n")
    fakes.write(tmp_path / "set/ImageSets/Main/val.txt", "both\n")
    export(tmp_path / "set", tmp_path / "out", ["coco"])
    splits = {row["origin_file"]: row["split"] for row in origins(tmp_path / "out").values()}
    assert splits == {f"JPEGImages/{n}.jpg": s for n, s in (("good", "train"), ("hole", "train"), ("both", "val"))}


@pytest.fixture
def made(widget, tmp_path, run) -> Path:
    code, _, err = run(
        *("generate", "copypaste", "--normal", widget, "-n", 6, "--shots", 1, "--with-normals"),
        *("--out", tmp_path / "made"),
    )
    assert code == 0, err
    return tmp_path / "made"


def test_merged_generated_images_train_and_so_does_what_they_were_made_from(widget, made, tmp_path, run):
    code, _, err = run("export", made, "--merge", widget, "--format", "coco,yolo", "--out", tmp_path / "out")
    assert code == 0 and "they and their parts train" in err
    rows = list(origins(tmp_path / "out/coco").values())
    assert rows == [{**r, "file": r["file"]} for r in origins(tmp_path / "out/yolo").values()]
    generated = [row for row in rows if row["source"] == "generated"]
    assert len(generated) == 6 and {row["split"] for row in generated} == {"train"}
    assert all(row["method"] == "copypaste" and row["caption"] and row["reference"] for row in generated)
    by_file = {row["origin_file"]: row for row in rows if row["source"] == "real"}
    assert {row["category"] for row in rows} == {"widget"}
    assert len(by_file) == 17  # the good ones that were copied beside the generated are there once
    for row in generated:
        assert by_file[row["reference"]]["split"] == "train" == by_file[row["normal"]]["split"]
    parts = {by_file[row["reference"]]["group"] for row in generated}
    assert {row["split"] for row in rows if row["group"] in parts} == {"train"}
    assert {row["split"] for row in rows} == {"train", "val", "test"}


def test_generated_alone_is_divided_by_the_photograph(made, tmp_path):
    export(made, tmp_path / "out", ["coco"])
    sides: dict[str, set[str]] = {}
    for row in origins(tmp_path / "out").values():
        if row["source"] == "generated" and row["method"]:
            sides.setdefault(row["normal"], set()).add(row["split"])
    assert sides and all(len(side) == 1 for side in sides.values())


def test_what_would_leak_or_mislead_is_refused(widget, made, tmp_path):
    with pytest.raises(FlawsmithError, match="trains on good images only"):
        export(made, tmp_path / "out", ["mvtec", "coco"], merge=[widget])
    with pytest.raises(FlawsmithError, match="give --split part"):
        export(made, tmp_path / "out", ["coco"], merge=[widget], split="own")
    (made / "generate.json").write_text("{")
    with pytest.raises(FlawsmithError, match="nobody knows which real defects were seen"):
        export(made, tmp_path / "out", ["coco"], merge=[widget])
    assert not (tmp_path / "out").exists()


def test_a_folder_of_refused_images_is_no_data_set(widget, tmp_path, run):
    """The thumbnails in refused/ are no defects; the same folder goes as soon as one image is kept."""
    made = tmp_path / "made"
    command = ("generate", "copypaste", "--normal", widget, "--shots", 1, "--gate", "strict", "--set", "max_redraws=0")
    run(*command, "-n", 2, "--out", made)
    lines = [json.loads(line) for line in (made / "manifest.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["rejected"] * 2 and (made / "refused").is_dir()
    code, _, err = run("export", made, "--merge", widget, "--format", "coco", "--out", tmp_path / "out")
    assert code == 2 and f"{made} holds no generated image: every one was refused" in err
    assert not (tmp_path / "out").exists()
    for source in (made, f"folder:{made}", f"mvtec_ad:{made}"):
        code, _, err = run("check", source)
        assert code == 2 and f"{made} holds no generated image: every one was refused" in err


def test_a_folder_of_dropped_images_is_no_data_set(widget, tmp_path, run):
    made = tmp_path / "made"
    run("generate", "cutpaste", "--normal", widget, "-n", 2, "--gate", "off", "--out", made)
    run("review", made)
    verdicts = tmp_path / "made-review.csv"
    verdicts.write_text(verdicts.read_text().replace(",keep,", ",drop,"))
    assert run("review", made, "--csv", verdicts)[0] == 0
    for folder in sorted((path for path in made.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()  # as a copy does that knows files only
    assert (made / "dropped/test").is_dir()
    code, _, err = run("check", made)
    assert code == 2 and f"{made} holds no generated image: every one was refused or dropped" in err


@pytest.mark.parametrize("reader", ["mvtec_ad", "folder"])
def test_what_a_run_sets_aside_is_no_part_of_its_images(made, reader):
    before = [record.name for record in datasets.read(reader, made)]
    fakes.save(made / "refused/00000-0.jpg", fakes.photo(70))
    fakes.save(made / "dropped/test/crack/000.png", fakes.photo(71))
    assert [record.name for record in datasets.read(reader, made)] == before
    assert not [one for one in check(f"{reader}:{made}").findings if one.file.startswith(("refused", "dropped"))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": ["cocoo"]}, "Did you mean 'coco'"),
        ({"formats": []}, "name each of"),
        ({"formats": ["coco", "coco"]}, "once at most"),
        ({"val": 0.5, "test": 0.5}, "together less than 1"),
        ({"val": float("nan")}, "together less than 1"),
        ({"split": "random"}, "known: own, part"),
        ({"merge": ["SELF"]}, "named twice"),
        ({"out": "INSIDE"}, "must stay as it is"),
        ({"category": "wodget"}, "wodget"),
    ],
)
def test_refusals_write_nothing(widget, tmp_path, change, message):
    before = sorted(tmp_path.rglob("*"))
    chosen = {"out": tmp_path / "out", "formats": ["coco"], **change}
    if chosen.get("merge"):
        chosen["merge"] = [widget]
    if chosen["out"] == "INSIDE":
        chosen["out"] = widget / "test" / "out"
    with pytest.raises(FlawsmithError, match=message):
        export(widget, **chosen)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_same_call_resumes_and_another_is_refused(widget, tmp_path, run):
    out = tmp_path / "out"
    assert run("export", widget, "--format", "coco,voc", "--out", out)[0] == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "coco/annotations/instances_train.json").unlink()
    lost = next((out / "voc/JPEGImages").iterdir())
    lost.write_bytes(b"half")
    code, shown, _ = run("export", widget, "--format", "coco,voc", "--out", out)
    assert code == 0 and "were already there" in shown
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    code, _, err = run("export", widget, "--format", "coco,voc", "--val", "0.3", "--out", out)
    assert code == 2 and "val was 0.1, now it is 0.3" in err
    code, _, err = run("export", widget, "--format", "coco", "--out", widget.parent)
    assert code == 2
    shutil.copy(widget / "test/good/000.png", widget / "test/good/077.png")
    assert run("export", widget, "--format", "coco,voc", "--out", out)[0] == 2


def test_links_in_the_output_are_not_followed_out_of_it(widget, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    export(widget, out, ["coco"])
    shutil.rmtree(out / "images")
    os.symlink(elsewhere, out / "images")
    with pytest.raises(FlawsmithError, match="would leave"):
        export(widget, out, ["coco"])
    assert not list(elsewhere.iterdir())


def test_damage_is_named_and_nothing_passes_for_good(widget, tmp_path, run):
    (widget / "ground_truth/crack/005_mask.png").unlink()
    code, _, err = run("export", widget, "--format", "yolo,mvtec", "--out", tmp_path / "out")
    assert code == 0 and "1 defect images mark no pixel and are left out" in err
    names = {row["origin_file"] for row in origins(tmp_path / "out/yolo").values()}
    assert "test/crack/005.png" not in names and "test/crack/004.png" in names
    assert "test/crack/005.png" in {row["origin_file"] for row in origins(tmp_path / "out/mvtec").values()}
    image = widget / "test/good/000.png"
    image.write_bytes(image.read_bytes()[:400])
    code, _, err = run("export", widget, "--format", "coco", "--out", tmp_path / "two")
    assert code == 2 and "000.png" in err


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


def test_equal_part_names_of_two_sets_are_two_parts(widget, tmp_path):
    other = fakes.mvtec_tree(tmp_path / "more", good=5, defects={"crack": 6}, groups=GROUPS, seed=50)
    export(widget, tmp_path / "out", ["coco"], merge=[other])
    groups = {record.group for record in datasets.read("coco", tmp_path / "out") if record.defect_type == "crack"}
    assert sorted(groups) == ["part 0", "part 1", "part 2", *(f"widget 1: part {n}" for n in range(3))]


def test_two_products_keep_apart(tmp_path):
    for name in ("gear", "nut"):
        fakes.mvtec_tree(tmp_path / "data", category=name, good=2, test_good=0, defects={"hole": 2})
    export(f"mvtec_ad:{tmp_path / 'data'}", tmp_path / "out", ["coco", "mvtec"])
    for name, folder in (("coco", "coco"), ("mvtec_ad", "mvtec")):
        assert Counter(r.category for r in datasets.read(name, tmp_path / "out" / folder)) == {"gear": 4, "nut": 4}


def test_nothing_left_is_said(tmp_path):
    folder = fakes.mvtec_tree(tmp_path / "data", good=0, test_good=0, defects={"hole": 2})
    for path in (folder / "ground_truth/hole").iterdir():
        images.write_image(path, np.zeros((48, 64), dtype=bool))
    with pytest.raises(FlawsmithError, match=r"No image of .*widget is left for yolo"):
        export(folder, tmp_path / "out", ["yolo"])


def test_a_killed_export_leaves_whole_files_and_the_same_command_ends_it(widget, tmp_path):
    command = [sys.executable, "-m", "flawsmith", "export", str(widget), "--format", "coco,voc", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    whole = {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").rglob("*") if p.is_file()}
    out = tmp_path / "out"
    process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.rglob("*.png"))) < 6:
        time.sleep(0.002)
    process.kill()
    process.wait()
    for path in out.rglob("*"):
        if path.is_file() and ".partial" not in path.parts:
            assert path.read_bytes() == whole[path.relative_to(out)]
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == whole
