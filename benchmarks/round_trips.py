"""Every data set through every format and back: by our readers, and by the public one where it is installed.

For each set and format: images compared, and how many differ in pixels, mask, type, part or caption from the source.
Public readers: pycocotools (coco), datumaro (datumaro, voc, yolo, mvtec), supervision (yolo-seg), labelme, webdataset,
Hugging Face's datasets (hf-dataset); "-" where one is not installed. Boxes alone (yolo) are compared by number and
place. labelme imports Qt: set QT_QPA_PLATFORM=offscreen where there is no screen.

Example: python benchmarks/round_trips.py mvtec_ad:data/magnetic_tile mvtec_ad:data/ball_screw
"""

from __future__ import annotations

import argparse
import csv
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from flawsmith import datasets
from flawsmith.datasets.exports import FORMATS, outlines
from flawsmith.datasets.exports.run import export
from flawsmith.records import Record

READS = {name: name.replace("-", "_") for name in FORMATS} | {"mvtec": "mvtec_ad", "yolo-seg": "yolo"}
Seen = Iterator[tuple[str, np.ndarray | list[list[float]]]]  # (the image's stem in the export, its mask or boxes)


def origins(folder: Path) -> dict[str, str]:
    with open(folder / "origin.csv", encoding="utf-8") as file:
        return {row["file"]: row["origin_file"] for row in csv.DictReader(file)}


def ours(before: dict[str, Record], folder: Path, name: str) -> tuple[int, int]:
    """(records read back, records that differ)."""
    names = origins(folder)
    wrong = 0
    records = datasets.read(READS[name], folder)
    for record in records:
        old = before[names[record.name]]
        new, first = record.load(), old.load()
        same = [getattr(record, key) == getattr(old, key) for key in ("defect_type", "caption", "group", "category")]
        same.append(np.array_equal(new.image, first.image))
        same.append(name == "yolo" or np.array_equal(new.mask, first.mask))
        wrong += not all(same)
    return len(records), wrong


def _filled(rings: list[list[float]], height: int, width: int) -> np.ndarray:
    from pycocotools import mask as tools

    return tools.decode(tools.merge(tools.frPyObjects(rings, height, width))).astype(bool)


def coco(folder: Path) -> Seen:
    from pycocotools.coco import COCO

    for path in (folder / "annotations").iterdir():
        api = COCO(str(path))
        for image in api.imgs.values():
            mask = np.zeros((image["height"], image["width"]), dtype=bool)
            for one in api.loadAnns(api.getAnnIds(image["id"])):
                mask |= api.annToMask(one).astype(bool)
            yield Path(image["file_name"]).stem, mask


def datumaro(folder: Path, kind: str) -> Seen:
    import datumaro as dm

    for item in dm.Dataset.import_from(str(folder), kind):
        stem = item.id.rpartition("/")[2]
        if kind == "yolo":
            yield stem, [list(one.get_bbox()) for one in item.annotations if one.type.name == "bbox"]
            continue
        height, width = item.media.size
        mask = np.zeros((height, width), dtype=bool)
        for one in item.annotations:
            if one.type.name == "polygon":
                mask |= _filled([list(one.points)], height, width)
            elif one.type.name == "mask":
                mask |= np.asarray(one.image, dtype=bool)
        yield stem, mask


def mvtec(folder: Path) -> Seen:
    for category in folder.iterdir():
        if category.is_dir():
            yield from datumaro(category, "mvtec_segmentation")


def labelme(folder: Path) -> Seen:
    from labelme import LabelFile
    from labelme.utils import img_data_to_arr, shape_to_mask

    for path in folder.glob("*/*.json"):
        file = LabelFile(str(path))
        size = img_data_to_arr(file.image_data).shape[:2]
        mask = np.zeros(size, dtype=bool)
        for shape in file.shapes:
            mask |= shape_to_mask(size, shape["points"], shape["shape_type"])
        yield path.stem, mask


def supervision(folder: Path) -> Seen:
    from supervision import DetectionDataset

    for split in (folder / "images").iterdir():
        labels, settings = folder / "labels" / split.name, folder / "data.yaml"
        for path, image, found in DetectionDataset.from_yolo(str(split), str(labels), str(settings), True):
            masks = np.zeros((0, *image.shape[:2]), dtype=bool) if found.mask is None else np.asarray(found.mask)
            yield Path(path).stem, masks.any(axis=0)


def webdataset(folder: Path) -> Seen:
    import webdataset as wds

    shards = sorted(map(str, folder.glob("*.tar")))
    for one in wds.WebDataset(shards, shardshuffle=False).decode("rgb8"):
        yield one["__key__"], one["mask.png"][..., 0] > 0


def hf_dataset(folder: Path) -> Seen:
    from datasets.load import load_dataset

    with tempfile.TemporaryDirectory() as cache:
        for rows in load_dataset("imagefolder", data_dir=str(folder), cache_dir=cache).values():
            for row in rows:
                yield row["origin"]["origin_file"], np.asarray(row["mask"].convert("L")) > 0


PUBLIC: dict[str, Callable[[Path], Seen]] = {
    "coco": coco,
    "datumaro": lambda folder: datumaro(folder, "datumaro"),
    "voc": lambda folder: datumaro(folder, "voc"),
    "yolo": lambda folder: datumaro(folder, "yolo"),
    "yolo-seg": supervision,
    "mvtec": mvtec,
    "labelme": labelme,
    "webdataset": webdataset,
    "hf-dataset": hf_dataset,
}


def theirs(before: dict[str, Record], folder: Path, name: str) -> str:
    """What the public reader says: images, images that differ, pixels that differ; "-" where it is not installed."""
    if name not in PUBLIC:
        return "-"
    stems = {Path(file).stem.replace(".", "_"): origin for file, origin in origins(folder).items()}
    count = wrong = pixels = 0
    try:
        for stem, found in PUBLIC[name](folder):
            mask = before[stem if stem in before else stems[stem.replace(".", "_")]].load().mask
            count += 1
            if isinstance(found, list):
                boxes = sorted([left, top, *part.shape[::-1]] for top, left, part in outlines.components(mask))
                off = len(boxes) != len(found) or not np.allclose(boxes, sorted(found), atol=0.01)
            else:
                off = int((found ^ mask).sum())
                pixels += off
            wrong += bool(off)
    except ImportError:
        return "-"
    return f"{count} images, {wrong} differ" + (f" in {pixels} pixels" if pixels else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="READER:DIR")
    parser.add_argument("--formats", default=",".join(FORMATS))
    options = parser.parse_args()
    for source in options.sources:
        before = {record.name: record for record in datasets.read_source(source)}
        for name in options.formats.split(","):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place) / "out"
                done = export(source, folder, [name])
                public = theirs(before, folder, name)
                for shard in list(folder.glob("*.tar")):
                    packed = shard.rename(shard.with_suffix(".packed"))
                    with tarfile.open(packed) as tar:
                        tar.extractall(shard, filter="data")
                    packed.unlink()
                count, wrong = ours(before, folder, name)
                told = {"set": source, "format": name, "images": done.images, "read": count, "differ": wrong}
                print(json.dumps({**told, "public": public}), flush=True)


if __name__ == "__main__":
    main()
