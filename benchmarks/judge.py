"""How well does the judge see? The spread, over seeds, of the paired difference between copypaste and real alone.

fixed     one support and one test set; a seed redoes the generated images and the training. What the judge adds.
redrawn   a seed redoes the division as well, as --compare does: other shots, other test parts.
Each line switches one measure (KEY=VALUE of SegmentationConfig; "as is" for none). AP: mean pixel AP over the defect
types and seeds. SD: of the paired difference over the seeds, in parts of 1. seconds: of one core for one network, its
images' way through the encoder included (images that several networks share are encoded once and counted in each).
The lines are written to --out one by one; a run that is stopped goes on where it was.

Example: python benchmarks/judge.py data/magnetic_tile --defects blowhole break crack --encoder weights/mobilenet \\
    --seeds 0 1 2 3 4 --measures "as is" heads=1 averaged=false --out runs/judge
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from flawsmith import datasets
from flawsmith.comparison.arms import materialise
from flawsmith.comparison.shared import divide, support_of
from flawsmith.config import EVERYTHING, CompareConfig, GenerateConfig
from flawsmith.evaluation.detectors import downstream, encoder, heads
from flawsmith.evaluation.protocol import Division, read_real
from flawsmith.generation import run as generation
from flawsmith.records import Record


class Remembering:
    """An encoder's forward pass that gives maps it has made before, and tells what they cost."""

    def __init__(self) -> None:
        self.forward = encoder.Encoder.forward
        self.known: dict[str, list[Tensor]] = {}
        self.made, self.seconds, self.asked = 0, 0.0, 0

    def __call__(self, model: encoder.Encoder, x: Tensor) -> list[Tensor]:
        if torch.is_grad_enabled():
            return self.forward(model, x)
        key = hashlib.sha1(x.numpy(force=True).tobytes()).hexdigest()
        self.asked += 1
        if key not in self.known:
            started = time.process_time()
            self.known[key] = [one.half() for one in self.forward(model, x)]
            self.seconds, self.made = self.seconds + time.process_time() - started, self.made + 1
        return [one.float() for one in self.known[key]]


def pasted(data: Path, out: Path, types: list[str], count: int, seed: int) -> list[Record]:
    """Copypaste's images from a data set that holds nothing but the support."""
    values: dict[str, Any] = {"method": "copypaste", "normal": f"mvtec_ad:{data}", "out": out, "seed": seed, "n": count}
    generation.run(GenerateConfig(**values, per_defect=True, defect=tuple(types), shots=EVERYTHING), None)
    return [record for record in datasets.read("mvtec_ad", out) if not record.is_good and record.masks]


def network(
    settings: dict[str, Any], seed: int, support: list[Record], made: list[Record], normals: list[Record], own: Division
) -> tuple[float, float]:
    """Mean pixel AP on the test images and the core seconds of one network."""
    memory = Remembering()
    memory.known = KNOWN

    def forward(model: encoder.Encoder, x: Tensor) -> list[Tensor]:
        return memory(model, x)

    encoder.Encoder.forward = forward  # type: ignore[method-assign]
    started = time.process_time()
    try:
        config = heads.settings_of({**settings, "seed": seed}, "compact", "cpu")
        found = downstream.segment(support, made, normals, own.validation, own.test, config)
    finally:
        encoder.Encoder.forward = memory.forward  # type: ignore[method-assign]
    PACE[0], PACE[1] = PACE[0] + memory.seconds, PACE[1] + memory.made
    seconds = time.process_time() - started - memory.seconds + memory.asked * PACE[0] / max(1, PACE[1])
    kinds = [v.value for v in found.values if v.key.startswith("pixel_AP/") and v.type not in ("all", "mean")]
    return float(np.mean([value for value in kinds if value is not None])), seconds


KNOWN: dict[str, list[Tensor]] = {}
PACE = [0.0, 0]  # seconds and number of the images encoded so far


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set in MVTec layout")
    parser.add_argument("--encoder", required=True, help="folder of a vision model")
    parser.add_argument("--defects", nargs="*", default=[])
    parser.add_argument("--shots", default="8", help="of each type, or third")
    parser.add_argument("--images", type=int, default=40, help="generated per type")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--support", choices=["fixed", "redrawn"], default="fixed")
    parser.add_argument("--measures", nargs="+", default=["as is"])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    shots = args.shots if args.shots == "third" else int(args.shots)
    asked = CompareConfig(real=f"mvtec_ad:{args.data}", out=args.out, defect=tuple(args.defects))
    real = read_real(asked)
    ledger = args.out / "judge.jsonl"
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    done = {tuple(line["part"]): (line["ap"], line["seconds"]) for line in lines}
    for seed in args.seeds:
        drawn = seed if args.support == "redrawn" else 0
        own = divide(real, drawn)
        support = support_of(own, shots, drawn)
        normals = list(own.normals[:: max(1, len(own.normals) // asked.normals)][: asked.normals])
        work = args.out / f"{args.data.name}-{args.shots}-{drawn}"
        made = pasted(materialise(work, support, normals), work / f"pasted{seed}", own.types, args.images, seed)
        for measure in args.measures:
            settings: dict[str, Any] = {"encoder": args.encoder}
            for text in [] if measure == "as is" else measure.split(","):
                key, value = text.split("=", 1)
                settings[key] = yaml.safe_load(value)
            settings = {k: v for k, v in settings.items() if "network" not in settings or k != "encoder"}
            for arm, images in (("real", []), ("copypaste", made)):
                part = (args.data.name, args.shots, str(args.images), args.support, measure, arm, str(seed))
                if part in done:
                    continue
                done[part] = network(settings, seed, support, images, normals, own)
                with ledger.open("a") as stream:
                    line = {"part": part, "ap": done[part][0], "seconds": done[part][1]}
                    stream.write(json.dumps(line) + "\n")
        if args.support == "redrawn":
            KNOWN.clear()
    print("| measure | real AP | copypaste AP | difference | SD of the difference | core seconds |")
    print("|---|---|---|---|---|---|")
    for measure in args.measures:
        key = (args.data.name, args.shots, str(args.images), args.support, measure)
        sides = [np.array([done[(*key, arm, str(seed))] for seed in args.seeds]) for arm in ("real", "copypaste")]
        apart = sides[1][:, 0] - sides[0][:, 0]
        spread = f"{apart.std(ddof=1):.3f}" if len(apart) > 1 else "-"
        means = f"{sides[0][:, 0].mean():.3f} | {sides[1][:, 0].mean():.3f} | {apart.mean():+.3f}"
        print(f"| {measure} | {means} | {spread} | {np.concatenate(sides)[:, 1].mean():.0f} |")


if __name__ == "__main__":
    main()
