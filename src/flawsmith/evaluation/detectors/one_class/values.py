"""One run as values: tune on real and generated defects, choose on validation, score once on test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.detectors import saturated, segmentation
from flawsmith.evaluation.detectors.one_class.memory import NAME, OneClassConfig, prepare
from flawsmith.evaluation.detectors.one_class.thresholds import by_defects, by_normals, f1, judge
from flawsmith.evaluation.detectors.one_class.tuning import PULLS, UNCHOSEN, tuned
from flawsmith.evaluation.results import MEAN, Value
from flawsmith.records import GOOD, Progress, Record


def _mean_ap(judged: segmentation.Judged) -> float | None:
    kinds = [kind for kind in dict.fromkeys(judged.types) if kind != GOOD]
    found = [value for kind in kinds if (value := segmentation.pooled(judged, kind).ap()) is not None]
    return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class Found:
    """Values of one run, and what the tuned detector said of the test images."""

    values: list[Value]
    judged: segmentation.Judged


def run(
    real: Sequence[Record],
    generated: Sequence[Record],
    normals: Sequence[Record],
    validation: Sequence[Record],
    test: Sequence[Record],
    config: OneClassConfig,
    method: str = "",
    progress: Progress | None = None,
) -> Found:
    """The detector with weights and thresholds from real and generated defects, and without any ("/untuned").

    Of three strengths of learning, and none, the one with the best mean pixel AP on validation is taken. Values are
    named METRIC/one-class/ENCODER and METRIC/one-class/ENCODER/untuned. Raises FlawsmithError for an encoder that
    cannot be loaded, fewer than two good photographs, or no defect at all.
    """
    if not real and not generated:
        raise FlawsmithError(f"{NAME} is tuned on defects: give real or generated ones.")
    prepared = prepare(config, normals, validation, test)
    sides = [[one for one in prepared.look(side, progress) if one.kind != GOOD] for side in (real, generated)]
    if not any(sides):
        raise FlawsmithError(f"{NAME} is tuned on defects: every mask of those given is empty.")
    plain = _mean_ap(judge(prepared.detector, prepared.validation))
    found = dict(zip(PULLS, tuned(prepared, sides, config), strict=True))
    checked = (
        {pull: _mean_ap(judge(one, prepared.validation)) for pull, one in found.items()} if plain is not None else {}
    )
    pull = max(PULLS, key=lambda one: _known(checked.get(one))) if checked else UNCHOSEN
    kept = not checked or _known(checked[pull]) >= _known(plain)
    chosen, best = (found[pull], checked.get(pull)) if kept else (prepared.detector, plain)
    encoder = prepared.encoder
    about = {"size": encoder.preprocessing.size, "memory": len(prepared.detector.memory), "hash": encoder.hash}
    share = config.synthetic if real and generated else float(bool(generated))
    values: list[Value] = []
    last = segmentation.Judged([], [], [], [])
    for detector, end, ap in ((prepared.detector, "/untuned", plain), (chosen, "", best)):
        key = f"{NAME}/{encoder.name}{end}"
        held, last = judge(detector, prepared.held), judge(detector, prepared.test)
        defects = [one for side in sides for one in side]
        limits = by_normals(held) if end else by_defects(held, judge(detector, defects))
        used = {**about} if end else {**about, "share": share, "pull": pull if kept else None}
        table = {**segmentation.table(last, limits[1]), "image_F1": f1(last, limits[0]), **saturated.table(last, test)}
        reason = "" if ap is not None else "no real defect was left for validation: learnt weights were taken"
        values.append(
            Value(f"validation_pixel_AP/{key}", ap, MEAN, method, config.seed, len(prepared.validation),
                  0 if end else len(generated), settings=used, reason=reason)
        )  # fmt: skip
        for metric, row in table.items():
            for kind, value in row.items():
                counts = sum(kind in ("all", name) for name in last.types), 0 if end else len(generated)
                missing = "" if value is not None else "the test set has no defect or no good pixel"
                values.append(
                    Value(f"{metric}/{key}", value, kind, method, config.seed, *counts, settings=used, reason=missing)
                )
    return Found(values, last)


def _known(value: float | None) -> float:
    return -1.0 if value is None else value
