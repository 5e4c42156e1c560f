"""Annotation files of strangers, damaged at random: findings, or one sentence that names the file; never a traceback,
and nothing outside --out."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fakes
import fakes_annotated as painted
from flawsmith import datasets
from flawsmith.datasets.check import check
from flawsmith.datasets.exports import FORMATS
from flawsmith.datasets.exports.run import export
from flawsmith.errors import FlawsmithError


def tables_tree(root: Path) -> None:
    """MVTec's layout with every file of text that it may have, flawsmith's own and MVTec LOCO's."""
    first = {"test/crack/000.png": "a", "test/crack/001.png": "a", "test/hole/000.png": "b"}
    folder = fakes.mvtec_tree(root, good=2, defects={"crack": 2, "hole": 1}, test_good=1, groups=first)
    fakes.write(folder / "captions.csv", "file,caption\ntest/crack/000.png,A crack.\ntest/hole/000.png,A hole.\n")
    ids = np.zeros((48, 64), dtype=np.uint8)
    ids[painted.rectangle(painted.HOLE)], ids[painted.rectangle(painted.CRACK)] = 1, 2
    fakes.save(folder / "instances/crack/000.png", ids)
    kinds = [{"id": 1, "defect_type": "hole"}, {"id": 2, "defect_type": "crack"}]
    fakes.write(folder / "instances/crack/000.json", json.dumps(kinds))
    kind = {"defect_name": "crack", "pixel_value": 255, "saturation_threshold": 9, "relative_saturation": False}
    fakes.write(folder / "defects_config.json", json.dumps([kind]))


SETS = {
    "coco": (painted.coco_tree, "annotations.json"),
    "coco runs": (partial(painted.coco_tree, shape="runs"), "annotations.json"),
    "coco boxes": (partial(painted.coco_tree, shape="box"), "annotations.json"),
    "yolo": (painted.yolo_tree, "train/labels/both.txt"),
    "yolo names": (painted.yolo_tree, "data.yaml"),
    "voc": (painted.voc_tree, "Annotations/both.xml"),
    "voc boxes": (partial(painted.voc_tree, objects=False), "Annotations/both.xml"),
    "voc classes": (painted.voc_classes_tree, "labelmap.txt"),
    "voc class images": (painted.voc_classes_tree, "SegmentationClass/both.png"),
    "labelme": (painted.labelme_tree, "both.json"),
    "labelme masks": (partial(painted.labelme_tree, kind="mask"), "both.json"),
    "cvat": (painted.cvat_tree, "annotations.xml"),
    "cvat masks": (partial(painted.cvat_tree, kind="mask"), "annotations.xml"),
    "cvat boxes": (partial(painted.cvat_tree, kind="box"), "annotations.xml"),
    "datumaro": (painted.datumaro_tree, "annotations/default.json"),
    "datumaro masks": (partial(painted.datumaro_tree, kind="mask"), "annotations/default.json"),
    "datumaro boxes": (partial(painted.datumaro_tree, kind="bbox"), "annotations/default.json"),
    "label_studio": (painted.label_studio_tree, "project-1.json"),
    "label_studio brushes": (partial(painted.label_studio_tree, kind="brush"), "project-1.json"),
    "label_studio boxes": (partial(painted.label_studio_tree, kind="rectangle"), "project-1.json"),
    "hf_dataset": (painted.hf_tree, "train/metadata.jsonl"),
    "hf_dataset boxes": (partial(painted.hf_tree, kind="box"), "train/metadata.jsonl"),
    "webdataset": (painted.webdataset_tree, "train-000000/both.json"),
    "visa": (painted.visa_tree, "capsules/image_anno.csv"),
    "real_iad": (painted.real_iad_tree, "realiad_jsons/audiojack.json"),
    "mvtec_ad groups": (tables_tree, "widget/origin.csv"),
    "mvtec_ad captions": (tables_tree, "widget/captions.csv"),
    "mvtec_ad instances": (tables_tree, "widget/instances/crack/000.json"),
    "mvtec_ad masks": (tables_tree, "widget/ground_truth/hole/000_mask.png"),
    "mvtec_ad2 masks": (painted.mvtec_ad2_tree, "can/test_public/ground_truth/bad/000_regular_mask.png"),
    "mvtec_loco": (tables_tree, "widget/defects_config.json"),
    "ksdd": (painted.ksdd_tree, "kos01/Part1_label.bmp"),
    "ksdd2": (painted.ksdd2_tree, "train/10001_GT.png"),
}
ODD = [
    *(None, True, -1, 0, 10**30, 1.5, float("nan"), float("inf"), -1e300, "", "x", "NaN", "../../x.png", "/etc/passwd"),
    *(
        "..\\x.png",
        "C:\\x.png",
        "~/x",
        "a\0b",
        "\ud800",
        [],
        {},
        [[]],
        [None],
        [float("nan")] * 6,
        [1, 2, 3],
        "9" * 5000,
    ),
    *([-5, -5, -1, -1], [1e9, 1e9, 5, 5], [500, 500, 3, 3], {"counts": "~~~~", "size": [48, 64]}, [[1, 2], [3]]),
    *({"counts": [10**12], "size": [10**6, 10**6]}, {"counts": "P" * 99, "size": [48, 64]}, {"size": ["a"]}, "good"),
]
TEXTS = ["", "nan", "-1", "1e999", "-5,-5;-1,-1;-5,-1", "1,1;2", "x", "0", "9" * 400, "../../x.png", "/etc/passwd"]
TEXTS += ["C:\\x.png", "500.5", "1, -2, 3", "1,1;1,1;1,1", "good", "é" * 300, "10000000000,1", "&amp;", " "]
BYTES = st.sampled_from([b"", b"\0", b"NaN", b"-1e999", b"\xff\xfe", b"{", b"]", b"<", b'"', b"../", b"1" * 400, b"\n"])


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    made = {}
    for name, (paint, _) in SETS.items():
        made[name] = tmp_path_factory.mktemp("sets") / "set"
        paint(made[name])
    return made


