"""From a configuration to images: plan, requests, run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flawsmith.records import Progress

if TYPE_CHECKING:
    from flawsmith.generation.run import Summary


def generate(
    method: str | Path, normal: str | Path, out: str | Path, *, progress: Progress | None = None, **settings: Any
) -> Summary:
    """Paint a data set: `flawsmith generate METHOD --normal READER:DIR --out OUT`; the same call again resumes.

    settings: fields of GenerateConfig (`n`, `seed`, `prompt`, `gate`, `severity`, `jobs`, ...); any other is an option
    of the method. jobs: worker processes for methods without a neural network (the same bytes for any number); a script
    that asks for them calls this below `if __name__ == "__main__":`, since each of them imports it.
    Returns Summary (kept, rejected, reasons, refused, out). Raises FlawsmithError.
    """
    from flawsmith import config
    from flawsmith.generation.run import run

    own = {key: value for key, value in settings.items() if key in config.GenerateConfig.model_fields}
    options = {key: value for key, value in settings.items() if key not in own}
    values = {"method": str(method), "normal": str(normal), "out": Path(out), "options": options}
    return run(config.load(config.GenerateConfig, values | own).gated(), progress)
