"""Data sets written by the tools that people annotate and convert with, read by us: nothing of it is our own hand.

supervision and pycocotools are among the tests' own packages; datumaro, labelme and Label Studio's converter need an
environment of their own.
"""

from __future__ import annotations

import importlib
import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import fakes
import fakes_annotated as painted
from flawsmith import datasets, images
from flawsmith.datasets import label_studio
from flawsmith.records import Record

NAMES = ("hole", "crack")
MARKED = {"good": (), "hole": (painted.HOLE,), "both": (painted.HOLE, painted.CRACK)}
APART = "it needs an environment of its own"


def tool(name: str) -> types.ModuleType:
    return pytest.importorskip(name, reason=f"{name.partition('.')[0]} is not installed: {APART}")


def disc(x: float, y: float, wide: float, high: float) -> np.ndarray:
    rows, columns = np.mgrid[:48, :64] + 0.5
    return ((columns - x) / wide) ** 2 + ((rows - y) / high) ** 2 < 1


def read(reader: str, root: Path) -> dict[str, Record]:
    """By the image's stem; what was written is recognised without a name, too."""
    assert datasets.parse_source(root)[0] == reader, datasets.told(root)
    records = {record.image.stem: record for record in datasets.read(reader, root)}
    assert {name: set(records[name].labels) for name in MARKED} == {n: set(NAMES[: len(m)]) for n, m in MARKED.items()}
    assert records["good"].is_good and not records["good"].load().mask.any()
    return records


def supervision(root: Path, write: Callable[[object, Path], None]) -> None:
    sv = tool("supervision")
    photos = painted.photos(root / "raw")
    marked = {}
    for name, places in MARKED.items():
        boxes = np.array([[left, top, right, bottom] for top, left, bottom, right in places], float).reshape(-1, 4)
        masks = np.array([painted.rectangle(place) for place in places]).reshape(-1, *painted.SIZE)
        kinds = np.arange(len(places))
        one = sv.Detections(xyxy=boxes, mask=masks, class_id=kinds) if places else sv.Detections.empty()
        marked[str(root / "raw" / f"{name}.png")] = one
    assert len(photos) == len(marked)
    write(sv.DetectionDataset(classes=list(NAMES), images=list(marked), annotations=marked), root / "set")


def rim(mask: np.ndarray) -> np.ndarray:
    """The mask without its outermost pixels."""
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)


@pytest.mark.parametrize("reader", ["coco", "yolo"])
def test_outlines_that_supervision_writes_are_a_pixel_tighter(tmp_path: Path, reader: str) -> None:
    """OpenCV's outlines run through the middles of the outermost pixels, so that at most these are lost."""
    if reader == "coco":
        supervision(tmp_path, lambda whole, to: whole.as_coco(str(to / "images"), str(to / "annotations.json")))
    else:
        supervision(
            tmp_path, lambda whole, to: whole.as_yolo(str(to / "images"), str(to / "labels"), str(to / "data.yaml"))
        )
    records = read(reader, tmp_path / "set")
    for name, places in MARKED.items():
        truth, found = painted.rectangle(*places), records[name].load().mask
        assert not (found & ~truth).any() and not (rim(truth) & ~found).any() and not records[name].is_proposed


def test_boxes_of_pascal_voc_that_supervision_writes_become_proposals(tmp_path: Path) -> None:
    supervision(tmp_path, lambda whole, to: whole.as_pascal_voc(str(to / "JPEGImages"), str(to / "Annotations")))
    records = read("voc", tmp_path / "set")
    for name, places in MARKED.items():
        found = records[name].load().mask
        assert not (found & ~painted.rectangle(*places)).any() and records[name].is_proposed == bool(places)
        assert found.any() == bool(places)


@pytest.mark.parametrize("packed", [True, False])
def test_run_lengths_that_pycocotools_writes(tmp_path: Path, packed: bool) -> None:
    """Of masks that are no rectangles: noise in every other column, one of the whole image, one pixel."""
    coco = tool("pycocotools.mask")
    painted.photos(tmp_path / "images")
    noise = np.random.default_rng(0).random(painted.SIZE) < 0.5
    single = np.zeros(painted.SIZE, bool)
    single[-1, -1] = True
    masks = {"good": noise, "hole": np.ones_like(noise), "both": single}
    entries, annotations = [], []
    for number, (name, mask) in enumerate(masks.items(), start=1):
        runs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        box = [float(value) for value in coco.toBbox(runs)]
        area = int(coco.area(runs))
        told: object = runs["counts"].decode() if packed else painted.runs(mask)
        entries.append({"id": number, "file_name": f"{name}.png", "height": 48, "width": 64})
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": box, "area": area, "iscrowd": 1,
             "segmentation": {"size": list(painted.SIZE), "counts": told}}
        )  # fmt: skip
    content = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "hole"}]}
    fakes.write(tmp_path / "annotations.json", json.dumps(content))
    for record in datasets.read("coco", tmp_path):
        assert np.array_equal(record.load().mask, masks[record.image.stem])


