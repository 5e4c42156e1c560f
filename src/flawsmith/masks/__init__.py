"""Where a defect sits and what shape it has: seeded mask families on the object, and real masks moved elsewhere.

`foreground` finds the object, `draw` puts a mask on it. A family is a function of `shapes` with the signature
`(rng, area, elongation) -> (h, w) bool`; "package.module:function" is accepted where a name is. Five names are no
families of shapes: "reference" moves a real mask, "whole" does with all that is in it, "varied" reshapes it first,
"component" takes a part of the product, "learned" is a run's model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from flawsmith.errors import FlawsmithError, unknown
from flawsmith.masks.component import component
from flawsmith.masks.fitting import move
from flawsmith.masks.options import DEFAULTS, LINE_LENGTH, LINE_WIDTH, MINIMUM, MaskOptions, log_uniform, mask_options
from flawsmith.masks.placement import Ground, Place, lay, stamp
from flawsmith.masks.poses import enlargement
from flawsmith.masks.segment import foreground
from flawsmith.masks.shapes import blob, box, crack, perlin, polygon, scratch, spot
from flawsmith.records import Sample
from flawsmith.registry import resolve
from flawsmith.warp import Warp

MASKS: dict[str, str] = {
    "blob": "flawsmith.masks:blob",
    "box": "flawsmith.masks:box",
    "polygon": "flawsmith.masks:polygon",
    "perlin": "flawsmith.masks:perlin",
    "scratch": "flawsmith.masks:scratch",
    "crack": "flawsmith.masks:crack",
    "spots": "flawsmith.masks:spot",
    "reference": "flawsmith.masks:move",
    "varied": "flawsmith.masks:move",
    "whole": "flawsmith.masks:move",
    "component": "flawsmith.masks:component",
    "learned": "flawsmith.diffusion.mask_model:LearnedMasks",
}

REAL = {"reference", "varied", "whole"}  # families that start from a real mask

__all__ = [
    "MASKS", "Ground", "MaskOptions", "Warp", "blob", "box", "component", "crack", "draw", "enlargement", "foreground",
    "mask_options", "move", "perlin", "polygon", "scratch",
    "spot",
]  # fmt: skip

Family = Callable[[np.random.Generator, float, float], np.ndarray]


def draw(
    name: str,
    allowed: np.ndarray,
    rng: np.random.Generator,
    options: MaskOptions = MaskOptions(),
    reference: Sample | None = None,
    image: np.ndarray | None = None,
    others: Sequence[Sample] = (),
    heat: np.ndarray | None = None,
) -> tuple[np.ndarray, Warp | None]:
    """Draw a mask (H, W) bool that lies on `allowed` (H, W) bool, never empty, never all of it unless asked.

    `name` is a key of MASKS or "package.module:function". "reference" moves the real mask of `reference` and also
    returns the Warp that did it; given the normal photograph `image` (H, W, 3) uint8, it prefers places whose
    surroundings look like the reference's. "whole" draws the same. "varied" gives that mask a new shape first, mixed
    with those of `others`, and keeps to where the real ones were (`options.spread`). "component" needs `image`. `heat`
    (H, W), 0 or more, is how likely the defect's centre is to lie at each pixel; it takes the place of `options.place`
    and `spread`. Raises FlawsmithError for an unknown name, an empty area, or a missing reference or photograph.
    """
    if name not in MASKS and ":" not in name:
        raise unknown("Mask", name, MASKS)
    ground = Ground.of(allowed, heat)
    if name in REAL:
        if reference is None or not reference.mask.any():
            raise FlawsmithError(
                f"Mask {name!r} needs a reference defect with a mask: name a data set with defects or give "
                "--reference and --reference-mask, or choose another family "
                f"({', '.join(sorted(set(MASKS) - REAL))})."
            )
        mask, warp = move(reference, ground, rng, options, image, others if name == "varied" else None)
        return mask, None if name == "varied" else warp
    if name == "component":
        if image is None:
            raise FlawsmithError("Mask 'component' needs the photograph whose component it takes.")
        return component(image, allowed, rng, options), None
    if name == "learned":
        raise FlawsmithError(
            "Mask 'learned' belongs to a trained run: name one with --set mask.run=RUN (see `flawsmith train`)."
        )
    family: Family = resolve(name, MASKS, "Mask")
    mask = np.zeros(allowed.shape, dtype=bool)
    where = ground
    for index, (area, elongation) in enumerate(_parts(name, ground, rng, options)):
        _add(mask, family, where, area, elongation, options.place, rng)
        if name == "spots" and index == 0:
            where = _nearby(mask, ground, rng, options)
    whole = options.size is not None and options.size[1] > 0.9
    if not mask.any() or (not whole and ground.area > 1 and np.count_nonzero(mask) == ground.area):
        _dot(mask, ground)
    return mask, None


def _unit(shape: tuple[int, ...]) -> float:
    """How much thicker lines are than in a 384-pixel photograph: mildly, since larger photographs show more detail."""
    return math.sqrt(max(1.0, math.sqrt(shape[0] * shape[1])) / 384)


def _parts(name: str, ground: Ground, rng: np.random.Generator, options: MaskOptions) -> list[tuple[float, float]]:
    """Area in pixels and elongation of every part to draw."""
    line = name in LINE_LENGTH
    sizes, elongations, counts = DEFAULTS.get(name, DEFAULTS["blob"])
    span = options.count or ((1, 1) if line else counts)
    count = int(rng.integers(span[0], span[1] + 1))
    total = None
    if not line or options.size is not None:
        total = log_uniform(rng, options.size or sizes, options.severity) * ground.area
    side, unit = math.sqrt(ground.area), _unit(ground.allowed.shape)
    parts = []
    weights = rng.uniform(0.4, 1.6, count) if count > 1 else np.ones(1)
    for share in weights / weights.sum():
        elongation = log_uniform(rng, options.elongation or elongations)
        if line:
            width = max(1.6, min(log_uniform(rng, LINE_WIDTH[name], options.severity) * unit, 0.1 * side))
            length = log_uniform(rng, LINE_LENGTH[name], options.severity) * side
            if total is not None:
                length = total * share / width
            if options.elongation is not None:
                length, width = (
                    (elongation * max(1.2, length / elongation), max(1.2, length / elongation))
                    if total is None
                    else (math.sqrt(total * share * elongation), math.sqrt(total * share / elongation))
                )
            elif total is not None and length > 1.1 * side:  # more area than a thin line can hold
                length, width = 1.1 * side, total * share / (1.1 * side)
            parts.append((length * width, length / width))
        else:
            assert total is not None
            parts.append((max(float(total * share), MINIMUM / (2 if count > 1 else 1)), elongation))
    return parts


def _add(
    mask: np.ndarray,
    family: Family,
    ground: Ground,
    area: float,
    elongation: float,
    place: Place,
    rng: np.random.Generator,
) -> None:
    """Draw one part and set it in the mask, off the parts that are there; smaller when there is no room."""
    taken = mask if mask.any() else None
    if place == "edge":
        area *= 1.3  # part of it will be cut off by the edge
    for attempt in range(6):
        shape = family(rng, area, elongation)
        top, left, share = lay(shape, ground, taken, place, rng)
        if share >= (0.45 if place == "edge" else 0.8) or (attempt == 5 and share > 0):
            stamp(mask, shape, top, left, ground.allowed)
            return
        area = max(1.0, area * 0.7)
        elongation = max(1.0, elongation * 0.85)


def _nearby(mask: np.ndarray, ground: Ground, rng: np.random.Generator, options: MaskOptions) -> Ground:
    """The ground within some spot widths of the first spot: spots come in clusters."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return ground
    count = (options.count or DEFAULTS["spots"][2])[1]
    radius = math.sqrt(len(rows) / math.pi) * rng.uniform(3, 6) * math.sqrt(count) / ground.step + 2
    centre = ((rows.mean() - ground.top) / ground.step, (columns.mean() - ground.left) / ground.step)
    y, x = np.ogrid[: ground.small.shape[0], : ground.small.shape[1]]
    near = ground.small & (np.hypot(y - centre[0], x - centre[1]) <= radius)
    return dataclasses.replace(ground, small=near) if near.any() else ground


def _dot(mask: np.ndarray, ground: Ground) -> None:
    """The last resort on tiny areas: half of the area around its deepest point."""
    mask[:] = False
    row, column = np.unravel_index(int(ground.depth.argmax()), ground.depth.shape)
    rows, columns = np.nonzero(ground.allowed) if ground.area <= 4096 else (None, None)
    if rows is None or columns is None:
        centre = (int(ground.left + column * ground.step), int(ground.top + row * ground.step))
        dot = cv2.circle(np.zeros(mask.shape, np.uint8), centre, 3, 1, cv2.FILLED).astype(bool)
        mask |= dot & ground.allowed
        return
    distance = np.hypot(rows - (ground.top + row * ground.step), columns - (ground.left + column * ground.step))
    nearest = np.argsort(distance, kind="stable")[: max(1, min(4 * MINIMUM, len(rows) // 2))]
    mask[rows[nearest], columns[nearest]] = True
