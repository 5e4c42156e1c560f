"""The images of a page: what its script reads of each, their thumbnails, and their nearest real defects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flawsmith import images, inputs
from flawsmith.datasets.writer import MANIFEST
from flawsmith.errors import FlawsmithError
from flawsmith.report import measures, thumbnails
from flawsmith.report.generated import Generated

SAMPLE = 16  # images by which the size of all is chosen
WORKERS = 4  # images decoded at a time
MOST_REFUSED = 300  # thumbnails of refused attempts in a page, the first of each run
Measures = list[measures.Measured]


@dataclass
class Shown:
    """Everything of the images that the page's script reads; `strips` and `pool` hold base64 WebP."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    strips: list[str] = field(default_factory=list)
    pool: dict[str, str] = field(default_factory=dict)

    def numbered(self) -> None:
        """Names of the pool become places in it: names are long, and thousands of rows repeat them."""
        place = {name: index for index, name in enumerate(self.pool)}
        for row in self.rows:
            for key in ("normal", "reference"):
                row[key] = place.get(row.get(key, ""), -1)
            if row.get("nearest"):
                row["nearest"] = {**row["nearest"], "id": place[row["nearest"]["id"]]}
            for attempt in row["attempts"]:
                attempt["id"] = place.get(attempt["id"], -1)


