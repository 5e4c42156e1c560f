"""The nearest-neighbour field: every patch that meets the mask is told which exemplar patch it is an analogy of.

Texture optimisation from coarse to fine (Kwatra et al. 2005; Wexler, Shechtman and Irani 2007): match, vote, repeat.

    match   PatchMatch (Barnes et al. 2009): neighbours' answers are tried, then random places, closer and closer;
            all pixels at once, the neighbours 4, 2 and 1 pixels away (jump flooding). Small levels are matched exactly.
    cost    |patch - patch|^2 on principal components + |guide - guide|^2 ("texture by numbers", Hertzmann et al. 2001)
            + a charge for exemplar patches in use more often than others (Kaspar et al. 2015)
            - a rebate for continuing a neighbour's piece of exemplar (coherence, Ashikhmin 2001).
    vote    a pixel is the weighted mean of what the patches over it say; patches that fit and that reach known
            pixels weigh more. Inside one piece of exemplar all say the same, so that its grain is kept.

Patches that reach over the mask's border hold known pixels: the transition to the photograph is matched, not feathered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

RADIUS = 2  # of a patch: 5 x 5 pixels
COMPONENTS = 12  # principal components of patches that are compared
EXACT = 3_000_000  # pairs of patches that are compared one by one; above, PatchMatch
BESIDE = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
STEPS = (4, 2, 1)  # how far away the neighbours are whose answers are tried
EASED = 0.7  # guides weigh less from level to level: what they ask for is laid out by then
BATCH = 1 << 15  # pixels compared at once, which bounds the memory


@dataclass(frozen=True)
class Side:
    """One side of the analogy: `values` (h, w, C) and `guides` (h, w, G) float32, and `mask` (h, w) bool.

    The mask of the target is what is to be painted, that of the source is where an exemplar patch may be centred.
    """

    values: np.ndarray
    guides: np.ndarray
    mask: np.ndarray

    def half(self, any_: bool) -> Side:
        """At half the size (sides must be even); a pixel is in the mask when any (or most) of its four are."""
        size = self.mask.shape[1] // 2, self.mask.shape[0] // 2
        share = cv2.resize(self.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        values, guides = (
            cv2.resize(part, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
            for part in (self.values, self.guides)
        )
        return Side(values, guides, share > (0 if any_ else 0.5))


@dataclass(frozen=True)
class Weights:
    """How much the parts of the cost count; patches and guides are in units of the exemplars' own contrast."""

    occurrence: float = 0.15
    coherence: float = 0.5
    layout: float = 1.0  # how much more guides count than pixels while the first values are laid out


@dataclass
class Field:
    """Where the patch of each active pixel is taken from: `rows`, `columns` (N,) in the source, and what it costs."""

    y: np.ndarray
    x: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    cost: np.ndarray


def synthesise(
    target: Side, source: Side, levels: int, rng: np.random.Generator, weights: Weights = Weights()
) -> tuple[np.ndarray, Field]:
    """Paint the target's mask with the source's patches: its values (h, w, C) float32 and the last field.

    Sides must be multiples of 2**levels; the source must reach RADIUS * 2**levels pixels beyond its mask.
    """
    pyramid = [(target, source)]
    for _ in range(levels):
        target, source = target.half(any_=True), source.half(any_=False)
        if not source.mask.any():
            break
        pyramid.append((target, source))
    values, field = pyramid[-1][0].values, None
    for level in range(len(pyramid) - 1, -1, -1):
        target, source = pyramid[level]
        eased = np.float32(EASED ** (len(pyramid) - 1 - level))
        target, source = (replace(side, guides=side.guides * eased) for side in (target, source))
        matcher = Matcher(target, source, rng, weights)
        if field is None:
            values = matcher.peeled(weights.layout)
            field = matcher.match(None, values)
        else:
            values, field = target.values, matcher.finer(field)
        values = matcher.vote(field, values)
        for _ in range(4 if level else 2):
            field = matcher.match(field, values)
            values = matcher.vote(field, values)
    assert field is not None
    return matcher.vote(field, values, sharp=4), field


