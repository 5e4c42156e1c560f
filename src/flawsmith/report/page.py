"""One HTML file that needs no network: the images with filters, what they are held against, numbers, origins."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith import __version__, images, inputs
from flawsmith.datasets.writer import MANIFEST
from flawsmith.records import Progress
from flawsmith.report import generated, measures, metrics, plots, tables, thumbnails
from flawsmith.report.generated import Generated

HERE = Path(__file__).parent
BLOCK = 50  # images in one block of the page, read when the first of them is looked at
SAMPLE = 16  # images by which the size of all is chosen
WORKERS = 4  # images decoded at a time
SCORES = {
    "visibility": "mean change inside the label, grey levels",
    "change_iou": "label over the mask that was asked for",
    "area": "pixels of the label",
    "on_object": "share of the label that lies on the object",
    "tolerance": "grey levels that count as change",
    "restored": "share of the mask put back to the photograph",
    "likeness": "to the nearest real defect, grey levels and shape, 1 = equal",
}


@dataclass
class Shown:
    """Everything of the images that the page's script reads; `blocks` and `pool` hold base64 WebP."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    strips: list[str] = field(default_factory=list)
    pool: dict[str, str] = field(default_factory=dict)


def write(
    folders: Sequence[tuple[str, Path]],
    out: Path,
    results: Sequence[Path] = (),
    title: str = "flawsmith report",
    real: str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write the page about generated folders `(heading, folder)` and results of evaluations; returns notes.

    `real`: READER:DIR of real defects to compare with; default, what each folder's generate.json names. The same
    folders give the same bytes. Raises FlawsmithError for a folder that is damaged.
    """
    runs = [generated.read(name, folder, real) for name, folder in folders]
    judged = [metrics.read(folder) for folder in results]
    kept = sum(len(run.kept) for run in runs)
    level, fits = _level(runs, kept)
    notes = list(dict.fromkeys(note for run in runs for note in run.notes))
    if fits < kept:
        notes.append(f"{fits} of {kept} images are shown, evenly spaced: all would not fit into one page.")
    notes += [] if plots.available() else [plots.MISSING]
    shown, sections, done = Shown(), [], 0
    for number, run in enumerate(runs):
        chosen = _spaced(run.kept, len(run.kept) if fits >= kept else max(1, fits * len(run.kept) // kept))

        def told(more: int, done: int = done) -> None:
            if progress:
                progress("images", done + more, kept, {})

        made = _look(shown, number, run, chosen, level, told)
        done += len(run.kept)
        sections.append(_section(number, run, made))
    html = _render(title, sections, judged, shown, notes)
    images.write_bytes(out, html.encode("utf-8"))
    return notes


def _spaced(lines: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    places = np.linspace(0, len(lines) - 1, min(count, len(lines))).round().astype(int)
    return [lines[i] for i in dict.fromkeys(places.tolist())]


def _level(runs: Sequence[Generated], kept: int) -> tuple[thumbnails.Level, int]:
    """The size of thumbnails, tried on images evenly spaced over all runs."""
    every = [(run, line) for run in runs for line in run.kept]
    places = np.linspace(0, len(every) - 1, min(SAMPLE, len(every))).round().astype(int)

    def weigher(run: Generated, line: dict[str, Any]) -> Any:
        pixels = run.pixels(line)
        return lambda level: sum(map(len, _strips(*pixels, level)))

    distinct = {line["normal"].get("sha") for _, line in every}
    real = sum(len(run.real) for run in runs)
    return thumbnails.choose([weigher(*every[i]) for i in places], kept, len(distinct) + real)


def _strips(image: np.ndarray, mask: np.ndarray, normal: np.ndarray | None, level: thumbnails.Level) -> tuple[str, str]:
    parts = [image] if normal is None else [image, normal]
    return thumbnails.whole(image, mask, normal, level), thumbnails.zoomed(parts, mask, level)


@dataclass(frozen=True)
class _One:
    """What one image gives, once its pixels are gone: thumbnails, measures, and whether its photograph was found."""

    strips: tuple[str, str]
    normal: str
    measured: measures.Measured
    size: tuple[int, int]


def _look(
    shown: Shown, number: int, run: Generated, lines: Sequence[dict[str, Any]], level: thumbnails.Level, told: Any
) -> tuple[list[measures.Measured], list[measures.Measured]]:
    """Enter a run's images into `shown`; returns the measures of (generated, real) defects."""

    def one(line: dict[str, Any]) -> _One:
        image, mask, normal = run.pixels(line)
        sha = line["normal"].get("sha", "")
        bare = "" if normal is None or sha in shown.pool else thumbnails.plain(normal, level)
        return _One(_strips(image, mask, normal, level), bare, measures.measure(image, mask), image.shape[:2])

    real = [record for record in run.real if record.marks_something()]
    samples = ((record, record.load()) for record in real)
    pictures, truth = [], []
    for _, sample in samples:
        truth.append(measures.measure(sample.image, sample.mask))
        pictures.append(thumbnails.zoomed([sample.image], sample.mask, level))
    found: list[_One] = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for count, looked in enumerate(pool.map(one, lines), start=1):
            found.append(looked)
            told(count)
    alike = measures.nearest([looked.measured for looked in found], truth)
    shas = [images.file_sha(record.image) for record in real]
    place = {record.name: index for index, record in enumerate(real)}
    for index, (line, looked) in enumerate(zip(lines, found, strict=True)):
        row = _row(number, line)
        row |= {"strip": len(shown.strips), "size": looked.size[::-1], "found": looked.strips[1] != ""}
        sha = line["normal"].get("sha", "")
        if looked.normal:
            shown.pool.setdefault(sha, looked.normal)
        row["normal"] = sha if sha in shown.pool else ""
        row["pair"] = row["normal"] != ""
        named = [place[name] for name in [(line.get("reference") or {}).get("file")] if name in place]
        if alike:
            best, likeness = alike[index]
            row["scores"]["likeness"] = round(likeness, 3)
            row["nearest"] = {"id": f"{number}:{best}", "name": real[best].name, "seen": shas[best] in run.support}
        for shown_real in [*named, *([alike[index][0]] if alike else [])]:
            shown.pool.setdefault(f"{number}:{shown_real}", pictures[shown_real])
        row["reference"] = f"{number}:{named[0]}" if named else ""
        shown.rows.append(row)
        shown.strips.append(" ".join(looked.strips))
    shown.rows += [_row(number, line) for line in run.lines if line["status"] != "kept"]
    return [looked.measured for looked in found], truth


def _row(number: int, line: dict[str, Any]) -> dict[str, Any]:
    """A manifest line as the page's script reads it."""
    scores = {name: value for name, value in line["scores"].items() if isinstance(value, (int, float))}
    origin = {
        "image": line.get("image"),
        "photograph": line["normal"].get("file"),
        "reference": (line.get("reference") or {}).get("file"),
        "mask from": line.get("mask_source"),
        "window (top, left, bottom, right)": line.get("window"),
        "redraws": line.get("redraws"),
        "method": line.get("method"),
        **{f"said by the method: {key}": value for key, value in (line.get("info") or {}).items()},
    }
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
        "gate": line.get("gate"),
        "origin": {key: value for key, value in origin.items() if value not in (None, "", [])},
    }


