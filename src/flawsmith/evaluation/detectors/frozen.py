"""Which defect is it? A logistic head on a frozen encoder's features of the defect's window: no training of a network.

Reference: docs/evaluation.md, "Defect types". The default of `classification` where --features names a model; a network
of whole images (`classification.py`) is another question, and its values have other keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from flawsmith.config import overlay
from flawsmith.diffusion.compact import SHIPPED
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation import features
from flawsmith.evaluation.detectors.classification import ClassificationConfig
from flawsmith.evaluation.judge import cut
from flawsmith.evaluation.metrics.realism import logistic, standard
from flawsmith.records import Record, Sample

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # of the data against a flat answer; validation chooses
UNCHOSEN = 0.01  # where there is no validation image


@dataclass(frozen=True)
class Head:
    """A logistic head: `types` names its rows in order; `selected` is "val-selected" or "last"."""

    types: tuple[str, ...]
    coefficients: np.ndarray  # (K, D)
    intercepts: np.ndarray  # (K,)
    centre: np.ndarray
    spread: np.ndarray
    strength: float
    selected: str

    def predict(self, seen: np.ndarray) -> list[str]:
        """The most probable type of features (N, D)."""
        logits = ((seen - self.centre) / self.spread) @ self.coefficients.T + self.intercepts
        return [self.types[row] for row in logits.argmax(axis=1)]


def settings_of(changes: dict[str, Any], extractor: str, device: str) -> ClassificationConfig:
    """The classifier that a configuration asks for: `classification.encoder`, else --features where that is a model of
    the user's and no network is named, else the small network.

    Raises FlawsmithError for an encoder named beside a network, and a wrong setting.
    """
    if changes.get("encoder") and "network" in changes:
        raise FlawsmithError(
            f"classification.encoder={changes['encoder']} and classification.network={changes['network']}: name one."
        )
    chosen = extractor if extractor not in SHIPPED and not {"network", "encoder"} & set(changes) else ""
    base = ClassificationConfig(device=device, encoder=chosen)
    return cast(ClassificationConfig, overlay(base, changes, "Classification"))


def fingerprint(source: str) -> str:
    """The hash of an encoder's weights and preprocessing; "" for none. Raises FlawsmithError for what is none."""
    return features.load(source).hash if source else ""


def look(samples: Sequence[Sample | Record], extractor: features.Extractor) -> np.ndarray:
    """Features (N, D) float64 of the windows around the masks of defects."""
    return extractor([cut(sample, "window") for sample in samples]).pooled.astype(np.float64)


def fit(
    real: tuple[np.ndarray, Sequence[str]],
    generated: tuple[np.ndarray, Sequence[str]],
    share: float,
    validation: tuple[np.ndarray, Sequence[str]],
) -> Head:
    """A head from features (N, D) and types of real and generated defects; `share` of the weight is generated.

    Types weigh the same, and so do the images of one type and kind. Of four strengths the one with the best
    validation accuracy is taken, the weakest of equals. Raises FlawsmithError for fewer than two types.
    """
    x, names = np.concatenate([real[0], generated[0]]), [*real[1], *generated[1]]
    types = tuple(sorted(set(names)))
    if len(types) < 2:
        raise FlawsmithError(f"Classification needs at least two defect types, got {list(types)}.")
    rows = np.array([types.index(name) for name in names])
    made = np.arange(len(rows)) >= len(real[1])
    weights = np.zeros(len(rows))
    for kind in range(len(types)):
        sides = [(rows == kind) & side for side in (~made, made)]
        parts = [1 - share, share] if all(side.any() for side in sides) else [1.0, 1.0]
        for side, part in zip(sides, parts, strict=True):
            weights[side] = part / max(1, int(side.sum()))
    weights *= len(rows) / weights.sum()
    centre, spread = standard(x)
    known = [place for place, name in enumerate(validation[1]) if name in types]
    best: tuple[float, Head] | None = None
    for strength in STRENGTHS if known else (UNCHOSEN,):
        found = logistic((x - centre) / spread, rows, strength, weights)
        head = Head(types, *found, centre, spread, strength, "val-selected" if known else "last")
        answers = head.predict(validation[0][known]) if known else []
        right = float(np.mean([a == validation[1][p] for a, p in zip(answers, known, strict=True)])) if known else 0.0
        if best is None or right > best[0]:
            best = (right, head)
    assert best is not None
    return best[1]
