"""Analogy: the texture of one or several real defects, synthesised in a new mask on a good photograph.

Image analogies with the mask as the drawing: texture by numbers (Hertzmann et al., SIGGRAPH 2001), optimised from
coarse to fine over a nearest-neighbour field (`field`), guided by where a pixel lies in its defect (`guidance`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import cv2
import numpy as np
from pydantic import Field

from flawsmith import compose
from flawsmith.images import is_artwork
from flawsmith.masks import enlargement
from flawsmith.methods import base
from flawsmith.methods.analogy import exemplars
from flawsmith.methods.analogy.exemplars import RING, Exemplar, grown, ring
from flawsmith.methods.analogy.field import RADIUS, Side, Weights, synthesise
from flawsmith.methods.analogy.guidance import gain, guides, shading, signed_distance, surroundings
from flawsmith.methods.analogy.strips import Strip, is_thin
from flawsmith.methods.classic.copypaste import CopyPaste, CopyPasteOptions
from flawsmith.records import Request, Sample

NEAR = 64  # pixels around an exemplar that are looked at
SHAPE = 2.0  # what a blob costs that is to lend a line its texture, or the other way round, per factor e
OWN = 0.6  # what makes the exemplar another one than the shape is from, where another fits


class AnalogyOptions(base.FollowingOptions):
    """Dials of `analogy`."""

    growth: float = base.growth_field(1.0)

    exemplars: int = Field(default=1, ge=1, le=8, description="real defects whose texture one image mixes, at most")
    match: float = Field(
        default=1.0, ge=0, le=1, description="how far light and contrast follow the surroundings; 0 = as photographed"
    )
    light: float = Field(default=1.0, ge=0, le=5, description="how much turning an exemplar's light costs; 0 = free")
    coherence: float = Field(default=0.5, ge=0, le=2, description="rebate for continuing a piece of exemplar")
    occurrence: float = Field(default=0.15, ge=0, le=2, description="charge for using an exemplar patch again")
    variety: float = Field(default=0.12, ge=0, le=2, description="how far an exemplar's layout is displaced at random")
    grain: float = Field(default=1.0, ge=0, le=1, description="share of missing grain that is put back")


class Analogy(base.Synthesizer):
    """Paint new shapes with the texture of real defects; refuses without a reference."""

    name = "analogy"
    Options: ClassVar[type[base.Options]] = AnalogyOptions
    references = "many"
    shown: ClassVar[int] = 4  # real defects of an image: one lends its shape, another its texture

    @property
    def reference_count(self) -> int:
        return self.shown

    def default_mask(self, defect_type: str) -> str:
        return "varied"

    def paint(
        self,
        normal: np.ndarray,
        mask: np.ndarray,
        request: Request,
        area: compose.Window,
        rng: np.random.Generator,
        options: Any,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if request.whole and request.warp is not None:
            carried, facts = CopyPaste().paint(normal, mask, request, area, rng, CopyPasteOptions())
            return carried, {"carried": True, **facts}
        chosen = self._choose(mask, request, rng, options)
        scales = [_larger(one, request) for one in chosen]
        return analogy(normal, mask, chosen, rng, options, scales)

    def _choose(self, mask: np.ndarray, request: Request, rng: np.random.Generator, options: Any) -> list[Sample]:
        """The exemplars: those about as large and slender as the mask first, others before the one whose shape is used.

        Sizes are those on this photograph: one of another resolution enlarges an exemplar.
        """
        assert request.reference is not None  # it needs one
        pool = [_near(request.reference), *(_near(other) for other in request.others if other.mask.any())]
        own = np.log([exemplars.thickness(mask), mask.sum()])
        apart = []
        for number, one in enumerate(pool):
            larger = _larger(one, request)
            more = np.log([larger * exemplars.thickness(one.mask), larger**2 * one.mask.sum()]) - own
            cost = np.where(more < 0, -2 * more, more)  # a smaller exemplar would have to be repeated
            rounder = abs(float(more[1] - 2 * more[0]))  # of the areas in squares of the widths
            apart.append(float(cost @ (1.0, 0.4)) + SHAPE * rounder + OWN * (number == 0) - 0.6 * rng.gumbel())
        return [pool[index] for index in np.argsort(apart, kind="stable")[: options.exemplars]]


@dataclass(frozen=True)
class Lit:
    """An image (h, w, C) float32 freed of its light (`values`), with what surrounds its defect, and the masks."""

    values: np.ndarray
    around: np.ndarray
    mask: np.ndarray  # the defect
    seen: np.ndarray  # what may be used

    def target(self, options: Any, rng: np.random.Generator, along: np.ndarray | None = None) -> Side:
        displaced = rng.normal(0, 1, (4, 4, 2)).astype(np.float32)  # another layout of the exemplar's parts
        displaced = options.variety * cv2.resize(displaced, self.mask.shape[::-1], interpolation=cv2.INTER_CUBIC)
        return Side(self.values, guides(self.mask, self.around, options.light, along, displaced), self.mask)

    def source(self, options: Any, along: np.ndarray | None = None) -> Side:
        usable = self.seen & (signed_distance(self.mask) > -RING)
        return Side(self.values, guides(self.mask, self.around, options.light, along), usable)

    def unrolled(self, strip: Strip) -> Lit:
        return Lit(*(strip.take(part) for part in (self.values, self.around, self.mask, self.seen)))


def analogy(
    normal: np.ndarray,
    mask: np.ndarray,
    chosen: list[Sample],
    rng: np.random.Generator,
    options: Any,
    scales: Sequence[float],
) -> tuple[np.ndarray, dict[str, Any]]:
    """Paint the mask (h, w) bool of a window (h, w, 3) uint8 with the texture of real defects: (h, w, 3) uint8.

    `scales`: how much each is enlarged first. Also returns facts for the manifest.
    """
    artwork = is_artwork(normal) and all(is_artwork(one.image) for one in chosen)
    thin = is_thin(mask) and any(is_thin(one.mask) for one in chosen)
    if thin:
        kept = [index for index, one in enumerate(chosen) if is_thin(one.mask)]
        chosen, scales = [chosen[index] for index in kept], [scales[index] for index in kept]
    levels = 1 if thin else int(np.clip(np.log2(max(exemplars.thickness(mask) / 8, 1)), 0, 4))
    margin = RING + RADIUS * 2**levels
    poses = [(0.0, False)] * len(chosen)
    if not thin:
        poses = [exemplars.best_pose(normal, mask, one.image, one.mask, options.light, artwork) for one in chosen]
    cut = [
        exemplars.posed(one.image, one.mask, margin, scale, *pose)
        for one, scale, pose in zip(chosen, scales, poses, strict=True)
    ]
    place = exemplars.posed(normal, mask, margin)
    here, hole = place.image, place.mask
    target, level, divisor = _lit_target(place, artwork)
    rim = here[ring(hole) & place.seen]
    lit = [_lit_source(one, rim, level, artwork, options.match) for one in cut]
    gains = [light for _, light in lit]
    (target, *sources), scale = _in_contrasts([target, *(source for source, _ in lit)], level)
    weights = Weights(options.occurrence, options.coherence, _layout(sources))
    paint = _unrolled if thin else _flat
    painted = paint(target, sources, margin, levels, weights, rng, options)
    result = np.where(hole[..., None], painted * scale * divisor**options.match, here)
    result = _back(result, normal, place.corner)
    if artwork:
        result = np.where(result >= 128, 255, 0)
    else:
        result = result + options.grain * _missing_grain(normal, result, mask, cut, gains)
    facts = {
        "exemplars": len(chosen),
        "unrolled": thin,
        "gain": [[round(float(value), 3) for value in light] for light in gains],
        "turn": [[round(degrees, 1), mirrored] for degrees, mirrored in poses],
    }
    return np.clip(np.rint(result), 0, 255).astype(np.uint8), facts


def _lit_target(place: Exemplar, artwork: bool) -> tuple[Lit, np.ndarray, np.ndarray]:
    """The place freed of its light, its surroundings' level (3,), and the light (h, w, 3), a factor."""
    here, hole = place.image, place.mask
    rim = ring(hole) & place.seen
    level = np.maximum(np.median(here[rim], axis=0) if rim.any() else here.mean(axis=(0, 1)), 8.0).astype(np.float32)
    around = surroundings(here, place.seen & ~grown(hole, 1))
    divisor = np.ones_like(here) if artwork else shading(around, level) / level
    return Lit(here / divisor, around, hole, place.seen), level, divisor


