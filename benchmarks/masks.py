"""Do learned masks look like masks that were not learned from? Sizes and shapes against held-out real masks; copies.

The strict first third of every type (or --shots) is learned from, the other masks judge. Per type: the normalised
Wasserstein distance (mean absolute difference of quantiles over the held-out masks' s.d.) of log area, elongation and
solidity, beside it the same distance of the support masks themselves; the share of a mask that lies on the object; and
how many drawn shapes are copies of a learned one in any turn (intersection over union above 0.9), beside the same share
of the held-out real ones. `moved` is the default family, `--mask reference`.

Example: python benchmarks/masks.py mvtec_ad:data/magnetic_tile --steps 500 -n 60 --out runs/masks
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from flawsmith import datasets, images, masks
from flawsmith.datasets.splits import few_shot
from flawsmith.diffusion.mask_model import COPY, LearnedMasks
from flawsmith.training.mask_run import MaskSettings, learn


def statistics(mask: np.ndarray) -> tuple[float, float, float]:
    """Log area (share of the photograph), log elongation, solidity of (H, W) bool."""
    y, x = np.nonzero(mask)
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(np.stack([x, y]).astype(float)) + np.eye(2) / 12))
    hull = cv2.convexHull(np.stack([x, y], 1).astype(np.int32))
    full = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), hull, 1)
    return float(np.log(mask.mean())), float(np.log(spread[1] / spread[0])), float(len(x) / max(1, full.sum()))


def distance(found: Sequence[float], real: Sequence[float]) -> float:
    """Wasserstein distance of two samples over the real one's standard deviation."""
    places = (np.arange(200) + 0.5) / 200
    gap = np.abs(np.quantile(found, places) - np.quantile(real, places)).mean()
    return float(gap / max(1e-6, np.std(real)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="READER:DIR")
    parser.add_argument("--category")
    parser.add_argument("--types", nargs="*", default=[])
    parser.add_argument("--shots", type=int, default=None)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("-n", type=int, default=60, help="masks per type")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    records = datasets.read_source(args.source, args.category)
    defects = [r for r in records if not r.is_good and r.masks and (not args.types or r.defect_type in args.types)]
    split = few_shot(defects, args.shots)
    support = {}
    for record in split.support:
        sample = record.load()
        if sample.mask.any():
            support.setdefault(f"{record.category}/{record.defect_type}", []).append(
                (sample, masks.foreground(sample.image))
            )
    started = time.perf_counter()
    model: LearnedMasks = learn(support, args.out, MaskSettings(steps=args.steps, seed=args.seed))
    count, seconds = sum(map(len, support.values())), time.perf_counter() - started
    print(f"{count} masks of {len(support)} types learned in {seconds:.0f} s", flush=True)
    good = [r for r in records if r.is_good and r.split == "train"]
    lines = []
    for name, learned in support.items():
        category, kind = name.split("/", 1)
        held = [r.load() for r in split.test if (r.category, r.defect_type) == (category, kind)]
        real = [s.mask for s in held if s.mask.any()]
        own = [r for r in good if r.category == category]
        drawn: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"learned": [], "moved": []}
        for number in range(args.n):
            photo = own[number % len(own)].load().image
            allowed, (lender, _) = masks.foreground(photo), learned[number % len(learned)]
            rng = np.random.default_rng([args.seed, number])
            drawn["learned"].append((model.draw(name, lender.caption, allowed, rng), allowed))
            rng = np.random.default_rng([args.seed, number])
            drawn["moved"].append((masks.draw("reference", allowed, rng, reference=lender, image=photo)[0], allowed))
        rows = {"support": [s.mask for s, _ in learned], **{k: [m for m, _ in v] for k, v in drawn.items()}}
        truth = np.array([statistics(m) for m in real])
        for family, found in rows.items():
            own_values = np.array([statistics(m) for m in found])
            line = {
                "type": name,
                "family": family,
                **{
                    key: round(distance(own_values[:, i], truth[:, i]), 3)
                    for i, key in enumerate(("log area", "elongation", "solidity"))
                },
                "copies": round(float(np.mean([model.likeness(m) > COPY for m in found])), 3)
                if family != "support"
                else None,
                "copies among held-out": round(float(np.mean([model.likeness(m) > COPY for m in real])), 3),
                "on object": round(float(np.mean([(m & a).sum() / m.sum() for m, a in drawn.get(family, [])])), 3)
                if family in drawn
                else None,
                "n": len(found),
                "n_real": len(real),
            }
            lines.append(line)
            print(json.dumps(line), flush=True)
        tiles = [[images.mask_image(cv2.resize(m.astype(np.uint8), (128, 128)) > 0) for m in found[:8]]
                 for found in (real, rows["learned"])]  # fmt: skip
        width = min(map(len, tiles))
        sheet = np.concatenate([np.concatenate(row[:width], 1) for row in tiles])
        images.write_image(args.out / f"{category}-{kind}.png", sheet)  # held-out above, learned below
    images.write_bytes(args.out / "masks.json", json.dumps(lines, indent=1).encode())


if __name__ == "__main__":
    main()
