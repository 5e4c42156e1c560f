"""How long `analogy` paints, by the defect's size: processor seconds on one thread, median of five seeds.

A dark pit on a grained surface is the exemplar, the same ellipse turned by 40 degrees the new mask; reading, the mask
family and PNG are not in it (benchmarks/realism.py counts them).

Example: python benchmarks/analogy.py
"""

from __future__ import annotations

import time

import cv2
import numpy as np

from flawsmith.methods.analogy.synthesizer import Analogy
from flawsmith.records import Request, Sample


def surface(seed: int, side: int) -> np.ndarray:
    """A grained surface (side, side, 3) uint8."""
    grain = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 9, (side, side)).astype(np.float32), (0, 0), 0.8)
    return np.clip((130 + grain)[..., None] * [1.0, 0.96, 0.9], 0, 255).astype(np.uint8)


def ellipse(side: int, length: int, degrees: float) -> np.ndarray:
    """An ellipse in the middle, `length` pixels long and four fifths of it wide, (side, side) bool."""
    middle, axes = (side // 2, side // 2), (length // 2, int(0.4 * length))
    return cv2.ellipse(np.zeros((side, side), np.uint8), middle, axes, degrees, 0, 360, 1, cv2.FILLED) > 0


def main() -> None:
    cv2.setNumThreads(1)
    method = Analogy()
    print("| length, px | area, px | s | microseconds per px |\n|---|---|---|---|")
    for length in (24, 48, 72, 96, 128, 192):
        side = 3 * length + 64
        pit, real = surface(1, side), ellipse(side, length, 0)
        pit[real] = pit[real] * 0.45
        normal, hole = surface(2, side), ellipse(side, length, 40)
        spent = []
        for seed in range(5):
            good = Sample(normal, np.zeros_like(hole), "part")
            request = Request(good, hole, "pit", "", Sample(pit, real, "part", "pit"), seed)
            begun = time.process_time()
            method.generate([request])
            spent.append(time.process_time() - begun)
        median = float(np.median(spent))
        print(f"| {length} | {hole.sum()} | {median:.3f} | {1e6 * median / hole.sum():.0f} |", flush=True)


if __name__ == "__main__":
    main()
