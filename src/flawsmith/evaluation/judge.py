"""Generated images against held-out real defects: every generation metric, on the whole image and on the window.

A window is the square around an image's mask (context 1.5, at least 64 px), by one rule for real and generated
images. "whole" is the image, resized; there the background decides, and a method that spoils it gains variety.
Definitions follow docs/evaluation.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flawsmith import compose
from flawsmith.evaluation.features import Extractor, Features
from flawsmith.evaluation.metrics import diversity, fidelity
from flawsmith.evaluation.results import Value
from flawsmith.records import Progress, Record, Sample

METRICS = ("kid", "fid", "is", "ic-lpips", "prdc", "clip", "copies")
REGIONS = ("whole", "window")
MINIMUM, CONTEXT = 64, 1.5
CLOSE = 96  # side of the tight crops in which copies are looked for
TURNED = 1536  # crops of the training defects kept for that, all turns together: memory, and seconds
CAP = 200  # images of a type that are compared pairwise: IC-LPIPS's own cap
NEAR = 60  # images of a type in which copies are looked for
ALL = "all"  # every type pooled; the only row of a method that knows no types of the data set


def pixels(item: Sample | Record) -> Sample:
    """A record's pixels, read when they are needed: a thousand large images do not fit in memory."""
    return item.load() if isinstance(item, Record) else item


def cut(item: Sample | Record, region: str) -> np.ndarray:
    """The part of an image that a region looks at, (h, w, 3) uint8."""
    sample = pixels(item)
    if region == "whole":
        return sample.image
    return sample.image[compose.square_window(sample.mask, MINIMUM, CONTEXT).slices].copy()


def spaced(count: int, limit: int) -> np.ndarray:
    """Up to `limit` of `count` places, evenly spaced: nobody chose them."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))


@dataclass(frozen=True)
class Seen:
    """Features of some samples in one region; `maps` of the rows `mapped` only, which are at most CAP per type."""

    features: Features
    maps: np.ndarray
    mapped: np.ndarray
    types: np.ndarray

    def rows(self, kind: str) -> np.ndarray:
        return np.arange(len(self.types)) if kind == ALL else np.flatnonzero(self.types == kind)

    def map_rows(self, kind: str) -> np.ndarray:
        """The maps of a type's images, (n, M), n <= CAP."""
        found = np.flatnonzero(np.isin(self.mapped, self.rows(kind)))
        return self.maps[found[spaced(len(found), CAP)]] if len(found) else self.maps[:0]


