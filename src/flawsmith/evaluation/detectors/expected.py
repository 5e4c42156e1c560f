"""How long a network will take, from a few steps of it: what a comparison says before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from flawsmith.evaluation.detectors import heads, segmentation, views
from flawsmith.evaluation.detectors.segmentation import SegmentationConfig
from flawsmith.records import Record

STEPS = 3


def seconds(
    config: SegmentationConfig,
    sizes: tuple[int, int, int],
    judged: int,
    defects: Sequence[Record],
    good: Sequence[Record],
) -> float:
    """Seconds of training and testing one segmenter on this machine, to about a factor of 1.5.

    sizes: how many real, generated and normal images there will be. judged: how many are validated with and tested
    on. defects, good: a few images to measure with, at least one of each.
    """
    learn = heads.train if config.encoder else segmentation.train
    real, normals = ([record.load() for record in side[:2]] for side in (defects, good))
    took = []
    for steps in (1, 1, 1 + STEPS):  # the first warms up
        started = time.perf_counter()
        trained = learn(real, [], normals, replace(config, steps=steps, views=1), ())
        took.append(time.perf_counter() - started)
    started = time.perf_counter()
    segmentation.judge(trained, [*real, *normals])
    each = (time.perf_counter() - started) / len([*real, *normals])
    step = max(0.0, took[2] - took[1]) / STEPS
    seen = sum(count * views.number(count, config) for count in sizes) if config.encoder else 0
    return took[1] + step * (config.steps - 1) + each * (seen + judged)
