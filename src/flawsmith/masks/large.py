"""Masks on large photographs: each is drawn in a part of it, as `masks.draw` would on a photograph of that size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flawsmith import masks
from flawsmith.records import Sample
from flawsmith.warp import Warp

LARGE = 24 << 20  # pixels of a photograph that is handled in parts
TILE = 2048  # side of the square in which a mask is drawn


def draw(
    family: str,
    allowed: np.ndarray,
    rng: np.random.Generator,
    options: masks.MaskOptions,
    reference: Sample | None,
    image: np.ndarray,
    others: Sequence[Sample],
    heat: np.ndarray | None,
) -> tuple[np.ndarray, Warp | None]:
    """`masks.draw`, on a large photograph within a random square of TILE pixels that meets the object.

    A reference of which only the surroundings were kept is enlarged as the whole of it would be.
    """
    options = _scaled(options, reference, allowed.size)
    part = _part(family, allowed, rng, options, heat is not None)
    heat = None if heat is None else heat[part]
    drawn, warp = masks.draw(family, allowed[part], rng, options, reference, image[part], others, heat)
    if drawn.shape == allowed.shape:
        return drawn, warp
    mask = np.zeros(allowed.shape, dtype=bool)
    mask[part] = drawn
    return mask, warp


def _part(
    family: str, allowed: np.ndarray, rng: np.random.Generator, options: masks.MaskOptions, heated: bool
) -> tuple[slice, slice]:
    """Where a mask is drawn: everywhere, or in a square of a large photograph.

    A crack as long as a 100-megapixel plate is no defect, and its window would not fit in memory. A real mask has
    its own size; whoever asks for a size or a place means the whole object.
    """
    asked = heated or options.size is not None or options.place != "anywhere"
    if allowed.size <= LARGE or family in masks.REAL or asked:
        return slice(None), slice(None)
    step = 32
    rows, columns = np.nonzero(allowed[::step, ::step])
    if not len(rows):
        return slice(None), slice(None)
    pick = int(rng.integers(len(rows)))
    top = min(max(0, int(rows[pick]) * step - TILE // 2), max(0, allowed.shape[0] - TILE))
    left = min(max(0, int(columns[pick]) * step - TILE // 2), max(0, allowed.shape[1] - TILE))
    return slice(top, top + TILE), slice(left, left + TILE)


def _scaled(options: masks.MaskOptions, reference: Sample | None, pixels: int) -> masks.MaskOptions:
    if reference is None or "whole" not in reference.info:
        return options
    factor = masks.enlargement(pixels / reference.info["whole"]) / masks.enlargement(pixels / reference.mask.size)
    low, high = options.scale
    return options.model_copy(update={"scale": (low * factor, high * factor)})
