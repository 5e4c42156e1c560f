"""One HTML file that needs no network: the images with filters, what they are held against, numbers, origins."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flawsmith import __version__, images, inputs
from flawsmith.datasets.writer import MANIFEST
from flawsmith.records import Progress
from flawsmith.report import generated, metrics, plots, tables
from flawsmith.report.generated import Generated
from flawsmith.report.shown import Measures, Shown, attempts_of, enter, level_of, spaced

HERE = Path(__file__).parent
BLOCK = 50  # images in one block of the page, read when the first of them is looked at
SCORES = {
    "visibility": "mean change inside the label, grey levels",
    "change_iou": "label over the mask that was asked for",
    "area": "pixels of the label",
    "on_object": "share of the label that lies on the object",
    "tolerance": "grey levels that count as change",
    "restored": "share of the mask put back to the photograph",
    "likeness": "to the nearest real defect, grey levels and shape, 1 = equal",
}


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
    level, fits = level_of(runs, kept)
    notes = list(dict.fromkeys(note for run in runs for note in run.notes))
    if fits < kept:
        notes.append(f"{fits} of {kept} images are shown, evenly spaced: all would not fit into one page.")
    notes += [] if plots.available() else [plots.MISSING]
    shown, sections, done = Shown(), [], 0
    for number, run in enumerate(runs):
        chosen = spaced(run.kept, len(run.kept) if fits >= kept else max(1, fits * len(run.kept) // kept))

        def told(more: int, done: int = done) -> None:
            if progress:
                progress("images", done + more, kept, {})

        made = enter(shown, number, run, chosen, level, told)
        done += len(run.kept)
        sections.append(_section(number, run, made))
    html = _render(title, sections, judged, shown, notes)
    images.write_bytes(out, html.encode("utf-8"))
    return notes


def _section(number: int, run: Generated, measured: tuple[Measures, Measures]) -> dict[str, Any]:
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
        "attempts": Counter(
            (line["defect_type"], str(one.get("check", ""))) for line in run.lines for one in attempts_of(line)
        ).most_common(),
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
    shown.numbered()
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
        pool=_blocks(list(shown.pool.values())),
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
