"""How fast annotation files are read and data sets exported, and how good the masks are that boxes propose.

CPU seconds of one process: reading a painted COCO file of 10,000 images, exporting each data set to COCO and to every
format, with the pixels that differ after reading each format back. With --boxes instead: intersection over union of the
true masks' connected parts (20 px and more, every N-th defect image) with their whole box, an ellipse in it, and the
proposal of `masks.boxes`.

Example: python benchmarks/annotations.py mvtec_ad:data/magnetic_tile mvtec_ad:data/ball_screw
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from flawsmith import datasets
from flawsmith.datasets.check import check
from flawsmith.datasets.exports import FORMATS, outlines
from flawsmith.datasets.exports.run import export
from flawsmith.masks import boxes

READS = {name: name.replace("-", "_") for name in FORMATS} | {"mvtec": "mvtec_ad", "yolo-seg": "yolo"}


def paint_coco(root: Path, images: int, regions: int = 2, points: int = 50) -> None:
    """A COCO file with images that hold nothing: the reader opens none."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 1, "name": "scratch"}, {"id": 2, "name": "dent"}]
    turn = np.linspace(0, 2 * np.pi, points)
    for number in range(images):
        (root / f"images/{number:05d}.png").write_bytes(b"x")
        content["images"].append({"id": number, "file_name": f"{number:05d}.png", "width": 512, "height": 512})
        for _ in range(regions):
            x, y, radius = rng.uniform(60, 450), rng.uniform(60, 450), rng.uniform(10, 40, points)
            ring = np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1).round(2)
            entry = {"id": len(content["annotations"]), "image_id": number, "category_id": 1 + number % 2}
            content["annotations"].append({**entry, "iscrowd": 0, "segmentation": [ring.ravel().tolist()]})
    (root / "instances.json").write_text(json.dumps(content))


def paint_defects(root: Path, images: int, size: int = 256) -> None:
    """Half good, half with two blobs and a mask: grained JPEG images in MVTec AD's layout."""
    rng = np.random.default_rng(0)
    grain = rng.integers(90, 160, (8, size, size, 3)).astype(np.uint8)
    folders = [root / "train/good", root / "test/blob", root / "ground_truth/blob"]
    for folder in folders:
        folder.mkdir(parents=True)
    for number in range(images):
        image, mask = grain[number % 8].copy(), np.zeros((size, size), dtype=np.uint8)
        image[:4, :32] = rng.integers(0, 256, (4, 32, 3))  # no two are alike
        if number % 2:
            for _ in range(2):
                centre = tuple(int(value) for value in rng.integers(20, size - 20, 2))
                cv2.circle(mask, centre, int(rng.integers(5, 15)), 255, -1)
            image[mask > 0] //= 2
            cv2.imwrite(str(folders[2] / f"{number:05d}_mask.png"), mask)
        cv2.imwrite(str(folders[number % 2] / f"{number:05d}.jpg"), image)


def differing(source: str, folder: Path, reader: str) -> tuple[int, int]:
    """(defect pixels of the source, pixels that differ after reading an export back)."""
    before = {record.name: record for record in datasets.read_source(source)}
    with open(folder / "origin.csv", encoding="utf-8") as file:
        origin = {row["file"]: row["origin_file"] for row in csv.DictReader(file)}
    whole = wrong = 0
    for record in datasets.read(reader, folder):
        mask, found = before[origin[record.name]].load().mask, record.load().mask
        whole, wrong = whole + int(mask.sum()), wrong + int((mask ^ found).sum())
    return whole, wrong


def judge_boxes(source: str, every: int) -> None:
    scores: dict[str, list[float]] = {"box": [], "ellipse": [], "proposed": []}
    spent = 0.0
    for record in [one for one in datasets.read_source(source) if not one.is_good][::every]:
        sample = record.load()
        for top, left, part in outlines.components(sample.mask):
            height, width = part.shape
            if part.sum() < 20:
                continue
            begun = time.process_time()
            proposed = boxes.within(sample.image, (top, left, top + height, left + width))
            spent += time.process_time() - begun
            for name, found in (
                ("box", np.ones_like(part)),
                ("ellipse", boxes.ellipse(height, width)),
                ("proposed", proposed),
            ):
                scores[name].append(float((found & part).sum() / (found | part).sum()))
    count = len(scores["box"])
    means = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in scores.items())
    print(f"{source}: {count} parts, {means}, {1000 * spent / count:.1f} CPU ms each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", metavar="READER:DIR")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--boxes", action="store_true")
    parser.add_argument("--export", type=int, default=0, help="images of a painted set to export to COCO and to check")
    parser.add_argument("--every", type=int, default=5)
    options = parser.parse_args()
    if options.boxes:
        for source in options.sources:
            judge_boxes(source, options.every)
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        paint_coco(root / "coco", options.images)
        begun = time.process_time()
        records = datasets.read("coco", root / "coco")
        print(f"COCO, {len(records)} images: read in {time.process_time() - begun:.2f} CPU s")
        if options.export:
            paint_defects(root / "painted", options.export)
            for task, work in (("export", lambda: export(root / "painted", root / "exported", ["coco"])),
                               ("check", lambda: check(root / "painted"))):  # fmt: skip
                begun, clock = time.process_time(), time.monotonic()
                work()
                spent, wall = time.process_time() - begun, time.monotonic() - clock
                print(f"{task}, {options.export} images of 256 px: {spent:.1f} CPU s, {wall:.1f} s")
        for number, source in enumerate(options.sources):
            for formats in (["coco"], list(FORMATS)):
                out = root / f"out-{number}-{len(formats)}"
                begun = time.process_time()
                done = export(source, out, formats)
                spent = time.process_time() - begun
                per = 10_000 * spent / done.images
                told = f"{done.images} images, {spent:.1f} CPU s, {per:.0f} per 10,000"
                print(f"{source}, {len(formats)} formats: {told}")
            for kind, folder in done.folders.items():
                whole, wrong = differing(source, folder, READS[kind])
                print(f"{source}, {kind}: {wrong} of {whole} defect pixels differ")


if __name__ == "__main__":
    main()
