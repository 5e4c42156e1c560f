"""A generated folder as images a person can judge: a contact sheet and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
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


def statistics(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each category and defect type: counts, and medians over the kept images."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in lines:
        rows.setdefault((line["category"], line["defect_type"]), []).append(line)
    table = []
    for (category, defect), members in rows.items():
        kept = [line for line in members if line["status"] == "kept"]
        table.append(
            {
                "category": category,
                "defect": defect,
                "kept": len(kept),
                "refused": len(members) - len(kept),
                "redrawn": sum(line["redraws"] > 0 for line in kept),
                "label pixels": _median(line["scores"]["area"] for line in kept),
                "visibility": _median(line["scores"]["visibility"] for line in kept),
                "label / asked": _median(line["scores"]["change_iou"] for line in kept),
            }
        )
    return table


def _median(values: Any) -> float | None:
    listed = list(values)
    return round(median(listed), 2) if listed else None


STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:1180px;margin:0 auto;padding:2rem 1rem;color:#1c2430;background:#fff}
h1{font-size:1.7rem;margin:0}h2{font-size:1.2rem;margin:2.5rem 0 .2rem}p{margin:.3rem 0;color:#4a5568}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}summary{cursor:pointer;color:#4a5568}
td,th{padding:.15rem .9rem .15rem 0;border-bottom:1px solid #e3e8ef;text-align:right;font-weight:400}th{color:#4a5568}
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}
img{display:block;width:100%;margin:.8rem 0}code{background:#f2f4f8;padding:.1rem .3rem;border-radius:3px}
"""


def page(outs: Sequence[tuple[str, Path]], target: Path, title: str = "flawsmith", count: int = 12) -> None:
    """Write one self-contained HTML page (images inside) about the generated folders `(heading, folder)`."""
    parts = [
        f"<h1>{html.escape(title)}</h1><p>Every image equals its photograph outside the mask, byte for byte. "
        "Examples are evenly spaced over the run, nobody chose them; the frame on the mask is the zoom.</p>"
    ]
    for heading, out in outs:
        table = statistics(read_manifest(out))
        kept, refused = (sum(row[key] for row in table) for key in ("kept", "refused"))
        head = "".join(f"<th>{html.escape(key)}</th>" for key in table[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row.values()) + "</tr>" for row in table
        )
        parts.append(
            f"<h2>{html.escape(heading)}</h2><p>{kept} images in <code>{html.escape(out.as_posix())}</code>"
            f"{f', {refused} refused' if refused else ''}</p>"
            f'<img alt="contact sheet" src="data:image/jpeg;base64,{_jpeg(sheet(out, count))}">'
            f"<details><summary>Counts and medians by defect type</summary>"
            f"<table><tr>{head}</tr>{body}</table></details>"
        )
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    images.write_bytes(target, document.encode("utf-8"))


def _jpeg(image: np.ndarray) -> str:
    """A page is looked at, not measured: a quarter of the bytes of PNG."""
    _, buffer = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return base64.b64encode(buffer.tobytes()).decode()


def adapters(run: Path) -> list[dict[str, Any]]:
    """One row per file of weights in a run: what it is, its rank and size. Reads the files' headers only."""
    rows: list[dict[str, Any]] = []
    for file in sorted([*run.glob("*.safetensors"), *run.glob("adapters/*/*.safetensors")]):
        try:
            with file.open("rb") as opened:
                header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        except (OSError, ValueError, OverflowError):
            rows.append({"file": file.relative_to(run).as_posix(), "kind": "damaged", "tensors": None, "MB": None})
            continue
        rank = header.pop("__metadata__", {}).get("rank")
        rows.append(
            {
                "file": file.relative_to(run).as_posix(),
                "kind": f"LoRA of rank {rank}" if rank else "the method's own weights",
                "tensors": len(header),
                "MB": round(file.stat().st_size / 1e6, 1),
            }
        )
    return rows
