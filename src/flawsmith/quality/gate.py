"""The gate: named checks, each a score and a limit, and what is refused by them.

Where there are real references of the type, scores are relative to theirs; the limits were fitted on the labelled
images of tests/quality/labelled.jsonl, see docs/quality.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from flawsmith import captions, compose
from flawsmith.errors import unknown
from flawsmith.quality import appearance, borders, labels, places, repeats, visibility
from flawsmith.quality.known import Known, learn
from flawsmith.quality.looks import Look
from flawsmith.records import Request, Sample

Level = Literal["strict", "normal", "off"]
LEVELS = ("strict", "normal")
SPARE = 1.25  # a mask's side over the limit of `extent` from which on nobody waits for what is painted in it
Encoder = Callable[[Sequence[np.ndarray]], np.ndarray]  # windows (h, w, 3) uint8 -> (N, D)
Reader = Callable[[Sequence[np.ndarray], Sequence[str]], np.ndarray]  # windows, K texts -> cosines (N, K)


@dataclass(frozen=True)
class Check:
    """One question: what a score means, and the limits of both levels; `below`: a lower score is worse."""

    says: str
    normal: float
    strict: float
    below: bool = False

    def refuses(self, score: float, level: Level) -> bool:
        return self.beyond(score, self.limit(level))

    def beyond(self, score: float, limit: float) -> bool:
        return score < limit if self.below else score > limit

    def limit(self, level: Level) -> float:
        return self.strict if level == "strict" else self.normal


# in the order in which a refusal is named: the first that refuses is the reason
CHECKS: dict[str, Check] = {
    "visibility": Check("nobody would see it", 8.5, 14.0, below=True),
    "label": Check("the label does not say what changed", 0.8, 0.85, below=True),
    "place": Check("it lies beside the product", 0.25, 0.1),
    "home": Check("no real defect of its type lies there", 0.12, 0.09),
    "ghost": Check("a veil rather than a defect", 0.39, 0.36),
    "extent": Check("larger than can be painted without a trace", 0.32, 0.28),
    "seam": Check("the defect is cut off at its border", 2.05, 1.6),
    "structure": Check("lines of the surface end at its border", 1.6, 1.4),
    "realism": Check("no real defect looks like it", 2.1, 1.8),
    "features": Check("no real defect looks like it to the vision model", 0.38, 0.34),
    "words": Check("painting brought it no nearer to its words", 0.0, 0.01, below=True),
    "memory": Check("a copy of a real defect", 0.97, 0.95),
    "duplicate": Check("like another image of this run", 0.5, 0.5),
}


@dataclass(frozen=True)
class Refusal:
    """Why an image was refused: the check, its score, the limit that it broke, and words."""

    check: str
    score: float
    limit: float
    reason: str


@dataclass(frozen=True)
class Verdict:
    """A judged sample (its label perhaps shrunk), scores, and a refusal or None: with None those of all checks."""

    sample: Sample
    scores: dict[str, float]
    refusal: Refusal | None = None


@dataclass
class Gate:
    """Judges samples at a level. `known`: (category, defect type) -> what its real defects tell.

    `encoder`: windows -> (N, D) features of a frozen vision model, for the check "features". `unasked`: checks that
    refuse nothing, since what they ask was settled by the user; see `settled`. `limits`: of one's own in place of the
    level's, None for a check that refuses nothing; `profile`: the name of the file that they come from. `reader`: a
    model of images and texts, for the check "words".
    """

    level: Level
    known: Mapping[tuple[str, str], Known] = field(default_factory=dict)
    encoder: Encoder | None = None
    unasked: frozenset[str] = frozenset()
    limits: Mapping[str, float | None] = field(default_factory=dict)
    profile: str = ""
    reader: Reader | None = None
    _features: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise unknown("Gate", str(self.level), (*LEVELS, "off"))

    @classmethod
    def of(
        cls,
        level: Level,
        references: Sequence[Sample] = (),
        encoder: Encoder | None = None,
        unasked: frozenset[str] = frozenset(),
        limits: Mapping[str, float | None] | None = None,
        profile: str = "",
        reader: Reader | None = None,
    ) -> Gate:
        """A gate that learns from real defects with masks, of any products and types."""
        kinds: dict[str, dict[str, list[Sample]]] = {}
        for one in references:
            if one.mask.any():
                kinds.setdefault(one.category, {}).setdefault(one.defect_type, []).append(one)
        known = {(c, kind): told for c, found in kinds.items() for kind, told in learn(found).items()}
        return cls(level, known, encoder, unasked, limits or {}, profile, reader)

    def bounds(self, name: str) -> float | None:
        """The limit of a check; None for one that refuses nothing."""
        return None if name in self.unasked else self.limits.get(name, CHECKS[name].limit(self.level))

    def too_large(self, request: Request) -> Refusal | None:
        """Why a request's image need not be painted, or None.

        What visibly changes may be smaller than the mask, so that only a mask well beyond the limit is refused.
        """
        mask = request.mask
        limit, side = self.bounds("extent"), float(np.sqrt(np.count_nonzero(mask) / mask.size))
        if limit is None or side <= SPARE * limit or self.keeps_its_place(request):
            return None
        return self._refusal("extent", side)

    def keeps_its_place(self, request: Request) -> bool:
        """Whether a real defect is carried whole, of a product that lies alike in all photographs.

        How large that may be is not asked: nothing is repeated or stretched, and what lay under it lies there, too.
        """
        return request.whole and self.lies_alike(request.normal)

    def lies_alike(self, normal: Sample) -> bool:
        """Whether its product lies in a photograph as in those of any type's real defects; of one type all may differ,
        as where the part itself is misplaced.
        """
        kinds = [told for (category, _), told in self.known.items() if category == normal.category]
        return any(told.homes.alike(normal.image) for told in kinds)

    def told(self, category: str, defect_type: str) -> Known:
        """What the real defects of a type tell; nothing of a type that none was shown of."""
        return self.known.get((category, defect_type), Known())

    def judge(
        self,
        sample: Sample,
        request: Request,
        product: np.ndarray | None = None,
        copies: bool = False,
    ) -> Verdict:
        """Score a sample that was painted for a request; `sample.mask` is not empty.

        product (H, W) bool: where a defect may sit, None where that is the user's word. copies: whether the method lays
        real pixels, so that a copy is no fault.
        """
        normal = request.normal.image
        tolerance = sample.info.get("scores", {}).get("tolerance")
        sample, agreement = _mended(sample, normal, tolerance)
        scores = {"label": agreement}
        if not sample.mask.any():
            return self._verdict(sample, scores | {"label": 0.0})
        look = Look.at(sample.image, sample.mask, normal, product)
        told = self.known.get((sample.category, sample.defect_type)) or self.told(
            request.normal.category, sample.defect_type
        )
        away = None if product is None or not len(told.appearances) else told.homes.away(normal, sample.mask)
        scores |= {} if away is None else {"home": away}
        scores |= {"visibility": visibility.seen(look), "place": places.beside(look), "extent": look.share}
        free = {"extent"} if self.keeps_its_place(request) else set()
        soon = self._verdict(sample, scores, free)
        if soon.refusal is not None:  # what takes longer is not asked of it
            return soon
        own, before = appearance.appearance(look), appearance.appearance(look.before)
        surface, defect = borders.broken_lines(look)
        veil = appearance.veil(own, before, told.appearances, told.spread)
        scores |= {
            "ghost": veil - borders.edges_made(look),
            "seam": (defect + 0.5) / (told.defect + 0.5),
            "structure": (surface + 0.5) / (told.surface + 0.5),
        }
        if self.reader is not None and sample.caption.strip():
            scores["words"] = self._said(sample, normal)
        if len(told.appearances):
            scores["realism"] = appearance.nearest(own, told.appearances, told.spread)
            if self.encoder is not None:
                scores["features"] = self._unlike(sample, told)
            if not copies:
                scores["memory"] = repeats.copied(sample, request, told.poses)
        return self._verdict(sample, scores, free)

    def _said(self, sample: Sample, normal: np.ndarray) -> float:
        """How much painting brought the window nearer to its caption than to the product's bare name, in cosines.

        Of the window after and before, so that what the model says of the product itself cancels out.
        """
        assert self.reader is not None
        before = replace(sample, image=normal)
        texts = sample.caption.strip(), captions.sentence(sample.category, "")
        after, plain = self.reader([_window(sample), _window(before)], texts)
        return float((after[0] - after[1]) - (plain[0] - plain[1]))

    def _verdict(self, sample: Sample, scores: dict[str, float], free: Collection[str] = ()) -> Verdict:
        """free: checks of which scores are kept, and nothing is refused."""
        ordered = {name: round(float(scores[name]), 4) for name in CHECKS if name in scores}
        for name, score in ordered.items():
            refusal = None if name in free else self._refusal(name, score)
            if refusal is not None:
                return Verdict(sample, ordered, refusal)
        return Verdict(sample, ordered)

    def _refusal(self, name: str, score: float) -> Refusal | None:
        check, limit = CHECKS[name], self.bounds(name)
        if limit is None or not check.beyond(score, limit):
            return None
        sign = "<" if check.below else ">"
        return Refusal(name, score, limit, f"{name}: {check.says} ({score:.2f} {sign} {limit:g})")

    def _unlike(self, sample: Sample, told: Known) -> float:
        """Mean cosine distance of a window's features to those of the two nearest real defects, 0 to 2."""
        assert self.encoder is not None
        if id(told) not in self._features:
            self._features[id(told)] = _unit(self.encoder([_window(one) for one in told.references]))
        own = _unit(self.encoder([_window(sample)]))[0]
        return float(np.sort(1 - self._features[id(told)] @ own)[:2].mean())


