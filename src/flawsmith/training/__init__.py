"""Fits: what is learned from, how, and what survives a kill."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flawsmith import config
from flawsmith.errors import FlawsmithError
from flawsmith.methods import load
from flawsmith.methods.arrays import as_list, as_normal, as_reference
from flawsmith.methods.base import Synthesizer
from flawsmith.methods.samples import Samples
from flawsmith.records import Progress

PRODUCT = "product"  # the category of images that come without one


def fit(
    method: str,
    samples: Any,
    goods: Any,
    out: str | Path | None = None,
    *,
    defect_type: str = "defect",
    category: str = PRODUCT,
    progress: Progress | None = None,
    **settings: Any,
) -> Synthesizer:
    """Fit a method of METHODS to a few real defects; returns it, ready to be called with images.

    samples: the real defects: a list of Sample with masks, or of pairs (image, mask), which are of `defect_type`.
    goods: images of good parts, as a method is called with them. out: the run's folder; the same call again resumes.
        Without one the run lives in a temporary folder as long as the method does.
    settings: fields of TrainConfig (`steps`, `seed`, `backbone`, `device`, `memory`, `shots`); any other is a setting
        of the fit, as `flawsmith train --set` takes it (`rank=8`, `preset="paper"`).

    All samples are learned from unless `shots` says how many of each type. Raises FlawsmithError.
    """
    from flawsmith.training.run import train

    defects = [as_reference(item, category, defect_type) for item in as_list(samples)]
    normals = [as_normal(image, category) for image in as_list(goods)]
    if not defects or not normals:
        raise FlawsmithError(
            f"{method} is fitted to real defects and good images, but {len(defects)} defects and {len(normals)} good "
            "images were given: pass at least one of each."
        )
    temporary = tempfile.TemporaryDirectory(prefix="flawsmith-") if out is None else None
    run = Path(temporary.name if temporary else str(out))
    data = _data(run / "train" / "data", defects, normals)
    own = {key: settings.pop(key) for key in list(settings) if key in config.TrainConfig.model_fields}
    values = {"method": method, "data": f"mvtec_ad:{data}", "out": run, "shots": config.EVERYTHING, **own}
    train(config.load(config.TrainConfig, {**values, "options": settings}), progress)
    made = load(run, device=own.get("device"), memory=own.get("memory"))
    made.home = temporary  # removed with the method
    return made


def _data(folder: Path, defects: Sequence[Any], normals: Sequence[Any]) -> Path:
    """The samples on disk, one folder for each category: a fit and what resumes it read data sets."""
    categories = dict.fromkeys(sample.category for sample in (*normals, *defects))
    for category in categories:
        Samples(s for s in (*defects, *normals) if s.category == category).save(folder / category)
    return folder
