"""Moving a real defect's mask to another photograph, to a place whose surroundings look like its own.

A few hundred positions, turns, sizes and mirror images are tried at once, the best ones again with small changes.
Each is judged by points only: how much of the mask lies on the allowed area, and how well the ring around the mask
matches the ring around its new place. Edges need no rule of their own: a chip at a rim has a ring that is half
background, which is found only at another rim, and a ring cut by the frame only at another frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import cv2
import numpy as np

from flawsmith.errors import FlawsmithError
from flawsmith.masks.homes import Homes
from flawsmith.masks.options import MINIMUM, MaskOptions
from flawsmith.masks.piece import Piece, parts
from flawsmith.masks.placement import Ground, sample_points
from flawsmith.masks.poses import ATTEMPTS, HOME, Poses, changed, first
from flawsmith.masks.reshape import reshape
from flawsmith.masks.rims import Rim
from flawsmith.masks.scene import Surroundings
from flawsmith.masks.segment import foreground
from flawsmith.records import Sample
from flawsmith.warp import BEND_SHARE, Warp

ROUNDS, KEPT = 2, 8
ROUGH_POINTS, FINE_POINTS = 48, 144
VARIED_SPREAD, SHAPES = 0.65, 4  # of mask "varied": the default spread, and how many new shapes one is chosen from
FRAME_COST = 60.0  # grey levels charged for a ring point inside one photograph and beyond the other
LOOSE = 12.0  # by which a place of mask "varied" may fit worse than the best, at spread 1


def move(
    reference: Sample,
    ground: Ground,
    rng: np.random.Generator,
    options: MaskOptions = MaskOptions(),
    image: np.ndarray | None = None,
    others: Sequence[Sample] | None = None,
) -> tuple[np.ndarray, Warp]:
    """The reference's mask, warped and moved onto the ground: (H, W) bool inside `ground.allowed`, and its Warp.

    `image` (H, W, 3) uint8 is the photograph to fit; without it only the outline of the object is compared. With
    `others`, further real defects of the type (or none), the mask is reshaped first, mixed with theirs; the Warp is
    then not that of the reference's pixels. `options.spread` below 1 keeps to the places where these were on their
    object, and as near to its edge. Raises FlawsmithError when the mask finds no place.
    """
    real = parts(reference.mask, options, rng)
    spread = options.spread if options.spread is not None else 1.0 if others is None else VARIED_SPREAD
    loose = 0.0 if others is None else LOOSE * spread
    homes = Homes.of([reference, *(others or [])], spread) if spread < 1 and ground.heat is None else None
    if image is None:
        old, new = Surroundings(foreground(reference.image)), Surroundings(ground.allowed)
    else:
        old, new = Surroundings(reference.image), Surroundings(image)
    mask = real if others is None else _reshaped(real, others, old, new, rng, options.longer)
    piece = Piece.of(mask, real, old)
    seed = int(rng.integers(0, 2**31))
    breaks = cache(partial(meets_edge, mask, reference.image))  # looked for when it matters
    rim = None if homes is None else Rim.of(homes.first, real, mask, piece.middle)
    product = ground if rim is None or image is None else Ground.of(foreground(image) | ground.allowed)
    at_edge = partial(_at_edge, rim, piece, ground, product)
    for attempt in range(ATTEMPTS):
        poses = first(old, new, piece, ground, rng, options, attempt, image is None)
        if homes is not None:
            poses = replace(poses, centres=homes.seek(poses.centres, ground, HOME, rng))
        poses, share, cost = _improved(
            at_edge(poses), partial(_judge, piece, new, ground, homes), at_edge, piece, ground, loose, rng, options
        )
        usable = share >= min(0.85, float(share.max()))
        best = float(cost[usable].min())
        near = np.flatnonzero(usable & (cost <= 1.15 * best + 2 + loose))  # equally plausible places: chance decides
        for index in rng.permutation(near)[:6]:
            warp = poses.warp(int(index), piece.middle, options, seed, piece.extent)
            drawn = _drawn(mask, warp, ground.allowed)
            rest, view = _left_at_edge(drawn, ground.allowed, warp.scale * math.sqrt(piece.size))
            if rest.any():
                drawn[view] |= rest & breaks()
            if np.count_nonzero(drawn) >= min(MINIMUM, max(1, 0.5 * piece.size * warp.scale**2)):
                return drawn, warp
    raise FlawsmithError(
        f"No place was found for a reference mask of {piece.size} pixels on an area of {ground.area} pixels: choose a "
        "smaller reference, a wider region of interest, or --set mask.size."
    )


def _reshaped(
    real: np.ndarray,
    others: Sequence[Sample],
    old: Surroundings,
    new: Surroundings,
    rng: np.random.Generator,
    longer: float,
) -> np.ndarray:
    """A new shape for the real mask, (H, W) bool, mixed with others': of a few, the one on the most similar part."""
    known = [other.mask for other in others if other.mask.any()]
    shapes = [reshape(real, rng, known, longer) for _ in range(SHAPES)]
    return min(shapes, key=lambda shape: _other_part(real, shape, old, new))


