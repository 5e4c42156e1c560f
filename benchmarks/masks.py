"""Do learned masks look like masks that were not learned from? Sizes and shapes against held-out real masks; copies.

The strict first third of every type (or --shots) is learned from, the other masks judge. Per type: the normalised
Wasserstein distance (mean absolute difference of quantiles over the held-out masks' s.d.) of log area, elongation,
solidity and of the middle's row and column in the object's box, beside it the same distance of the support masks
themselves; the mean number of parts; the share of a mask that lies on the object; and how many drawn shapes are copies
of a learned one in any turn (intersection over union above 0.9), beside the same share of the held-out real ones.
`shape` and `whole` are the two kinds of mask model, `moved` is `--mask reference`.

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

from flawsmith import compose, datasets, images, masks
from flawsmith.datasets.splits import few_shot
from flawsmith.diffusion.mask_model import COPY, KINDS, LearnedMasks
from flawsmith.training.mask_run import MaskSettings, learn

STATISTICS = ("log area", "elongation", "solidity", "row", "column")


def statistics(mask: np.ndarray, allowed: np.ndarray) -> tuple[float, ...]:
    """STATISTICS of (H, W) bool on an object (H, W) bool (area as a share of the photograph), and the parts."""
    y, x = np.nonzero(mask)
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(np.stack([x, y]).astype(float)) + np.eye(2) / 12))
    hull = cv2.convexHull(np.stack([x, y], 1).astype(np.int32))
    full = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), hull, 1)
    frame, parts = compose.mask_box(allowed), cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
    middle = (y.mean() - frame.top) / frame.shape[0], (x.mean() - frame.left) / frame.shape[1]
    look = float(np.log(mask.mean())), float(np.log(spread[1] / spread[0])), float(len(x) / max(1, full.sum()))
    return *look, *map(float, middle), float(parts)


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
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
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
    models: dict[str, LearnedMasks] = {}
    for kind in args.kinds:
        started = time.process_time()
        models[kind] = learn(support, args.out / kind, MaskSettings(kind, args.steps, seed=args.seed))
        count, seconds = sum(map(len, support.values())), time.process_time() - started
        print(f"{kind}: {count} masks of {len(support)} types learned in {seconds:.0f} processor s", flush=True)
    likeness = models[args.kinds[0]].likeness
    good = [r for r in records if r.is_good and r.split == "train"]
    lines = []
    for name, learned in support.items():
        category, kind = name.split("/", 1)
        held = [r.load() for r in split.test if (r.category, r.defect_type) == (category, kind)]
        real = [(s.mask, masks.foreground(s.image)) for s in held if s.mask.any()]
        own = [r for r in good if r.category == category]
        drawn: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {family: [] for family in (*models, "moved")}
        for number in range(args.n):
            photo = own[number % len(own)].load().image
            allowed, (lender, _) = masks.foreground(photo), learned[number % len(learned)]
            for family, model in models.items():
                rng = np.random.default_rng([args.seed, number])
                drawn[family].append((model.draw(name, lender.caption, allowed, rng), allowed))
            rng = np.random.default_rng([args.seed, number])
            drawn["moved"].append((masks.draw("reference", allowed, rng, reference=lender, image=photo)[0], allowed))
        support_pairs = [(s.mask, a) for s, a in learned]
        truth = np.array([statistics(*pair) for pair in real])
        for family, found in {"support": support_pairs, **drawn}.items():
            values = np.array([statistics(*pair) for pair in found])
            line = {
                "type": name,
                "family": family,
                **{key: round(distance(values[:, i], truth[:, i]), 3) for i, key in enumerate(STATISTICS)},
                "parts": round(float(values[:, -1].mean()), 2),
                "parts of held-out": round(float(truth[:, -1].mean()), 2),
                "copies": round(float(np.mean([likeness(m) > COPY for m, _ in found])), 3),
                "copies among held-out": round(float(np.mean([likeness(m) > COPY for m, _ in real])), 3),
                "on object": round(float(np.mean([(m & a).sum() / m.sum() for m, a in found])), 3),
                "n": len(found),
                "n_real": len(real),
            }
            lines.append(line)
            print(json.dumps(line), flush=True)
        shown = [real, support_pairs, *drawn.values()]
        width = min(8, *map(len, shown))
        tiles = [[images.mask_image(cv2.resize(m.astype(np.uint8), (128, 128)) > 0) for m, _ in found[:width]]
                 for found in shown]  # fmt: skip
        sheet = np.concatenate([np.concatenate(row, 1) for row in tiles])
        images.write_image(args.out / f"{category}-{kind}.png", sheet)  # held-out, learned from, shape, whole, moved
    images.write_bytes(args.out / "masks.json", json.dumps(lines, indent=1).encode())


if __name__ == "__main__":
    main()
