"""A generated folder as pictures a person can judge: a contact sheet and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from flawsmith import compose, datasets, images
from flawsmith.datasets.writer import CONFIG, inside, read_manifest
from flawsmith.errors import FlawsmithError

COLUMNS = ("normal", "mask", "defect", "zoom: normal", "zoom: defect")


def spread(lines: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` lines, the same number of each defect type, evenly spaced in each: nobody chose them."""
    by_type: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in lines:
        if line["status"] == "kept":
            by_type.setdefault((line["category"], line["defect_type"]), []).append(line)
    if not by_type:
        return []
    each = max(1, count // len(by_type))
    chosen = []
    for members in by_type.values():
        places = np.linspace(0, len(members) - 1, min(each, len(members))).round().astype(int)
        chosen += [members[i] for i in dict.fromkeys(places.tolist())]
    return chosen[: max(count, len(by_type))]


def row(out: Path, line: dict[str, Any], normal_root: Path | None) -> list[np.ndarray]:
    """Normal, mask, defect and a zoom of both around the defect; the normal is blank when it cannot be found."""
    image = images.read_image(inside(out, line["image"]))
    mask = images.read_mask(inside(out, line["mask"]))
    normal = np.full_like(image, 235)
    source = normal_root / line["normal"]["file"] if normal_root else None
    if source is not None and source.is_file():
        candidate = images.read_image(source)
        normal = candidate if candidate.shape == image.shape else normal
    view = compose.square_window(mask, minimum=48, context=1.8).slices
    return [normal, images.mask_picture(mask), images.overlay(image, mask), normal[view], image[view]]


def sheet(out: Path, count: int = 12, cell: int = 192) -> np.ndarray:
    """The contact sheet of a generated folder, (H, W, 3) uint8. Raises FlawsmithError when no picture was kept."""
    lines = spread(read_manifest(out), count)
    if not lines:
        raise FlawsmithError(f"{out} holds no kept picture to show: see the reasons in its manifest.jsonl.")
    root = normal_root(out)
    captions = [f"{line['method']}, seed {line['seed']}: {line['caption']}" for line in lines]
    return images.contact_sheet([row(out, line, root) for line in lines], COLUMNS, captions, cell)


def normal_root(out: Path) -> Path | None:
    """Where the photographs lie that a generated folder was painted on, when they are still there."""
    try:
        source = json.loads((out / CONFIG).read_text(encoding="utf-8"))["source"]
        return datasets.parse_source(source)[1]
    except (OSError, ValueError, KeyError):
        return None


def statistics(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each category and defect type: counts, and medians over the kept pictures."""
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
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1c2430}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #dde;text-align:right}
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}
img{max-width:100%;border:1px solid #dde}code{background:#f2f4f8;padding:.1rem .3rem;border-radius:3px}
"""


def page(outs: Sequence[tuple[str, Path]], target: Path, title: str = "flawsmith", count: int = 12) -> None:
    """Write one self-contained HTML page (pictures inside) about the generated folders `(heading, folder)`."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for heading, out in outs:
        lines = read_manifest(out)
        table = statistics(lines)
        picture = base64.b64encode(images.encode_png(sheet(out, count))).decode()
        head = "".join(f"<th>{html.escape(key)}</th>" for key in table[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row.values()) + "</tr>" for row in table
        )
        parts.append(
            f"<h2>{html.escape(heading)}</h2><p><code>{html.escape(out.as_posix())}</code>, "
            f"{sum(row['kept'] for row in table)} pictures. Shown: evenly spaced, not chosen.</p>"
            f"<table><tr>{head}</tr>{body}</table>"
            f'<img alt="contact sheet" src="data:image/png;base64,{picture}">'
        )
    document = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )
    images.write_bytes(target, document.encode("utf-8"))
