"""The few-shot fits: an adapter to one defect type, or one model to many types at once.

For a model every window's type is drawn first, so that rare ones count alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from flawsmith.diffusion.adapters import add_adapter
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.batch import Batch
from flawsmith.diffusion.denoise import Conditioning
from flawsmith.diffusion.memory import batch_that_fits
from flawsmith.records import Progress, Sample
from flawsmith.training import parallel
from flawsmith.training.settings import FitConfig
from flawsmith.training.steps import Steps
from flawsmith.training.tuning import tune
from flawsmith.training.windows import FewShotWindows, stack

__all__ = ["Material", "TypeWindows", "fit_adapter", "fit_model"]


@dataclass(frozen=True)
class Material:
    """What one defect type is learned from."""

    real: Sequence[Sample]
    normals: Sequence[Sample] = ()
    drawn: Sequence[Sample] = ()
    held_out: Sequence[Sample] = ()  # judges the fit and teaches nothing


class TypeWindows:
    """Batches over several defect types; names are "category/defect_type"."""

    def __init__(self, material: Mapping[str, Material], size: int, config: FitConfig) -> None:
        self.config, self.names = config, list(material)
        self.windows = {n: FewShotWindows(m.real, m.normals, m.drawn, size, config) for n, m in material.items()}

    @classmethod
    def judging(cls, material: Mapping[str, Material], size: int, config: FitConfig) -> TypeWindows | None:
        """Windows of what is held out, whose references are what is not; None where nothing is."""
        kept = {n: m for n, m in material.items() if m.held_out}
        made = cls({n: Material(m.held_out) for n, m in kept.items()}, size, config)
        for name, part in kept.items():
            made.windows[name].shown = FewShotWindows(part.real, (), (), size, config).real
        return made if kept else None

    def batch(self, step: int, count: int, real_only: bool = False) -> Batch:
        """Batch number `step`, a pure function of (seed, step); without real_only types are drawn uniformly, with it
        they take turns.
        """
        rng = np.random.default_rng([self.config.seed, step, int(real_only), 2])
        drawn = []
        for place in range(count):
            name = self.names[place % len(self.names) if real_only else int(rng.integers(len(self.names)))]
            drawn.append(self.windows[name].window(rng, real_only, name))
        return stack(drawn)


def fit_adapter(
    backbone: Backbone,
    name: str,
    real: Sequence[Sample],
    normals: Sequence[Sample],
    drawn: Sequence[Sample],
    out: Path,
    config: FitConfig,
    preview: Callable[[int], None] | None = None,
    progress: Progress | None = None,
    held_out: Sequence[Sample] = (),
) -> dict[str, Any]:
    """Fit the adapter `name`; afterwards the backbone holds its best averaged weights.

    The loss on `held_out`, which teaches nothing, decides when to stop and which weights are kept; without it all steps
    are done and the last averages kept. Calling it again with the same `out` resumes. Returns {"steps", "held_out",
    "stopped"}.
    """
    parameters = add_adapter(backbone, name, config.rank, config.seed)
    windows = FewShotWindows(real, normals, drawn, backbone.size, config)
    judged = None
    if held_out:
        judge = FewShotWindows(held_out, (), (), backbone.size, config)
        judge.shown = windows.real  # never the target itself: stopping must not reward copies
        judged = judge.batch(0, 16, real_only=True)
    return _fit(backbone, parameters, windows, judged, out, config, preview=preview, progress=progress)


def fit_model(
    backbone: Backbone,
    parameters: Mapping[str, nn.Parameter],
    condition: Callable[[Batch, Tensor], Conditioning],
    material: Mapping[str, Material],
    out: Path,
    config: FitConfig,
    *,
    faster: Sequence[str] = (),
    preview: Callable[[int], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit the `parameters` of a method that learns one model; afterwards they are the best averages.

    The mean loss on what the types hold out decides when to stop and which weights are kept; where nothing is held
    out all steps are done and the last averages kept. Parameters named in `faster` learn `config.name_rate` times as
    fast. Calling it again with the same `out` resumes. Returns {"steps", "held_out", "stopped"}.
    """
    windows = TypeWindows(material, backbone.size, config)
    judge = TypeWindows.judging(material, backbone.size, config)
    judged = judge.batch(0, min(64, max(16, 4 * len(judge.names))), real_only=True) if judge else None
    return _fit(backbone, parameters, windows, judged, out, config, condition, faster, preview, progress)


def _fit(
    backbone: Backbone,
    parameters: Mapping[str, nn.Parameter],
    windows: FewShotWindows | TypeWindows,
    judged: Batch | None,
    out: Path,
    config: FitConfig,
    condition: Callable[[Batch, Tensor], Conditioning] | None = None,
    faster: Sequence[str] = (),
    preview: Callable[[int], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The one fit: losses of `windows`, stopped by the loss of the batch `judged` where there is one."""
    parallel.refuse_small(config.batch_size)
    steps = Steps(backbone, lambda number: windows.batch(number, config.batch_size), judged, config, condition)
    steps.rows = batch_that_fits(backbone, config.batch_size, dict(parameters))
    return tune(
        parameters,
        steps,
        out,
        config,
        held_out=steps.held_out if judged else None,
        smaller=steps.smaller,
        shared=True,
        threads=steps.threads,
        stop_early=judged is not None,
        factors=dict.fromkeys(faster, config.name_rate),
        preview=preview,
        progress=progress,
    )