def _lit_source(
    one: Exemplar, rim: np.ndarray, level: np.ndarray, artwork: bool, match: float
) -> tuple[Lit, np.ndarray]:
    """An exemplar brought to the exposure of the colours (n, 3) around the target, freed of its light; and the gain.

    match: the share of both, as exponents of factors, 0 to 1.
    """
    its_rim = ring(one.mask) & one.seen
    light = gain(rim, one.image[its_rim]) if not artwork and len(rim) and its_rim.any() else np.ones(3)
    light = light**match
    image = one.image * light.astype(np.float32)
    around = surroundings(image, one.seen & ~grown(one.mask, 1))
    values = image if artwork else image * (level / shading(around, level)) ** match
    return Lit(values, around, one.mask, one.seen), light


def _in_contrasts(lits: list[Lit], level: np.ndarray) -> tuple[list[Lit], float]:
    """The target and its sources in units of the sources' contrast, and that; grey images get one channel."""
    grey = all((lit.values[..., :1] == lit.values).all() for lit in lits)
    contrast = np.concatenate([lit.values[grown(lit.mask, 2)] for lit in lits[1:]]).std(axis=0).mean()
    scale = max(float(contrast), 0.02 * float(level.mean()), 1e-3)
    return [_scaled(lit, scale, 1 if grey else 3) for lit in lits], scale


