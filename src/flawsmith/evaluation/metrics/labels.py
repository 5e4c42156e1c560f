"""Whether the labels of generated images are true, and whether images repeat each other. No network, no opinion.

The photograph each image was painted on is named in the manifest; where it cannot be found, the values are None and
say so. Definitions follow docs/evaluation.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flawsmith import compose, datasets, images, inputs
from flawsmith.datasets.leaks import Print, fingerprint, near
from flawsmith.datasets.writer import CONFIG, MANIFEST, read_manifest
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.results import Value
from flawsmith.records import Record

NO_MANIFEST = "the folder has no manifest.jsonl, so nobody knows the photographs the images were painted on"
KEYS = ("label_IoU", "changed_outside_label", "visibility", "label_over_mask")


def change(normal: np.ndarray, image: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """How a label (H, W) bool fits what changed between two (H, W, 3) uint8 images.

    label_IoU: of the label and the change map (largest channel difference above 3 times the photograph's grain, 4 to 12
    grey levels). changed_outside_label: pixels outside the label that differ at all; must be 0. visibility: mean
    largest channel difference inside the label, in grey levels.
    """
    if normal.shape != image.shape:
        raise FlawsmithError(f"The photograph is {normal.shape}, the image {image.shape}: they must be equal.")
    difference = images.brightest(cv2.absdiff(normal, image))
    changed = difference > compose.change_tolerance(normal)
    union = int((changed | label).sum())
    return {
        "label_IoU": float((changed & label).sum() / union) if union else 1.0,
        "changed_outside_label": float(((difference > 0) & ~label).sum()),
        "visibility": float(difference[label].mean()) if label.any() else 0.0,
    }


def duplicates(hashes: Sequence[str], prints: Sequence[Print]) -> tuple[float, float]:
    """Shares of images (equal, alike) that repeat another: byte-equal, or whose defect windows look alike.

    hashes: of the images; prints: `leaks.fingerprint` of their defect windows, in the same order.
    """
    counts = Counter(hashes)
    repeated = sum(counts[one] for one in counts if counts[one] > 1)
    alike = {place for i, j, _ in near(prints) for place in (i, j)}
    return repeated / max(1, len(hashes)), len(alike) / max(1, len(hashes))


def judge(out: Path, real_root: Path | None = None, seed: int = 0) -> list[Value]:
    """All label values of a generated folder, per defect type (of several categories together).

    The photographs are looked for in the data set that generate.json names, then in `real_root`, and must have the
    manifest's hash. Raises FlawsmithError for a damaged manifest.
    """
    if not (out / MANIFEST).is_file():
        keys = (*KEYS, "refused_share")
        return [Value(f"{key}/label", None, seed=seed, reason=NO_MANIFEST) for key in keys]
    lines = read_manifest(out)
    roots = photograph_roots(out, real_root)
    values: list[Value] = []
    for kind in dict.fromkeys(line["defect_type"] for line in lines):
        members = [line for line in lines if line["defect_type"] == kind]
        kept = [line for line in members if line["status"] == "kept"]
        found = [measured for line in kept if (measured := _measure(out, roots, line)) is not None]
        refused = 1 - len(kept) / len(members)
        values.append(Value("refused_share/label", refused, kind, seed=seed, n_generated=len(members)))
        missing = len(kept) - len(found)
        reason = f"{missing} of {len(kept)} photographs were not found or changed since" if missing else ""
        for key in KEYS:
            numbers = [one[key] for one in found if key in one]
            total = key == "changed_outside_label"  # one pixel too many is one too many: no mean hides it
            value = (sum(numbers) if total else float(np.mean(numbers))) if numbers else None
            spread = float(np.std(numbers)) if numbers and not total else None
            values.append(
                Value(f"{key}/label", value, kind, seed=seed, n_generated=len(numbers), spread=spread, reason=reason)
            )
    return values


def photograph_roots(out: Path, real_root: Path | None) -> list[Path]:
    """Folders that may hold the photographs a generated folder was painted on."""
    roots = [] if real_root is None else [real_root, real_root.parent]
    try:
        source = inputs.parse_json((out / CONFIG).read_text(encoding="utf-8"))["source"]
        return [datasets.parse_source(source)[1], *roots]
    except (OSError, ValueError, KeyError, TypeError):
        return roots


def photograph(roots: Sequence[Path], line: dict[str, Any]) -> np.ndarray | None:
    """The photograph (H, W, 3) uint8 of a manifest line, or None where no root holds it with the stated hash."""
    for root in roots:
        path = root / line["normal"]["file"]
        if path.is_file() and images.file_sha(path) == line["normal"]["sha"]:
            return images.read_image(path)
    return None


def _measure(out: Path, roots: Sequence[Path], line: dict[str, Any]) -> dict[str, float] | None:
    normal = photograph(roots, line)
    if normal is None:
        return None
    image, label = (
        images.read_image(inputs.inside(out, line["image"], MANIFEST)),
        images.read_mask(inputs.inside(out, line["mask"], MANIFEST)),
    )
    asked = line.get("scores", {}).get("change_iou")
    return {**change(normal, image, label), **({} if asked is None else {"label_over_mask": float(asked)})}


def repeats(generated: Iterable[Record], seed: int = 0) -> list[Value]:
    """Shares of generated images that repeat another one of the folder; every mask must hold a pixel."""
    hashes, prints = [], []
    for record in generated:
        sample = record.load()
        hashes.append(images.array_sha(sample.image))
        prints.append(fingerprint(sample.image[compose.square_window(sample.mask, 32, 1.3).slices].copy()))
    equal, alike = duplicates(hashes, prints)
    return [
        Value("duplicates/bytes", equal, "all", seed=seed, n_generated=len(hashes)),
        Value("duplicates/window-hash", alike, "all", seed=seed, n_generated=len(hashes)),
    ]
