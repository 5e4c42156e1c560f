"""What the routes of a studio share: data sets, store, queue, trained runs, methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fastapi import Request

from flawsmith import images
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.records import Record, Sample
from flawsmith.studio.catalogue import Catalogue
from flawsmith.studio.jobs import Queue
from flawsmith.studio.offered import Offered
from flawsmith.studio.store import Store, checked

BROWSER_KEEPS = {"cache-control": "private, max-age=600"}


class Studio:
    """What the routes share: data sets, store, queue, trained runs."""

    def __init__(self, out: Path, sources: list[str], runs: list[Path], features: list[Path]) -> None:
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        self.catalogue = Catalogue(sources, out / "uploads")
        self.store = Store(out)
        self.queue = Queue(out)
        self.given_runs = runs
        self.offered = Offered(self.runs)
        self.features = {folder.name: folder for folder in features}

    def runs(self) -> dict[str, Path]:
        """Trained runs by the name the page knows: those given, and those fitted here."""
        fitted = sorted(path.parent for path in (self.out / "runs").glob("*/card.json"))
        return {f"run: {folder.name}": folder for folder in [*self.given_runs, *fitted]}

    def vision(self, name: str) -> str | None:
        """The folder of a vision model by the name the page knows, None for none. Raises FlawsmithError."""
        if name and name not in self.features:
            raise unknown("Vision model", name, self.features)
        return str(self.features[name]) if name else None

    def allowed(self, roi: str, size: tuple[int, int]) -> np.ndarray | None:
        """The region of interest (H, W) bool of one image. Raises FlawsmithError for one of another size."""
        path = self.store.place(roi)
        if path is None:
            return None
        mask = images.read_mask(path)
        if mask.shape != size:
            raise FlawsmithError(
                f"The region of interest is {mask.shape[1]} x {mask.shape[0]} pixels, the image {size[1]} x {size[0]}: "
                "make them the same size, or take none."
            )
        return mask

    def record(self, data_set: str, key: str) -> Record:
        return self.catalogue.get(data_set).record(key)

    def reference_mask(self, data_set: str, key: str) -> np.ndarray:
        """The mask (H, W) bool painted for a reference, else the data set's own, else an empty one."""
        record = self.record(data_set, key)
        painted = self.store.mask(data_set, key, "references")[0]
        if painted is not None and painted.shape == images.image_size(record.image):
            return painted
        return record.load().mask

    def reference_sample(self, data_set: str, key: str, defect_type: str = "") -> Sample:
        """A reference in pixels; `defect_type` names what the data set holds for good.

        Raises FlawsmithError where nobody knows which pixels are the defect.
        """
        record, mask = self.record(data_set, key), self.reference_mask(data_set, key)
        if not mask.any():
            raise FlawsmithError(f"{record.name} has no mask, so it is no reference yet: paint its mask.")
        kind = (defect_type or "defect") if record.is_good else record.defect_type
        return Sample(images.read_image(record.image), mask, record.category, kind)

    def reference(self, data_set: str, key: str, defect_type: str = "") -> dict[str, Any] | None:
        """A reference as the worker takes it; its mask is written as it is now, under the name of its content."""
        if not key:
            return None
        record, sample = self.record(data_set, key), self.reference_sample(data_set, key, defect_type)
        path = self.out / "work" / f"{checked(data_set)}-{checked(key)}-{images.array_sha(sample.mask)[:12]}.png"
        if not path.is_file():
            images.write_image(path, sample.mask)
        words = {"name": record.name, "category": sample.category, "defect_type": sample.defect_type}
        return {**words, "image": str(record.image), "mask": str(path)}


async def body_of(request: Request) -> bytes:
    """The whole body. Raises FlawsmithError where it does not arrive."""
    try:
        return await request.body()
    except Exception as error:  # the sender is gone, or sent more than is taken
        raise FlawsmithError("The request's body did not arrive whole.") from error
