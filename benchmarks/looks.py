"""Do generated defects look real? The yardstick of the backbone's weights, on products it never saw.

For each data set and arm, the same requests (few-shot support of --shots a type, split seed 0; the arm's masks are
moved real ones), against the real defects outside the support and its parts:
auc        the probe of `flawsmith evaluate --metrics realism` (docs/evaluation.md); 0.5 is not to be told apart
spectrum   mean distance over eight half octaves of 2 to 32 px, of the defects' windows, dB
hole       the same by band inside the mask alone (Hann window over the largest square in it), generated less real, dB
contrast   median of |mean inside - mean of the ring| over the ring's level, in percent; beside it the real one
gradient   median of the mean gradient inside the mask over the ring's; beside it the real one
An arm is METHOD or METHOD:KEY=VALUE,KEY=VALUE: its options, and backbone=FOLDER for other weights.

OUT/looks.json holds the figures. OUT/blind-ARM.png is a sheet of real and generated windows, shuffled;
OUT/blind-ARM.json is its key: write down what you think first.

Example: python benchmarks/looks.py data/mvtec_ad/bottle data/magnetic_tile --features weights/mobilenet --n 16 \\
    --arms copypaste analogy inpaint --out runs/looks
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from flawsmith import datasets, images
from flawsmith.config import GenerateConfig
from flawsmith.datasets.splits import few_shot
from flawsmith.evaluation import features
from flawsmith.evaluation import judge as judging
from flawsmith.evaluation.metrics import realism
from flawsmith.evaluation.metrics.spectrum import spectrum
from flawsmith.generation import run as generation
from flawsmith.records import Record, Sample

SHEET = 96  # px, side of a window on a sheet


def statistics(sample: Sample) -> tuple[float, float]:
    """Contrast of a defect to its ring, in percent of the ring's level, and its gradient over the ring's."""
    grey = sample.image.mean(axis=2).astype(np.float32)
    distance = cv2.distanceTransform((~sample.mask).astype(np.uint8), cv2.DIST_L2, 3)
    ring = (distance > 2) & (distance < 12)
    if not ring.any():
        return float("nan"), float("nan")
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    level = max(8.0, float(np.median(grey[ring])))
    contrast = 100 * abs(float(grey[sample.mask].mean() - grey[ring].mean())) / level
    return contrast, float(slope[sample.mask].mean() / max(1e-3, slope[ring].mean()))


def inside(sample: Sample) -> np.ndarray | None:
    """The largest square that lies in the mask, (s, s, 3); None where it is under 8 px."""
    padded = np.pad(sample.mask, 1).astype(np.uint8)
    reach = cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(reach.argmax()), reach.shape)
    half = int(reach.max()) - 1
    if 2 * half < 8:
        return None
    return sample.image[row - half : row + half, column - half : column + half]


def bands(samples: list[Sample]) -> np.ndarray | None:
    """Mean power (8,) in dB inside the masks, the finest band first."""
    rows = [spectrum(window) for sample in samples if (window := inside(sample)) is not None]
    return np.nanmean(rows, axis=0) if rows else None


def requests(data: Path, arm: str, n: int, shots: int, out: Path) -> GenerateConfig:
    method, _, told = arm.partition(":")
    options: dict[str, Any] = dict(pair.split("=", 1) for pair in told.split(",") if pair)
    values: dict[str, Any] = {"method": method, "normal": f"mvtec_ad:{data}", "out": out, "n": n, "per_defect": True}
    values |= {"backbone": options.pop("backbone")} if "backbone" in options else {}
    return GenerateConfig(**values, shots=shots, split_seed=0, seed=0, options=options)


def plain(arm: str) -> str:
    """An arm's name as one of files."""
    return re.sub(r"[^A-Za-z0-9]+", "-", arm).strip("-")


def sheet(real: list[Sample], made: list[Sample], path: Path, seed: int = 0) -> None:
    """Up to 30 real and 60 generated windows in one shuffled sheet, and its key."""
    rng = np.random.default_rng(seed)
    chosen = [(s, "real") for s in (real[i] for i in judging.spaced(len(real), 30))]
    chosen += [(s, "generated") for s in (made[i] for i in judging.spaced(len(made), 60))]
    chosen = [chosen[i] for i in rng.permutation(len(chosen))]
    tiles = [cv2.resize(judging.cut(s, "window"), (SHEET, SHEET), interpolation=cv2.INTER_AREA) for s, _ in chosen]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 15)
    rows = [np.concatenate(tiles[at : at + 15], axis=1) for at in range(0, len(tiles), 15)]
    images.write_image(path.with_suffix(".png"), np.concatenate(rows))
    path.with_suffix(".json").write_text(json.dumps([kind for _, kind in chosen]) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="data sets in MVTec layout that the weights never saw")
    parser.add_argument("--features", required=True, help="folder of a vision model")
    parser.add_argument("--n", type=int, default=16, help="images per type and arm")
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--arms", nargs="+", default=["copypaste", "analogy", "inpaint"])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    extractor = features.load(args.features)
    table: list[dict[str, Any]] = []
    shown: dict[str, tuple[list[Sample], list[Sample]]] = {}
    for data in args.data:
        records = datasets.read("mvtec_ad", data)
        sha_of = {images.file_sha(r.image): realism.part_of(r) for r in records}
        split = few_shot([r for r in records if not r.is_good], shots=args.shots, seed=0)
        held: list[Record] = []
        for kind in dict.fromkeys(r.defect_type for r in split.test if r.masks):
            own = [r for r in split.test if r.defect_type == kind and r.marks_something()]
            held += [own[index] for index in judging.spaced(len(own), 3 * args.n)]
        real = [record.load() for record in held]
        theirs = realism.look(extractor, real, [realism.part_of(r) for r in held])
        for arm in args.arms:
            out = args.out / data.name / plain(arm)
            generation.run(requests(data, arm, args.n, args.shots, out))
            lines = [json.loads(text) for text in (out / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
            kept = [line for line in lines if line["status"] == "kept"]
            made = [
                Record(out / line["image"], data.name, line["defect_type"], masks=(out / line["mask"],)).load()
                for line in kept
            ]
            owners = realism.photographs(out, sha_of)
            ours = realism.look(extractor, made, [owners[out / line["image"]] for line in kept])
            values = {v.key: v.value for v in realism.judge(theirs, ours, "encoder") if v.type == "all"}
            figures = np.round([np.nanmedian([statistics(s) for s in side], axis=0) for side in (made, real)], 2)
            hole = [bands(made), bands(real)]
            table.append(
                {
                    "set": data.name,
                    "arm": arm,
                    "auc": values.get("probe_AUC/encoder/window"),
                    "spectrum": values.get("spectrum_dB/grey/window"),
                    "hole": None if hole[0] is None or hole[1] is None else np.round(hole[0] - hole[1], 1).tolist(),
                    "contrast": [figures[0, 0], figures[1, 0]],
                    "gradient": [figures[0, 1], figures[1, 1]],
                    "made": len(made),
                    "real": len(real),
                }
            )
            print(json.dumps(table[-1]), flush=True)
            sides = shown.setdefault(arm, ([], []))
            sides[0].extend(real), sides[1].extend(made)
    images.write_bytes(args.out / "looks.json", (json.dumps(table, indent=1) + "\n").encode())
    for arm, (real, made) in shown.items():
        sheet(real, made, args.out / f"blind-{plain(arm)}")


if __name__ == "__main__":
    main()