# of a method that imitates nothing (perlin, cutpaste, nsa: signals to train on) only the others are asked
LIKENESS = frozenset({"home", "ghost", "extent", "seam", "structure", "realism", "features", "words", "memory"})


def settled(placed: bool, sized: bool, graded: bool, imitates: bool = True) -> frozenset[str]:
    """The checks that a user's dials answer: where a defect lies, how large it is, how strong it is; and those that
    make no sense of a method that does not imitate real defects.
    """
    told = set() if imitates else {*LIKENESS, "words"}
    told |= {"home"} if placed else set()
    told |= {"extent"} if sized else set()
    return frozenset(told | ({"visibility", "ghost"} if graded else set()))


def _window(sample: Sample) -> np.ndarray:
    return np.ascontiguousarray(sample.image[compose.square_window(sample.mask, 64, 1.5).slices])


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))


def _mended(sample: Sample, normal: np.ndarray, tolerance: float | None) -> tuple[Sample, float]:
    """The sample with its label shrunk to what changed, the rest put back; and how well the label agrees."""
    view = compose.window(sample.mask, context=1.6).slices
    before, after = np.ascontiguousarray(normal[view]), np.ascontiguousarray(sample.image[view])
    level = compose.change_tolerance(before) if tolerance is None else float(tolerance)
    label = sample.mask[view]
    changed = compose.changed_region(before, after, level)
    smaller = labels.shrunk(changed, label)
    if not np.array_equal(smaller, label):
        image, mask = sample.image.copy(), sample.mask.copy()
        image[view] = after = np.where(smaller[..., None], after, before)
        mask[view] = label = smaller
        changed = compose.changed_region(before, after, level)
        sample = replace(sample, image=image, mask=mask)
    return sample, labels.agreement(changed, label)
