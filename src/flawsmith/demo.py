"""The no-download tour: photographs of textures that ship with scikit-image, and a rendered product."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flawsmith import images, report
from flawsmith.config import GenerateConfig, TrainConfig
from flawsmith.errors import FlawsmithError
from flawsmith.generation import run as generation
from flawsmith.records import Progress, under

TEXTURES = ("brick", "gravel", "grass")
SIZE = 256
FIT_STEPS = 60  # a taste in a minute; a fit of its own takes 600
LEARNED = 8  # images of each learned method
WORDS = "a long thin dark scratch"


def texture_photos(root: Path) -> None:
    """Write `root/<texture>/train/good`: four quarters of each 512 x 512 texture photograph of scikit-image."""
    from skimage import data

    for name in TEXTURES:
        whole = np.repeat(getattr(data, name)()[..., None], 3, axis=2)
        for number in range(4):
            top, left = SIZE * (number // 2), SIZE * (number % 2)
            part = np.ascontiguousarray(whole[top : top + SIZE, left : left + SIZE])
            images.write_image(root / name / "train" / "good" / f"{number:03d}.png", part)


def render_washer(seed: int) -> np.ndarray:
    """A rendered product, (256, 256, 3) uint8: a steel washer on a dark mat; pose and light vary with the seed."""
    rng = np.random.default_rng(seed)
    size = SIZE * 2  # rendered at twice the size, so that edges are antialiased
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    centre = size / 2 + rng.uniform(-16, 16, 2)
    y, x = rows - centre[0], columns - centre[1]
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    inner, outer = size * 0.16, size * rng.uniform(0.38, 0.41)
    metal = (radius > inner) & (radius < outer)
    # Turned metal: grooves along the circle, and two bright lobes where they face the light.
    light = rng.uniform(0, 2 * np.pi)
    grooves = np.interp(radius, np.arange(size), cv2.GaussianBlur(rng.normal(0, 1, (size, 1)), (1, 5), 0)[:, 0])
    shade = 148 + 42 * np.cos(2 * (angle - light)) + 7 * grooves
    bevel = np.minimum(radius - inner, outer - radius) < 7
    shade = np.where(bevel, shade + 34 * np.cos(angle - light), shade)
    mat = 46 + cv2.GaussianBlur(rng.normal(0, 26, (size, size)).astype(np.float32), (0, 0), 1.2)
    shadow = np.hypot(x - 10, y - 14)
    mat = mat - 22 * np.exp(-((np.maximum(0, shadow - outer) / 14) ** 2)) * (shadow > inner)
    value = np.where(metal, shade, mat)[..., None] * np.where(metal[..., None], [1.0, 1.0, 1.03], [0.95, 1.0, 1.08])
    small = cv2.resize(value.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(small + rng.normal(0, 2.2, small.shape)), 0, 255).astype(np.uint8)


def product_photos(root: Path, count: int = 8) -> None:
    """Write `root/washer/train/good`."""
    for number in range(count):
        images.write_image(root / "washer" / "train" / "good" / f"{number:03d}.png", render_washer(number))


def run(
    folder: Path, n: int = 44, seed: int = 0, progress: Progress | None = None, learned: bool = True
) -> dict[str, Path]:
    """Make the tour under `folder`: data/, out/<method>/, contact-sheet.png and report.html. Resumes when run again.

    `procedural` paints every kind of defect; its images then stand in for the "few real defects" that the other
    methods need, which no other demo data could give without a download. With `learned`, and where the extra
    `diffusion` is installed, the
    shipped model paints from words, and both papers' methods are fitted to those few defects for FIT_STEPS steps.
    """
    data = folder / "data"
    if folder.exists() and not folder.is_dir():
        raise FlawsmithError(f"Demo folder {folder} is a file: choose another --out.")
    if not (data / "washer").is_dir():
        texture_photos(data)
        product_photos(data)
    made: list[tuple[str, Path]] = []
    runs = [("procedural", n), ("cutpaste", 8), ("perlin", 8), ("nsa", 8)]
    for method, count in runs:
        out = folder / "out" / method
        config = GenerateConfig(method=method, normal=f"mvtec_ad:{data}", out=out, n=count, seed=seed)
        _run(config, progress)
        made.append((method, out))
    few = few_defects(folder, seed, progress)
    for method, what in (("copypaste", "cut out and laid elsewhere"), ("analogy", "their texture in new shapes")):
        out = folder / "out" / method
        _run(GenerateConfig(method=method, normal=f"mvtec_ad:{few}", out=out, n=8, seed=seed), progress)
        made.append((f"{method} (a few of the painted scratches and chips above, {what})", out))
    if learned and find_spec("diffusers") and find_spec("torch"):
        made += _learned(folder, data, few, seed, progress)
    sheet, page = folder / "contact-sheet.png", folder / "report.html"
    images.write_image(sheet, report.overview(made, count=2, cell=128))
    report.write(made, page, title="flawsmith demo", progress=under(progress, "report"))
    return {"contact sheet": sheet, "report": page, "images": folder / "out"}


def _learned(folder: Path, data: Path, few: Path, seed: int, progress: Progress | None) -> list[tuple[str, Path]]:
    """What the diffusion model makes: from words alone, then fitted to the few defects by each paper's method."""
    from flawsmith.training import run as training

    washers, made = f"mvtec_ad:{few}", []
    words = {"method": "inpaint", "normal": f"mvtec_ad:{data / 'washer'}", "prompt": WORDS, "mask": "scratch"}
    tour: list[tuple[str, str, dict[str, Any]]] = [
        ("inpaint", f"the shipped model, told {WORDS!r}", words),
        ("anomalyxfusion", "fitted to the few: caption, mask and learned texture", {"normal": washers}),
        ("anomalycontrol", "fitted to the few: each reference imitated on another washer", {"normal": washers}),
    ]
    for method, what, values in tour:
        out = folder / "out" / method
        if method != "inpaint":
            fitted = folder / "runs" / method
            settings = TrainConfig(
                method=method,
                data=washers,
                out=fitted,
                steps=FIT_STEPS,
                seed=seed,
                options={"patience": 0, "mask_steps": 0},
            )
            training.train(settings, under(progress, f"{method}, fit"))
            values["method"] = str(fitted)
        _run(GenerateConfig(**values, out=out, n=LEARNED, seed=seed), progress, method)
        made.append((f"{method} ({what})", out))
    return made


def few_defects(folder: Path, seed: int = 0, progress: Progress | None = None) -> Path:
    """A small data set with defects, in MVTec layout: the washers and nine painted scratches and chips."""
    few = folder / "data-with-defects" / "washer"
    if not (folder / "data" / "washer").is_dir():
        product_photos(folder / "data")
    config = GenerateConfig(
        method="procedural",
        normal=f"mvtec_ad:{folder / 'data' / 'washer'}",
        out=few,
        defect=("scratch", "chip"),
        n=18,
        seed=seed + 1,
        with_normals=True,
    )
    _run(config, progress)
    return few


def _run(config: GenerateConfig, progress: Progress | None, name: str = "") -> None:
    generation.run(config.gated(), under(progress, name or config.method))
