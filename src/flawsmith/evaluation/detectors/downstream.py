"""One downstream run as values: train on real and generated defects, score on real ones that nothing has seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flawsmith.evaluation import features, misses
from flawsmith.evaluation.detectors import classification, frozen, heads, saturated, segmentation
from flawsmith.evaluation.detectors.encoder import fingerprint
from flawsmith.evaluation.results import MEAN, Value
from flawsmith.records import GOOD, Progress, Record, Sample

CHOSEN_BY = "validation_pixel_AP"  # on validation images, of a type and the mean: what choices are made by


@dataclass(frozen=True)
class Segmented:
    """A segmenter, what it said of the test set, its values, and the threshold that validation chose (or None).

    misses: what it found of each validation defect at that threshold, see `misses.of`.
    """

    trained: segmentation.Trained
    judged: segmentation.Judged
    values: list[Value]
    threshold: float | None
    misses: list[dict[str, Any]] = field(default_factory=list)


def loaded(records: Iterable[Record]) -> list[Sample]:
    """The pixels of records."""
    return [record.load() for record in records]


def segment(
    real: Sequence[Record],
    generated: Sequence[Record],
    normals: Sequence[Record],
    validation: Sequence[Record],
    test: Sequence[Record],
    config: segmentation.SegmentationConfig,
    method: str = "",
    progress: Progress | None = None,
) -> Segmented:
    """Train, choose on validation, score once on test. Values are named METRIC/NETWORK/SELECTION.

    Images are read one by one and kept only at the segmenter's scale.
    """
    checked = loaded(validation) if any(not r.is_good for r in validation) else []
    learn = heads.train if config.encoder else segmentation.train
    trained = learn(_lazily(real), _lazily(generated), _lazily(normals), config, checked, progress)
    told = segmentation.judge(trained, checked)
    best = segmentation.pooled(told).f1max()
    missed = misses.of(validation, checked, told, best[1], method, config.seed) if best else []
    judged = segmentation.judge(trained, (record.load() for record in test))
    settings: dict[str, Any] = {
        "steps": config.steps,
        "share": config.synthetic if generated else 0.0,
        "scale": config.scale,
        "longest": config.longest,
    }
    if config.encoder:
        settings |= {"encoder": fingerprint(config.encoder), "heads": config.heads, "frozen": not config.encoder_rate}
    reason = "" if checked else "no real defect was left for validation: the last weights were taken"
    values = [
        Value(
            f"{CHOSEN_BY}/{config.name}", trained.validation.get(trained.step), MEAN, method, config.seed,
            len(checked), len(generated), settings=settings, reason=reason,
        )
    ]  # fmt: skip
    for kind in dict.fromkeys(name for name in told.types if name != GOOD):
        ap, count = segmentation.pooled(told, kind).ap(), told.types.count(kind)
        values.append(Value(f"{CHOSEN_BY}/{config.name}", ap, kind, method, config.seed, count, len(generated)))
    found = {**segmentation.table(judged, best[1] if best else None), **saturated.table(judged, test)}
    for metric, row in found.items():
        for kind, value in row.items():
            counts = sum(kind in ("all", name) for name in judged.types), len(generated)
            missing = "" if value is not None else "the test set has no defect or no good pixel"
            key = f"{metric}/{config.name}/{trained.selected}"
            values.append(
                Value(key, value, kind, method, config.seed, *counts, settings=settings, reason=missing or reason)
            )
    return Segmented(trained, judged, values, segmentation.scores.probability(best[1]) if best else None, missed)


def _lazily(records: Sequence[Record]) -> Iterable[Sample]:
    return (record.load() for record in records)


def classify(
    real: Sequence[Record],
    generated: Sequence[Record],
    validation: Sequence[Record],
    test: Sequence[Record],
    config: classification.ClassificationConfig,
    method: str = "",
    progress: Progress | None = None,
) -> list[Value]:
    """Accuracy of the defect type on real test defects; None with a reason where the types do not fit."""

    def refused(reason: str) -> list[Value]:
        name = "small-resnet" if config.network == classification.SMALL else config.network
        return [Value(f"accuracy/{config.encoder or name}", None, "all", method, config.seed, reason=reason)]

    defects = [record for record in test if not record.is_good]
    types = {record.defect_type for record in defects}
    learnt = [[r for r in side if r.defect_type in types] for side in (real, generated)]
    if len(types) < 2:
        return refused("the test set has fewer than two defect types")
    missing = types - {record.defect_type for side in learnt for record in side}
    if missing:
        return refused(f"nothing to learn {', '.join(sorted(missing))} from: images need the real types' names")
    chosen = [r for r in validation if r.defect_type in types]
    if config.encoder:
        return _by_head(learnt, chosen, defects, config, method)
    classifier = classification.train(loaded(learnt[0]), loaded(learnt[1]), config, loaded(chosen), progress)
    found = classification.predict(classifier, loaded(defects))
    key = f"accuracy/{classifier.name}/{classifier.selected}"
    values = []
    for kind, row in classification.accuracy(found, [r.defect_type for r in defects]).items():
        settings = {name: number for name, number in row.items() if name != "value"}
        settings |= {"steps": config.steps, "share": config.synthetic if learnt[1] else 0.0}
        counts = int(row["count"]), len(learnt[1])
        values.append(Value(key, row["value"], kind, method, config.seed, *counts, settings=settings))
    return values


def _by_head(
    learnt: Sequence[Sequence[Record]],
    validation: Sequence[Record],
    defects: Sequence[Record],
    config: classification.ClassificationConfig,
    method: str,
) -> list[Value]:
    """The same with a logistic head on a frozen encoder. Values are named accuracy/ENCODER/window."""
    kinds = [[record.defect_type for record in side] for side in (*learnt, validation, defects)]
    extractor = features.load(config.encoder).to(config.device)
    seen = frozen.look([*learnt[0], *learnt[1], *validation, *defects], extractor)
    ends = np.cumsum([len(side) for side in kinds])
    real, generated, checked, asked = np.split(seen, ends[:-1])
    head = frozen.fit((real, kinds[0]), (generated, kinds[1]), config.synthetic, (checked, kinds[2]))
    key = f"accuracy/{extractor.name}/window"
    values = []
    for kind, row in classification.accuracy(head.predict(asked), kinds[3]).items():
        about: dict[str, Any] = {name: number for name, number in row.items() if name != "value"}
        about |= {"share": config.synthetic if learnt[1] else 0.0, "strength": head.strength, "selected": head.selected}
        counts = int(row["count"]), len(learnt[1])
        values.append(Value(key, row["value"], kind, method, config.seed, *counts, settings=about))
    return values
