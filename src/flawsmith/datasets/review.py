"""Curation: a person's keep and drop, written into a generated folder's manifest.

A dropped image's files move to `dropped/`, outside every data set layout, so that no reader, export or evaluation meets
them; its manifest line says so. Keeping it later moves them back, byte for byte.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flawsmith import images, inputs
from flawsmith.datasets.lock import PARTIAL, Lock
from flawsmith.datasets.writer import DROPPED, MANIFEST, read_manifest
from flawsmith.errors import FlawsmithError, short

REASON = "dropped in review"
COLUMNS = ("index", "image", "defect_type", "review", "reason")
FILES = ("image", "mask", "prompt")


@dataclass(frozen=True)
class Reviewed:
    """How many images a folder keeps and has dropped, and how many verdicts changed now."""

    kept: int
    dropped: int
    changed: int


def template(out: Path) -> bytes:
    """A CSV with a row for each image that can be kept or dropped, and its verdict so far."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for line in read_manifest(out):
        if _reviewable(line):
            verdict = "drop" if line["status"] == "dropped" else "keep"
            rows.writerow([line["index"], line["image"], line["defect_type"], verdict, line.get("review_reason", "")])
    return text.getvalue().encode()


def read_verdicts(path: Path) -> dict[str, tuple[str, str]]:
    """Image -> (keep or drop, reason) of a CSV with the columns image and review; others are ignored.

    Raises FlawsmithError naming the row that says neither.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FlawsmithError(f"{path} cannot be read as a CSV ({error}): save it as CSV in UTF-8.") from error
    if not rows or not {"image", "review"} <= rows[0].keys():
        raise FlawsmithError(f"{path} needs a header with the columns image and review: see `flawsmith review OUT`.")
    verdicts = {}
    for number, row in enumerate(rows, start=2):
        said = (row["review"] or "").strip().lower()
        if said not in ("keep", "drop", ""):
            raise FlawsmithError(f"{path}, line {number}: review is {short(row['review'])}; write keep or drop.")
        if said:
            verdicts[(row["image"] or "").strip()] = (said, (row.get("reason") or "").strip())
    return verdicts


def apply(out: Path, verdicts: dict[str, tuple[str, str]]) -> Reviewed:
    """Write verdicts into the manifest and move files; what no verdict names stays as it is.

    Raises FlawsmithError, before anything is moved, for an image that the manifest does not know.
    """
    with Lock(out):
        lines = read_manifest(out)
        known = {line["image"]: line for line in lines if _reviewable(line)}
        for name in verdicts:
            if name not in known:
                raise FlawsmithError(f"{short(name)} is no image of {out}: name images as its {MANIFEST} does.")
        changed = [
            (known[name], said, reason)
            for name, (said, reason) in verdicts.items()
            if (said == "drop") != (known[name]["status"] == "dropped")
            or reason != known[name].get("review_reason", "")
        ]
        for line, said, reason in changed:
            _settle(line, said, reason)
        # Lines first: whatever a kill leaves unmoved, the same command moves.
        raw = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        images.write_bytes(out / MANIFEST, raw.encode(), out / PARTIAL)
        for line in known.values():
            _move(out, line)
    dropped = sum(line["status"] == "dropped" for line in known.values())
    return Reviewed(len(known) - dropped, dropped, len(changed))


def scores(out: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """What the gate's checks scored of the images that are kept and of those that are dropped, where it scored them."""
    found: dict[str, list[dict[str, float]]] = {"kept": [], "dropped": []}
    for line in read_manifest(out):
        if _reviewable(line) and line.get("checks"):
            found[line["status"]].append(line["checks"])
    return found["kept"], found["dropped"]


def _reviewable(line: dict[str, Any]) -> bool:
    return line["status"] in ("kept", "dropped") and "image" in line


def _settle(line: dict[str, Any], said: str, reason: str) -> None:
    """Enter a verdict into a line: its status, and the reason that every line has that is not kept."""
    line["status"] = "dropped" if said == "drop" else "kept"
    line["review"] = said
    if reason:
        line["review_reason"] = reason
    else:
        line.pop("review_reason", None)
    if said == "drop":
        line["reason"] = f"{REASON} ({reason})" if reason else REASON
    else:
        line.pop("reason", None)


def _move(out: Path, line: dict[str, Any]) -> None:
    """Bring a line's files to where its status says; those that are there already stay."""
    names = [line[key] for key in FILES]
    if "instances" in line:
        ids = line["instances"]["file"]
        names += [ids, ids.removesuffix(".png") + ".json"]
    for name in names:
        there, away = inputs.inside(out, name, MANIFEST), inputs.inside(out, f"{DROPPED}/{name}", MANIFEST)
        source, target = (there, away) if line["status"] == "dropped" else (away, there)
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
