"""`flawsmith evaluate --compare`: does it help? Arms that differ only in where their generated defects come from.

Per seed the real data is divided anew by physical part; every arm of the seed gets the same support, the same initial
weights, the same number of steps and the same normal images. A method reads a data set on disk that holds nothing
but the support and the training normals, so that nothing else can leak. Validation and test are the same for every
number of shots. Reference: docs/evaluation.md, "Does it help?".
"""

from __future__ import annotations

import json
from collections.abc import Callable

from flawsmith.comparison import choice, parts, standing
from flawsmith.comparison import plan as planned
from flawsmith.comparison.arms import check_choices, check_settings, parse
from flawsmith.comparison.shared import Run, divide
from flawsmith.config import CompareConfig, overlay
from flawsmith.datasets.lock import Lock
from flawsmith.diffusion.devices import refuse_device
from flawsmith.evaluation import features, misses, results
from flawsmith.evaluation import judge as judging
from flawsmith.evaluation.detectors import frozen, heads, one_class
from flawsmith.evaluation.protocol import read_real
from flawsmith.evaluation.results import Ledger, Value
from flawsmith.evaluation.run import LOOKING, check_metrics, fingerprints
from flawsmith.records import Progress


def compare(
    config: CompareConfig,
    command: str = "",
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> tuple[list[Value], list[str]]:
    """Run every missing part and write results.json, .csv and .md to `config.out`: (values, verdict sentences).

    `announce` is told the plan first: what is there, what is to be trained, how long that takes. A killed run loses the
    part it was in; the same command resumes. Raises FlawsmithError for a leak, an unknown arm or
    setting, before anything slow.
    """
    check_metrics(config.metrics)
    refuse_device(config.device)
    arms = [parse(text) for text in config.arms]
    check_settings(config, arms)
    check_choices(arms, config.metrics)
    segmenting = heads.settings_of(
        config.segmentation, config.features if "segmentation" in config.metrics else "compact", config.device
    )
    classifying = frozen.settings_of(config.classification, config.features, config.device)
    detecting = overlay(one_class.OneClassConfig(config.features, device=config.device), config.one_class, "One-class")
    encoders = fingerprints(config.metrics, classifying, detecting)
    wanted = sorted(set(config.metrics) & set(judging.METRICS))
    looks = set(config.metrics) & LOOKING
    extractor = features.load(config.features).to(config.device) if looks else None
    real = read_real(config)
    divisions = {seed: divide(real, config.drawn(seed)) for seed in config.seeds}
    with Lock(config.out):
        ledger = Ledger(config.out)
        whole = Run(config, arms, segmenting, classifying, detecting, encoders, wanted, extractor, ledger, progress)
        if announce:
            announce(planned.plan(whole, divisions))
        values: list[Value] = []
        notes: list[str] = []
        for seed in config.seeds:  # outermost, so that a stopped comparison holds whole pairs
            for shots in config.shots:
                values += parts.part(whole, divisions[seed], seed, shots, notes)
        values += choice.by_validation(whole, notes)
        notes += choice.over_seeds(whole, divisions[config.seeds[0]].types)
        if config.support == "fixed" and len(config.seeds) > 1:
            notes.append(
                "All seeds learn from one support: the intervals do not speak of other real defects to learn from."
            )
        notes = list(dict.fromkeys(notes))
        sentences = standing.verdicts(whole)
        about = {
            "command": command,
            "config": json.loads(config.model_dump_json(exclude={"out"})),
            "protocol": "leak-safe",
            "extractors": {
                e.name: e.describe() for e in ([extractor, extractor.at(judging.CLOSE)] if extractor else [])
            },
            "verdicts": sentences,
            "leaks": [],
            "notes": notes,
            "tested": misses.tested(divisions.values()),
        }
        if "segmentation" in config.metrics:
            misses.write(config.out, whole.missed)
        told = [*sentences, *(f"Note: {note}" for note in notes)]
        results.write(config.out, values, about, ["", *(f"- {sentence}" for sentence in told)])
    return results.with_means(values), told
