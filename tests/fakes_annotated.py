"""Painted data sets of annotation formats, written as their own documentation says, not as flawsmith exports them.

Every painter marks the same two rectangles and returns name -> (defect types, mask): closed forms, whatever the format.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

import fakes

SIZE = (48, 64)
HOLE, CRACK = (10, 8, 20, 24), (30, 40, 33, 60)  # (top, left, bottom, right)

Truth = dict[str, tuple[set[str], np.ndarray]]


def rectangle(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def photos(folder: Path, suffix: str = ".png") -> Truth:
    """Three images: a good one, one with a hole, one with a hole and a crack."""
    marked = {"good": (), "hole": (HOLE,), "both": (HOLE, CRACK)}
    for number, (name, places) in enumerate(marked.items()):
        image = fakes.photo(number, SIZE)
        mask = rectangle(*places)
        image[mask] = image[mask] // 3
        fakes.save(folder / f"{name}{suffix}", image)
    return {
        f"good{suffix}": (set(), rectangle()),
        f"hole{suffix}": ({"hole"}, rectangle(HOLE)),
        f"both{suffix}": ({"hole", "crack"}, rectangle(HOLE, CRACK)),
    }


def corners(place: tuple[int, int, int, int]) -> list[float]:
    top, left, bottom, right = place
    return [left, top, right, top, right, bottom, left, bottom]


def runs(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, beginning with what is outside; the slow way."""
    counts, inside = [0], False
    for value in mask.T.ravel().tolist():
        if value != inside:
            counts.append(0)
            inside = value
        counts[-1] += 1
    return counts


