"""A generated folder as one image that a person can judge: the contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flawsmith import compose, datasets, images, inputs
from flawsmith.datasets.writer import CONFIG, MANIFEST, read_manifest
from flawsmith.errors import FlawsmithError

COLUMNS = ("normal", "mask", "defect", "zoom: normal", "zoom: defect")
ZOOM = (255, 170, 0)  # the frame of the zoom, drawn on the mask so that nothing covers the defect


def spread(lines: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` kept lines, as many of each category and defect type as possible, evenly spaced: nobody chose them."""
    by_type: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in lines:
        if line["status"] == "kept":
            by_type.setdefault((line["category"], line["defect_type"]), []).append(line)
    if not by_type:
        return []
    kinds = list(by_type.values())
    if len(kinds) > count:  # not even one of each: evenly spaced kinds, and another normal for each
        kinds = [kinds[i] for i in np.linspace(0, len(kinds) - 1, count).round().astype(int)]
    chosen = []
    for number, members in enumerate(kinds):
        each = min(len(members), count // len(kinds) + (number < count % len(kinds)))
        places = np.linspace(0, len(members) - 1, each + 2)[1:-1] if each < len(members) else np.arange(each)
        chosen += [members[i] for i in dict.fromkeys(places.round().astype(int).tolist())]
    return chosen


def row(out: Path, line: dict[str, Any], normal_root: Path | None, cell: int = 192) -> list[np.ndarray]:
    """Normal, mask, defect and a zoom of both around the defect, each (cell, cell, 3) uint8.

    The mask shows where the zoom lies. The normal is blank when it cannot be found.
    """
    image = images.read_image(inputs.inside(out, line["image"], MANIFEST))
    mask = images.read_mask(inputs.inside(out, line["mask"], MANIFEST))
    normal = np.full_like(image, 235)
    source = normal_root / line["normal"]["file"] if normal_root else None
    if source is not None and source.is_file():
        candidate = images.read_image(source)
        normal = candidate if candidate.shape == image.shape else normal
    zoom = compose.square_window(mask, minimum=48, context=1.8)
    scale = cell / max(mask.shape)
    small = images.fit(images.mask_image(mask), cell)
    top, left = ((cell - round(side * scale)) // 2 for side in mask.shape)
    corners = [
        (left + round(column * scale), top + round(row * scale))
        for row, column in ((zoom.top, zoom.left), (zoom.bottom - 1, zoom.right - 1))
    ]
    small = np.where(small > 25, small, np.uint8(0)) if scale >= 1 else np.clip(small.astype(int) * 3, 0, 255)
    framed = cv2.rectangle(small.astype(np.uint8), corners[0], corners[1], ZOOM, 1)
    parts = [normal, image, normal[zoom.slices], image[zoom.slices]]
    cells = [images.fit(part, cell) for part in parts]
    return [cells[0], framed, *cells[1:]]


def sheet(out: Path, count: int = 12, cell: int = 192, across: int = 1) -> np.ndarray:
    """The contact sheet of a generated folder, (H, W, 3) uint8, `across` images beside each other.

    Raises FlawsmithError when no image was kept.
    """
    rows, captions = _shown(out, count, cell)
    return _laid(rows, captions, cell, across)


def overview(outs: Sequence[tuple[str, Path]], count: int = 2, cell: int = 144, across: int = 2) -> np.ndarray:
    """One contact sheet of several generated folders `(heading, folder)`, `count` images of each, (H, W, 3) uint8."""
    rows: list[list[np.ndarray]] = []
    captions: list[str] = []
    for heading, out in outs:
        shown, told = _shown(out, count, cell)
        rows += shown
        captions += [f"{heading.partition(' ')[0]}: {text.partition(': ')[2]}" for text in told]
    return _laid(rows, captions, cell, across)


def _shown(out: Path, count: int, cell: int) -> tuple[list[list[np.ndarray]], list[str]]:
    lines = spread(read_manifest(out), count)
    if not lines:
        raise FlawsmithError(f"{out} holds no kept image to show: see the reasons in its manifest.jsonl.")
    root = normal_root(out)
    captions = [f"{Path(line['image']).with_suffix('').as_posix()}: {line['caption']}" for line in lines]
    return [row(out, line, root, cell) for line in lines], captions


def _laid(rows: Sequence[Sequence[np.ndarray]], captions: Sequence[str], cell: int, across: int) -> np.ndarray:
    """Rows in `across` columns, one column after the other."""
    height = -(-len(rows) // across)
    parts = [
        images.contact_sheet(rows[start : start + height], COLUMNS, captions[start : start + height], cell)
        for start in range(0, len(rows), height)
    ]
    whole = np.full((parts[0].shape[0], sum(part.shape[1] for part in parts), 3), 255, dtype=np.uint8)
    left = 0
    for part in parts:
        whole[: part.shape[0], left : left + part.shape[1]] = part
        left += part.shape[1]
    return whole


def normal_root(out: Path) -> Path | None:
    """Where the photographs lie that a generated folder was painted on, when they are still there."""
    try:
        source = inputs.parse_json((out / CONFIG).read_text(encoding="utf-8"))["source"]
        return datasets.parse_source(source)[1]
    except (OSError, ValueError, KeyError):
        return None
