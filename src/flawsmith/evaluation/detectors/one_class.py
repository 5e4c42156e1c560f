"""A one-class detector: what is far from every normal patch is a defect. Generated defects only tune it.

Reference: docs/evaluation.md, "One class". Patch features of a frozen encoder, a memory of normal patches thinned by a
greedy coreset, distance to the nearest one (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR
2022). Ours: features are standardised by the normals, and a weight per channel can be learnt from defects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from flawsmith import images
from flawsmith.config import SETTINGS, Count, Share, Whole
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation import features
from flawsmith.evaluation.detectors import saturated, segmentation
from flawsmith.evaluation.detectors.neighbours import Detector, Patches, coreset, tune
from flawsmith.evaluation.judge import pixels
from flawsmith.evaluation.metrics import scores
from flawsmith.evaluation.results import MEAN, Value
from flawsmith.records import GOOD, Progress, Record, Sample

NAME = "one-class"
CHANNELS = 128  # of a map; wider ones go through a fixed random projection, which keeps distances nearly
POOL = 4  # patches drawn at random for each one that the coreset keeps
EVERY = 4  # of four normal images one is held out of the memory, for the threshold
QUANTILES = {"image": 0.95, "pixel": 0.995}  # of held-out normals: the thresholds that need no defect
NEGATIVES = 128  # normal patches of an image that a tuning sees
PULLS = (0.01, 0.1, 1.0)  # how strongly learnt weights are held to those without defects; validation chooses
UNCHOSEN = 0.1  # where there is no validation defect


@settings(frozen=True, config=SETTINGS)
class OneClassConfig:
    """The detector. Images are brought to a square of `size` pixels, where the encoder takes several sizes."""

    encoder: str = "compact"  # folder, hub id or "compact", as --features
    size: Count = 256
    memory: Count = 2000  # normal patches kept
    synthetic: Share = 0.9  # share of the generated among the defects' weight, where there are both
    device: str = "cpu"
    seed: Whole = 0


# -- looking ---------------------------------------------------------------------------------------------------------


def look(
    items: Sequence[Sample | Record], encoder: features.Extractor, progress: Progress | None = None
) -> list[Patches]:
    """Two maps of the encoder per image, the middle ones, averaged over 3 x 3 cells and laid on the finer grid."""
    side, found = encoder.preprocessing.size, []
    for sample in map(pixels, items):
        maps = encoder.levels([sample.image])
        maps = maps[-3:-1] or maps[-1:]
        grid = max(one.shape[-1] for one in maps)
        rows = []
        for one in maps:
            x = nn.functional.avg_pool2d(one, 3, 1, 1, count_include_pad=False)
            x = nn.functional.interpolate(x, (grid, grid), mode="bilinear", align_corners=False)
            flat = x[0].flatten(1).T
            if flat.shape[1] > CHANNELS:
                flat = flat @ _projection(flat.shape[1]).to(flat)
            rows.append(flat)
        mask = np.zeros((side, side), bool)
        if sample.mask.any():
            shrunk = images.resize(sample.mask.astype(np.float32), side, side)
            mask = shrunk > min(0.25, float(shrunk.max()) / 2)
        kind = sample.defect_type if sample.mask.any() else GOOD
        widths = tuple(one.shape[1] for one in rows)
        found.append(Patches(torch.cat(rows, 1).half(), widths, mask, kind))
        if progress:
            progress("features", len(found), len(items), {})
    return found


@cache
def _projection(width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(width, CHANNELS, generator=generator))[0]


# -- one run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """What is the same in every arm of a seed: the detector without defects, and what it saw."""

    encoder: features.Extractor
    detector: Detector
    centre: Tensor
    spread: Tensor
    held: list[Patches]
    validation: list[Patches]
    test: list[Patches]

    def look(self, items: Sequence[Sample | Record], progress: Progress | None = None) -> list[Patches]:
        """Images in units of what normal ones show."""
        return self.standard(look(items, self.encoder, progress))

    def standard(self, seen: Sequence[Patches]) -> list[Patches]:
        """What `look` has seen, in the same units."""
        return [replace(one, rows=((one.rows.float() - self.centre) / self.spread).half()) for one in seen]


def _stamps(config: OneClassConfig, *sides: Sequence[Record]) -> tuple[int, ...]:
    """When the files of images and encoder were written: what was seen of others is not taken for theirs."""
    files = [path for side in sides for record in side for path in record.files]
    folder = Path(config.encoder)
    files += sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return tuple(path.stat().st_mtime_ns for path in files)


@lru_cache(maxsize=1)  # the arms of a seed follow each other
def _prepare(
    config: OneClassConfig,
    normals: tuple[Record, ...],
    validation: tuple[Record, ...],
    test: tuple[Record, ...],
    stamps: tuple[int, ...],
) -> Prepared:
    if len(normals) < 2:
        raise FlawsmithError(f"{NAME} needs at least two good photographs to train on, got {len(normals)}.")
    encoder = features.load(config.encoder).at(config.size).to(config.device)
    seen = look(normals, encoder)
    held = seen[EVERY - 1 :: EVERY] or seen[-1:]
    learnt = [one for one in seen if all(one is not other for other in held)]
    count = sum(len(one.rows) for one in learnt)
    mean = sum(one.rows.float().sum(0) for one in learnt) / count
    square = sum(((one.rows.float() - mean) ** 2).sum(0) for one in learnt) / count
    assert isinstance(mean, Tensor) and isinstance(square, Tensor)
    spread = square.sqrt()
    spread = spread.clamp_min(1e-3 * float(spread.max()) + 1e-6)
    rng = np.random.default_rng(config.seed)
    each = -(-POOL * config.memory // len(learnt))
    drawn = [one.rows[rng.permutation(len(one.rows))[:each]].float() for one in learnt]
    widths = held[0].widths  # every map counts the same, whatever its number of channels
    weights = torch.cat([torch.full((width,), 1 / width / len(widths)) for width in widths]).to(mean)
    pool = (torch.cat(drawn) - mean) / spread
    memory = pool[coreset(pool, config.memory)]
    whole = Prepared(encoder, Detector(memory, weights), mean, spread, [], [], [])
    held = whole.standard(held)
    sides = [whole.look(side) for side in (validation, test)]
    return replace(whole, detector=centred(whole.detector, held), held=held, validation=sides[0], test=sides[1])


def centred(detector: Detector, held: Sequence[Patches]) -> Detector:
    """The detector with the median of its maps of normal images as `middle`."""
    middle = float(np.median([np.median(detector.distances(one)) for one in held]))
    return replace(detector, middle=max(middle, 1e-9))


def judge(detector: Detector, seen: Sequence[Patches]) -> segmentation.Judged:
    """Score images; an image's score is the maximum of its smoothed map."""
    found = segmentation.Judged([], [], [], [])
    for one in seen:
        anomaly = detector.scored(one)
        found.levels.append(scores.levels(anomaly))
        found.masks.append(one.mask)
        found.image_scores.append(float(anomaly.max()))
        found.types.append(one.kind)
    return found


