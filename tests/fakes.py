"""Tiny real data sets, painted on disk: one function per reader's layout. Deterministic, textured, quick.

mvtec_tree(tmp_path)                        tmp_path/widget in MVTec AD layout
folder_tree(tmp_path)                       photographs in plain sub-folders
photo(3), with_defect(photo(3), "crack", 3) the images themselves
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

Size = tuple[int, int]  # (height, width)
DEFECTS: Mapping[str, int] = {"crack": 3, "hole": 3}


def photo(seed: int, size: Size = (48, 64)) -> np.ndarray:
    """A good part: a shaded, grained disc on a darker ground, (H, W, 3) uint8. Each seed differs in every pixel."""
    height, width = size
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    ground = 70 + 12 * np.sin(columns / 5) + 6 * np.cos(rows / 7)
    distance = np.hypot(rows - height / 2, columns - width / 2) / (0.42 * min(size))
    part = 165 + 25 * (columns / width - 0.5) + 6 * np.sin(rows / 3 + columns / 4)
    grey = np.where(distance < 1, part, ground) + rng.uniform(-4, 4)
    grain = cv2.GaussianBlur(rng.normal(0, 9, size).astype(np.float32), (0, 0), 0.8)
    colour = (grey + grain)[..., None] * np.array([1.0, 0.96, 0.88]) + rng.normal(0, 1.5, (height, width, 3))
    return np.clip(colour, 0, 255).astype(np.uint8)


def defect_mask(defect_type: str, seed: int, size: Size = (48, 64)) -> np.ndarray:
    """Where a defect sits, (H, W) bool, near the middle: a thin line for "crack", a disc for any other name."""
    height, width = size
    rng = np.random.default_rng([seed, 7])
    mask = np.zeros(size, dtype=np.uint8)
    middle = (int(width * rng.uniform(0.42, 0.58)), int(height * rng.uniform(0.42, 0.58)))
    reach = max(3, min(size) // 6)
    if defect_type == "crack":
        slope = int(reach * rng.uniform(-0.8, 0.8))
        ends = (middle[0] - reach, middle[1] - slope), (middle[0] + reach, middle[1] + slope)
        cv2.line(mask, ends[0], ends[1], 1, thickness=2)
    else:
        cv2.circle(mask, middle, max(3, reach // 2 + int(rng.integers(0, 3))), 1, thickness=-1)
    return mask.astype(bool)


def with_defect(image: np.ndarray, defect_type: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(image, mask): the photograph darkened by about 90 grey levels inside the mask, with its own grain."""
    mask = defect_mask(defect_type, seed, image.shape[:2])
    rng = np.random.default_rng([seed, 11])
    dark = np.clip(0.35 * image.astype(np.float32) + rng.normal(10, 5, image.shape), 0, 255).astype(np.uint8)
    return np.where(mask[..., None], dark, image), mask


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    """Write an image (any mode Pillow knows) or a bool mask, making folders as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array).save(path, **options)
    return path


def write(path: Path, text: str | bytes) -> Path:
    """Write a text (UTF-8) or bytes, making folders as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def mvtec_tree(
    root: Path,
    category: str = "widget",
    good: int = 4,
    defects: Mapping[str, int] = DEFECTS,
    size: Size = (48, 64),
    captions: bool = True,
    *,
    test_good: int = 2,
    suffix: str = ".png",
    mask_name: str = "{stem}_mask.png",
    groups: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Paint `root/category` in MVTec AD layout and return that folder; `root` is a data set root as well.

    `mask_name` may be "{stem}.png" or a folder "{stem}/0.png". `groups` maps files to groups, for origin.csv.
    """
    folder = root / category
    for index in range(good):
        save(folder / f"train/good/{index:03d}{suffix}", photo(seed + index, size))
    for index in range(test_good):
        save(folder / f"test/good/{index:03d}{suffix}", photo(seed + 500 + index, size))
    for number, (kind, count) in enumerate(defects.items(), start=1):
        for index in range(count):
            own = seed + 1000 * number + index
            image, mask = with_defect(photo(own, size), kind, own)
            save(folder / f"test/{kind}/{index:03d}{suffix}", image)
            save(folder / "ground_truth" / kind / mask_name.format(stem=f"{index:03d}"), mask)
            if captions:
                write(folder / f"prompt/{kind}/{index:03d}.txt", f"A {category} with a {kind}, number {index}.\n")
    if groups is not None:
        rows = "".join(f"{file},{group}\n" for file, group in groups.items())
        write(folder / "origin.csv", "file,group\n" + rows)
    return folder


def folder_tree(
    root: Path,
    good: int = 4,
    defects: Mapping[str, int] = DEFECTS,
    size: Size = (48, 64),
    masks: str = "masks/{kind}/{stem}.png",
    *,
    good_folder: str = "good",
    suffix: str = ".jpg",
    captions: bool = False,
    seed: int = 0,
) -> Path:
    """Paint photographs in plain sub-folders of `root` and return it; `masks` is a pattern, "" for none.

    `good_folder=""` puts the good photographs directly into `root`.
    """
    for index in range(good):
        save(root / good_folder / f"IMG_{index}{suffix}", photo(seed + index, size))
    for number, (kind, count) in enumerate(defects.items(), start=1):
        for index in range(count):
            own = seed + 1000 * number + index
            image, mask = with_defect(photo(own, size), kind, own)
            stem = f"{kind} {index}"
            save(root / kind / f"{stem}{suffix}", image)
            if masks:
                save(root / masks.format(kind=kind, stem=stem), mask)
            if captions:
                write(root / kind / f"{stem}.txt", f"{kind} number {index}\n")
    return root
