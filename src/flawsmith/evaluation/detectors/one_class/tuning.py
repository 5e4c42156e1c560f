"""The detector's weights from defects: which patches are learnt from, and how much each of them counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch

from flawsmith.evaluation.detectors.one_class.memory import OneClassConfig, Prepared, centred
from flawsmith.evaluation.detectors.one_class.neighbours import Detector, Patches, tune

NEGATIVES = 128  # normal patches of an image that a tuning sees
PULLS = (0.01, 0.1, 1.0)  # how strongly learnt weights are held to those without defects; validation chooses
UNCHOSEN = 0.1  # where there is no validation defect


def _samples(
    prepared: Prepared, sides: Sequence[Sequence[Patches]], share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared differences, truth and weights for `tune`: defect patches of real and generated, of held-out normals."""
    rows: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    halves = [1 - share, share] if all(sides) else [1.0, 1.0]
    for side, half in zip(sides, halves, strict=True):
        kinds = [one.kind for one in side]
        for one in side:
            covered = cv2.resize(one.mask.astype(np.float32), (one.grid, one.grid), interpolation=cv2.INTER_AREA)
            cells = torch.from_numpy(np.flatnonzero(covered >= min(0.5, covered.max())))
            rows.append(prepared.detector.squared(one.rows[cells]).cpu().numpy())
            weight = half / len(set(kinds)) / kinds.count(one.kind) / len(cells)
            owners.append(np.full(len(cells), weight))
    positives = len(np.concatenate(rows))
    # Around real defects too: they were photographed on another day. Generated ones stand on the memory's images.
    for one in (*prepared.held, *sides[0]):
        covered = cv2.resize(one.mask.astype(np.float32), (one.grid, one.grid), interpolation=cv2.INTER_AREA)
        clear = np.flatnonzero(cv2.dilate(covered, np.ones((3, 3))) == 0)
        if not len(clear):
            continue
        cells = torch.from_numpy(rng.permutation(clear)[:NEGATIVES])
        rows.append(prepared.detector.squared(one.rows[cells]).cpu().numpy())
        owners.append(np.full(len(cells), 1 / len(cells)))
    squared, shares = np.concatenate(rows).astype(float), np.concatenate(owners)
    truth = np.arange(len(squared)) < positives
    for side_ in (truth, ~truth):
        shares[side_] *= 0.5 / shares[side_].sum()
    return squared, truth, shares


def tuned(
    prepared: Prepared, sides: Sequence[Sequence[Patches]], config: OneClassConfig, pulls: Sequence[float] = PULLS
) -> list[Detector]:
    """The detector with weights learnt from defects, one for each pull: `sides` are the real and the generated ones."""
    squared, truth, share = _samples(prepared, sides, config.synthetic, np.random.default_rng(config.seed))
    base = prepared.detector
    start = base.weights.cpu().numpy().astype(float)
    learnt = [tune(squared, truth.astype(float), share, start, pull) for pull in pulls]
    return [centred(replace(base, weights=torch.from_numpy(one).to(base.weights)), prepared.held) for one in learnt]