class Matcher:
    """Match and vote at one level of the pyramid."""

    def __init__(self, target: Side, source: Side, rng: np.random.Generator, weights: Weights) -> None:
        self.target, self.source, self.rng, self.weights = target, source, rng, weights
        side = 2 * RADIUS + 1
        near = cv2.dilate(target.mask.astype(np.uint8), np.ones((side, side), np.uint8))  # patches that meet the mask
        self.y, self.x = np.nonzero(near)
        self.number = np.full(near.shape, -1, dtype=np.int64)
        self.number[self.y, self.x] = np.arange(len(self.y))
        self.at = np.flatnonzero(source.mask)  # centres that may be taken
        self.width = source.mask.shape[1]
        patches = _patches(source.values, *np.divmod(self.at, self.width))
        self.components = _principal(patches)
        self.described = np.zeros((source.mask.size, self.components.shape[1] + source.guides.shape[2]), np.float32)
        guides = source.guides.reshape(source.mask.size, -1)[self.at]
        self.described[self.at] = np.concatenate([patches @ self.components, guides], axis=1)
        self.guides = target.guides[self.y, self.x]
        # A known pixel is worth more than a guess: patches deep inside follow those that reach the surroundings.
        depth = cv2.distanceTransform(np.pad(target.mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        self.trust = (1.15 ** -np.minimum(depth, 30))[self.y, self.x].astype(np.float32)

    def peeled(self, layout: float) -> np.ndarray:
        """First values, from the border inwards, one layer at a time: what is known of a patch, and `layout` times the
        guides, choose the source pixel. So what crosses the border goes on in phase.
        """
        target, channels = self.target, self.target.values.shape[2]
        values, known = target.values.copy(), ~target.mask
        lean = np.float32(layout**0.5)
        known_guides = lean * self.source.guides.reshape(self.source.mask.size, -1)[self.at]
        whole = _patches(self.source.values, *np.divmod(self.at, self.width))
        flat = self.source.values.reshape(-1, channels)
        while not known.all():
            layer = cv2.dilate(known.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~known
            y, x = np.nonzero(layer if layer.any() else ~known)
            share = _patches(known[..., None].astype(np.float32), y, x) > 0
            weight = np.tile(share, channels) / np.maximum(share.mean(axis=1, keepdims=True), 0.2)
            best = np.empty(len(y), np.int64)
            size = max(1, EXACT // len(self.at))
            for start in range(0, len(y), size):
                part = slice(start, start + size)
                patch, w, guide = (
                    _patches(values, y[part], x[part]),
                    weight[part],
                    lean * target.guides[y[part], x[part]],
                )
                table = w @ (whole**2).T - 2 * ((w * patch) @ whole.T)
                table += (known_guides**2).sum(axis=1) - 2 * (guide @ known_guides.T)
                best[part] = self.at[table.argmin(axis=1)]
            values[y, x] = flat[best]
            known[y, x] = True
        return values

    def finer(self, coarse: Field) -> Field:
        """The field of the level below, at twice the size."""
        height, width = self.target.mask.shape
        rows, columns = (np.full((height // 2, width // 2), -1, np.int64) for _ in range(2))
        rows[coarse.y, coarse.x], columns[coarse.y, coarse.x] = coarse.rows, coarse.columns
        row = 2 * rows[self.y // 2, self.x // 2] + self.y % 2
        column = 2 * columns[self.y // 2, self.x // 2] + self.x % 2
        lost = ~self._allowed(row, column)
        chance = self.at[self.rng.integers(0, len(self.at), len(row))]
        row[lost], column[lost] = np.divmod(chance[lost], self.width)
        return Field(self.y, self.x, row, column, np.zeros(len(row), np.float32))

    def match(self, field: Field | None, values: np.ndarray) -> Field:
        """A better field for the present values; without one to begin from, the best there is."""
        wanted = np.concatenate([_patches(values, self.y, self.x) @ self.components, self.guides], axis=1)
        worn = self._worn(field)
        if field is None or len(wanted) * len(self.at) <= EXACT:
            return self._exact(wanted, worn)
        best = field.rows * self.width + field.columns
        follow = self._neighbours(field, 1)
        cost = self._cost(wanted, best, worn, follow)

        def attempt(candidate: np.ndarray, allowed: np.ndarray) -> None:
            at = np.flatnonzero(allowed & (candidate != best))
            new = self._cost(wanted[at], candidate[at], worn, follow[:, at])
            better = new < cost[at]
            best[at[better]], cost[at[better]] = candidate[at[better]], new[better]

        for step in STEPS:
            rows, columns = np.divmod(best, self.width)
            now = Field(self.y, self.x, rows, columns, cost)
            for candidate in self._neighbours(now, step):
                attempt(candidate, candidate >= 0)
        reach = max(self.source.mask.shape) / 2
        while reach >= 1:
            rows, columns = np.divmod(best, self.width)
            rows = rows + np.rint(self.rng.uniform(-reach, reach, len(rows))).astype(np.int64)
            columns = columns + np.rint(self.rng.uniform(-reach, reach, len(rows))).astype(np.int64)
            attempt(rows * self.width + columns, self._allowed(rows, columns))
            reach /= 3
        rows, columns = np.divmod(best, self.width)
        for down, right in BESIDE:
            attempt((rows + down) * self.width + columns + right, self._allowed(rows + down, columns + right))
        rows, columns = np.divmod(best, self.width)
        return Field(self.y, self.x, rows, columns, cost)

    def vote(self, field: Field, values: np.ndarray, sharp: int = 2) -> np.ndarray:
        """The values (h, w, C) with the mask's pixels as the patches over them say; the `sharp`er, the less is heard
        of patches centred elsewhere, and the more of the exemplars' own grain is kept.
        """
        ys, xs = np.nonzero(self.target.mask)
        scale = max(float(np.quantile(field.cost, 0.25)), 1e-4)
        weight = np.exp(-np.clip(field.cost, 0, None) / scale) * self.trust + 1e-6
        total = np.zeros((len(ys), values.shape[2]), np.float32)
        mass = np.zeros((len(ys), 1), np.float32)
        height, width = self.target.mask.shape
        for down in range(-RADIUS, RADIUS + 1):
            for right in range(-RADIUS, RADIUS + 1):
                y, x = ys - down, xs - right
                inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
                patch = self.number[np.where(inside, y, 0), np.where(inside, x, 0)]
                said = self.source.values[field.rows[patch] + down, field.columns[patch] + right]
                share = (weight[patch] * (inside & (patch >= 0)) / (1 + down * down + right * right) ** sharp)[:, None]
                total += share * said
                mass += share
        painted = values.copy()
        painted[ys, xs] = total / mass
        return painted

    def _exact(self, wanted: np.ndarray, worn: np.ndarray) -> Field:
        """The best source patch of each pixel, all compared."""
        known = self.described[self.at]
        charge = (known**2).sum(axis=1) + worn.reshape(-1)[self.at]
        best = np.empty(len(wanted), np.int64)
        cost = np.empty(len(wanted), np.float32)
        size = max(1, EXACT // len(known))
        for start in range(0, len(wanted), size):
            part = wanted[start : start + size]
            table = charge[None] - 2 * (part @ known.T)
            found = table.argmin(axis=1)
            best[start : start + size] = self.at[found]
            cost[start : start + size] = table[np.arange(len(part)), found] + (part**2).sum(axis=1)
        rows, columns = np.divmod(best, self.width)
        return Field(self.y, self.x, rows, columns, np.maximum(cost, 0))

    def _cost(self, wanted: np.ndarray, candidate: np.ndarray, worn: np.ndarray, follow: np.ndarray) -> np.ndarray:
        cost = np.empty(len(candidate), np.float32)
        for start in range(0, len(candidate), BATCH):
            part = slice(start, start + BATCH)
            gap = wanted[part] - self.described[candidate[part]]
            cost[part] = np.einsum("nd,nd->n", gap, gap)
        cost += worn.reshape(-1)[candidate]
        return cost - self.weights.coherence / 4 * (follow == candidate).sum(axis=0)

    def _neighbours(self, field: Field, step: int) -> np.ndarray:
        """What the four neighbours at a distance say about each pixel, (4, N) flat source places; -1 where nothing."""
        height, width = self.target.mask.shape
        said = np.full((4, len(self.y)), -1, np.int64)
        for index, (down, right) in enumerate(((-step, 0), (step, 0), (0, -step), (0, step))):
            y, x = self.y + down, self.x + right
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            other = self.number[np.where(inside, y, 0), np.where(inside, x, 0)]
            rows, columns = field.rows[other] - down, field.columns[other] - right
            good = inside & (other >= 0) & self._allowed(rows, columns)
            said[index, good] = rows[good] * self.width + columns[good]
        return said

    def _allowed(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        height, width = self.source.mask.shape
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        return inside & self.source.mask[np.where(inside, rows, 0), np.where(inside, columns, 0)]

    def _worn(self, field: Field | None) -> np.ndarray:
        """The charge (h, w) of each source patch for being in use more often than even use would have it."""
        used: np.ndarray = np.zeros(self.source.mask.shape, np.float32)
        if field is None:
            return used
        np.add.at(used, (field.rows, field.columns), 1)
        used = cv2.blur(used, (2 * RADIUS + 1,) * 2, borderType=cv2.BORDER_CONSTANT)
        even = max(1.0, len(self.y) / len(self.at))
        return self.weights.occurrence * np.clip(used / even - 1, 0, 4)


def _patches(values: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The patches around pixels, (N, side * side * C) float32, weighted so that |a - b|^2 is a mean over the patch."""
    side = 2 * RADIUS + 1
    padded = np.pad(values, ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)), mode="symmetric")
    views = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    return np.ascontiguousarray(views[y, x]).reshape(len(y), -1) / np.float32(side * np.sqrt(values.shape[2]))


def _principal(patches: np.ndarray) -> np.ndarray:
    """Projection (D, at most COMPONENTS) on the directions in which patches differ most; about the origin."""
    sample = patches[:: max(1, len(patches) // 4000)]
    _, vectors = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    return np.ascontiguousarray(vectors[:, ::-1][:, :COMPONENTS].astype(np.float32))
