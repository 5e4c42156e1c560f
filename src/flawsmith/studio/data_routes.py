"""Routes to what is there: methods, data sets, images, uploads, masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response

import flawsmith
from flawsmith import images, masks
from flawsmith.errors import FlawsmithError
from flawsmith.masks import boxes
from flawsmith.masks.options import severity_of
from flawsmith.records import hash_seed
from flawsmith.studio import asked, dials
from flawsmith.studio.catalogue import around, shown, thumbnail
from flawsmith.studio.jobs import new_id
from flawsmith.studio.offered import LEARNED
from flawsmith.studio.shared import BROWSER_KEEPS, Studio, body_of
from flawsmith.studio.store import Kind, deflate, heat_of, inflate

MASK_TYPE = "application/x-flawsmith-mask"


def add_data(app: FastAPI, studio: Studio) -> None:
    @app.get("/api/state")
    def state() -> dict[str, Any]:
        """Data sets, methods with the schema of their options, mask families."""
        return {
            "version": flawsmith.__version__,
            "data_sets": studio.catalogue.listed(),
            "methods": studio.offered.table(),
            "dials": {"make": dials.schema(dials.OF_ONE), "batch": dials.schema(dials.OF_MANY)},
            "families": [*asked.FAMILIES, *asked.NEEDS_REFERENCE],
            "trainable": list(LEARNED) if studio.offered.learned else [],
            "features": list(studio.features),
            "metrics": get_args(asked.Metric) if studio.offered.learned else [],
            "formats": get_args(asked.Format),
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
        painted = studio.store.painted(data_set, "references")
        rows = [
            {"key": key, "name": r.name, "category": r.category, "type": r.defect_type, "good": r.is_good,
             "has_mask": bool(r.masks) or key in painted}
            for key, r in found.records.items()
        ]  # fmt: skip
        return {"id": found.id, "name": found.name, "source": found.source, "images": rows}

    @app.get("/api/data/{data_set}/{key}", response_class=Response)
    def image(data_set: str, key: str) -> Response:
        """An image, as a browser can show it, every pixel as it is."""
        content, media = shown(studio.record(data_set, key).image)
        return Response(content, media_type=media, headers=BROWSER_KEEPS)

    @app.get("/api/data/{data_set}/{key}/thumbnail", response_class=Response)
    def small(data_set: str, key: str) -> Response:
        path = studio.record(data_set, key).image
        return Response(thumbnail(path, path.stat().st_mtime_ns), media_type="image/webp", headers=BROWSER_KEEPS)

    @app.get("/api/data/{data_set}/{key}/closeup", response_class=Response)
    def near(data_set: str, key: str) -> Response:
        """A real defect and its surroundings."""
        image, mask = images.read_image(studio.record(data_set, key).image), studio.reference_mask(data_set, key)
        return Response(around(image, mask), media_type="image/webp", headers={"cache-control": "no-store"})

    @app.put("/api/uploads/{name}/{path:path}")
    async def upload(name: str, path: str, request: Request) -> dict[str, Any]:
        """One file of a dropped folder."""
        studio.catalogue.upload(name, path, await body_of(request))
        return {}

    @app.post("/api/uploads/{name}")
    def uploaded(name: str) -> dict[str, Any]:
        """All files of a dropped folder are there: it becomes a data set."""
        return {"id": studio.catalogue.uploaded(name)}


def add_masks(app: FastAPI, studio: Studio) -> None:
    def answer(mask: np.ndarray, revision: str = "") -> Response:
        height, width = mask.shape
        headers = {"content-encoding": "gzip", "x-size": f"{width}x{height}", "x-revision": revision}
        return Response(deflate(mask), media_type=MASK_TYPE, headers={**headers, "cache-control": "no-store"})

    @app.get("/api/masks/{data_set}/{key}", response_class=Response)
    def load(data_set: str, key: str, of: Kind = "masks") -> Response:
        """The painted mask: gzip of a byte per pixel; of an image without one all 0.

        Of a reference without one it is the data set's own.
        """
        size = images.image_size(studio.record(data_set, key).image)
        mask, revision = studio.store.mask(data_set, key, of)
        if of == "references" and mask is None:
            mask = studio.reference_mask(data_set, key)
        return answer(mask if mask is not None and mask.shape == size else np.zeros(size, bool), revision)

    @app.put("/api/masks/{data_set}/{key}")
    async def save(data_set: str, key: str, request: Request, of: Kind = "masks") -> dict[str, Any]:
        """Save a painted mask; the header X-Revision names what was painted over, `*` whatever is there."""
        content = await body_of(request)
        size = images.image_size(studio.record(data_set, key).image)
        mask = inflate(content, size)
        revision = request.headers.get("x-revision", "*")
        saved = studio.store.save_mask(data_set, key, mask, None if revision == "*" else revision, of)
        return {"revision": saved, "pixels": int(mask.sum())}

    async def imported(request: Request, read: Callable[[Path], np.ndarray], how: str) -> np.ndarray:
        """The pixels of a file that was sent, as `read` finds them; the file is not kept."""
        path = studio.out / "work" / f"import-{new_id()}.png"
        images.write_bytes(path, await body_of(request), durable=False)
        try:
            return read(path)
        except FlawsmithError as error:
            raise FlawsmithError(f"The file is no image that can be read {how}.") from error
        finally:
            path.unlink(missing_ok=True)

    @app.post("/api/masks/{data_set}/{key}/import", response_class=Response)
    async def take(data_set: str, key: str, request: Request) -> Response:
        """A mask image of the user's own, answered as a mask; white is defect. It is not saved yet."""
        mask = await imported(request, images.read_mask, "as a mask")
        size = images.image_size(studio.record(data_set, key).image)
        if mask.shape != size:
            raise FlawsmithError(
                f"The mask is {mask.shape[1]} x {mask.shape[0]} pixels, the image {size[1]} x {size[0]}: export it at "
                "the image's size."
            )
        return answer(mask)

    @app.post("/api/places")
    async def place(request: Request) -> dict[str, Any]:
        """An image of the user's own that says where defects may lie: white, or the brighter the likelier."""
        image = await imported(request, images.read_image, "in colour or grey")
        if not image.any():
            raise FlawsmithError("The image is black: paint bright where defects may lie.")
        return {"id": studio.store.save_place(image), "width": image.shape[1], "height": image.shape[0]}

    @app.post("/api/places/{data_set}/{key}")
    def painted(data_set: str, key: str) -> dict[str, Any]:
        """The painted mask of an image, as it is now, as a region of interest."""
        studio.record(data_set, key)
        mask = studio.store.mask(data_set, key)[0]
        if mask is None:
            raise FlawsmithError("Nothing is painted on this image yet: paint where defects may lie.")
        return {"id": studio.store.save_place(mask), "width": mask.shape[1], "height": mask.shape[0]}

    @app.post("/api/wand", response_class=Response)
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

    @app.post("/api/family", response_class=Response)
    def draw(given: asked.Family) -> Response:
        """A mask of a family, drawn on the object."""
        name = asked.family(given.family, bool(given.reference))
        image = images.read_image(studio.record(given.data_set, given.image).image)
        reference = studio.reference_sample(given.data_set, given.reference) if given.reference else None
        rng = np.random.default_rng(hash_seed(given.seed, "mask"))
        told, of_masks = dials.parted(given.dials, dials.OF_DRAWN)
        severity = severity_of(dials.checked(told).severity, given.seed)
        options = masks.mask_options({**of_masks, "severity": severity})
        allowed, roi = masks.foreground(image), studio.allowed(given.roi, image.shape[:2])
        if roi is not None and not (allowed & roi).any():
            raise FlawsmithError("The region of interest and the object do not meet: mark where defects may sit.")
        ground = allowed if roi is None else allowed & roi
        mask, _ = masks.draw(
            name or "blob", ground, rng, options, reference, image, heat=heat_of(studio.store.place(given.heat), image)
        )
        return answer(mask)
