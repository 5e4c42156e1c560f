"""Judging generated images by what they are for: whether a detector trained with them finds real defects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flawsmith.records import Progress

if TYPE_CHECKING:
    from flawsmith.evaluation.results import Value


def evaluate(
    generated: Any, real: str | Path, out: str | Path, *, progress: Progress | None = None, **settings: Any
) -> list[Value]:
    """Judge generated images against real ones: `flawsmith evaluate GENERATED --real READER:DIR --out OUT`.

    generated: a folder, flawsmith's or another tool's, or a method's Samples, which are saved under `out/generated`.
    settings: fields of EvaluateConfig (`metrics`, `features`, `seeds`, `shots`, ...).
    Returns the values, which also stand in `out/results.json`. Raises FlawsmithError, above all for a leak.
    """
    from flawsmith import config
    from flawsmith.evaluation import run

    if not isinstance(generated, (str, Path)):
        generated = generated.save(Path(out) / "generated")
    values = {"generated": str(generated), "real": str(real), "out": Path(out), **settings}
    return run.evaluate(config.load(config.EvaluateConfig, values), progress=progress)[0]
