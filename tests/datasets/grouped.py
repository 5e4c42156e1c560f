"""What the tests of exports export: one data set that holds all that could get lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import fakes
from flawsmith import images

GROUPS = {f"test/crack/{n:03d}.png": f"part {n // 2}" for n in range(6)}


def tree(folder: Path) -> Path:
    """A set with groups and captions, several defects in an image, and a ring: a defect with a hole in it."""
    folder = fakes.mvtec_tree(folder, good=5, defects={"crack": 6, "hole": 4}, groups=GROUPS)
    mask = np.zeros((48, 64), dtype=bool)
    mask[5:20, 5:25], mask[9:15, 10:20], mask[30:32, 40:60], mask[32, 60] = True, False, True, True
    images.write_image(folder / "ground_truth/hole/000_mask.png", mask)
    return folder
