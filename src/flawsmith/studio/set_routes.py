"""Routes to what was made: sets, their images, decisions about them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from flawsmith.errors import FlawsmithError
from flawsmith.studio.catalogue import closeup, short_hash, thumbnail
from flawsmith.studio.jobs import Job
from flawsmith.studio.shared import BROWSER_KEEPS, Studio
from flawsmith.studio.store import checked


def add_sets(app: FastAPI, studio: Studio) -> None:
    def told(job: Job, full: bool) -> dict[str, Any]:
        lines, words = studio.store.lines(job.id), studio.store.decisions(job.id)
        count = {word: sum(value == word for value in words.values()) for word in ("keep", "drop")}
        about: dict[str, Any] = {
            "id": job.id,
            "title": job.title,
            "kind": job.kind,
            "status": job.status,
            "images": len(lines),
            "request": job.settings.get("request", {}),
            **count,
        }
        if full:
            about["rows"] = [_row(studio, job, line, words.get(str(line["index"]), "")) for line in lines]
        return about

    @app.get("/api/sets")
    def listed() -> list[dict[str, Any]]:
        """Made sets and batches, the newest first."""
        found = [told(job, False) for job in list(studio.queue.jobs.values()) if job.kind in ("make", "batch")]
        return [one for one in reversed(found) if one["images"]]

    @app.get("/api/sets/{id_}")
    def one(id_: str) -> dict[str, Any]:
        return told(studio.queue.get(checked(id_)), True)

    @app.get("/api/sets/{id_}/{index}/{what}", response_class=Response)
    def file(id_: str, index: int, what: str) -> Response:
        """An image of a set: `image`, `mask`, `thumbnail`, or `closeup`, the defect and its surroundings."""
        if what not in ("image", "mask", "thumbnail", "closeup"):
            raise FlawsmithError(f"{what[:40]!r} is none of image, mask, thumbnail and closeup.")
        path = studio.store.file(id_, index, "mask" if what == "mask" else "image")
        if what == "closeup":
            content = closeup(path, studio.store.file(id_, index, "mask"), path.stat().st_mtime_ns)
            return Response(content, media_type="image/webp", headers=BROWSER_KEEPS)
        if what == "thumbnail":
            return Response(thumbnail(path, path.stat().st_mtime_ns), media_type="image/webp", headers=BROWSER_KEEPS)
        return FileResponse(path, media_type="image/png", headers=BROWSER_KEEPS)

    @app.put("/api/sets/{id_}/{index}/{word}")
    def decide(id_: str, index: int, word: str) -> dict[str, Any]:
        """Keep or drop an image; `open` takes the decision back."""
        studio.queue.get(checked(id_))
        studio.store.decide(id_, index, "" if word == "open" else word)
        return {"decision": studio.store.decisions(id_).get(str(index), "")}


def _row(studio: Studio, job: Job, line: dict[str, Any], decision: str) -> dict[str, Any]:
    """A manifest line for the page; `normal` is the key of the photograph, "" where it is not known."""
    row = {key: line.get(key) for key in ("index", "defect_type", "category", "caption", "scores", "redraws", "gate")}
    asked_seed = (line.get("info") or {}).get("asked_seed")
    request = job.settings.get("request", {})
    key = short_hash(line["normal"].get("file", ""))
    normal = key if studio.catalogue.has(request.get("data_set", ""), key) else ""
    title = f"seed {asked_seed}" if asked_seed is not None else f"image {line['index']}"
    return {**row, "title": title, "seed": str(line.get("seed")), "decision": decision, "normal": normal}
