"""Routes to evaluations: results folders under the studio's own, their tables, verdicts and plots; and a new one."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import Response

from flawsmith.errors import FlawsmithError
from flawsmith.report.generated import RESULTS
from flawsmith.studio import asked
from flawsmith.studio.catalogue import short_hash
from flawsmith.studio.jobs import new_id
from flawsmith.studio.shared import Studio
from flawsmith.studio.store import checked

TOKENS = Path(__file__).parents[1] / "report" / "tokens.css"
COLOUR = re.compile(r"--([a-z-]+): (#[0-9a-f]{3,6});")


def add_results(app: FastAPI, studio: Studio) -> None:
    def folders() -> dict[str, Path]:
        """Every results folder under the studio's own, by its id; the newest first."""
        found = [path for pattern in (f"*/{RESULTS}", f"*/*/{RESULTS}") for path in studio.out.glob(pattern)]
        found.sort(key=lambda path: -path.stat().st_mtime_ns)
        return {short_hash(path.parent.relative_to(studio.out).as_posix()): path.parent for path in found}

    def folder(id_: str) -> Path:
        path = folders().get(id_)
        if path is None:
            raise FlawsmithError(f"No results {id_[:40]!r}: reload the page.")
        return path

    def name(path: Path) -> str:
        job = studio.queue.jobs.get(path.name)
        return job.title if job else path.relative_to(studio.out).as_posix()

    @app.get("/api/results")
    def listed() -> list[dict[str, Any]]:
        """Evaluations, the newest first."""
        return [{"id": id_, "name": name(path)} for id_, path in folders().items()]

    @app.get("/api/results/{id_}")
    def one(id_: str) -> dict[str, Any]:
        """An evaluation: its verdicts and notes in words, a row for every key and arm, the names of its plots."""
        path = folder(id_)
        judged, drawn = _read(path, (path / RESULTS).stat().st_mtime_ns)
        return {
            "id": id_,
            "name": name(path),
            "compared": judged.compared,
            "verdicts": judged.verdicts,
            "notes": [str(note) for note in judged.content.get("notes", ())],
            "rows": [
                {
                    **{key: getattr(row, key) for key in ("key", "arm", "value", "meaning", "better", "doubt")},
                    **{key: getattr(row, key) for key in ("seeds", "count", "reason")},
                }
                for row in judged.overall()
            ],
            "plots": [{"title": plot.title, "told": plot.told} for plot in drawn],
        }

    @app.get("/api/results/{id_}/plots/{number}", response_class=Response)
    def plot(id_: str, number: int, theme: Literal["light", "dark"] = "light") -> Response:
        """A plot as the report draws it, in the colours of the page."""
        path = folder(id_)
        drawn = _read(path, (path / RESULTS).stat().st_mtime_ns)[1]
        if not 0 <= number < len(drawn):
            raise FlawsmithError(f"These results have {len(drawn)} plots.")
        svg = re.sub(
            r"var\(--([a-z-]+)\)", lambda found: _colours(theme).get(found[1], "sans-serif"), drawn[number].svg
        )
        return Response(svg, media_type="image/svg+xml", headers={"cache-control": "no-cache"})

    @app.post("/api/evaluate")
    def evaluate(given: asked.Evaluate) -> dict[str, Any]:
        """Judge a batch against the data set it was made from: `flawsmith evaluate`."""
        job = studio.queue.get(checked(given.set))
        if job.kind != "batch" or job.status != "done":
            raise FlawsmithError(
                f"{job.title} is no finished batch: batches are evaluated, since they name their support."
            )
        request, id_ = job.settings["request"], new_id()
        config: dict[str, Any] = {
            "generated": str(studio.store.set_folder(job.id)),
            "real": studio.catalogue.get(request["data_set"]).source,
            "out": str(studio.out / "results" / id_),
            "category": request.get("category") or None,
            "metrics": list(dict.fromkeys(given.metrics)),
        }
        features = studio.vision(given.features)
        config |= {"features": features} if features else {}
        settings = {"config": config, "request": given.model_dump(mode="json")}
        return studio.queue.add("evaluate", f"evaluate {job.title}", settings, id_).told()

    @app.post("/api/results/{id_}/report")
    def report(id_: str) -> dict[str, Any]:
        """The page of `flawsmith report` about an evaluation."""
        path, own = folder(id_), new_id()
        settings = {"results": str(path), "name": name(path), "request": {"results": id_}}
        settings["out"] = str(studio.out / "exports" / f"{own}.html")
        return studio.queue.add("report", f"report on {name(path)}", settings, own).told()


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> tuple[Any, list[Any]]:
    """(what was judged, its plots); `changed`: the file's time, so that a new one is read."""
    from flawsmith.report import metrics, plots

    judged = metrics.read(path)
    return judged, plots.arms(short_hash(str(path)), judged) if plots.available() and judged.compared else []


@lru_cache(maxsize=2)
def _colours(theme: str) -> dict[str, str]:
    """What the names of the page's colours stand for."""
    blocks = TOKENS.read_text(encoding="utf-8").split("}")
    light, dark = blocks[0], next(block for block in blocks if ':root[data-theme="dark"]' in block)
    return dict(COLOUR.findall(light)) | (dict(COLOUR.findall(dark)) if theme == "dark" else {})