def _section(
    number: int, run: Generated, measured: tuple[list[measures.Measured], list[measures.Measured]]
) -> dict[str, Any]:
    """What the page says of a run beside its images."""
    made, real = measured
    reasons = Counter(str(line["reason"]) for line in run.lines if line["status"] != "kept")
    told = {key: value for key, value in run.about.items() if key not in ("support", "licences", "types")}
    card = {key: value for key, value in told.items() if value not in (None, [], {}, "")}
    return {
        "name": run.name,
        "folder": run.out.as_posix(),
        "kept": len(run.kept),
        "refused": len(run.lines) - len(run.kept),
        "table": tables.statistics(run.lines),
        "plots": plots.distributions(f"run{number}", made, real) if made and plots.available() else [],
        "real": len(real),
        "reasons": reasons.most_common(),
        "card": {key: value if isinstance(value, str) else json.dumps(value) for key, value in card.items()},
        "licences": run.about.get("licences", []),
        "licence_texts": _licence_texts(run),
        "support": sorted(run.support.values()),
    }


def _licence_texts(run: Generated) -> list[tuple[str, str]]:
    """The beginning of each licence file that lies at the data set's root."""
    found = []
    for root in run.roots[:1]:
        for name in run.about.get("licences", []):
            if not inputs.leaves(root, str(name)) and (root / str(name)).is_file():
                found.append((str(name), (root / str(name)).read_text(encoding="utf-8", errors="replace")[:4000]))
    return found


def _render(
    title: str, sections: list[dict[str, Any]], judged: Sequence[metrics.Judged], shown: Shown, notes: list[str]
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (HERE / "page.js").read_text(encoding="utf-8")
    ids = list(shown.pool)
    order = {name: index for index, name in enumerate(ids)}
    for row in shown.rows:  # names are long, and thousands of rows repeat them
        for key in ("normal", "reference"):
            row[key] = order.get(row.get(key, ""), -1)
        if row.get("nearest"):
            row["nearest"] = {**row["nearest"], "id": order[row["nearest"]["id"]]}
    return environment.get_template("page.html").render(
        title=title,
        version=__version__,
        manifest=MANIFEST,
        notes=notes,
        runs=sections,
        judged=[(one, plots.arms(f"arms{n}", one) if plots.available() else []) for n, one in enumerate(judged)],
        scores=_known_scores(shown.rows),
        data=_json({"runs": [s["name"] for s in sections], "rows": shown.rows, "block": BLOCK, "scores": SCORES}),
        strips=_blocks(shown.strips),
        pool=_blocks([shown.pool[name] for name in ids]),
        style=(HERE / "tokens.css").read_text(encoding="utf-8") + (HERE / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _known_scores(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The scores that some image has, with what they mean, in a fixed order."""
    seen = {name for row in rows for name in row["scores"]}
    return {name: SCORES.get(name, name) for name in [*SCORES, *sorted(seen - set(SCORES))] if name in seen}


def _blocks(lines: Sequence[str]) -> list[str]:
    return ["\n".join(lines[start : start + BLOCK]) for start in range(0, len(lines), BLOCK)]


def _json(value: Any) -> str:
    """JSON that may stand in a script element: no text of a caption can end it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