def _layout(sources: list[Lit]) -> float:
    """How much the exemplar's layout decides: where a surface has not much of its own, nothing can be continued."""
    plain = np.concatenate([lit.values[ring(lit.mask) & lit.seen] for lit in sources]).std(axis=0).mean()
    return float(np.clip((1 / max(float(plain), 1e-3)) ** 4, 1, 200))


def _flat(
    target: Lit, sources: list[Lit], margin: int, levels: int, weights: Weights, rng: np.random.Generator, options: Any
) -> np.ndarray:
    """The hole painted with the sources' texture as it lies, (h, w, C) float32."""
    side = _padded(target.target(options, rng), 2**levels)
    painted, _ = synthesise(side, stacked([lit.source(options) for lit in sources], margin), levels, rng, weights)
    return painted[: target.mask.shape[0], : target.mask.shape[1]]


def _unrolled(
    target: Lit, sources: list[Lit], margin: int, levels: int, weights: Weights, rng: np.random.Generator, options: Any
) -> np.ndarray:
    """The hole painted along its line, (h, w, C) float32: thin defects are unrolled to strips first, the hole too."""
    strips = [Strip(lit.mask, bool(rng.random() < 0.5)) for lit in sources]
    goal = Strip(target.mask, like=float(np.mean([strip.half for strip in strips])))
    sides = [lit.unrolled(strip).source(options, strip.along) for lit, strip in zip(sources, strips, strict=True)]
    side = _padded(target.unrolled(goal).target(options, rng, goal.along), 2**levels)
    painted, _ = synthesise(side, stacked(sides, margin), levels, rng, weights)
    painted, reached = goal.give(painted, target.mask)
    return np.where((reached & target.mask)[..., None], painted, target.values)


def _larger(exemplar: Sample, request: Request) -> float:
    """The factor by which an exemplar, as `_near` returns it, is enlarged on the request's photograph."""
    return enlargement(request.mask.size / exemplar.info["whole"])


