"""What the routes of a studio share: data sets, store, queue, trained runs, methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request

from flawsmith import images
from flawsmith.errors import FlawsmithError
from flawsmith.records import Record
from flawsmith.studio.catalogue import Catalogue
from flawsmith.studio.jobs import Queue
from flawsmith.studio.offered import Offered
from flawsmith.studio.store import Store, checked

BROWSER_KEEPS = {"cache-control": "private, max-age=600"}


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


async def body_of(request: Request) -> bytes:
    """The whole body. Raises FlawsmithError where it does not arrive."""
    try:
        return await request.body()
    except Exception as error:  # the sender is gone, or sent more than is taken
        raise FlawsmithError("The request's body did not arrive whole.") from error
