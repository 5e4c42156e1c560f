"""Can generated defects be told from real ones? A probe on frozen features, and the distance of two spectra.

Definitions follow docs/evaluation.md, "Realism". Both look at windows: the square around an image's mask, cut by one
rule for real and generated images. Nothing here needs scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from flawsmith import images, inputs
from flawsmith.datasets.writer import MANIFEST, read_manifest
from flawsmith.evaluation import judge as judging
from flawsmith.evaluation.features import Extractor
from flawsmith.evaluation.judge import ALL
from flawsmith.evaluation.metrics import labels
from flawsmith.evaluation.metrics.scores import count
from flawsmith.evaluation.metrics.spectrum import spectrum_distance
from flawsmith.evaluation.results import Value
from flawsmith.records import Progress, Record, Sample

LEAST = 8  # real and generated defects; fewer say nothing
FOLDS = 5
STRENGTH = 0.01  # C of the probe: the weight of the data against that of a flat answer
CAP = 60  # defects of a type that are looked at, on each side


# -- the probe -------------------------------------------------------------------------------------------------------


def logistic(
    x: np.ndarray, labels: np.ndarray, strength: float = 1.0, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression, scikit-learn's objective: (coefficients (K, D), intercepts (K,)).

    x (N, D), labels (N,) integers 0 to K - 1, weights (N,) of the rows or None for 1. Minimises strength x the weighted
    sum of -log p(label) + half the squared coefficients; intercepts are free. With two classes the two rows are
    opposite, and a model of one row (scikit-learn's binary one) with C = 2 x strength says the same.
    """
    n, width = x.shape
    classes = int(labels.max()) + 1
    truth = np.eye(classes)[labels]
    each = np.ones(n) if weights is None else np.asarray(weights, float)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(classes, width + 1)
        logits = x @ w[:, :-1].T + w[:, -1]
        logits -= logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        residual = strength * each[:, None] * (np.exp(log_p) - truth)
        slope = np.concatenate([residual.T @ x + w[:, :-1], residual.sum(axis=0)[:, None]], axis=1)
        value = -strength * float((each * log_p[np.arange(n), labels]).sum()) + float(np.square(w[:, :-1]).sum()) / 2
        return value, slope.ravel()

    found = minimize(loss, np.zeros(classes * (width + 1)), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    solved = found.x.reshape(classes, width + 1)
    return solved[:, :-1], solved[:, -1]


def standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,) of rows (N, D); 1 for a column that does not vary."""
    spread = x.std(axis=0)
    return x.mean(axis=0), np.where(spread > 0, spread, 1.0)


def folds(real: Sequence[str], made: Sequence[str], number: int = FOLDS, seed: int = 0) -> np.ndarray:
    """The fold, 0 to number - 1, of every real and then every generated image: (N + M,) int.

    real, made: the physical part that each shows; equal names share a fold, on both sides. The largest part first,
    equal ones in an order drawn by `seed`, each to the fold that holds the smallest share of both sides.
    """
    names = np.array([*real, *made])
    side = np.repeat([0, 1], [len(real), len(made)])
    parts, place = np.unique(names, return_inverse=True)
    share = np.array([1 / max(1, len(real)), 1 / max(1, len(made))])
    sizes = np.stack([np.bincount(place[side == s], minlength=len(parts)) * share[s] for s in (0, 1)], axis=1)
    drawn = np.random.default_rng(seed).permutation(len(parts))
    load, chosen = np.zeros((number, 2)), np.zeros(len(parts), int)
    for part in sorted(drawn, key=lambda p: -sizes[p].max()):
        # The side that a part adds most to decides; the other side breaks ties.
        main = int(sizes[part].argmax())
        chosen[part] = min(range(number), key=lambda fold: (load[fold, main], load[fold, 1 - main]))
        load[chosen[part]] += sizes[part]
    return chosen[place]


def probe(
    real: np.ndarray, made: np.ndarray, real_parts: Sequence[str], made_parts: Sequence[str], seed: int = 0
) -> float | None:
    """AUC of telling generated windows (M, D) from real ones (N, D) by logistic regression, across parts; 0 to 1.

    Five folds (`folds`), so that no part is learnt from and asked about; features are standardised by the fold's
    training side; C = 0.01. Pairs are compared within a fold only: the scores of two folds are of two probes. 0.5 is
    not to be told apart, 1 always. None where no fold holds both sides.
    """
    x, y = np.concatenate([real, made]).astype(float), np.repeat([0, 1], [len(real), len(made)])
    fold = folds(real_parts, made_parts, seed=seed)
    wins = pairs = 0.0
    for number in range(FOLDS):
        asked, taught = fold == number, fold != number
        here = int((y[asked] == 0).sum()) * int((y[asked] == 1).sum())
        if not here or len(set(y[taught].tolist())) < 2:
            continue
        mean, spread = standard(x[taught])
        coefficients, _ = logistic((x[taught] - mean) / spread, y[taught], STRENGTH / 2)
        score = ((x[asked] - mean) / spread) @ (coefficients[1] - coefficients[0])
        wins += here * float(count(score, y[asked] == 1).auroc() or 0.0)
        pairs += here
    return wins / pairs if pairs else None


# -- values ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """Windows of defects, their features, types and the physical part that each shows."""

    windows: list[np.ndarray]
    features: np.ndarray  # (N, D)
    types: np.ndarray
    parts: list[str]

    def rows(self, kind: str, limit: dict[str, int]) -> np.ndarray:
        """The rows of a type, at most `limit[type]` of each, evenly spaced."""
        kinds = limit if kind == ALL else {kind: limit[kind]}
        found = [np.flatnonzero(self.types == name) for name in kinds]
        taken = [own[judging.spaced(len(own), n)] for own, n in zip(found, kinds.values(), strict=True) if len(own)]
        return np.concatenate(taken) if taken else np.zeros(0, int)


def look(
    extractor: Extractor, items: Sequence[Sample | Record], parts: Sequence[str], progress: Progress | None = None
) -> Side:
    """Windows and features of defects with masks; parts: what physical part each shows, "" for one of its own."""
    types = np.array([item.defect_type for item in items])
    chosen = sorted(
        int(row)
        for kind in set(types.tolist())
        for row in np.flatnonzero(types == kind)[judging.spaced(int((types == kind).sum()), CAP)]
    )
    windows = [judging.cut(items[row], "window") for row in chosen]
    found = extractor(windows).pooled if windows else np.zeros((0, 1), np.float32)
    if progress:
        progress("windows", len(windows), len(windows), {})
    return Side(windows, found, types[chosen], [parts[row] or f"\0{row}" for row in chosen])


def judge(real: Side, made: Side, encoder: str, method: str = "", seed: int = 0) -> list[Value]:
    """probe_AUC and spectrum_dB per defect type and pooled ("all"): as many generated as real windows of each type.

    Where the types of both sides are not the same (a method with types of its own), "all" takes as many of all
    generated ones, evenly spaced. None with a reason where there are fewer than 8 real or generated defects.
    """
    names = list(dict.fromkeys(real.types.tolist()))
    counts = {kind: int((real.types == kind).sum()) for kind in names}
    shared = [kind for kind in names if kind in set(made.types.tolist())]
    values = []
    for kind in [*shared, ALL]:
        own = real.rows(kind, counts)
        if kind != ALL or set(made.types.tolist()) == set(names):
            theirs = made.rows(kind, counts)
        else:
            theirs = judging.spaced(len(made.windows), len(own)) if made.windows and len(own) else np.zeros(0, int)
        line = {"type": kind, "method": method, "seed": seed, "n_real": len(own), "n_generated": len(theirs)}
        reason, auc, distance = "", None, None
        if min(len(own), len(theirs)) < LEAST:
            reason = f"{len(own)} real and {len(theirs)} generated defects: {LEAST} of each are needed"
        else:
            sides = [[side.parts[row] for row in rows] for side, rows in ((real, own), (made, theirs))]
            auc = probe(real.features[own], made.features[theirs], sides[0], sides[1], seed)
            distance = spectrum_distance([real.windows[r] for r in own], [made.windows[r] for r in theirs])
        alone = "" if auc is not None or reason else "the real or the generated defects show one part only"
        settings = {"folds": FOLDS, "C": STRENGTH}
        values += [
            Value(f"probe_AUC/{encoder}/window", auc, settings=settings, reason=reason or alone, **line),
            Value("spectrum_dB/grey/window", distance, reason=reason, **line),
        ]
    return values


def part_of(record: Record) -> str:
    """The physical part that a real image shows, as `photographs` names it; its own name where no group is known."""
    return record.group or record.name


def photographs(out: Path, parts: dict[str, str] | None = None) -> dict[Path, str]:
    """Generated image -> the part that the photograph it was painted on shows; nothing without a manifest.

    parts: hash of a real image -> its part (`part_of`); a photograph that is not in it is a part of its own.
    """
    if not (out / MANIFEST).is_file():
        return {}
    return {
        out / line["image"]: (parts or {}).get(line["normal"]["sha"], line["normal"]["sha"])
        for line in read_manifest(out)
        if line["status"] == "kept"
    }


def untouched(out: Path, roots: Sequence[Path]) -> tuple[list[Sample], list[str]]:
    """The photographs of a generated folder with its labels and nothing painted, and the hash of each.

    Those that are found under `roots`; both empty for a folder without a manifest.
    """
    found, hashes = [], []
    for line in read_manifest(out) if (out / MANIFEST).is_file() else ():
        normal = labels.photograph(roots, line) if line["status"] == "kept" else None
        if normal is not None:
            mask = images.read_mask(inputs.inside(out, line["mask"], MANIFEST))
            found.append(Sample(normal, mask, line["category"], line["defect_type"]))
            hashes.append(line["normal"]["sha"])
    return found, hashes
