"""The studio's server: everything the page asks for. Paths come from registered data sets and ids of ours alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

import flawsmith
from flawsmith import images, masks
from flawsmith.datasets.writer import MANIFEST
from flawsmith.errors import FlawsmithError
from flawsmith.masks import boxes
from flawsmith.records import Record, hash_seed
from flawsmith.studio import asked
from flawsmith.studio.catalogue import Catalogue, around, closeup, short_hash, shown, thumbnail
from flawsmith.studio.jobs import Job, Queue, new_id
from flawsmith.studio.offered import LEARNED, Offered
from flawsmith.studio.security import Guard
from flawsmith.studio.store import ConflictError, Store, checked, deflate, inflate

STATIC = Path(__file__).parent / "static"
TOKENS = Path(__file__).parents[1] / "report" / "tokens.css"
BROWSER_KEEPS = {"cache-control": "private, max-age=600"}
MASK_TYPE = "application/x-flawsmith-mask"


class Studio:
    """What the routes share: data sets, store, queue, trained runs."""

    def __init__(self, out: Path, sources: list[str], runs: list[Path]) -> None:
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        self.catalogue = Catalogue(sources, out / "uploads")
        self.store = Store(out)
        self.queue = Queue(out)
        self.given_runs = runs
        self.offered = Offered(self.runs)

    def runs(self) -> dict[str, Path]:
        """Trained runs by the name the page knows: those given, and those fitted here."""
        fitted = sorted(path.parent for path in (self.out / "runs").glob("*/card.json"))
        return {f"run: {folder.name}": folder for folder in [*self.given_runs, *fitted]}

    def record(self, data_set: str, key: str) -> Record:
        return self.catalogue.get(data_set).record(key)

    def reference(self, data_set: str, key: str) -> dict[str, Any] | None:
        """A real defect as the worker takes it; its mask is written, since it may be a region of a file."""
        if not key:
            return None
        record = self.record(data_set, key)
        if record.is_good or not record.masks:
            raise FlawsmithError(f"{record.name} has no mask, so it is no reference: choose a real defect with one.")
        path = self.out / "work" / f"{checked(data_set)}-{checked(key)}.png"
        if not path.is_file():
            images.write_image(path, record.load().mask)
        words = {"name": record.name, "category": record.category, "defect_type": record.defect_type}
        return {**words, "image": str(record.image), "mask": str(path)}


def create(out: Path, sources: list[str], runs: list[Path], hosts: frozenset[str], token: str | None = None) -> Guard:
    """The application; `hosts`: what the header Host may say. Raises FlawsmithError for a data set that is none."""
    studio = Studio(out, sources, runs)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        studio.queue.close()

    app = FastAPI(
        title="flawsmith studio", lifespan=life, docs_url=None, redoc_url=None, openapi_url="/api/openapi.json"
    )
    app.state.studio = studio

    @app.exception_handler(FlawsmithError)
    async def refused(_: Request, error: FlawsmithError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 409 if isinstance(error, ConflictError) else 400)

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        """Field and reason; not the input, which may hold what no JSON can (1e999)."""
        told = "; ".join(f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()[:5])
        return JSONResponse({"error": told.encode("utf-8", "replace").decode()}, 422)

    _pages(app)
    _data(app, studio)
    _masks(app, studio)
    _jobs(app, studio)
    _sets(app, studio)
    return Guard(app, hosts, token)


def _pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    @app.get("/static/tokens.css", include_in_schema=False)
    def tokens() -> FileResponse:
        return FileResponse(TOKENS, headers={"cache-control": "no-cache"})

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return Response(status_code=204)

    app.mount("/static", StaticFiles(directory=STATIC))


def _data(app: FastAPI, studio: Studio) -> None:
    @app.get("/api/state")
    def state() -> dict[str, Any]:
        """Data sets, methods with the schema of their options, mask families."""
        return {
            "version": flawsmith.__version__,
            "data_sets": studio.catalogue.listed(),
            "methods": studio.offered.table(),
            "families": [*asked.FAMILIES, *asked.NEEDS_REFERENCE],
            "trainable": list(LEARNED) if studio.offered.learned else [],
            "formats": ["flawsmith", "coco", "yolo", "yolo-seg", "voc", "labelme"],
        }

    @app.get("/api/methods")
    def methods() -> dict[str, Any]:
        """The methods known now; `waiting`: those that take seconds to import, and the runs fitted meanwhile."""
        studio.offered.begin()
        return {"methods": studio.offered.table(), "waiting": list(studio.offered.missing())}

    @app.get("/api/data/{data_set}")
    def listed(data_set: str) -> dict[str, Any]:
        """The images of a data set."""
        found = studio.catalogue.get(data_set)
        painted = {path.stem for path in (studio.out / "masks" / checked(data_set)).glob("*.png")}
        rows = [
            {"key": key, "name": r.name, "category": r.category, "type": r.defect_type, "good": r.is_good,
             "has_mask": bool(r.masks), "painted": key in painted}
            for key, r in found.records.items()
        ]  # fmt: skip
        return {"id": found.id, "name": found.name, "source": found.source, "images": rows}

    @app.get("/api/data/{data_set}/{key}")
    def image(data_set: str, key: str) -> Response:
        """An image, as a browser can show it, every pixel as it is."""
        content, media = shown(studio.record(data_set, key).image)
        return Response(content, media_type=media, headers=BROWSER_KEEPS)

    @app.get("/api/data/{data_set}/{key}/thumbnail")
    def small(data_set: str, key: str) -> Response:
        path = studio.record(data_set, key).image
        return Response(thumbnail(path, path.stat().st_mtime_ns), media_type="image/webp", headers=BROWSER_KEEPS)

    @app.get("/api/data/{data_set}/{key}/closeup")
    def near(data_set: str, key: str) -> Response:
        """A real defect and its surroundings."""
        sample = studio.record(data_set, key).load()
        return Response(around(sample.image, sample.mask), media_type="image/webp", headers=BROWSER_KEEPS)

    @app.put("/api/uploads/{name}/{path:path}")
    async def upload(name: str, path: str, request: Request) -> dict[str, Any]:
        """One file of a dropped folder."""
        studio.catalogue.upload(name, path, await _body(request))
        return {}

    @app.post("/api/uploads/{name}")
    def uploaded(name: str) -> dict[str, Any]:
        """All files of a dropped folder are there: it becomes a data set."""
        return {"id": studio.catalogue.uploaded(name)}


async def _body(request: Request) -> bytes:
    try:
        return await request.body()
    except Exception as error:  # the sender is gone, or sent more than is taken
        raise FlawsmithError("The request's body did not arrive whole.") from error


def _masks(app: FastAPI, studio: Studio) -> None:
    def answer(mask: np.ndarray, revision: str = "") -> Response:
        height, width = mask.shape
        headers = {"content-encoding": "gzip", "x-size": f"{width}x{height}", "x-revision": revision}
        return Response(deflate(mask), media_type=MASK_TYPE, headers={**headers, "cache-control": "no-store"})

    @app.get("/api/masks/{data_set}/{key}")
    def load(data_set: str, key: str) -> Response:
        """The painted mask: gzip of a byte per pixel; of an image without one all 0."""
        size = images.image_size(studio.record(data_set, key).image)
        mask, revision = studio.store.mask(data_set, key)
        return answer(mask if mask is not None and mask.shape == size else np.zeros(size, bool), revision)

    @app.put("/api/masks/{data_set}/{key}")
    async def save(data_set: str, key: str, request: Request) -> dict[str, Any]:
        """Save a painted mask; the header X-Revision names what was painted over, `*` whatever is there."""
        content = await _body(request)
        size = images.image_size(studio.record(data_set, key).image)
        mask = inflate(content, size)
        revision = request.headers.get("x-revision", "*")
        saved = studio.store.save_mask(data_set, key, mask, None if revision == "*" else revision)
        return {"revision": saved, "pixels": int(mask.sum())}

    @app.post("/api/masks/{data_set}/{key}/import")
    async def take(data_set: str, key: str, request: Request) -> Response:
        """A mask image of the user's own, answered as a mask; white is defect. It is not saved yet."""
        path = studio.out / "work" / f"import-{new_id()}.png"
        images.write_bytes(path, await _body(request), durable=False)
        try:
            mask = images.read_mask(path)
        except FlawsmithError as error:
            raise FlawsmithError("The file is no image that can be read as a mask.") from error
        finally:
            path.unlink(missing_ok=True)
        size = images.image_size(studio.record(data_set, key).image)
        if mask.shape != size:
            raise FlawsmithError(
                f"The mask is {mask.shape[1]} x {mask.shape[0]} pixels, the image {size[1]} x {size[0]}: export it at "
                "the image's size."
            )
        return answer(mask)

    @app.post("/api/wand")
    def wand(given: asked.Wand) -> Response:
        """The likeliest defect in a box, as a mask of the whole image."""
        image = images.read_image(studio.record(given.data_set, given.image).image)
        height, width = image.shape[:2]
        top, left, bottom, right = given.box
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise FlawsmithError(f"The box {given.box} does not lie in the image of {width} x {height} pixels.")
        mask = np.zeros((height, width), bool)
        mask[top:bottom, left:right] = boxes.within(image, given.box)
        return answer(mask)

    @app.post("/api/family")
    def draw(given: asked.Family) -> Response:
        """A mask of a family, drawn on the object."""
        name = asked.family(given.family, bool(given.reference))
        image = images.read_image(studio.record(given.data_set, given.image).image)
        reference = studio.record(given.data_set, given.reference).load() if given.reference else None
        rng = np.random.default_rng(hash_seed(given.seed, "mask"))
        mask, _ = masks.draw(name or "blob", masks.foreground(image), rng, reference=reference, image=image)
        return answer(mask)


def _jobs(app: FastAPI, studio: Studio) -> None:
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
            "mask_options": {},
            "reference": studio.reference(given.data_set, given.reference),
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
            "options": studio.offered.options(given.method, given.options),
        }
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
        config |= {"category": given.category or None, "steps": given.steps, "seed": given.seed}
        settings = {"config": config, "request": given.model_dump(mode="json")}
        return studio.queue.add("fit", f"fit {given.method} to {found.name}", settings).told()

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

    @app.get("/api/exports/{id_}")
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


def _sets(app: FastAPI, studio: Studio) -> None:
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

    @app.get("/api/sets/{id_}/{index}/{what}")
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
