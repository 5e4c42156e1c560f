"""What a detector misses: of every real validation defect how much of it was found, and what the defect is like.

`generate --from-misses` plans by it. Test images never stand in it: what is planned by them cannot be judged on them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flawsmith import images
from flawsmith.evaluation.detectors.segmentation import Judged
from flawsmith.evaluation.protocol import Division
from flawsmith.masks import foreground
from flawsmith.records import Record, Sample

MISSES = "misses.jsonl"


def of(
    records: Sequence[Record], samples: Sequence[Sample], judged: Judged, level: int, arm: str, seed: int
) -> list[dict[str, Any]]:
    """A row for each of the records that shows a defect; `samples` and `judged` in their order.

    found: the share of its pixels at `level` or above (at the segmenter's scale), 0 to 1. size: share of the object's
    area, as the dial `mask.size`. contrast: see `contrast`. place: the centre, x and y as shares of the image.
    """
    rows = []
    for record, sample, levels, mask in zip(records, samples, judged.levels, judged.masks, strict=True):
        if not mask.any():
            continue
        height, width = sample.mask.shape
        y, x = (float(place.mean()) for place in np.nonzero(sample.mask))
        rows.append(
            {
                "arm": arm,
                "seed": seed,
                "type": record.defect_type,
                "image": record.name,
                "sha": images.file_sha(record.image),
                "found": round(float((levels[mask] <= level).mean()), 4),
                "size": float(f"{sample.mask.sum() / (foreground(sample.image) | sample.mask).sum():.4g}"),
                "contrast": round(contrast(sample), 2),
                "place": [round((x + 0.5) / width, 4), round((y + 0.5) / height, 4)],
            }
        )
    return rows


def contrast(sample: Sample) -> float:
    """Mean distance of a defect's grey levels from the median of a ring around it, 0 to 255; the mask is not empty."""
    grey = sample.image.mean(axis=2)
    rows, columns = np.nonzero(sample.mask)
    wide = int(np.clip(np.sqrt(len(rows)) / 2, 4, 40))
    top, left = max(0, rows.min() - wide - 2), max(0, columns.min() - wide - 2)
    view = np.s_[top : rows.max() + wide + 3, left : columns.max() + wide + 3]
    mask, grey = sample.mask[view].astype(np.uint8), grey[view]
    near, far = (cv2.dilate(mask, np.ones((2 * reach + 1,) * 2, np.uint8)) for reach in (2, 2 + wide))
    ring = (far > 0) & (near == 0)
    around = float(np.median(grey[ring])) if ring.any() else float(np.median(grey))
    return float(np.abs(grey[mask > 0] - around).mean())


def write(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows to the results folder, whole or not at all."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    images.write_bytes(out / MISSES, text.encode())


def tested(divisions: Iterable[Division]) -> list[str]:
    """The hashes of all test images, for results.json: nothing may be planned by them."""
    return sorted({images.file_sha(record.image) for division in divisions for record in division.test})