def outcome(name: str, root: Path, damaged: str) -> str:
    """Read, check and export; returns what was refused, which must name the file, or ""."""
    reader = name.partition(" ")[0]
    home = root.parent
    before = {path for path in home.rglob("*") if "out" not in path.relative_to(home).parts}
    shutil.rmtree(home / "out", ignore_errors=True)
    said = ""
    try:
        check(f"{reader}:{root}")
        export(f"{reader}:{root}", home / "out", list(FORMATS))
        for record in datasets.read(reader, root):
            assert record.load().mask.shape == (48, 64)
    except FlawsmithError as error:
        said = str(error)
        assert Path(damaged).name in said or str(root) in said, said
        assert len(said) < 1000 and "\n" not in said
    assert {path for path in home.rglob("*") if "out" not in path.relative_to(home).parts} == before
    for path in (home / "out").rglob("*"):
        assert path.resolve().is_relative_to((home / "out").resolve())
    return said


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The path of every value inside a JSON value."""
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in pairs:
        found += places(one, (*path, key))
    return found


# Of every test below; FLAWSMITH_DAMAGED=40 makes well above a thousand damaged data sets of all of them together.
EXAMPLES = int(os.environ.get("FLAWSMITH_DAMAGED", "6"))
QUICK = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", SETS)
@QUICK
@given(data=st.data())
def test_damaged_bytes(sets, name, data):
    root, file = sets[name], SETS[name][1]
    content = (root / file).read_bytes()
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(begin, min(len(content), begin + 9))))
    (root / file).write_bytes(content[:begin] + data.draw(BYTES) + content[end:])
    try:
        outcome(name, root, file)
    finally:
        (root / file).write_bytes(content)


@pytest.mark.parametrize("name", [name for name, (_, file) in SETS.items() if file.endswith((".json", ".jsonl"))])
@QUICK
@given(data=st.data())
def test_odd_values_anywhere(sets, name, data):
    root, file = sets[name], SETS[name][1]
    before = (root / file).read_bytes()
    rows = [json.loads(line) for line in before.splitlines()] if file.endswith(".jsonl") else []
    content = rows or json.loads(before)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(content)))
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
    (root / file).write_text("\n".join(map(json.dumps, rows)) if rows else json.dumps(content))
    try:
        outcome(name, root, file)
    finally:
        (root / file).write_bytes(before)


@pytest.mark.parametrize("name", [name for name, (_, file) in SETS.items() if file.endswith(".xml")])
@QUICK
@given(data=st.data())
def test_odd_texts_in_xml(sets, name, data):
    root, file = sets[name], SETS[name][1]
    before = (root / file).read_text()
    spans = [found.span(1) for found in re.finditer(r'(?:="|>)([^<>"]*)(?:"|<)', before)]
    begin, end = data.draw(st.sampled_from(spans))
    text = data.draw(st.sampled_from(TEXTS))
    (root / file).write_text(before[:begin] + text + before[end:])
    try:
        outcome(name, root, file)
    finally:
        (root / file).write_text(before)


@QUICK
@given(
    values=st.lists(st.one_of(st.floats(), st.integers(-3, 3), st.just("x")), max_size=12),
    kind=st.sampled_from(["0", "1", "7", "-1", "1.5", "nan", ""]),
)
def test_odd_lines_of_yolo(sets, values, kind):
    root, file = sets["yolo"], SETS["yolo"][1]
    before = (root / file).read_bytes()
    (root / file).write_text(" ".join([kind, *map(str, values)]))
    try:
        outcome("yolo", root, file)
    finally:
        (root / file).write_bytes(before)


def change(root: Path, edit) -> None:
    path = root / "annotations.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def first(content: dict, **values: object) -> None:
    content["annotations"][0].update(values)


REFUSED = {
    "unknown image": (lambda c: first(c, image_id=99), r"annotations\[0\]: image_id 99 is no image"),
    "unknown category": (lambda c: first(c, category_id=4), r"annotations\[0\]: category_id 4 is no category"),
    "outside": (lambda c: first(c, segmentation=[[70, 1, 80, 1, 80, 9]]), r"annotations\[0\]: .* outside the image"),
    "negative box": (
        lambda c: first(c, segmentation=[], bbox=[1, 1, -4, 5]),
        r"annotations\[0\]: the box is \[1, 1, -4",
    ),
    "nan box": (lambda c: first(c, segmentation=[], bbox=[1, 1, float("nan"), 5]), r"annotations\[0\]: the box"),
    "no box": (lambda c: first(c, segmentation=[], bbox=None), r"annotations\[0\]: the box is None"),
    "two points": (lambda c: first(c, segmentation=[[1, 1, 5, 5]]), r"annotations\[0\]: a polygon has 4 numbers"),
    "twice": (lambda c: c["images"].append({**c["images"][1], "id": 50}), r"images\[3\] describes hole\.png"),
    "one id": (lambda c: c["images"][1].update(id=7), r"images\[1\]: the id 7"),
    "absolute": (lambda c: c["images"][0].update(file_name="/etc/passwd"), r"images\[0\]: .* leads out"),
    "above": (lambda c: c["images"][0].update(file_name="../images/good.png"), r"images\[0\]: .* leads out"),
    "missing": (lambda c: c["images"][0].update(file_name="lost.png"), r"images\[0\]: .*there is no such image"),
    "runs": (
        lambda c: first(c, segmentation={"counts": [5], "size": [48, 64]}),
        r"annotations\[0\]: the run lengths do",
    ),
    "text": (lambda c: first(c, segmentation={"counts": "é", "size": [48, 64]}), r"annotations\[0\]: counts"),
    "size": (lambda c: first(c, segmentation={"counts": [6], "size": [2, 3]}), r"annotations\[0\]: .*\[48, 64\]"),
    "label": (lambda c: c["categories"][0].update(name=None), r"the category 3: the label is None"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_coco_is_refused_by_file_and_entry(tmp_path, run, case):
    edit, message = REFUSED[case]
    painted.coco_tree(tmp_path)
    change(tmp_path, edit)
    with pytest.raises(FlawsmithError, match=r"annotations\.json, .*" + message if case == "label" else message):
        datasets.read("coco", tmp_path)
    code, _, err = run("check", f"coco:{tmp_path}")
    assert code == 2 and "annotations.json" in err and "Traceback" not in err


def test_partly_outside_is_cut_off(tmp_path):
    painted.coco_tree(tmp_path)
    change(tmp_path, lambda c: first(c, segmentation=[[-10, -10, 5, -10, 5, 4, -10, 4]]))
    hole = next(record for record in datasets.read("coco", tmp_path) if record.image.stem == "hole")
    assert np.array_equal(hole.load().mask, painted.rectangle((0, 0, 4, 5)))


def test_a_million_categories_are_read_in_seconds_and_no_message_lists_them(tmp_path):
    painted.coco_tree(tmp_path)
    many = [{"id": n, "name": f"kind {n}"} for n in range(6, 1_000_000)]
    change(tmp_path, lambda c: c["categories"].extend(many))
    begun = time.process_time()
    assert len(datasets.read("coco", tmp_path)) == 3
    assert time.process_time() - begun < 20
    change(tmp_path, lambda c: first(c, category_id=-5))
    with pytest.raises(FlawsmithError) as refused:
        datasets.read("coco", tmp_path)
    assert len(str(refused.value)) < 500


def test_labels_never_leave_the_export(tmp_path):
    painted.coco_tree(tmp_path / "set")
    change(tmp_path / "set", lambda c: c["categories"][0].update(name="../../../evil"))
    outcome("coco", tmp_path / "set", "annotations.json")
    folder = next((tmp_path / "out/mvtec").glob("*/test"))
    assert sorted(one.name for one in folder.iterdir()) == ["combined", "evil"]


def test_xml_that_defines_entities_is_refused(tmp_path):
    painted.voc_tree(tmp_path)
    bomb = '<!DOCTYPE a [<!ENTITY x "xxxx"><!ENTITY y "&x;&x;">]><annotation><filename>&y;</filename></annotation>'
    fakes.write(tmp_path / "Annotations/both.xml", bomb)
    with pytest.raises(FlawsmithError, match=r"both\.xml cannot be read as XML \(it defines entities\)"):
        datasets.read("voc", tmp_path)


def test_two_files_for_one_image(tmp_path):
    painted.voc_tree(tmp_path / "voc")
    shutil.copy(tmp_path / "voc/Annotations/both.xml", tmp_path / "voc/both.xml")
    with pytest.raises(FlawsmithError, match=r"describes both\.jpg, and so does"):
        datasets.read("voc", tmp_path / "voc")
    painted.labelme_tree(tmp_path / "labelme")
    shutil.copy(tmp_path / "labelme/both.json", tmp_path / "labelme/other.json")
    with pytest.raises(FlawsmithError, match=r"describes both\.png, and so does"):
        datasets.read("labelme", tmp_path / "labelme")
