"""What a report is about: generated folders with their real defects, and results of evaluations, read and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith import datasets, images, inputs
from flawsmith.datasets.writer import CONFIG, MANIFEST, read_manifest
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.metrics import labels
from flawsmith.records import Record

RESULTS = "results.json"
MOST_REAL = 400  # real defects that are looked at, evenly spaced


@dataclass(frozen=True)
class Generated:
    """A generated folder: its manifest's lines, its generate.json, and the real defects it can be held against.

    `roots`: folders that may hold the photographs painted on. `support`: hash -> name of the real defects seen.
    """

    name: str
    out: Path
    lines: list[dict[str, Any]]
    about: dict[str, Any]
    roots: list[Path]
    real: list[Record]
    notes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["status"] == "kept"]

    @property
    def support(self) -> dict[str, str]:
        """Hash -> name of every real defect that the method or its training saw."""
        seen = self.about.get("support")
        return {str(sha): str(name) for name, sha in seen.items()} if isinstance(seen, dict) else {}

    def pixels(self, line: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """(image, mask, photograph) of a line; the photograph is None where it is gone or has changed since."""
        image = images.read_image(inputs.inside(self.out, line["image"], MANIFEST))
        mask = images.read_mask(inputs.inside(self.out, line["mask"], MANIFEST))
        normal = labels.photograph(self.roots, line)
        return image, mask, normal if normal is not None and normal.shape == image.shape else None


def read(name: str, out: Path, real: str | None = None) -> Generated:
    """Read a generated folder. `real`: READER:DIR of real defects; default, the data set that generate.json names.

    Raises FlawsmithError for a folder that is none, and for a `real` that cannot be read.
    """
    lines = read_manifest(out)
    try:
        about = inputs.parse_json((out / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        about = {}
    records, notes = _real(str(about.get("source", "")), real, {line["category"] for line in lines})
    return Generated(name, out, lines, about, labels.photograph_roots(out, None), records, notes)


def _real(source: str, given: str | None, categories: set[str]) -> tuple[list[Record], list[str]]:
    """Real defects with masks of these categories (of any, where none fits), and what to say where there are none."""
    try:
        reader, root = datasets.parse_source(given or source or "memory:")
        found = [record for record in datasets.read(reader, root) if not record.is_good and record.masks]
    except FlawsmithError as error:
        if given:
            raise
        return [], [f"No real defects to compare with: {error}"]
    own = [record for record in found if record.category in categories] or found
    if not own:
        return [], ["The data set holds no real defects with masks to compare with; name one with --real READER:DIR."]
    chosen = np.linspace(0, len(own) - 1, min(len(own), MOST_REAL)).round().astype(int)
    note = f"{MOST_REAL} of {len(own)} real defects are looked at, evenly spaced."
    return [own[i] for i in chosen], [note] if len(own) > MOST_REAL else []


def divide(targets: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Targets as (generated folders, folders of results), each once; the folder that results judge comes along.

    Raises FlawsmithError for a target that is neither.
    """
    generated: list[Path] = []
    results: list[Path] = []
    for target in targets:
        folder = target.parent if target.name == RESULTS else target
        if (folder / MANIFEST).is_file():
            generated.append(folder)
        elif (folder / RESULTS).is_file():
            results.append(folder)
            judged = _judged(folder)
            generated += [judged] if judged else []
        else:
            raise FlawsmithError(
                f"{target} is neither a generated folder (no {MANIFEST}) nor one of results (no {RESULTS}): name what "
                "`flawsmith generate --out` or `flawsmith evaluate --out` wrote."
            )
    return list(dict.fromkeys(generated)), list(dict.fromkeys(results))


def _judged(results: Path) -> Path | None:
    """The generated folder that an evaluation judged, where it still lies there."""
    try:
        named = inputs.parse_json((results / RESULTS).read_text(encoding="utf-8"))["config"]["generated"]
        folder = inputs.home(Path(named))
    except (OSError, ValueError, KeyError, TypeError, FlawsmithError):
        return None
    return folder if (folder / MANIFEST).is_file() else None
