"""What a generated folder or a trained run holds, as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from flawsmith import inputs


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
                "redrawn": sum(line.get("redraws", 0) > 0 for line in kept),
                "label pixels": _median(kept, "area"),
                "visibility": _median(kept, "visibility"),
                "label / asked": _median(kept, "change_iou"),
            }
        )
    return table


def _median(lines: Sequence[dict[str, Any]], score: str) -> float | None:
    """Of the lines that have the score: samples made in Python need not."""
    found = [line["scores"].get(score) for line in lines]
    numbers = [value for value in found if isinstance(value, (int, float)) and math.isfinite(value)]
    return round(median(numbers), 2) if numbers else None


def adapters(run: Path) -> list[dict[str, Any]]:
    """One row per file of weights in a run: what it is, its rank and size. Reads the files' headers only."""
    rows: list[dict[str, Any]] = []
    for file in sorted([*run.glob("*.safetensors"), *run.glob("adapters/*/*.safetensors")]):
        try:
            with file.open("rb") as opened:
                length = min(int.from_bytes(opened.read(8), "little"), file.stat().st_size)  # it may say anything
                header = inputs.parse_json(opened.read(length))
        except (OSError, ValueError):
            rows.append({"file": file.relative_to(run).as_posix(), "kind": "damaged", "tensors": None, "MB": None})
            continue
        about = header.pop("__metadata__", None)
        rank = about.get("rank") if isinstance(about, dict) else None
        rows.append(
            {
                "file": file.relative_to(run).as_posix(),
                "kind": f"LoRA of rank {rank}" if rank else "the method's own weights",
                "tensors": len(header),
                "MB": round(file.stat().st_size / 1e6, 1),
            }
        )
    return rows