def by_normals(held: segmentation.Judged) -> tuple[float, int]:
    """Thresholds that need no defect: (of images, level of pixels), high quantiles of held-out normal images."""
    tally = segmentation.pooled(held)
    passed = np.cumsum(tally.negatives) <= (1 - QUANTILES["pixel"]) * tally.negatives.sum()
    return float(np.quantile(held.image_scores, QUANTILES["image"])), int(passed.sum()) - 1


def by_defects(held: segmentation.Judged, defects: segmentation.Judged) -> tuple[float, int]:
    """Thresholds of the best F1, (of images, level of pixels): defects against held-out normal images.

    Images of both sides weigh the same, so that their numbers do not decide; pixels as they are.
    """
    own = np.array([*held.image_scores, *defects.image_scores])
    side = np.repeat([False, True], [len(held.image_scores), len(defects.image_scores)])
    tally = scores.count(own, side)
    even = replace(tally, positives=tally.positives * (tally.negatives.sum() / tally.positives.sum()))
    best = even.f1max()
    pixels = (segmentation.pooled(held) + segmentation.pooled(defects)).f1max()
    assert best is not None and pixels is not None
    return float(np.unique(own)[::-1][best[1]]), pixels[1]


def f1(judged: segmentation.Judged, threshold: float) -> dict[str, float | None]:
    """F1 of images whose score reaches the threshold, per defect type (and all good ones) and "all"."""
    found: dict[str, float | None] = {}
    above, kinds = np.array(judged.image_scores) >= threshold, np.array(judged.types)
    for kind in [*(k for k in dict.fromkeys(judged.types) if k != GOOD), "all"]:
        truth = kinds != GOOD if kind == "all" else kinds == kind
        raised = int((above & (truth | (kinds == GOOD))).sum())
        found[kind] = 2 * int((above & truth).sum()) / (raised + int(truth.sum())) if truth.any() else None
    return found


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
    shared = replace(config, synthetic=0.0)  # what does not matter to it
    stamps = _stamps(config, normals, validation, test)
    prepared = _prepare(shared, tuple(normals), tuple(validation), tuple(test), stamps)
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
