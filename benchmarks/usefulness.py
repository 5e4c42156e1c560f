"""Does it help? A small U-Net trained on few real defects, plus generated ones, judged on real defects it never saw.

Support, validation and test share no physical part (groups, and look-alikes merged); methods see only the support
pictures; every arm gets the same initial weights, steps and normal pictures; seeds are paired.
Results are appended to OUT/results.jsonl, one line per run; finished runs are skipped, so the same command resumes.

Example: python benchmarks/usefulness.py mvtec_ad:data/magnetic_tile --types blowhole break crack --shots 8
         --seeds 0 1 2 --arms real copypaste procedural inpaint copypaste+inpaint --out runs/usefulness
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from protocol import divide, generated, materialise

from flawsmith.evaluation.scores import paired_bootstrap
from flawsmith.evaluation.segmentation import SegmentationConfig, pixel_ap, train


def one(args: argparse.Namespace, seed: int, arm: str) -> dict:
    split, normals = divide(args, seed)
    folder = args.out / f"seed{seed}"
    types = sorted({r.defect_type for r in split.support})
    rng = np.random.default_rng(seed)
    normals = [normals[i] for i in sorted(rng.permutation(len(normals))[: args.normals])]
    data = materialise(folder, split.support, normals)
    sources = [name for name in arm.split("+") if name not in ("real", "zero")]
    synthetic = [s for name in sources for s in generated(name, data, folder, types, args)]
    real = [] if arm.startswith("zero") else [r.load() for r in split.support]
    config = SegmentationConfig(steps=args.steps, seed=seed, synthetic=args.share)
    model = train(real, synthetic, [r.load() for r in normals], config)
    result = {"seed": seed, "arm": arm, "steps": args.steps, "pictures": len(synthetic), "support": len(split.support)}
    for part, records in (("validation", split.validation), ("test", split.test)):
        defects = [r.load() for r in records if not r.is_good]
        good = [r.load() for r in records if r.is_good]
        result[part] = pixel_ap(model, defects, good, config)
    return result


def table(results: Sequence[dict], baseline: str = "copypaste") -> str:
    """Mean test pixel AP of every arm, and paired differences to the baseline with bootstrap intervals over seeds."""
    by_arm: dict[str, dict[int, dict]] = {}
    for line in results:
        by_arm.setdefault(line["arm"], {})[line["seed"]] = line["test"]
    rows = []
    for arm, runs in by_arm.items():
        names = list(next(iter(runs.values())))
        means = {name: float(np.mean([run[name] for run in runs.values()])) for name in names}
        row = f"{arm:28} n={len(runs)}  " + "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        paired = [runs[s]["mean"] - by_arm[baseline][s]["mean"] for s in runs if s in by_arm.get(baseline, {})]
        if arm != baseline and paired:
            mean, low, high = paired_bootstrap(paired)
            row += f"  vs {baseline} {mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        rows.append(row)
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="READER:DIR")
    parser.add_argument("--types", nargs="*", default=[])
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--arms", nargs="+", default=["real", "copypaste", "procedural", "inpaint", "copypaste+inpaint"]
    )
    parser.add_argument("--pictures", type=int, default=100, help="generated per defect type and method")
    parser.add_argument("--normals", type=int, default=120)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--share", type=float, default=0.5, help="share of generated among the defect crops")
    parser.add_argument("--fit-steps", type=int, default=None)
    parser.add_argument("--fit", default="{}", help="JSON: settings of the few-shot fit")
    parser.add_argument("--inpaint", default="{}", help="JSON: options of the inpaint method")
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--generate-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "results.jsonl"
    results = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for seed in args.seeds:
        for arm in args.arms:
            if any(r["seed"] == seed and r["arm"] == arm and r["steps"] == args.steps for r in results):
                continue
            results.append(one(args, seed, arm))
            with file.open("a") as stream:
                stream.write(json.dumps(results[-1]) + "\n")
            print(json.dumps(results[-1]), flush=True)
    print(table([r for r in results if r["steps"] == args.steps]))


if __name__ == "__main__":
    main()