def _near(sample: Sample) -> Sample:
    """A defect and what is near it, so that a large image costs no more than a small one."""
    box = compose.mask_box(sample.mask)
    rows, columns = (
        slice(max(0, first - NEAR), last + NEAR) for first, last in ((box.top, box.bottom), (box.left, box.right))
    )
    info = {"whole": sample.mask.size, **sample.info}
    return replace(sample, image=sample.image[rows, columns], mask=sample.mask[rows, columns], info=info)


def _missing_grain(
    normal: np.ndarray, painted: np.ndarray, mask: np.ndarray, cut: list[Exemplar], gains: list[np.ndarray]
) -> np.ndarray:
    """The grain (h, w, 3) that the painted defect lacks: the photograph's own, from another place of the window.

    What the photograph has more of than the exemplars' photographs have, and what voting took from the exemplars.
    """
    own = compose.noise_level(normal, ~mask)
    bright = [float(light.mean()) for light in gains]
    images = [np.clip(one.image, 0, 255).astype(np.uint8) for one in cut]
    theirs, real = (
        float(np.mean([b * compose.noise_level(i, where) for b, i, where in zip(bright, images, places, strict=True)]))
        for places in ([~one.mask for one in cut], [one.mask for one in cut])
    )
    got = compose.noise_level(np.clip(painted, 0, 255).astype(np.uint8), mask)
    shared = min(1.0, real / max(theirs, 1e-3)) ** 2  # a smooth pit does not show the surface's grain
    wanted = max(0.0, own**2 - theirs**2) * shared + max(0.0, real**2 - got**2)
    missing = math.sqrt(min(wanted, own**2, max(0.0, max(own, real) ** 2 - got**2)))
    if missing <= 0:
        return np.zeros(normal.shape, np.float32)
    other = compose.displaced(compose.fine_texture(normal))
    limit = 2.5 * own  # cuts the share that is added, not the whole as `borrowed_grain` does
    return np.asarray(mask[..., None] * np.clip(other * (missing / own), -limit, limit))


def _scaled(lit: Lit, scale: float, channels: int) -> Lit:
    """In units of the exemplars' contrast; a grey image has one channel."""
    values, around = (np.ascontiguousarray(part[..., :channels] / scale) for part in (lit.values, lit.around))
    return Lit(values, around, lit.mask, lit.seen)


def _back(part: np.ndarray, normal: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
    """The window (h, w, 3) float32 with a part whose first pixel is at `corner`, clipped to it."""
    result = normal.astype(np.float32)
    left, top = corner
    rows, columns = (
        slice(max(0, first), max(0, first + length)) for first, length in ((top, part.shape[0]), (left, part.shape[1]))
    )
    there = result[rows, columns]
    there[:] = part[rows.start - top :, columns.start - left :][: there.shape[0], : there.shape[1]]
    return result


def _padded(side: Side, unit: int) -> Side:
    """To sides that divide by `unit`."""
    pad = tuple((0, -length % unit) for length in side.mask.shape)
    values, guide = (np.pad(part, (*pad, (0, 0)), mode="edge") for part in (side.values, side.guides))
    return Side(values, guide, np.pad(side.mask, pad))


def stacked(sides: list[Side], margin: int) -> Side:
    """Several exemplars as one source, below each other with margins, each on a place that divides by 16."""
    unit = 16
    before = margin + -margin % unit
    width = max(side.mask.shape[1] for side in sides)
    parts = []
    for side in sides:
        pads = tuple((before, before + -(length + 2 * before) % unit) for length in (side.mask.shape[0], width))
        short = width - side.mask.shape[1]
        pads = (pads[0], (pads[1][0], pads[1][1] + short))
        values, guide = (np.pad(part, (*pads, (0, 0)), mode="edge") for part in (side.values, side.guides))
        parts.append(Side(values, guide, np.pad(side.mask, pads)))
    return Side(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "guides", "mask")))
