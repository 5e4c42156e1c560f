"""The least work a diffusion method can be given: references, requests, a training run of four steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import fakes
from flawsmith.config import TrainConfig
from flawsmith.records import Request, Sample

Run = Callable[..., tuple[int, str, str]]  # the fixture `run`
FIT = {"batch_size": 3, "save_every": 2, "evaluate_every": 2, "bf16": False, "warmup": 1}


def samples(kind: str, count: int, size: fakes.Size = (60, 80)) -> list[Sample]:
    """`count` images of a widget's defect."""
    return [Sample(*fakes.with_defect(fakes.photo(s, size), kind, s), "widget", kind) for s in range(count)]


def reference(seed: int, kind: str = "hole", category: str = "widget") -> Sample:
    return Sample(*fakes.with_defect(fakes.photo(seed + 9, (60, 90)), kind, seed), category, kind)


def request(seed: int = 0, shown: int = 0, **changes: Any) -> Request:
    """A hole in the middle of a widget, as `reference(shown)` shows one."""
    none, mask = np.zeros((60, 90), bool), np.zeros((60, 90), bool)
    mask[20:34, 30:52] = True
    normal = Sample(fakes.photo(seed, (60, 90)), none, "widget")
    return replace(Request(normal, mask, "hole", "red spot", reference(shown), seed), **changes)


def settings(method: str, own: dict[str, Any], folder: Path, data: Path, out: Path, **more: Any) -> TrainConfig:
    """A training run on the backbone in `folder`; a file of tests gives its method's `own` options once."""
    options = {**FIT, **own, **more.pop("options", {})}
    given = {"steps": 4, "shots": 4, **more}
    return TrainConfig(method=method, data=f"mvtec_ad:{data}", out=out, backbone=str(folder), options=options, **given)


def stop_at_three(what: str, step: int, total: int, line: dict[str, Any]) -> None:
    """Progress of a training that is interrupted."""
    if step == 3:
        raise KeyboardInterrupt