@pytest.mark.parametrize("reader", ["datumaro", "cvat", "coco", "voc", "voc_segmentation", "yolo"])
def test_what_datumaro_writes_is_read(tmp_path: Path, reader: str) -> None:
    dm = tool("datumaro")
    shapes = importlib.import_module("datumaro.components.annotation")
    media = importlib.import_module("datumaro.components.media")
    hole, crack = painted.rectangle(painted.HOLE), painted.rectangle(painted.CRACK)

    def drawn(place: tuple[int, int, int, int], label: int) -> list[object]:
        top, left, bottom, right = place
        about = {"label": label, "group": label + 1}
        box = shapes.Bbox(left, top, right - left, bottom - top, **about)
        whole = shapes.Mask(painted.rectangle(place), **about)
        outline = shapes.Polygon(painted.corners(place), **about)
        return {"yolo": [box], "coco": [whole], "voc": [box, whole], "voc_segmentation": [whole]}.get(reader, [outline])

    marked = {n: [one for label, place in enumerate(m) for one in drawn(place, label)] for n, m in MARKED.items()}
    if reader in ("datumaro", "cvat"):
        marked["both"][1] = shapes.Mask(crack, label=1, group=2)
        marked["round"] = [shapes.Ellipse(18, 12, 42, 28, label=1)]
    items = [
        dm.DatasetItem(
            name,
            subset="train",
            media=media.Image.from_numpy(data=fakes.photo(number)[..., ::-1].copy()),
            annotations=told,
        )
        for number, (name, told) in enumerate(marked.items())
    ]
    whole = dm.Dataset.from_iterable(items, categories=list(NAMES))
    whole.export(str(tmp_path), {"coco": "coco_instances"}.get(reader, reader), save_media=True)
    if reader == "voc_segmentation":  # as CVAT's "Segmentation mask 1.1": no XML
        assert not list(tmp_path.rglob("*.xml"))
        reader = "voc"
    records = read(reader, tmp_path)
    assert set(records) == set(marked) and {record.split for record in records.values()} == {"train"}
    for name, mask in {"good": np.zeros_like(hole), "hole": hole, "both": hole | crack}.items():
        found = records[name].load().mask
        assert records[name].is_proposed == (reader == "yolo" and name != "good")
        assert not (found & ~mask).any() if records[name].is_proposed else np.array_equal(found, mask), name
    if reader == "datumaro":
        assert (records["round"].load().mask ^ disc(30, 20, 12, 8)).sum() <= 0.06 * disc(30, 20, 12, 8).sum()


def test_shards_that_webdataset_writes_are_read(tmp_path: Path) -> None:
    """Its own TarWriter encodes image, mask and words; unpacked as its documentation says, with tar."""
    wds = tool("webdataset")
    with wds.TarWriter(str(tmp_path / "train-000000.tar")) as shard:
        for number, (name, places) in enumerate(MARKED.items()):
            kind = ("good", "hole", "combined")[len(places)]
            mask = painted.rectangle(*places).astype(np.uint8) * 255
            words = {"defect_type": kind, "caption": f"number {number}"}
            shard.write({"__key__": name, "png": fakes.photo(number), "mask.png": mask, "json": words})
    shutil.unpack_archive(tmp_path / "train-000000.tar", tmp_path / "set/train-000000", filter="data")
    assert datasets.parse_source(tmp_path / "set")[0] == "webdataset"
    records = {record.image.stem: record for record in datasets.read("webdataset", tmp_path / "set")}
    for number, (name, places) in enumerate(MARKED.items()):
        sample = records[name].load()
        assert np.array_equal(sample.image, fakes.photo(number)) and sample.caption == f"number {number}"
        assert np.array_equal(sample.mask, painted.rectangle(*places)) and records[name].is_good == (not places)


def test_what_labelme_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    labelme = tool("labelme")
    painted.photos(tmp_path)
    for name, places in MARKED.items():
        shapes = []
        for label, place in zip(NAMES, places, strict=False):
            corners = np.array(painted.corners(place), float).reshape(-1, 2).tolist()
            shape = {"label": label, "points": corners, "group_id": None, "description": "", "flags": {}, "mask": None}
            shapes.append({**shape, "shape_type": "polygon"})
        image = tmp_path / f"{name}.png"
        height, width = images.image_size(image)
        labelme.LabelFile().save(
            filename=str(image.with_suffix(".json")), shapes=shapes, image_path=image.name, image_height=height,
            image_width=width, image_data=image.read_bytes(), other_data={}, flags={},
        )  # fmt: skip
    records = read("labelme", tmp_path)
    for name, places in MARKED.items():
        assert np.array_equal(records[name].load().mask, painted.rectangle(*places)), name


def test_packed_runs_agree_with_label_studios_own_tool() -> None:
    brush = tool("label_studio_converter.brush")
    rng = np.random.default_rng(0)
    packed = b""
    for size in ((3, 5), (48, 64), (1, 1)):
        mask = np.repeat((rng.random(size) < 0.5).ravel(), 4).astype(np.uint8) * 255
        packed = bytes(brush.encode_rle(mask))
        assert np.array_equal(label_studio.unpack(packed, mask.size), mask)
        assert np.array_equal(brush.decode_rle(painted.packed_runs(mask)), mask)  # the fake is one, too
    with pytest.raises(ValueError, match="ends too early"):
        label_studio.unpack(packed[:-1], 4)