def _judge(
    piece: Piece, new: Surroundings, ground: Ground, homes: Homes | None, poses: Poses, points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the mask on the ground and cost in grey levels, both (K,), judged by about so many points."""
    part = slice(None, None, max(1, piece.inner.shape[1] // points))
    there = poses.place(piece.inner[:, part])
    share = ground.lookup(there[:, 0], there[:, 1]).mean(axis=1)
    part = slice(None, None, max(1, piece.ring.shape[1] // points))
    there = poses.place(piece.ring[:, part])
    cost = _mismatch((piece.colours[part], piece.framed[part]), new.colour(there[:, 0], there[:, 1]))
    if homes is not None:
        rough = piece.inner[:, :: max(1, piece.inner.shape[1] // ROUGH_POINTS)]
        cost = cost + homes.cost(poses.centres, poses.place(rough), ground)
    return share, cost + 60 * (1 - share)


def _improved(
    poses: Poses,
    judge: Callable[[Poses, int], tuple[np.ndarray, np.ndarray]],
    at_edge: Callable[[Poses], Poses],
    piece: Piece,
    ground: Ground,
    loose: float,
    rng: np.random.Generator,
    options: MaskOptions,
) -> tuple[Poses, np.ndarray, np.ndarray]:
    """The best poses again with small changes, round by round: they, their share on the ground and their cost."""
    share, cost = judge(poses, ROUGH_POINTS)
    for number in range(ROUNDS):
        usable = share >= min(0.8, float(share.max()))
        liked = cost if loose == 0 else cost + rng.exponential(loose, len(cost))
        chosen = np.argsort(np.where(usable, liked, np.inf), kind="stable")[:KEPT]
        shift = (ground.step + 0.1 * math.sqrt(piece.size)) / (1 + number)
        poses = at_edge(changed(poses, chosen, shift, rng, options))
        share, cost = judge(poses, FINE_POINTS)
    return poses, share, cost


def _at_edge(rim: Rim | None, piece: Piece, ground: Ground, product: Ground, poses: Poses) -> Poses:
    """The poses moved so that what met the object's edge meets the product's, but where that leaves the ground."""
    if rim is None:
        return poses
    moved = replace(poses, centres=poses.centres + rim.shifts(poses.centres, poses.linear, poses.scales, product))
    rough = piece.inner[:, :: max(1, piece.inner.shape[1] // ROUGH_POINTS)]
    before, after = (ground.lookup(*np.moveaxis(p.place(rough), 1, 0)).mean(axis=1) for p in (poses, moved))
    kept = (after < 0.5 * before)[:, None]
    return replace(poses, centres=np.where(kept, poses.centres, moved.centres))


def _other_part(real: np.ndarray, shape: np.ndarray, old: Surroundings, new: Surroundings) -> float:
    """How differently coloured the product is under a shape and under the real one, were both at the reference's place.

    A ring of glass that broke is replaced by a shape on the ring, not by one that hangs over the opening.
    """
    found = []
    for mask in (real, shape):
        x, y = sample_points(mask)
        colours, _ = new.colour(x * new.width / old.width, y * new.height / old.height)
        found.append(np.quantile(colours.mean(axis=1), np.linspace(0.05, 0.95, 10)))
    return float(np.abs(found[0] - found[1]).mean())


def meets_edge(mask: np.ndarray, image: np.ndarray) -> bool:
    """Whether a defect reaches the edge of its own object: it is cut out of it, so to say."""
    found = foreground(image)
    if found.all():
        return False
    step = max(1, max(mask.shape) // 512)
    small, beyond = mask[::step, ::step], ~found[::step, ::step]
    near = cv2.dilate(small.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    return bool((near & beyond).any())


def _left_at_edge(drawn: np.ndarray, allowed: np.ndarray, size: float) -> tuple[np.ndarray, tuple[slice, slice]]:
    """What little is left between a mask and the object's edge, and where: a hair of rim would not hold in the air."""
    reach = int(np.clip(0.08 * size, 1, 24))
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    if not len(rows):
        return np.zeros((0, 0), dtype=bool), (slice(0, 0), slice(0, 0))
    margin = 3 * reach
    view = (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )
    beyond = ~allowed[view]
    if not beyond.any():
        return np.zeros_like(beyond), view
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    together = np.pad((drawn[view] | beyond).astype(np.uint8), margin, mode="edge")
    closed = cv2.morphologyEx(together, cv2.MORPH_CLOSE, disc)[margin:-margin, margin:-margin].astype(bool)
    near = cv2.dilate(drawn[view].astype(np.uint8), disc).astype(bool)
    return closed & near & allowed[view] & ~drawn[view], view


def _mismatch(here: tuple[np.ndarray, np.ndarray], there: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Mean difference in grey levels between ring colours (n, 3) and K candidates (K, n, 3), exposure apart; (K,)."""
    both = (here[1][None] & there[1]).astype(np.float32)
    count = np.maximum(both.sum(axis=1), 1)[:, None]
    difference = there[0] - here[0][None]
    shift = np.matmul(both[:, None], difference)[:, 0] / count  # (K, 3)
    # A darker or brighter exposure is corrected when blending, so it costs half; a difference in pattern costs fully.
    difference -= shift[:, None]
    np.abs(difference, out=difference)
    pattern = (np.matmul(both[:, None], difference)[:, 0] / count).mean(axis=1)
    astray = (here[1][None] != there[1]).mean(axis=1)
    return np.asarray(pattern + 0.5 * np.abs(shift).mean(axis=1) + FRAME_COST * astray)


def _drawn(mask: np.ndarray, warp: Warp, allowed: np.ndarray) -> np.ndarray:
    """The warped mask on the allowed area, (H, W) bool; only its box is computed."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    corners = np.array([[columns[i], rows[j], 1] for i in (0, -1) for j in (0, -1)], dtype=float)
    there = corners @ np.array(warp.matrix).T
    margin = warp.scale * (1 + warp.bend * BEND_SHARE * warp.extent) + 2
    left, top = (max(0, int(value)) for value in np.floor(there.min(axis=0) - margin))
    right, bottom = (int(value) for value in np.ceil(there.max(axis=0) + margin))
    bottom, right = min(allowed.shape[0], bottom), min(allowed.shape[1], right)
    drawn = np.zeros(allowed.shape, dtype=bool)
    if bottom > top and right > left:
        view = (slice(top, bottom), slice(left, right))
        drawn[view] = warp.apply(mask, allowed.shape, (top, left, bottom, right)) & allowed[view]
    return drawn
