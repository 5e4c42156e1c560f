"""Whole components as masks: what is missing, swapped or of the wrong colour is a part of the product, no blob on it.

Reference: the logical anomalies of MVTec LOCO (Bergmann et al., IJCV 2022), whose masks cover the component concerned.
"""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.errors import FlawsmithError, unknown
from flawsmith.masks.options import MINIMUM, MaskOptions

SMALL = 192  # longest side on which components are looked for
SHARES = (0.004, 0.4)  # of the object: less is a speck, more is the object itself
SHADES: dict[str, tuple[int, int, int]] = {  # RGB of the colours of captions.COLOURS
    "black": (20, 20, 20), "dark": (50, 50, 50), "grey": (128, 128, 128), "white": (245, 245, 245),
    "bright": (220, 220, 220), "brown": (115, 70, 35), "rusty": (150, 70, 35), "red": (200, 40, 40),
    "orange": (235, 130, 30), "yellow": (230, 210, 50), "green": (50, 150, 60), "blue": (45, 80, 190),
    "purple": (130, 60, 160),
}  # fmt: skip
CONTRAST = 10.0  # Lab units between a component and what is around it
COLOURS = (3, 5, 8)  # clusters: coarse parts and fine ones are both found


def component(
    image: np.ndarray, allowed: np.ndarray, rng: np.random.Generator, options: MaskOptions = MaskOptions()
) -> np.ndarray:
    """The mask (H, W) bool of one component of the object, a little wider than it, inside `allowed` (H, W) bool.

    image (H, W, 3) uint8. Components are connected regions of one colour; `options.size` bounds their share of the
    object, `options.colour` prefers those of a colour, as a caption names it. Raises FlawsmithError where a surface has
    none.
    """
    found = components(image, allowed, options.size or SHARES)
    if not found:
        raise FlawsmithError(
            "No component was found on the object: its surface has no parts of one colour. Choose another mask family, "
            "or widen --set mask.size."
        )
    height, width = allowed.shape
    if options.colour:
        found = _coloured(image, found, options.colour)
    small = found[int(rng.integers(len(found)))]
    grown = cv2.resize(small.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.35
    radius = max(1, round(0.006 * max(height, width)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    mask = cv2.dilate(grown.astype(np.uint8), kernel).astype(bool) & allowed
    return mask if np.count_nonzero(mask) >= min(MINIMUM, allowed.sum()) else allowed & grown


def _coloured(image: np.ndarray, found: list[np.ndarray], colour: str) -> list[np.ndarray]:
    """The components nearly as close to a colour as the closest one."""
    if colour not in SHADES:
        raise unknown("Colour", colour, SHADES)
    wanted = cv2.cvtColor(np.array([[SHADES[colour]]], np.uint8), cv2.COLOR_RGB2LAB)[0, 0].astype(np.float32)
    size = found[0].shape[1], found[0].shape[0]
    lab = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB).astype(np.float32)
    # hue and saturation say more than brightness, which light changes
    away = [float(np.linalg.norm((lab[mask].mean(0) - wanted) * (0.5, 1, 1))) for mask in found]
    return [mask for mask, distance in zip(found, away, strict=True) if distance <= min(away) + 8]


def components(image: np.ndarray, allowed: np.ndarray, shares: tuple[float, float] = SHARES) -> list[np.ndarray]:
    """Every component as a small mask (h, w) bool, largest first; none is found twice."""
    height, width = allowed.shape
    scale = min(1.0, SMALL / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(allowed.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    if not inside.any():
        return []
    smooth = cv2.cvtColor(cv2.bilateralFilter(small, 7, 40, 5), cv2.COLOR_RGB2LAB).astype(np.float32)
    points = smooth[inside]
    # Starting from the order of brightness instead of chance: the same image has the same components.
    order = np.argsort(np.argsort(points[:, 0], kind="stable"), kind="stable")
    found: list[np.ndarray] = []
    for count in COLOURS:
        if len(points) < 4 * count:
            continue
        start = (order * count // len(points)).astype(np.int32)[:, None]
        stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 12, 0.5)
        _, labels, _ = cv2.kmeans(points, count, start, stop, 1, cv2.KMEANS_USE_INITIAL_LABELS)
        map_ = np.full(inside.shape, -1)
        map_[inside] = labels[:, 0]
        for cluster in range(count):
            found += _connected(map_ == cluster, inside, smooth, shares, found)
    return sorted(found, key=lambda mask: -int(mask.sum()))


def _connected(
    mask: np.ndarray, inside: np.ndarray, colours: np.ndarray, shares: tuple[float, float], known: list[np.ndarray]
) -> list[np.ndarray]:
    """The compact connected regions of a mask that stand out, are of an allowed size, and are not known yet."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    number, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=4)
    total = int(inside.sum())
    found: list[np.ndarray] = []
    for label in range(1, number):
        area = int(stats[label, cv2.CC_STAT_AREA])
        box = int(stats[label, cv2.CC_STAT_WIDTH]) * int(stats[label, cv2.CC_STAT_HEIGHT])
        if not shares[0] * total <= area <= shares[1] * total or area < 0.3 * box:  # a frayed rest fills no box
            continue
        region = labels == label
        ring = cv2.dilate(region.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool) & ~region & inside
        away = np.linalg.norm(colours[ring] - colours[region].mean(0), axis=1)
        if not ring.any() or (away >= CONTRAST).mean() < 0.6:  # its surroundings go on as it is: no part of its own
            continue
        if all((region & other).sum() < 0.6 * (region | other).sum() for other in [*known, *found]):
            found.append(region)
    return found
