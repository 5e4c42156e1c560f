"""Findings that need an image's pixels: damaged files, masks that do not fit, unusual depth, size or orientation."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from flawsmith import images
from flawsmith.datasets import leaks
from flawsmith.datasets.check_files import ERROR, NOTE, WARNING, Finding
from flawsmith.errors import FlawsmithError
from flawsmith.masks import segment
from flawsmith.records import Record, Region

LARGE = 50_000_000  # pixels
FULL = 0.95  # a mask covering more is probably inverted, and so is one of more than half the image with most of its rim
RIM = 0.9
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Facts:
    """What is kept of an image after looking at it; a few kilobytes."""

    size: tuple[int, int] | None = None  # (height, width) after EXIF orientation
    mode: str = ""
    orientation: int = 1  # EXIF
    shift: int | None = None  # bits dropped from a 16-bit image
    area: float = 0.0  # the masks' share of the image, 0..1
    marked: np.ndarray | None = None  # the masks' share of every field of the fingerprint, (64, 64) uint8
    beside: bool | None = None  # whether the masks lie beside the object; None where no object stands out
    sha: str = ""
    fingerprint: leaks.Print | None = None


def inspect(record: Record) -> tuple[Facts, list[Finding]]:
    """Read one image and its masks; nothing of them stays in memory."""
    findings: list[Finding] = []
    mode, orientation = header(record.image)
    try:
        image = images.read_image(record.image)
    except FlawsmithError as error:
        return Facts(mode=mode), [_unreadable(record.name, record.image, error)]
    height, width = image.shape[:2]
    shift = _shift(record.image, float(image.mean())) if mode.startswith("16-bit") else None
    fingerprint = leaks.fingerprint(image)
    ground = segment.foreground(image) if record.masks else None
    del image
    if height * width > LARGE:
        findings.append(
            Finding(
                NOTE,
                record.name,
                f"{width} x {height} pixels: needs about {height * width * 12 / 1e9:.1f} GB of memory while in use",
                "Use few workers, or cut it into tiles.",
                "very-large",
            )
        )
    if orientation != 1 and record.masks:
        findings.append(
            Finding(
                NOTE,
                record.name,
                f"the camera's rotation (EXIF orientation {orientation}) is applied when the image is read",
                "Make sure that the mask was drawn on the upright image.",
                "exif",
            )
        )
    if not record.is_good and not record.masks:
        findings.append(
            Finding(
                WARNING,
                record.name,
                "no mask: it cannot serve as a reference",
                "Draw one (white where the defect is) and save it as ground_truth/<defect>/<name>_mask.png.",
                "image-without-mask",
            )
        )
    union, found = _masks(record, (height, width))
    marked = beside = None
    if union.any():
        marked = cv2.resize(union.astype(np.uint8) * 255, (leaks.THUMB, leaks.THUMB), interpolation=cv2.INTER_AREA)
        if ground is not None and not ground.all():
            beside = not (union & _hull(ground)).any()
    sha = images.file_sha(record.image)
    area = float(union.mean())
    return Facts((height, width), mode, orientation, shift, area, marked, beside, sha, fingerprint), findings + found


def _hull(ground: np.ndarray) -> np.ndarray:
    """The convex hull of (H, W) bool: where a piece of the object is missing, its mask lies beside what is left."""
    outline, _ = cv2.findContours(ground.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(outline))
    return cv2.fillConvexPoly(np.zeros(ground.shape, np.uint8), hull, 1).astype(bool)


def _unreadable(name: str, path: Path, error: FlawsmithError) -> Finding:
    """`read_image`'s message as a finding: without the path, which the finding names, and with the remedy apart."""
    text = str(error).removeprefix(f"Image {path} ").replace(str(path), path.name)
    reason, _, fix = text.rpartition(". ")
    return Finding(ERROR, name, reason or text, fix if reason else "", "unreadable")


