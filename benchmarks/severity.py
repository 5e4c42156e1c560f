"""`--severity` against what comes out: rank correlation with measured contrast and with the label's size, per method.

    python benchmarks/severity.py --seeds 4 --severities 6

Paired: the same request (photograph, exemplar, seed) at rising severity; contrast is the mean change inside the label
in grey levels. Made plates with one dark stain as the exemplar; diffusion methods with the shipped backbone, untrained
but for `anomalyxfusion`, which is fitted to two exemplars for `--steps` steps, since it paints nothing before.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
from scipy.stats import spearmanr

import flawsmith
from flawsmith import masks
from flawsmith.methods import METHODS, load, mask_choice
from flawsmith.records import Request, Sample

SIZE = (160, 200)


def plate(seed: int) -> np.ndarray:
    """A grey plate with clouds and grain, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    clouds = cv2.GaussianBlur(rng.normal(0, 1, SIZE).astype(np.float32), (0, 0), 8)[..., None]
    grey = 140 + 20 * clouds / clouds.std() + rng.normal(0, 2, (*SIZE, 1))
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8), 3, axis=2)


def exemplar(seed: int = 5) -> Sample:
    """A plate with a dark, ragged stain and its mask."""
    mask, _ = masks.draw("blob", np.ones(SIZE, bool), np.random.default_rng(seed))
    dark = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)[..., None] * 45
    return Sample(np.clip(plate(seed) - dark, 0, 255).astype(np.uint8), mask, "plate", "stain")


def measured(painter: object, seed: int, severity: float) -> tuple[float, int] | None:
    """(contrast, pixels) of a request at a severity; None where it was refused."""
    reference = exemplar() if painter.references != "none" else None  # type: ignore[attr-defined]
    options = masks.MaskOptions(severity=severity)
    family = mask_choice.choose(painter.default_mask("stain"), "stain", reference is not None, "")  # type: ignore[attr-defined]
    ground, rng = np.ones(SIZE, bool), np.random.default_rng(seed)
    mask, warp = masks.draw(family, ground, rng, options, reference, plate(seed))
    normal = Sample(plate(seed), np.zeros(SIZE, bool), "plate")
    asked = Request(normal, mask, "stain", "A dark stain on the plate.", reference, seed, warp, (), severity)
    (made,) = painter.generate([asked])  # type: ignore[attr-defined]
    return None if "rejected" in made.info else (made.info["scores"]["visibility"], int(made.mask.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--severities", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10)
    asked = parser.parse_args()
    for name in asked.methods.split(","):
        if name == "anomalyxfusion":
            real, good = [exemplar(5), exemplar(6)], [Sample(plate(7), np.zeros(SIZE, bool), "plate")]
            painter = flawsmith.fit(name, real, good, category="plate", defect_type="stain", steps=asked.steps)
        else:
            painter = load(name)
        found, refused = [], 0
        for seed in range(1, asked.seeds + 1):
            rows = []
            for severity in np.linspace(0, 1, asked.severities):
                value = measured(painter, seed, float(severity))
                refused += value is None
                rows += [] if value is None else [(severity, *value)]
            levels, contrasts, sizes = zip(*rows, strict=True)
            found.append((spearmanr(levels, contrasts).statistic, spearmanr(levels, sizes).statistic))
        contrast, size = np.mean(found, axis=0)
        print(f"{name}: contrast {contrast:.2f}, size {size:.2f} ({asked.seeds} seeds, {refused} refused)", flush=True)


if __name__ == "__main__":
    main()