class Judge:
    """The real side, looked at once: training defects (`support`) and held-out real defects (`real`), with masks.

    `metrics`: names of METRICS. `seed` decides the subsets of KID's spread.
    """

    def __init__(
        self,
        extractor: Extractor,
        support: Sequence[Sample | Record],
        real: Sequence[Sample | Record],
        metrics: Sequence[str] = METRICS,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.extractor, self.metrics, self.seed, self.progress = extractor, tuple(metrics), seed, progress
        self.support, self.real = list(support), list(real)
        self.truth = {region: self._look(self.real, region) for region in REGIONS} if self.real else {}
        self.seen = {region: self._look(self.support, region) for region in REGIONS} if self.support else {}
        self.close = extractor.at(CLOSE)
        self.turns = 0
        self._turned: np.ndarray | None = None
        if "copies" in self.metrics and self.support:
            angles = int(np.clip(TURNED // (2 * len(self.support)), 4, 24))
            self.turns = 2 * angles
            crops = (
                turn for s in map(pixels, self.support) for turn in diversity.all_turns(s.image, s.mask, angles, CLOSE)
            )
            self._turned = self._maps(list(crops))
        self._held_out = self._nearest(self.real) if self._turned is not None and self.real else None

    def values(self, generated: Sequence[Sample | Record], method: str = "") -> list[Value]:
        """Every value of one folder of generated defects (masks not empty), per type and pooled."""
        made = list(generated)
        values: list[Value] = []
        for region in REGIONS:
            if made and self.truth:
                values += self._region(self._look(made, region), made, region, method)
        if "copies" in self.metrics:
            values += self._copies(made, method)
        return values

    # -- looking -------------------------------------------------------------------------------------------------------

    def _look(self, samples: Sequence[Sample | Record], region: str) -> Seen:
        types = np.array([s.defect_type for s in samples])
        wanted: set[int] = set()
        if "ic-lpips" in self.metrics:
            for kind in set(types):
                members = np.flatnonzero(types == kind)
                wanted |= set(members[spaced(len(members), CAP)].tolist())
        parts, maps, mapped = [], [], []
        for start in range(0, len(samples), 16):
            batch = range(start, min(start + 16, len(samples)))
            found = self.extractor([cut(samples[i], region) for i in batch], maps=bool(wanted & set(batch)))
            parts.append(found)
            for place, i in enumerate(batch):
                if i in wanted and found.maps is not None:
                    maps.append(found.maps[place].copy())
                    mapped.append(i)
            if self.progress:
                self.progress("", batch[-1] + 1, len(samples), {})
        pooled = np.concatenate([part.pooled for part in parts])
        scores = [part.logits for part in parts if part.logits is not None]
        return Seen(
            Features(pooled, np.concatenate(scores) if scores else None),
            np.array(maps, np.float16),
            np.array(mapped, int),
            types,
        )

    def _maps(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        found = self.close(crops, maps=True).maps
        assert found is not None
        return found

    def _nearest(self, samples: Sequence[Sample | Record]) -> np.ndarray:
        """Distances (N, K) of the defects alone to every training defect, at its nearest turn."""
        assert self._turned is not None
        maps = self._maps([diversity.aligned_crop(s.image, s.mask, size=CLOSE) for s in map(pixels, samples)])
        among = diversity.distances(maps, self._turned)
        return among.reshape(len(samples), len(self.support), -1).min(axis=2)

    # -- values --------------------------------------------------------------------------------------------------------

    def _kinds(self, types: np.ndarray) -> list[str]:
        real = {s.defect_type for s in self.real}
        return [*(kind for kind in dict.fromkeys(types.tolist()) if kind in real), ALL]

    def _region(self, made: Seen, samples: Sequence[Sample | Record], region: str, method: str) -> list[Value]:
        truth, seen = self.truth[region], self.seen.get(region)
        values = []
        for kind in self._kinds(made.types):
            x, y = truth.features.pooled[truth.rows(kind)], made.features.pooled[made.rows(kind)]

            line = self._namer(kind, region, method, (len(x), len(y)))
            few = "" if min(len(x), len(y)) > 1 else "fewer than two real or generated images"
            if "kid" in self.metrics:
                values.append(line("KID", None, reason=few) if few else self._kid(line, x, y))
            if "fid" in self.metrics:
                values.append(line("FID", None, reason=few) if few else self._fid(line, x, y))
            if "prdc" in self.metrics:
                values += self._manifold(line, x, y)
            if "is" in self.metrics:
                values.append(self._inception(line, made, kind))
            if "ic-lpips" in self.metrics:
                values += self._diversity(line, made, seen, kind)
        if "clip" in self.metrics:
            values += self._words(samples, region, method)
        return values

    def _namer(self, kind: str, region: str, method: str, counts: tuple[int, int]) -> Callable[..., Value]:
        """A function that makes this row's values: line(name, value, spread, reason, **settings)."""

        def line(
            name: str, value: float | None, spread: float | None = None, reason: str = "", **settings: Any
        ) -> Value:
            key = f"{name}/{self.extractor.name}/{region}"
            return Value(key, value, kind, method, self.seed, *counts, spread, settings, reason)

        return line

    def _kid(self, line: Callable[..., Value], x: np.ndarray, y: np.ndarray) -> Value:
        size = max(2, min(len(x), len(y)) // 2)
        _, spread = fidelity.kid_spread(x, y, size=size, seed=self.seed)
        return line("KID", fidelity.kid(x, y), spread, subsets=100, size=size)

    @staticmethod
    def _fid(line: Callable[..., Value], x: np.ndarray, y: np.ndarray) -> Value:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = fidelity.fid(x, y)
        return line("FID", value, reason=str(caught[0].message) if caught else "")

    @staticmethod
    def _manifold(line: Callable[..., Value], x: np.ndarray, y: np.ndarray) -> list[Value]:
        if min(len(x), len(y)) < 6:
            reason = "fewer than six real or generated images"
            return [line(name, None, reason=reason) for name in ("precision", "recall", "density", "coverage")]
        return [line(name, value, neighbours=5) for name, value in fidelity.manifold(x, y).items()]

    @staticmethod
    def _inception(line: Callable[..., Value], made: Seen, kind: str) -> Value:
        if made.features.logits is None:
            return line("IS", None, reason="the extractor is no classifier")
        logits = made.features.logits[made.rows(kind)]
        splits = 1 if len(logits) < 5000 else 10
        return line("IS", fidelity.inception_score(fidelity.softmax(logits), splits), splits=splits)

    @staticmethod
    def _diversity(line: Callable[..., Value], made: Seen, seen: Seen | None, kind: str) -> list[Value]:
        rows = made.map_rows(kind)
        few = "" if len(rows) > 1 else "fewer than two generated images"
        spread = diversity.mean_pairwise(diversity.distances(rows)) if not few else None
        values = [line("pairwise-FD", spread, reason=few, cap=CAP)]
        centres = seen.map_rows(kind) if seen is not None else rows[:0]
        if few or not len(centres):
            return [*values, line("IC-FD", None, reason=few or "no real training defect to cluster around")]
        found = diversity.cluster_diversity(rows, centres, CAP)
        reason = "" if found.value is not None else "no cluster has two members"
        settings = {"cap": CAP, "centres": len(centres), "left_out": found.left_out}
        return [
            *values,
            line("IC-FD", found.value, reason=reason, **settings),
            line("IC-FD@empty=0", found.empty_as_zero, **settings),
        ]

    def _words(self, samples: Sequence[Sample | Record], region: str, method: str) -> list[Value]:
        """CLIP score, and how often an image's own caption beats one caption of every other type."""
        key, n = f"{self.extractor.name}/{region}", len(samples)
        names = f"CLIP_score/{key}", f"caption_retrieval/{key}"
        told = [i for i, sample in enumerate(samples) if sample.caption]
        reason = "the extractor reads no words" if self.extractor.joint is None else "no image has a caption"
        if self.extractor.joint is None or not told:
            return [Value(name, None, ALL, method, self.seed, 0, n, reason=reason) for name in names]
        words = list(dict.fromkeys(samples[i].caption for i in told))
        cosine = self.extractor.agreement([cut(samples[i], region) for i in told], words)
        assert cosine is not None
        place = {word: number for number, word in enumerate(words)}
        captions: dict[str, list[str]] = {}
        for i in told:
            captions.setdefault(samples[i].defect_type, []).append(samples[i].caption)
        own, wins = [], []
        for row, i in enumerate(told):
            sample = samples[i]
            own.append(float(cosine[row, place[sample.caption]]))
            rivals = [texts[row % len(texts)] for kind, texts in captions.items() if kind != sample.defect_type]
            wins.append(all(own[-1] > cosine[row, place[text]] for text in rivals))
        types = np.array([samples[i].defect_type for i in told])
        values = []
        for kind in [*captions, ALL]:
            chosen = np.ones(len(told), bool) if kind == ALL else types == kind
            score, share = 100 * float(np.mean(np.array(own)[chosen])), float(np.mean(np.array(wins)[chosen]))
            alone = len(captions) < 2
            values += [
                Value(names[0], score, kind, method, self.seed, 0, int(chosen.sum())),
                Value(
                    *(names[1], None if alone else share, kind, method, self.seed, 0, int(chosen.sum())),
                    settings={"captions_per_image": len(captions), "chance": 1 / len(captions)},
                    reason="one defect type only: there is no other caption to beat" if alone else "",
                ),
            ]
        return values

    def _copies(self, made: Sequence[Sample | Record], method: str) -> list[Value]:
        key = f"{self.close.name}/defect"
        names = f"nearest_ratio/{key}", f"near_copies/{key}"
        if self._turned is None or self._held_out is None or not made:
            reason = "no real training defect, held-out defect or generated image"
            return [Value(name, None, ALL, method, self.seed, reason=reason) for name in names]
        types = np.array([s.defect_type for s in made])
        kinds = self._kinds(types)
        wanted = {k: np.flatnonzero(types == k)[spaced(int((types == k).sum()), NEAR)] for k in kinds if k != ALL}
        wanted[ALL] = spaced(len(made), NEAR)
        rows = np.unique(np.concatenate(list(wanted.values())))
        nearest = self._nearest([made[i] for i in rows])
        learnt, real = (np.array([s.defect_type for s in side]) for side in (self.support, self.real))
        values = []
        for kind in kinds:
            columns = np.arange(len(learnt)) if kind == ALL else np.flatnonzero(learnt == kind)
            held = np.arange(len(real)) if kind == ALL else np.flatnonzero(real == kind)
            chosen = np.flatnonzero(np.isin(rows, wanted[kind]))
            counts = (kind, method, self.seed, len(held), len(chosen))
            if not len(columns) or not len(held):
                values += [Value(name, None, *counts, reason="no training defect of this type") for name in names]
                continue
            found = diversity.memorisation(nearest[np.ix_(chosen, columns)], self._held_out[np.ix_(held, columns)])
            settings = {"turns": self.turns, "limit": found.limit}
            values += [
                Value(names[0], found.ratio if np.isfinite(found.ratio) else None, *counts, settings=settings),
                Value(names[1], found.near_copies, *counts, settings=settings),
            ]
        return values