def coco_tree(root: Path, shape: str = "polygon") -> Truth:
    """annotations.json beside images/; `shape` polygon, runs or box."""
    truth = photos(root / "images")
    images = [{"id": 7 + n, "file_name": name, "height": 48, "width": 64} for n, name in enumerate(truth)]
    annotations = []
    for image, kind, place in ((8, 3, HOLE), (9, 3, HOLE), (9, 5, CRACK)):
        top, left, bottom, right = place
        box = [left, top, right - left, bottom - top]
        segmentation: object = {
            "polygon": [corners(place)],
            "runs": {"counts": runs(rectangle(place)), "size": list(SIZE)},
            "box": [],
        }[shape]
        one = {"id": len(annotations), "image_id": image, "category_id": kind, "bbox": box, "iscrowd": 0}
        annotations.append({**one, "area": box[2] * box[3], "segmentation": segmentation})
    categories = [{"id": 3, "name": "hole"}, {"id": 5, "name": "crack"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    fakes.write(root / "annotations.json", json.dumps(content))
    return truth


def yolo_tree(root: Path, outlines: bool = True) -> Truth:
    """train/images beside train/labels, and the data.yaml that annotation services write."""
    truth = photos(root / "train/images", ".jpg")
    for name, places in {"hole": [(0, HOLE)], "both": [(0, HOLE), (1, CRACK)]}.items():
        lines = []
        for kind, (top, left, bottom, right) in places:
            if outlines:
                numbers = [n / (64 if k % 2 == 0 else 48) for k, n in enumerate(corners((top, left, bottom, right)))]
            else:
                numbers = [(left + right) / 2 / 64, (top + bottom) / 2 / 48, (right - left) / 64, (bottom - top) / 48]
            lines.append(" ".join([str(kind), *(f"{number:.6f}" for number in numbers)]))
        fakes.write(root / f"train/labels/{name}.txt", "\n".join(lines))
    fakes.write(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['hole', 'crack']\n")
    return truth


def voc_tree(root: Path, objects: bool = True) -> Truth:
    """JPEGImages, Annotations, ImageSets, and SegmentationObject where `objects`."""
    truth = photos(root / "JPEGImages", ".jpg")
    for name, places in {"hole": [HOLE], "both": [HOLE, CRACK]}.items():
        marked = ""
        numbers = np.zeros(SIZE, dtype=np.uint8)
        for number, (top, left, bottom, right) in enumerate(places, start=1):
            numbers[top:bottom, left:right] = number
            marked += (
                f"<object><name>{('hole', 'crack')[number - 1]}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}"
                f"</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
            )
        fakes.write(
            root / f"Annotations/{name}.xml",
            f"<annotation><folder>VOC</folder><filename>{name}.jpg</filename><size><width>64</width>"
            f"<height>48</height><depth>3</depth></size>{marked}</annotation>",
        )
        if objects:
            image = Image.fromarray(numbers)
            image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            (root / "SegmentationObject").mkdir(exist_ok=True)
            image.save(root / f"SegmentationObject/{name}.png")
    fakes.write(root / "ImageSets/Main/train.txt", "good\n")
    fakes.write(root / "ImageSets/Main/val.txt", "hole\nboth\n")
    return truth


def labelme_tree(root: Path, kind: str = "polygon") -> Truth:
    """JSON beside the images; `kind` polygon, rectangle or mask."""
    truth = photos(root)
    for name, places in {"hole": [HOLE], "both": [HOLE, CRACK]}.items():
        shapes = []
        for label, place in zip(("hole", "crack"), places, strict=False):
            top, left, bottom, right = place
            points = np.array(corners(place), dtype=float).reshape(4, 2).tolist()
            shape = {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}}
            if kind != "polygon":
                shape["points"] = [[left, top], [right, bottom]]
            if kind == "mask":
                buffer = io.BytesIO()
                Image.fromarray(np.full((bottom - top, right - left), 255, np.uint8)).save(buffer, "PNG")
                shape |= {"mask": base64.b64encode(buffer.getvalue()).decode()}
                shape["points"] = [[left, top], [right - 1, bottom - 1]]
            shapes.append(shape)
        content = {"version": "5.2.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png", "imageData": None}
        fakes.write(root / f"{name}.json", json.dumps({**content, "imageHeight": 48, "imageWidth": 64}))
    return truth


def visa_tree(root: Path) -> Truth:
    """VisA's own layout: capsules/Data, its table, and the table of splits; mask levels count the defects."""
    truth: Truth = {}
    rows, splits = ["image,label,mask"], ["object,split,label,image,mask"]
    for name, kind, places in (
        ("Normal/0000", "normal", ()),
        ("Normal/0001", "normal", ()),
        ("Anomaly/000", "leak", (HOLE,)),
        ("Anomaly/001", '"leak,scratch"', (HOLE, CRACK)),
    ):
        image = f"capsules/Data/Images/{name}.JPG"
        fakes.save(root / image, fakes.photo(len(truth), SIZE), format="JPEG")
        mask = ""
        if places:
            mask = f"capsules/Data/Masks/{name}.png"
            levels = sum(rectangle(place).astype(np.uint8) * n for n, place in enumerate(places, start=1))
            fakes.save(root / mask, levels)
        rows.append(f"{image},{kind},{mask}")
        split = "test" if places or name.endswith("1") else "train"
        splits.append(f"capsules,{split},{'anomaly' if places else 'normal'},{image},{mask}")
        truth[image] = ({"normal": set(), "leak": {"leak"}}.get(kind, {"combined"}), rectangle(*places))
    fakes.write(root / "capsules/image_anno.csv", "\n".join(rows) + "\n")
    fakes.write(root / "split_csv/1cls.csv", "\n".join(splits) + "\n")
    return truth


def _images(root: Path, files: dict[str, tuple[str, tuple[tuple[int, int, int, int], ...], str]]) -> Truth:
    """Photographs and their masks: path -> (type, places, path of the mask or "")."""
    truth: Truth = {}
    for number, (name, (kind, places, mask)) in enumerate(files.items()):
        fakes.save(root / name, fakes.photo(number, SIZE))
        if mask:
            fakes.save(root / mask, rectangle(*places))
        truth[name] = ({kind} if kind else set(), rectangle(*places))
    return truth


def mvtec_ad2_tree(root: Path) -> Truth:
    truth = _images(
        root,
        {
            "can/train/good/000_regular.png": ("", (), ""),
            "can/validation/good/000_regular.png": ("", (), ""),
            "can/test_public/good/000_overexposed.png": ("", (), ""),
            "can/test_public/bad/000_regular.png": (
                "bad",
                (HOLE,),
                "can/test_public/ground_truth/bad/000_regular_mask.png",
            ),
            "can/test_public/bad/000_shift_1.png": (
                "bad",
                (CRACK,),
                "can/test_public/ground_truth/bad/000_shift_1_mask.png",
            ),
        },
    )
    fakes.save(root / "can/test_private/000_regular.png", fakes.photo(90, SIZE))
    return truth


def ksdd_tree(root: Path) -> Truth:
    return _images(
        root,
        {
            "kos01/Part0.jpg": ("", (), "kos01/Part0_label.bmp"),
            "kos01/Part1.jpg": ("defect", (HOLE,), "kos01/Part1_label.bmp"),
            "kos02/Part0.jpg": ("defect", (CRACK,), "kos02/Part0_label.bmp"),
        },
    )


def ksdd2_tree(root: Path) -> Truth:
    return _images(
        root,
        {
            "train/10000.png": ("", (), "train/10000_GT.png"),
            "train/10001.png": ("defect", (HOLE,), "train/10001_GT.png"),
            "test/20000.png": ("defect", (CRACK,), "test/20000_GT.png"),
        },
    )


def real_iad_tree(root: Path) -> Truth:
    truth = _images(
        root,
        {
            "audiojack/OK/S0001/audiojack_0001_OK_C1_1.jpg": ("", (), ""),
            "audiojack/OK/S0001/audiojack_0001_OK_C2_1.jpg": ("", (), ""),
            "audiojack/NG/AK/S0005/audiojack_0005_AK_C1_1.jpg": (
                "AK",
                (HOLE,),
                "audiojack/NG/AK/S0005/audiojack_0005_AK_C1_1.png",
            ),
            "audiojack/NG/AK/S0005/audiojack_0005_AK_C2_1.jpg": ("", (), ""),
        },
    )
    test = [{"category": "audiojack", "anomaly_class": "OK", "image_path": "OK/S0001/audiojack_0001_OK_C2_1.jpg"}]
    fakes.write(root / "realiad_jsons/audiojack.json", json.dumps({"meta": {}, "train": [], "test": test}))
    return truth


def btad_tree(root: Path) -> Truth:
    return _images(
        root,
        {
            "01/train/ok/0000.bmp": ("", (), ""),
            "01/test/ok/0001.bmp": ("", (), ""),
            "01/test/ko/0000.bmp": ("ko", (HOLE,), "01/ground_truth/ko/0000.png"),
        },
    )


def mpdd_tree(root: Path) -> Truth:
    return _images(
        root,
        {
            "metal_plate/train/good/000.png": ("", (), ""),
            "metal_plate/test/scratches/000.png": (
                "scratches",
                (HOLE,),
                "metal_plate/ground_truth/scratches/000_mask.png",
            ),
        },
    )


def visa_one_class_tree(root: Path) -> Truth:
    return _images(
        root,
        {
            "candle/train/good/0000.JPG": ("", (), ""),
            "candle/test/good/0001.JPG": ("", (), ""),
            "candle/test/bad/000.JPG": ("bad", (HOLE, CRACK), "candle/ground_truth/bad/000.png"),
        },
    )


def cvat_tree(root: Path, kind: str = "polygon") -> Truth:
    """images/ and annotations.xml as CVAT 1.1 writes it; `kind` polygon, mask or box."""
    truth = photos(root / "images", ".jpg")
    lines = ["<?xml version='1.0' encoding='utf-8'?>", "<annotations>", "<version>1.1</version>"]
    lines.append("<meta><task><size>3</size><mode>annotation</mode></task></meta>")
    for number, (name, places) in enumerate({"good": [], "hole": [HOLE], "both": [HOLE, CRACK]}.items()):
        lines.append(f'<image id="{number}" name="{name}.jpg" width="64" height="48">')
        for label, (top, left, bottom, right) in zip(("hole", "crack"), places, strict=False):
            common = f'label="{label}" source="manual" occluded="0" z_order="0"'
            high, wide = bottom - top, right - left
            corner = ";".join(f"{x}.00,{y}.00" for x, y in ((left, top), (right, top), (right, bottom), (left, bottom)))
            # a mask with a margin of one pixel: outside and inside in turn, along the rows
            rows = ", ".join([str(wide + 3), *[str(wide), "2"] * (high - 1), str(wide)])
            shape = {
                "polygon": f'points="{corner}"',
                "mask": f'rle="{rows}" left="{left - 1}" top="{top - 1}" width="{wide + 2}" height="{high + 2}"',
                "box": f'xtl="{left}.00" ytl="{top}.00" xbr="{right}.00" ybr="{bottom}.00"',
            }[kind]
            lines.append(f"<{kind} {common} {shape}></{kind}>")
        lines.append("</image>")
    fakes.write(root / "annotations.xml", "\n".join([*lines, "</annotations>"]))
    return truth


def datumaro_tree(root: Path, kind: str = "polygon") -> Truth:
    """images/default and annotations/default.json; `kind` polygon, mask or bbox."""
    truth = photos(root / "images/default")
    items = []
    for name, places in {"good": [], "hole": [HOLE], "both": [HOLE, CRACK]}.items():
        marked = []
        for number, place in enumerate(places):
            top, left, bottom, right = place
            shape = {
                "polygon": {"points": corners(place)},
                "mask": {"rle": {"counts": runs(rectangle(place)), "size": list(SIZE)}},
                "bbox": {"bbox": [left, top, right - left, bottom - top]},
            }[kind]
            marked.append({"id": 0, "type": kind, "attributes": {}, "group": 0, "label_id": number, **shape})
        items.append({"id": name, "annotations": marked, "image": {"path": f"{name}.png", "size": list(SIZE)}})
    labels = [{"name": name, "parent": "", "attributes": []} for name in ("hole", "crack")]
    content = {"dm_format_version": "1.0", "media_type": 2, "infos": {}, "items": items}
    content |= {"categories": {"label": {"labels": labels, "label_groups": [], "attributes": []}}}
    fakes.write(root / "annotations/default.json", json.dumps(content))
    return truth


def packed_runs(values: np.ndarray) -> list[int]:
    """Label Studio's packing of bytes, bit by bit in a text: repeated values only, lengths of 8 bits."""
    bits = f"{len(values):032b}" + f"{7:05b}" + f"{7:04b}" * 4
    ends = [*(np.flatnonzero(np.diff(values.astype(int))) + 1).tolist(), len(values)]
    start = 0
    for end in ends:
        while start < end:
            length = min(end - start, 256)
            bits += "1" + "00" + f"{length - 1:08b}" + f"{int(values[start]):08b}"
            start += length
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def label_studio_tree(root: Path, kind: str = "polygon") -> Truth:
    """photos/ and the export of a project they were uploaded to; `kind` polygon, brush or rectangle."""
    truth = photos(root / "photos")
    tasks = []
    for number, (name, places) in enumerate({"good": [], "hole": [HOLE], "both": [HOLE, CRACK]}.items()):
        results = []
        for label, place in zip(("hole", "crack"), places, strict=False):
            top, left, bottom, right = place
            x, y, wide, high = (
                100 * n / s for n, s in zip((left, top, right - left, bottom - top), (64, 48) * 2, strict=True)
            )
            value = {
                "polygon": {"points": [[x, y], [x + wide, y], [x + wide, y + high], [x, y + high]], "closed": True},
                "brush": {"format": "rle", "rle": packed_runs(np.repeat(rectangle(place).ravel(), 4) * np.uint8(255))},
                "rectangle": {"x": x, "y": y, "width": wide, "height": high, "rotation": 0},
            }[kind]
            result = {"id": f"r{len(results)}", "type": f"{kind}labels", "from_name": "label", "to_name": "image"}
            result |= {"original_width": 64, "original_height": 48, "image_rotation": 0}
            results.append({**result, "value": {**value, f"{kind}labels": [label]}})
        annotation = {"id": number, "completed_by": 1, "was_cancelled": False, "result": results}
        data = {"image": f"/data/upload/1/3f2a9c1{number}-{name}.png"}
        tasks.append({"id": number + 1, "data": data, "annotations": [annotation], "predictions": []})
    fakes.write(root / "project-1.json", json.dumps(tasks))
    return truth


def hf_tree(root: Path, kind: str = "polygon") -> Truth:
    """Hugging Face's imagefolder, train/metadata.jsonl; `kind` polygon or box."""
    truth = photos(root / "train")
    lines = []
    for name, places in {"good": [], "hole": [HOLE], "both": [HOLE, CRACK]}.items():
        boxes = [[left, top, right - left, bottom - top] for top, left, bottom, right in places]
        objects: dict[str, object] = {"bbox": boxes, "categories": ["hole", "crack"][: len(places)]}
        if kind == "polygon":
            objects["segmentation"] = [[corners(place)] for place in places]
        row = {"file_name": f"{name}.png", "width": 64, "height": 48, "text": f"It is {name}.", "objects": objects}
        lines.append(json.dumps(row))
    fakes.write(root / "train/metadata.jsonl", "\n".join(lines) + "\n")
    return truth


def webdataset_tree(root: Path) -> Truth:
    """Unpacked shards: beside every image its mask and its words; nobody says which pixel belongs to which type."""
    truth = photos(root / "train-000000")
    for name, (kinds, mask) in truth.items():
        stem = name.removesuffix(".png")
        kind = {0: "good", 1: "hole", 2: "combined"}[len(kinds)]
        fakes.save(root / f"train-000000/{stem}.mask.png", mask)
        fakes.write(root / f"train-000000/{stem}.json", json.dumps({"defect_type": kind, "caption": ""}))
    return {name: (kinds if len(kinds) < 2 else {"combined"}, mask) for name, (kinds, mask) in truth.items()}


def voc_classes_tree(root: Path, objects: bool = True, colours: bool = True) -> Truth:
    """Pascal VOC without XML, as CVAT's "Segmentation mask 1.1": classes in labelmap.txt's colours.

    Without `colours` the class images hold the numbers of labelmap.txt's lines, and no palette.
    """
    truth = photos(root / "JPEGImages", ".jpg")
    own = {"hole": (250, 50, 83), "crack": (61, 61, 245)}
    for name, places in {"hole": [HOLE], "both": [HOLE, CRACK]}.items():
        classes = np.zeros((*SIZE, 3), dtype=np.uint8)
        numbers, owners = np.zeros((2, *SIZE), dtype=np.uint8)
        for number, (label, (top, left, bottom, right)) in enumerate(zip(own, places, strict=False), start=1):
            area = slice(top, bottom), slice(left, right)
            classes[area], numbers[area], owners[area] = own[label], number, len(places) + 1 - number
        fakes.save(root / f"SegmentationClass/{name}.png", classes if colours else numbers)
        if objects:
            image = Image.fromarray(owners)
            image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            (root / "SegmentationObject").mkdir(exist_ok=True)
            image.save(root / f"SegmentationObject/{name}.png")
    lines = "".join(f"{name}:{','.join(map(str, colour))}::\n" for name, colour in own.items())
    fakes.write(root / "labelmap.txt", f"# label:color_rgb:parts:actions\nbackground:0,0,0::\n{lines}")
    fakes.write(root / "ImageSets/Segmentation/train.txt", "good\nhole\n")
    fakes.write(root / "ImageSets/Segmentation/val.txt", "both\n")
    return truth
