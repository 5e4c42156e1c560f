"""What CVAT, Datumaro and Label Studio can say beyond plain shapes."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fakes
import fakes_annotated as painted
from flawsmith import datasets
from flawsmith.datasets import label_studio, regions
from flawsmith.datasets.check import check
from flawsmith.errors import FlawsmithError

SQUARE = [[10.0, 10.0], [20.0, 10.0], [20.0, 30.0], [10.0, 30.0]]


def read(reader, root, name="hole"):
    return next(record for record in datasets.read(reader, root) if record.image.stem == name)


def cvat(root, shapes: str, name: str = "hole.jpg"):
    """A task with one image and these shapes."""
    painted.photos(root / "images", ".jpg")
    image = f'<image id="0" name="{name}" width="64" height="48">{shapes}</image>'
    fakes.write(root / "a.xml", f"<annotations><version>1.1</version>{image}</annotations>")


def datumaro(root, *annotations, size=(48, 64), **item):
    painted.photos(root / "images/train")
    labels = {"label": {"labels": [{"name": "hole"}, {"name": "crack"}]}}
    one = {"id": "hole", "annotations": list(annotations), "image": {"path": "hole.png", "size": list(size)}, **item}
    content = {"infos": {}, "categories": labels, "items": [one]}
    fakes.write(root / "annotations/train.json", json.dumps(content))


def studio(root, *results, data=None, **task):
    """One task; a result is (type, value)."""
    painted.photos(root)
    drawn = [{"type": kind, "value": value, "original_width": 64, "original_height": 48} for kind, value in results]
    one = {"data": data or {"image": "hole.png"}, "annotations": [{"result": drawn}], **task}
    fakes.write(root / "tasks.json", json.dumps([one]))


def disc(x, y, wide, high):
    rows, columns = np.mgrid[:48, :64] + 0.5
    return ((columns - x) / wide) ** 2 + ((rows - y) / high) ** 2 < 1


def close(mask, truth):
    return (mask ^ truth).sum() <= 0.06 * truth.sum()


def test_ellipses_are_taken_as_they_are(tmp_path):
    truth = disc(30, 20, 12, 8)
    cvat(tmp_path / "c", '<ellipse label="hole" cx="30" cy="20" rx="12" ry="8"/>')
    datumaro(tmp_path / "d", {"type": "ellipse", "label_id": 0, "points": [18, 12, 42, 28]})
    value = {"x": 30 / 0.64, "y": 20 / 0.48, "radiusX": 12 / 0.64, "radiusY": 8 / 0.48, "ellipselabels": ["hole"]}
    studio(tmp_path / "l", ("ellipselabels", value))
    for reader, folder in (("cvat", "c"), ("datumaro", "d"), ("label_studio", "l")):
        record = read(reader, tmp_path / folder)
        assert close(record.load().mask, truth) and not record.is_proposed


def test_a_turn_by_ninety_degrees_swaps_the_sides(tmp_path):
    cvat(tmp_path / "c", '<ellipse label="hole" cx="30" cy="20" rx="12" ry="8" rotation="90"/>')
    assert close(read("cvat", tmp_path / "c").load().mask, disc(30, 20, 8, 12))
    cvat(tmp_path / "b", '<box label="hole" xtl="20" ytl="16" xbr="40" ybr="24" rotation="90"/>')  # around its middle
    record = read("cvat", tmp_path / "b")
    assert record.is_proposed and np.array_equal(record.load().mask, painted.rectangle((10, 26, 30, 34)))
    value = {
        "x": 50,
        "y": 25,
        "width": 100 * 8 / 64,
        "height": 100 * 20 / 48,
        "rotation": 90,
        "rectanglelabels": ["hole"],
    }
    studio(tmp_path / "l", ("rectanglelabels", value))  # around its corner at (32, 12)
    record = read("label_studio", tmp_path / "l")
    assert record.is_proposed and np.array_equal(record.load().mask, painted.rectangle((12, 12, 20, 32)))


def test_polygons_of_a_group_are_one_defect_and_lines_are_proposed(tmp_path):
    piece = '<polygon label="hole" points="{0},5;{1},5;{1},9;{0},9" group_id="{2}"/>'
    line = '<polyline label="crack" points="5,40;60,40"/>'
    cvat(tmp_path / "c", piece.format(5, 10, 1) + piece.format(20, 25, 1) + piece.format(40, 45, 0) + line)
    pieces = [
        {"type": "polygon", "label_id": 0, "group": group, "points": [x, 5, x + 5, 5, x + 5, 9, x, 9]}
        for x, group in ((5, 1), (20, 1), (40, 0))
    ]
    datumaro(tmp_path / "d", *pieces, {"type": "polyline", "label_id": 1, "points": [5, 40, 60, 40]})
    for reader, folder in (("cvat", "c"), ("datumaro", "d")):
        record = read(reader, tmp_path / folder)
        assert [type(mask) for mask in record.masks] == [regions.Polygon, regions.Polygon, regions.Line]
        sizes = [int(mask.draw((48, 64), lambda: None).sum()) for mask in record.masks[:2]]
        assert sizes == [40, 20] and record.is_proposed and record.labels == ("hole", "crack")


def test_runs_of_cvat_may_stop_before_the_end(tmp_path):
    for number, (runs, pixels) in enumerate({"1, 2, 1": [1, 2], "1, 2": [1, 2], "0, 4": [0, 1, 2, 3]}.items()):
        cvat(tmp_path / str(number), f'<mask label="hole" left="3" top="5" width="4" height="2" rle="{runs}"/>')
        mask = read("cvat", tmp_path / str(number)).load().mask
        assert np.flatnonzero(mask[5, 3:7]).tolist() == pixels and mask.sum() == len(pixels)


def test_words_about_a_whole_image(tmp_path):
    cvat(tmp_path / "c", '<tag label="dull"/>')
    datumaro(tmp_path / "d", {"type": "label", "label_id": 1}, {"type": "caption", "caption": " A crack. "})
    studio(tmp_path / "l", ("choices", {"choices": ["dull"]}), ("textarea", {"text": ["Dull", "all over."]}))
    kinds = {
        "cvat": ("c", "dull", ""),
        "datumaro": ("d", "crack", "A crack."),
        "label_studio": ("l", "dull", "Dull all over."),
    }
    for reader, (folder, kind, caption) in kinds.items():
        record = read(reader, tmp_path / folder)
        assert (record.defect_type, record.caption, record.masks) == (kind, caption, ())
        assert "image-without-mask" in {one.kind for one in check(f"{reader}:{tmp_path / folder}").findings}
    studio(tmp_path / "good", ("choices", {"choices": ["OK"]}))
    assert read("label_studio", tmp_path / "good").is_good


@pytest.mark.parametrize(
    "address",
    [
        "hole.png",
        "/data/upload/3/0a1b2c3d-hole.png",
        "/data/local-files/?d=sub%20dir/hole.png",
        "https://example.org/a/b/hole.png?sig=1",
        "s3://bucket/hole.png",
    ],
)
def test_images_of_label_studio_are_found_by_every_kind_of_address(tmp_path, address):
    studio(tmp_path, data={"image": address, "note": "a text"})
    if "sub" in address:
        (tmp_path / "sub dir").mkdir()
        (tmp_path / "hole.png").rename(tmp_path / "sub dir/hole.png")
        fakes.save(tmp_path / "hole.png", fakes.photo(5))  # not this one
    record = read("label_studio", tmp_path)
    assert record.image.parent.name == ("sub dir" if "sub" in address else tmp_path.name)


def test_one_annotation_counts_in_label_studio(tmp_path):
    def one(label, **more):
        points = [[100 * x / 64, 100 * y / 48] for x, y in SQUARE]
        drawn = {"type": "polygonlabels", "original_width": 64, "original_height": 48}
        return {"result": [{**drawn, "value": {"points": points, "polygonlabels": [label]}}], **more}

    studio(tmp_path, annotations=[one("crack", was_cancelled=True), one("hole")], predictions=[one("dent")])
    assert read("label_studio", tmp_path).labels == ("hole",)
    studio(tmp_path, annotations=[one("crack"), one("hole", ground_truth=True)])
    assert read("label_studio", tmp_path).labels == ("hole",)
    studio(tmp_path, annotations=[one("hole"), one("hole")])
    assert np.array_equal(read("label_studio", tmp_path).load().mask, painted.rectangle((10, 10, 30, 20)))
    studio(tmp_path, annotations=[one("crack"), one("hole")])
    with pytest.raises(FlawsmithError, match=r"tasks\.json, task 1 has 2 annotations that differ: mark one"):
        datasets.read("label_studio", tmp_path)


BAD = {
    "track": (
        "cvat",
        lambda root: fakes.write(root / "a.xml", "<annotations><track/></annotations>"),
        "tracks of a video",
    ),
    "points": (
        "cvat",
        lambda root: cvat(root, '<points label="hole" points="1,1"/>'),
        "image 1, points 1: points mark no",
    ),
    "no label": ("cvat", lambda root: cvat(root, '<box xtl="1" ytl="1" xbr="5" ybr="5"/>'), "box 1: the label is None"),
    "no size": (
        "cvat",
        lambda root: cvat(root, '<box label="x" xtl="5" ytl="1" xbr="5" ybr="5"/>'),
        "image 1, box 1: the box is",
    ),
    "outside": ("cvat", lambda root: cvat(root, '<polygon label="x" points="70,1;80,1;80,9"/>'), "outside the image"),
    "long runs": (
        "cvat",
        lambda root: cvat(root, '<mask label="x" left="0" top="0" width="4" height="4" rle="3,99"/>'),
        "give runs of 4 x 4",
    ),
    "above": ("cvat", lambda root: cvat(root, "", "../hole.jpg"), "leads out"),
    "label_id": ("datumaro", lambda root: datumaro(root, {"type": "bbox", "label_id": 2}), "label_id 2 is no label"),
    "type": ("datumaro", lambda root: datumaro(root, {"type": "cuboid_3d", "label_id": 0}), "type is 'cuboid_3d'"),
    "absolute": ("datumaro", lambda root: datumaro(root, image={"path": "/etc/passwd.png"}), "leads out"),
    "rle size": (
        "datumaro",
        lambda root: datumaro(root, {"type": "mask", "label_id": 0, "rle": {"counts": [6], "size": [2, 3]}}),
        r"must be \[48, 64\]",
    ),
    "brush": (
        "label_studio",
        lambda root: studio(root, ("brushlabels", {"rle": [0] * 9, "brushlabels": ["hole"]})),
        "must hold packed bytes of 64 x 48",
    ),
    "no image": ("label_studio", lambda root: studio(root, data={"text": "words"}), "must name one image"),
    "two labels": (
        "label_studio",
        lambda root: studio(root, ("polygonlabels", {"points": SQUARE, "polygonlabels": ["a", "b"]})),
        r"its labels are \['a', 'b'\]",
    ),
    "keypoint": ("label_studio", lambda root: studio(root, ("keypointlabels", {"x": 1})), "type is 'keypointlabels'"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_by_file_and_entry(tmp_path, case, run):
    reader, paint, message = BAD[case]
    paint(tmp_path)
    with pytest.raises(FlawsmithError, match=message):
        datasets.read(reader, tmp_path)
    assert run("check", f"{reader}:{tmp_path}")[0] == 2


def test_single_values_and_runs_are_unpacked():
    # 5 values of 8 bits: two single ones (1, 2), then a run of three 7s; lengths of 2 bits
    bits = f"{5:032b}" + f"{7:05b}" + f"{1:04b}" * 4
    bits += "0" + "00" + "01" + f"{1:08b}{2:08b}" + "1" + "11" + "10" + f"{7:08b}"
    bits += "0" * (-len(bits) % 8)
    packed = bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits), 8))
    assert label_studio.unpack(packed, 5).tolist() == [1, 2, 7, 7, 7]
    for wrong, count in ((packed, 4), (packed[:-1], 5), (packed[:9], 5)):
        with pytest.raises(ValueError, match=r"size|early"):
            label_studio.unpack(wrong, count)
