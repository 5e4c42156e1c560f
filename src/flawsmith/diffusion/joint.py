"""Fitting one model to many defect types at once: every window's type is drawn first, so that rare ones count alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.denoise import Conditioning
from flawsmith.diffusion.fewshot import FewShotWindows, FitConfig, stack
from flawsmith.diffusion.memory import batch_that_fits
from flawsmith.diffusion.shards import Batch
from flawsmith.diffusion.steps import Steps
from flawsmith.diffusion.tuning import tune
from flawsmith.records import Sample

__all__ = ["JointWindows", "Material", "fit_joint"]


@dataclass(frozen=True)
class Material:
    """What one defect type is learned from."""

    real: Sequence[Sample]
    normals: Sequence[Sample] = ()
    drawn: Sequence[Sample] = ()


class JointWindows:
    """Batches over several defect types; names are "category/defect_type"."""

    def __init__(self, material: Mapping[str, Material], size: int, config: FitConfig) -> None:
        self.config, self.names = config, list(material)
        self.windows = {n: FewShotWindows(m.real, m.normals, m.drawn, size, config) for n, m in material.items()}

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


def fit_joint(
    backbone: Backbone,
    parameters: Mapping[str, nn.Parameter],
    condition: Callable[[Batch, Tensor], Conditioning],
    material: Mapping[str, Material],
    out: Path,
    config: FitConfig,
    *,
    faster: Sequence[str] = (),
    preview: Callable[[int], None] | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Fit a joint method's `parameters`; afterwards they are the best averages.

    Of every type with four references or more the last is held out: their mean loss decides when to stop and which
    weights are kept. Parameters named in `faster` learn `config.name_rate` times as fast. Calling it again with the
    same `out` resumes. Returns {"steps", "held_out", "stopped"}.
    """
    kept = {n: Material(m.real[-1:]) for n, m in material.items() if len(m.real) >= 4}
    rest = {n: Material(m.real[:-1], m.normals, m.drawn) if n in kept else m for n, m in material.items()}
    windows = JointWindows(rest, backbone.size, config)
    judge = JointWindows(kept or {n: Material(m.real) for n, m in material.items()}, backbone.size, config)
    count = min(64, max(16, 4 * len(judge.names)))
    judged = judge.batch(0, count, real_only=True)
    steps = Steps(backbone, lambda number: windows.batch(number, config.batch_size), judged, config, condition)
    steps.rows = batch_that_fits(backbone, config.batch_size, dict(parameters))
    return tune(
        parameters,
        steps,
        out,
        config,
        held_out=steps.held_out,
        smaller=steps.smaller,
        stop_early=bool(kept),
        factors=dict.fromkeys(faster, config.name_rate),
        preview=preview,
        progress=progress,
    )