def header(path: Path) -> tuple[str, int]:
    """(mode as people say it, EXIF orientation); ("", 1) for what Pillow cannot open."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with images.open_file(path) as opened:
                mode = opened.mode
                stored = str(opened.tile[0][3]) if opened.tile else ""  # "RGB;16B": Pillow's own mode hides the depth
                # Asking a PNG without EXIF for it would decode the whole image.
                asked = opened.format != "PNG" or "exif" in opened.info
                orientation = int(opened.getexif().get(_ORIENTATION, 1)) if asked else 1
    except Image.DecompressionBombError:
        return "", 1
    except (OSError, SyntaxError, ValueError):
        # OpenCV reads some 16-bit TIFFs that Pillow does not; everything else that ends here is damaged.
        return ("16-bit" if path.suffix.lower() in (".tif", ".tiff") else ""), 1
    names = {"L": "grey", "1": "black and white", "P": "palette", "LA": "grey + alpha", "F": "float"}
    if mode.startswith("I"):
        return "16-bit grey", orientation
    return f"16-bit {mode}" if ";16" in stored and mode in ("RGB", "RGBA") else names.get(mode, mode), orientation


def _shift(path: Path, mean: float) -> int | None:
    """Bits that reading drops from a 16-bit image, from the mean that was read; None when there is no telling."""
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.dtype != np.uint16 or mean <= 0:
        return None
    return round(math.log2(float(raw[..., :3].mean() if raw.ndim == 3 else raw.mean()) / mean))


def _marks_nothing(place: str) -> Finding:
    return Finding(
        WARNING,
        place,
        "it marks no pixel: it lies outside the image, or is thinner than a pixel",
        "Correct it, or remove it.",
        "region-empty",
    )


def _mask(path: Path, any_level: bool) -> tuple[np.ndarray, int, bool]:
    """(mask as `images.read_mask` gives it, (H, W) bool; number of grey levels; whether it holds pure white)."""
    grey = images.brightest(images.read_image(path))
    levels = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
    # Black and one other level mean the same by any rule; else the one rule decides, for the price of a second read.
    plain = levels[0] == 0 and len(levels) <= 2
    return grey > 0 if plain else images.read_mask(path, any_level), len(levels), bool(levels[-1] == 255)


def _masks(record: Record, size: tuple[int, int]) -> tuple[np.ndarray, list[Finding]]:
    """(the union of the masks, (H, W) bool, findings)."""
    findings = []
    union = np.zeros(size, dtype=bool)
    for mask in record.masks:
        path = mask.source if isinstance(mask, Region) else mask
        name = path.relative_to(record.root).as_posix() if path.is_relative_to(record.root) else str(path)
        try:
            if isinstance(mask, Region):
                drawn = mask.draw(size, lambda: images.read_image(record.image))
                union |= drawn
                if not drawn.any() and len(record.masks) > 1:
                    findings.append(_marks_nothing(f"{name}, {mask.entry}"))
                continue
            part, levels, white = _mask(mask, record.any_level)
        except FlawsmithError as error:
            findings.append(_unreadable(name, path, error))
            continue
        if part.shape != size:
            findings.append(
                Finding(
                    ERROR,
                    name,
                    f"the mask is {part.shape[1]} x {part.shape[0]} pixels, its image {size[1]} x {size[0]}",
                    "Export the mask again at the image's size.",
                    "mask-size",
                )
            )
            continue
        if levels > 2 and not record.any_level:
            findings.append(
                Finding(
                    WARNING,
                    name,
                    f"the mask has {levels} grey levels instead of two (soft edges, JPEG or class numbers): "
                    f"{'values from 128 on' if white else 'all values but 0'} count as defect",
                    "Save it as black and white PNG.",
                    "mask-grey",
                )
            )
        union |= part
    area = float(union.mean())
    if record.masks and not findings and not union.any():
        findings.append(
            Finding(
                ERROR,
                record.name,
                "its mask is empty: no pixel is marked",
                "Draw the defect, or move the image to the good ones.",
                "mask-empty",
            )
        )
    elif area > FULL or (area > 0.5 and _rim(union) > RIM):
        findings.append(
            Finding(
                WARNING,
                record.name,
                f"its mask covers {area:.0%} of the image and {_rim(union):.0%} of its rim",
                "Check that black and white are not swapped: the defect must be white.",
                "mask-full",
            )
        )
    return union, findings


def _rim(mask: np.ndarray) -> float:
    """The share of the outermost pixels that is marked."""
    return float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())