def spaced(lines: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """At most `count` lines, evenly spaced."""
    places = np.linspace(0, len(lines) - 1, min(count, len(lines))).round().astype(int)
    return [lines[i] for i in dict.fromkeys(places.tolist())]


def level_of(runs: Sequence[Generated], kept: int) -> tuple[thumbnails.Level, int]:
    """The size of thumbnails, tried on images evenly spaced over all runs, and how many images fit into a page."""
    every = [(run, line) for run in runs for line in run.kept]
    places = np.linspace(0, len(every) - 1, min(SAMPLE, len(every))).round().astype(int)

    def weigher(run: Generated, line: dict[str, Any]) -> Callable[[thumbnails.Level], int]:
        pixels = run.pixels(line)
        return lambda level: sum(map(len, strips(*pixels, level)))

    distinct = {line["normal"].get("sha") for _, line in every}
    real = sum(len(run.real) for run in runs)
    return thumbnails.choose([weigher(*every[i]) for i in places], kept, len(distinct) + real)


def strips(image: np.ndarray, mask: np.ndarray, normal: np.ndarray | None, level: thumbnails.Level) -> tuple[str, str]:
    parts = [image] if normal is None else [image, normal]
    return thumbnails.whole(image, mask, normal, level), thumbnails.zoomed(parts, mask, level)


@dataclass(frozen=True)
class _One:
    """What one image gives, once its pixels are gone; `normal` is its photograph's thumbnail, where it is the first."""

    strips: tuple[str, str]
    normal: str
    pair: bool
    measured: measures.Measured
    size: tuple[int, ...]


def enter(
    shown: Shown,
    number: int,
    run: Generated,
    lines: Sequence[dict[str, Any]],
    level: thumbnails.Level,
    told: Callable[[int], None],
) -> tuple[Measures, Measures]:
    """Enter a run's images into `shown`; returns the measures of (generated, real) defects."""
    shown_by: dict[str, int] = {}  # photograph -> the first line it belongs to: not left to the race of the threads
    for index, line in enumerate(lines):
        shown_by.setdefault(line["normal"].get("sha", ""), index)
    firsts = {index for sha, index in shown_by.items() if sha not in shown.pool}

    def one(index: int) -> _One:
        image, mask, normal = run.pixels(lines[index])
        bare = thumbnails.plain(normal, level) if index in firsts and normal is not None else ""
        measured = measures.measure(image, mask)
        return _One(strips(image, mask, normal, level), bare, normal is not None, measured, image.shape[1::-1])

    real = [record for record in run.real if record.marks_something()]
    pictures, truth = [], []
    for sample in (record.load() for record in real):
        truth.append(measures.measure(sample.image, sample.mask))
        pictures.append(thumbnails.zoomed([sample.image], sample.mask, level))
    found: list[_One] = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for count, looked in enumerate(pool.map(one, range(len(lines))), start=1):
            found.append(looked)
            told(count)
    alike = measures.nearest([looked.measured for looked in found], truth)
    shas = [images.file_sha(record.image) for record in real]
    place = {record.name: index for index, record in enumerate(real)}
    for index, (line, looked) in enumerate(zip(lines, found, strict=True)):
        row = row_of(number, line)
        row |= {"strip": len(shown.strips), "size": looked.size, "pair": looked.pair}
        row["normal"] = line["normal"].get("sha", "") if looked.pair else ""
        if looked.normal:
            shown.pool[row["normal"]] = looked.normal
        named = [place[name] for name in [(line.get("reference") or {}).get("file")] if name in place]
        if alike:
            best, likeness = alike[index]
            row["scores"]["likeness"] = round(likeness, 3)
            row["nearest"] = {"id": f"{number}:{best}", "name": real[best].name, "seen": shas[best] in run.support}
        for other in [*named, *([alike[index][0]] if alike else [])]:
            shown.pool.setdefault(f"{number}:{other}", pictures[other])
        row["reference"] = f"{number}:{named[0]}" if named else ""
        shown.rows.append(row)
        shown.strips.append(" ".join(looked.strips))
    shown.rows += [row_of(number, line) for line in run.lines if line["status"] != "kept"]
    _refused(shown, run, [row for row in shown.rows if row["run"] == number])
    return [looked.measured for looked in found], truth


def _refused(shown: Shown, run: Generated, rows: Sequence[dict[str, Any]]) -> None:
    """Thumbnails of the attempts that the quality gate refused, the first MOST_REFUSED of a run."""
    attempts = [attempt for row in rows for attempt in row["attempts"] if attempt["id"]]
    for attempt in attempts[:MOST_REFUSED]:
        try:
            image = images.read_image(inputs.inside(run.out, attempt["id"], MANIFEST))
        except FlawsmithError:  # somebody has tidied up
            attempt["id"] = ""
            continue
        own = f"{rows[0]['run']}/{attempt['id']}"
        shown.pool[own] = thumbnails.plain(image, (256, 60))
        attempt["id"] = own


def row_of(number: int, line: dict[str, Any]) -> dict[str, Any]:
    """A manifest line as the page's script reads it."""
    scores = {name: value for name, value in line["scores"].items() if isinstance(value, (int, float))}
    origin = {
        "image": line.get("image"),
        "photograph": line["normal"].get("file"),
        "reference": (line.get("reference") or {}).get("file"),
        "mask from": line.get("mask_source"),
        "window (top, left, bottom, right)": line.get("window"),
        "redraws": line.get("redraws"),
        "changed after a refusal": line.get("changed"),
        "method": line.get("method"),
        **{f"said by the method: {key}": value for key, value in (line.get("info") or {}).items()},
    }
    checks = line.get("checks")
    gate = {"level": line["gate"], **(checks if isinstance(checks, dict) else {})} if line.get("gate") else {}
    return {
        "run": number,
        "index": line.get("index"),
        "kept": line["status"] == "kept",
        "category": line["category"],
        "type": line["defect_type"],
        "caption": line["caption"],
        "seed": str(line.get("seed", "")),  # 63 bits: more than a number of JavaScript holds
        "scores": scores,
        "reason": line.get("reason", ""),
        "gate": gate,
        "attempts": [
            {
                "reason": str(one.get("reason", "")),
                "check": str(one.get("check", "")),
                "id": str(one.get("thumbnail", "")),
            }
            for one in attempts_of(line)
        ],
        "origin": {key: value for key, value in origin.items() if value not in (None, "", [])},
    }


def attempts_of(line: dict[str, Any]) -> list[dict[str, Any]]:
    """The attempts at an image that the quality gate refused; [] where there was no gate."""
    found = line.get("refused")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
