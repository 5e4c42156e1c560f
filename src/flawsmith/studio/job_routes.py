"""Routes to what is done: make, batch, check, fit, export, report, and the queue."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from flawsmith import images
from flawsmith.config import by_type
from flawsmith.datasets.writer import MANIFEST
from flawsmith.errors import FlawsmithError
from flawsmith.studio import asked, dials
from flawsmith.studio.jobs import new_id
from flawsmith.studio.shared import Studio
from flawsmith.studio.store import checked

PREVIEWS = 5  # of a fit, evenly spaced


def add_jobs(app: FastAPI, studio: Studio) -> None:
    @app.get("/api/jobs")
    def listed() -> list[dict[str, Any]]:
        return studio.queue.listed()

    @app.delete("/api/jobs/{id_}")
    def cancel(id_: str) -> dict[str, Any]:
        studio.queue.cancel(id_)
        return studio.queue.get(id_).told()

    @app.post("/api/make")
    def make(given: asked.Make) -> dict[str, Any]:
        """A few images of one photograph, a seed each."""
        record = studio.record(given.data_set, given.image)
        method = studio.offered.get(given.method)
        asked.family(given.family, bool(given.reference))
        if method["references"] != "none" and not given.reference:
            raise FlawsmithError(f"{given.method} imitates a real defect: choose a reference.")
        id_, mask = new_id(), None
        told, of_masks = dials.parted(given.dials, dials.OF_ONE)
        config = dials.checked(told)
        reference = studio.reference(given.data_set, given.reference, given.defect_type)
        studio.allowed(given.roi, images.image_size(record.image))
        painted = None if given.family else studio.store.mask(given.data_set, given.image)[0]
        if painted is not None and painted.any():
            mask = studio.out / "work" / f"{id_}.png"  # as it is now: what is painted later is another job's
            images.write_image(mask, painted)
        settings = {
            "out": str(studio.store.set_folder(id_)),
            "method": method["told"],
            "image": str(record.image),
            "name": record.name,
            "category": record.category or "product",
            "mask": str(mask) if mask else "",
            "family": given.family,
            "mask_options": of_masks,
            "severity": config.severity,
            "gate": config.gate,
            "defects": config.defects,
            "parts": given.parts and mask is not None,
            "roi": str(studio.store.place(given.roi) or ""),
            "heat": str(studio.store.place(given.heat) or ""),
            "reference": reference,
            "options": studio.offered.options(given.method, given.options),
            "request": given.model_dump(mode="json"),
            **{key: getattr(given, key) for key in ("defect_type", "prompt", "count", "seed")},
        }
        return studio.queue.add("make", f"{given.method} on {record.name}", settings, id_).told()

    @app.post("/api/batch")
    def batch(given: asked.Batch) -> dict[str, Any]:
        """Many images of a data set."""
        found = studio.catalogue.get(given.data_set)
        method = studio.offered.get(given.method)
        id_ = new_id()
        told, of_masks = dials.parted(given.dials, dials.OF_MANY)
        config = {
            "method": method["told"],
            "normal": found.source,
            "out": str(studio.store.set_folder(id_)),
            "category": given.category or None,
            "defect": [given.defect_type] if given.defect_type else [],
            "n": given.count,
            "seed": given.seed,
            "prompt": given.prompt or None,
            "mask": asked.family(given.family, method["references"] != "none") or None,
            "mask_options": of_masks,
            "options": studio.offered.options(given.method, given.options),
            "roi": studio.store.place(given.roi) and str(studio.store.place(given.roi)),
            "heat": studio.store.place(given.heat) and str(studio.store.place(given.heat)),
            "features": studio.vision(given.features),
            "mix": by_type(given.mix or None, "Mixture", "list of shares") or {},
            "combine": by_type(given.combine or None, "Combine", "list of numbers") or {},
            **told,
        }
        reference = studio.reference(given.data_set, given.reference, given.defect_type)
        if reference is not None:
            config |= {"reference": reference["image"], "reference_mask": reference["mask"]}
            config["defect"] = config["defect"] or [reference["defect_type"]]
        dials.checked(config)
        settings = {"config": config, "request": given.model_dump(mode="json")}
        return studio.queue.add("batch", f"{given.count} x {given.method} on {found.name}", settings, id_).told()

    @app.post("/api/check/{data_set}")
    def check(data_set: str) -> dict[str, Any]:
        """Look at every file of a data set."""
        found = studio.catalogue.get(data_set)
        settings = {"source": found.source, "request": {"data_set": data_set}}
        return studio.queue.add("check", f"check {found.name}", settings).told()

    @app.post("/api/fit")
    def fit(given: asked.Fit) -> dict[str, Any]:
        """Fit a few-shot model."""
        found = studio.catalogue.get(given.data_set)
        out = studio.out / "runs" / given.name
        config: dict[str, Any] = {"method": given.method, "data": found.source, "out": str(out)}
        config |= {"category": given.category or None, "steps": given.steps, "seed": given.seed, "shots": given.shots}
        config["options"] = {
            "preview_every": -(-given.steps // PREVIEWS),
            **studio.offered.settings(given.method, given.settings),
        }
        settings = {"config": config, "request": given.model_dump(mode="json")}
        return studio.queue.add("fit", f"fit {given.method} to {found.name}", settings).told()

    @app.get("/api/jobs/{id_}/previews/{name:path}", response_class=Response)
    def preview(id_: str, name: str) -> FileResponse:
        """A preview of a fit, by a name among those that the job tells."""
        path = studio.queue.get(id_).previews().get(name)
        if path is None:
            raise FlawsmithError(f"No preview {name[:80]!r}.")
        return FileResponse(path, media_type="image/png", headers={"cache-control": "no-store"})

    @app.post("/api/export")
    def export(given: asked.Export) -> dict[str, Any]:
        """What was kept, as a data set in a zip file."""
        named = [given.set] if given.set else [job.id for job in studio.queue.jobs.values()]
        chosen: list[dict[str, Any]] = []
        for set_ in named:
            keep = [int(index) for index, word in studio.store.decisions(set_).items() if word == "keep"]
            if keep and (studio.store.set_folder(set_) / MANIFEST).is_file():
                chosen.append({"folder": str(studio.store.set_folder(set_)), "indices": keep, "id": set_})
        if not chosen:
            raise FlawsmithError("No image is kept yet: keep some, then export.")
        id_ = new_id()
        places = {"out": str(studio.out / "exports" / id_), "zip": str(studio.out / "exports" / f"{id_}.zip")}
        source = _source_of(studio, [one["id"] for one in chosen])
        settings: dict[str, Any] = {
            **places,
            "sets": chosen,
            "format": given.format,
            "source": source,
            "request": given.model_dump(),
        }
        return studio.queue.add("export", f"export as {given.format}", settings, id_).told()

    @app.post("/api/report/{set_}")
    def report(set_: str) -> dict[str, Any]:
        """The page of `flawsmith report` about a set."""
        job, id_ = studio.queue.get(checked(set_)), new_id()
        settings = {"folder": str(studio.store.set_folder(set_)), "name": job.title, "request": {"set": set_}}
        settings["out"] = str(studio.out / "exports" / f"{id_}.html")
        return studio.queue.add("report", f"report on {job.title}", settings, id_).told()

    @app.get("/api/exports/{id_}", response_class=Response)
    def download(id_: str) -> FileResponse:
        """The zip file of an export, or the page of a report."""
        for suffix in (".zip", ".html"):
            path = studio.out / "exports" / f"{checked(id_)}{suffix}"
            if path.is_file():
                return FileResponse(path, filename=f"flawsmith-{id_}{suffix}")
        raise FlawsmithError(f"No export {id_}.")


def _source_of(studio: Studio, sets: list[str]) -> str:
    """The data set that all sets were painted on, as READER:DIR; "memory" where there are several."""
    named = {studio.queue.get(id_).settings.get("request", {}).get("data_set", "") for id_ in sets}
    return studio.catalogue.get(named.pop()).source if len(named) == 1 else "memory"
