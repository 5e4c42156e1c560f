"""Can a probe tell generated defects from real ones? Are the shapes new, and is the grain that of real defects?

Per data set, type and method, from one few-shot support (--shots), against the real defects that are neither in it nor
of its parts:
auc       logistic regression on frozen features of the defect's window (context 1.5), real against generated, as many
          of each: `flawsmith evaluate --metrics realism`'s probe (docs/evaluation.md, "Realism"); 0.5 is not to be
          told apart. Types are pooled, each with as many generated as real ones.
new       share of labels whose IoU with the best-aligned mask of the support is under 0.8 (translation, axes, mirror)
grain     standard deviation inside the label at three scales (differences of Gaussians of 1, 3 and 8 px) over the level
          of the surroundings, median over the images; fine / middle / coarse; beside it that of the real ones
seconds   CPU per image kept, masks and reading included

Example: python benchmarks/realism.py data/magnetic_tile --features weights/mobilenet --shots 8 --seeds 0 1 2 \\
    --methods copypaste analogy --out runs/realism
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch

from flawsmith import datasets, images
from flawsmith.config import GenerateConfig
from flawsmith.datasets.splits import few_shot
from flawsmith.evaluation import features
from flawsmith.evaluation import judge as judging
from flawsmith.evaluation.metrics import realism
from flawsmith.generation import run as generation
from flawsmith.masks.reshape import overlap
from flawsmith.records import Record, Sample

CAP = 60  # real defects of a type that are looked at
SCALES = (0.0, 1.0, 3.0, 8.0)


def grain(sample: Sample) -> list[float]:
    """Contrast inside the mask by scale, over the level of the surroundings, in percent."""
    grey = sample.image.mean(axis=2).astype(np.float32)
    soft = [grey if sigma == 0 else cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in SCALES]
    distance = cv2.distanceTransform((~sample.mask).astype(np.uint8), cv2.DIST_L2, 3)
    ring = (distance > 2) & (distance < 12)
    level = max(8.0, float(np.median(grey[ring]))) if ring.any() else 128.0
    return [100 * float((a - b)[sample.mask].std()) / level for a, b in pairwise(soft)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set in MVTec layout")
    parser.add_argument("--features", required=True, help="folder of a vision model")
    parser.add_argument("--types", nargs="*", default=[])
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--methods", nargs="+", default=["copypaste", "analogy"], help="METHOD or METHOD:KEY=VALUE,KEY=VALUE"
    )
    parser.add_argument("--mask", help="mask family of every method; default: each method's own")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    extractor = features.load(args.features)
    records = datasets.read("mvtec_ad", args.data)
    sha_of = {record.image: images.file_sha(record.image) for record in records}
    defects = [r for r in records if not r.is_good and r.masks and (not args.types or r.defect_type in args.types)]
    found: dict[str, list[dict[str, object]]] = {method: [] for method in args.methods}
    for seed in args.seeds:
        # the split that `generate` makes from the same words: what a method saw is known, and what is tied to it
        split = few_shot([r for r in records if not r.is_good], shots=args.shots, seed=seed)
        held: list[Record] = []
        for kind in dict.fromkeys(r.defect_type for r in defects):
            own = [r for r in split.test if r.defect_type == kind and r in defects]
            held += [own[index] for index in judging.spaced(len(own), CAP)] if own else []
        real = [record.load() for record in held]
        seen = extractor([judging.cut(sample, "window") for sample in real]).pooled
        shapes = [record.load().mask for record in split.support if record in defects]
        counts = {kind: sum(r.defect_type == kind for r in held) for kind in dict.fromkeys(r.defect_type for r in held)}
        for method in args.methods:
            name, _, told = method.partition(":")
            out = args.out / f"{args.data.name}-{method.replace(':', '-')}-{args.mask or 'own'}-{seed}"
            begun = time.process_time()
            values = {"method": name, "normal": f"mvtec_ad:{args.data}", "out": out, "n": max(counts.values())}
            values |= {
                "per_defect": True,
                "defect": tuple(counts),
                "shots": args.shots,
                "split_seed": seed,
                "mask": args.mask,
                "seed": seed,
                "options": dict(pair.split("=", 1) for pair in told.split(",") if pair),
            }
            summary = generation.run(GenerateConfig(**values))
            spent = (time.process_time() - begun) / max(1, summary.kept)
            lines = [json.loads(text) for text in (out / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
            lines = [line for line in lines if line["status"] == "kept"]
            chosen = [line for kind, n in counts.items() for line in [x for x in lines if x["defect_type"] == kind][:n]]
            made = [
                Record(out / line["image"], args.data.name, line["defect_type"], masks=(out / line["mask"],)).load()
                for line in chosen
            ]
            vectors = extractor([judging.cut(sample, "window") for sample in made]).pooled
            owners = realism.photographs(out, {sha_of[r.image]: realism.part_of(r) for r in records})
            shown = [owners[out / line["image"]] for line in chosen]
            auc = realism.probe(seen, vectors, [realism.part_of(r) for r in held], shown)
            new = [
                max(overlap(sample.mask, shape) for shape in shapes) < 0.8
                for sample in made[:: max(1, len(made) // 60)]
            ]
            result = {
                "seed": seed,
                "auc": None if auc is None else round(auc, 3),
                "new": round(float(np.mean(new)), 2),
                "grain": np.round(np.median([grain(sample) for sample in made], axis=0), 1).tolist(),
                "grain of real": np.round(np.median([grain(sample) for sample in real], axis=0), 1).tolist(),
                "seconds": round(spent, 3),
                "real": len(real),
                "made": len(made),
            }
            found[method].append(result)
            print(args.data.name, method, json.dumps(result), flush=True)
    for method, results in found.items():
        print(f"{args.data.name} {method}: mean auc {np.mean([r['auc'] for r in results]):.3f}")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
