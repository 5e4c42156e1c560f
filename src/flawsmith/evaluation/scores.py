"""Scores of an anomaly map against masks. Names follow anomalib; definitions follow evaluation.md, section 3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """AP, the step sum over recall (scikit-learn's definition): sum of (R_k - R_{k-1}) P_k over distinct scores.

    scores (N,) float, truth (N,) bool. None when truth holds no positive or no negative.
    """
    scores, truth = np.ravel(scores), np.ravel(truth).astype(bool)
    positives = int(truth.sum())
    if positives in (0, truth.size):
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), truth.size - 1)  # ties are one threshold
    precision, recall = hits[last] / (last + 1), hits[last] / positives
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def auroc(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Area under the ROC curve as a rank statistic, ties counted half. None without positives or negatives."""
    from scipy.stats import rankdata

    scores, truth = np.ravel(scores), np.ravel(truth).astype(bool)
    positives = int(truth.sum())
    negatives = truth.size - positives
    if not positives or not negatives:
        return None
    ranks = rankdata(scores)
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def paired_bootstrap(differences: Sequence[float], draws: int = 10_000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of paired differences and its 95 % percentile interval over resampled pairs: (mean, low, high)."""
    values = np.asarray(differences, dtype=float)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)
