"""Windows, compositing and labels: the promise that an image differs from its photograph only inside its mask.

Every synthesizer paints a window; `finish` is the only way back to the photograph. It computes what visibly changed,
makes that the label, and restores every pixel outside it, so that the promise holds by construction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith import images
from flawsmith.errors import FlawsmithError

MIN_LABEL_PIXELS = 8


@dataclass(frozen=True)
class Window:
    """A rectangle of the photograph: rows top..bottom, columns left..right, ends excluded, inside the image."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def as_list(self) -> list[int]:
        return [self.top, self.left, self.bottom, self.right]


def mask_box(mask: np.ndarray) -> Window:
    """The smallest window that holds every True pixel of (H, W) bool. Raises FlawsmithError for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise FlawsmithError("The mask is empty: at least one pixel must be set.")
    return Window(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def window(mask: np.ndarray, minimum: int = 64, context: float = 1.5) -> Window:
    """The rectangle around a mask with surroundings, for methods that work at native resolution.

    Each side is `context` times the mask's box and at least `minimum` pixels, shifted and clipped to stay inside.
    """
    return _around(mask, mask.shape, minimum, context, square=False)


def square_window(mask: np.ndarray, minimum: int = 128, context: float = 1.5) -> Window:
    """The square around a mask with surroundings, for models of a fixed input size.

    The side is `context` times the box's longer side, at least `minimum` pixels where the photograph allows, so that
    nothing is enlarged needlessly. Not square only where the photograph is smaller.
    """
    return _around(mask, mask.shape, minimum, context, square=True)


def _around(mask: np.ndarray, shape: tuple[int, ...], minimum: int, context: float, square: bool) -> Window:
    box = mask_box(mask)
    sides = [max(minimum, round(side * context)) for side in box.shape]
    if square:
        sides = [max(sides)] * 2
    spans = []
    for start, end, side, limit in zip((box.top, box.left), (box.bottom, box.right), sides, shape[:2], strict=True):
        length = min(side, limit)
        first = min(max(0, (start + end - length) // 2), limit - length)
        spans.append((first, first + length))
    return Window(spans[0][0], spans[1][0], spans[0][1], spans[1][1])


def feather(mask: np.ndarray, width: float) -> np.ndarray:
    """Blending weight (H, W) float32 that is 0 outside the mask and rises inwards to 1 over `width` pixels."""
    if width <= 0:
        return mask.astype(np.float32)
    padded = np.pad(mask.astype(np.uint8), 1, constant_values=1)  # the image border is no edge of the defect
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.clip(distance / (width + 1), 0, 1).astype(np.float32) * mask


def blend(normal: np.ndarray, painted: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`where(alpha == 0, normal, round(alpha * painted + (1 - alpha) * normal))`, (H, W, 3) uint8."""
    weight = alpha[..., None].astype(np.float32)
    mixed = np.clip(np.rint(weight * painted + (1 - weight) * normal), 0, 255).astype(np.uint8)
    return np.where(weight == 0, normal, mixed)


def noise_level(image: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Standard deviation of the image's own grain in grey levels (Immerkaer, 1996, fast noise variance).

    Inside `mask` (h, w) bool when one is given; 0 where it holds no pixel away from the image's border.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    if min(grey.shape) < 3:
        return 0.0
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    response = cv2.filter2D(grey, -1, kernel)[1:-1, 1:-1]
    seen = response if mask is None else response[mask[1:-1, 1:-1]]
    # The median instead of the mean: edges are few, grain is everywhere.
    return float(np.median(np.abs(seen)) / 0.6745 / 6.0) if seen.size else 0.0


def fine_texture(image: np.ndarray) -> np.ndarray:
    """What a narrow blur removes from an image (h, w, 3): its grain and finest edges, float32 around 0."""
    pixels = image.astype(np.float32)
    return pixels - cv2.GaussianBlur(pixels, (0, 0), 1.0)


def displaced(texture: np.ndarray) -> np.ndarray:
    """A window's texture (h, w, ...) from half a window away: the same surface's, but of another place."""
    return np.roll(texture, (texture.shape[0] // 2, texture.shape[1] // 2), axis=(0, 1))


def borrowed_grain(texture: np.ndarray, noise: float) -> np.ndarray:
    """Grain for covered pixels, from another place of the window: its fine `texture` (h, w, 3) without outliers.

    Those are the edges of that place, which must not shine through. `noise` is the grain's standard deviation in grey
    levels.
    """
    limit = min(2.5 * noise + 0.5, 12.0)
    return np.clip(displaced(texture), -limit, limit)


@dataclass(frozen=True)
class Finished:
    """A window after `finish`: the image, its label, and why it is refused ("" when it is good)."""

    image: np.ndarray  # (h, w, 3) uint8, equal to the normal window outside `label`
    label: np.ndarray  # (h, w) bool, inside the requested mask
    scores: dict[str, float]
    rejected: str


def change_tolerance(normal: np.ndarray) -> float:
    """Grey levels above which a difference counts as change: 3 times the grain of a window (h, w, 3), from 4 to 12."""
    return float(np.clip(3 * noise_level(normal), 4, 12))


LEVEL = 15  # pixels over which a median is the photograph's level, without its texture
STRONG = 1.8  # by which severity 1 surpasses the contrast that was painted


def at_severity(
    normal: np.ndarray,
    painted: np.ndarray,
    mask: np.ndarray,
    severity: float,
    tolerance: float | None = None,
    min_visibility: float = 8.0,
    min_share: float = 0.1,
) -> np.ndarray:
    """A painted window (h, w, 3) uint8 with its change against `normal` made fainter or stronger, in mask (h, w) bool.

    severity: 0 is as faint as `finish` still accepts, with a margin; 0.5 is as painted, where that is well seen; 1 is
    STRONG times that. Between them the mean change follows a geometric path. Grey levels end at 0 and 255.
    """
    before = normal[mask].astype(np.float32)
    change = painted[mask].astype(np.float32) - before
    limit = change_tolerance(normal) if tolerance is None else tolerance
    size = np.abs(change).max(axis=1, initial=0)
    if not size.any():
        return painted  # nothing was painted that could be made stronger
    seen = size > limit if size.max() > limit else size >= np.quantile(size, 0.8)
    mean = float(size[seen].mean())
    faint = max(1.35 * min_visibility, 1.4 * limit)
    middle = max(mean, 1.5 * faint)
    low, high, way = (faint, middle, 2 * severity) if severity <= 0.5 else (middle, STRONG * middle, 2 * severity - 1)
    first = low ** (1 - way) * high**way / mean
    limits = tolerance, min_visibility, min_share
    return _moved(normal, painted, mask, lambda gain: before + gain * change, first, limits)


def strengthened(
    normal: np.ndarray,
    painted: np.ndarray,
    mask: np.ndarray,
    gain: float,
    tolerance: float | None = None,
    min_visibility: float = 8.0,
    min_share: float = 0.1,
) -> np.ndarray:
    """A painted window (h, w, 3) uint8 whose defect, in mask (h, w) bool, stands out `gain` times as much.

    Through a fainter one the photograph shows. A stronger one is farther from the photograph's level: farther from its
    pixels, and their texture would appear as a negative. What is darker than the level becomes a denser layer, whose
    shares of the light are a power of what they were (Lambert's law): `gain` times as far below the level in the mean,
    without its darkest parts ending in black. More where `finish` would refuse it. Grey levels end at 0 and 255.
    """
    start, limits = painted[mask].astype(np.float32), (tolerance, min_visibility, min_share)
    level = np.maximum(cv2.medianBlur(normal, LEVEL)[mask].astype(np.float32), 1)
    share = np.clip(start / level, 1e-3, 1)

    def changed(gain: float) -> np.ndarray:
        if gain <= 1:
            return normal[mask] + gain * (start - normal[mask])
        return np.where(start < level, level * share ** _density(level, share, gain), level + gain * (start - level))

    return _moved(normal, painted, mask, changed, gain, limits)


def _density(level: np.ndarray, share: np.ndarray, gain: float) -> float:
    """The power of the shares (n, 3), 0 to 1, left of the level (n, 3) by which the mean loss of light grows by `gain`.

    At most twice the gain: what is nearly black cannot lose much more.
    """
    low, high = gain, 2 * gain
    wanted = gain * float((level * (1 - share)).mean())
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if float((level * (1 - share**middle)).mean()) < wanted else (low, middle)
    return low


def _moved(
    normal: np.ndarray,
    painted: np.ndarray,
    mask: np.ndarray,
    changed: Callable[[float], np.ndarray],
    gain: float,
    limits: tuple[float | None, float, float],
) -> np.ndarray:
    """`painted` with `changed(gain)` (n, 3) in mask; a larger gain where `finish` would refuse what comes out.

    A change that is faint here and strong there must not lose its label.
    """
    result = painted.copy()
    for _ in range(12):
        result[mask] = np.clip(np.rint(changed(gain)), 0, 255).astype(np.uint8)
        if not finish(normal, result, mask, *limits).rejected:
            break
        gain *= 1.15
    return result


def changed_region(normal: np.ndarray, painted: np.ndarray, tolerance: float) -> np.ndarray:
    """Pixels whose largest channel difference exceeds `tolerance` grey levels, (H, W) bool."""
    return images.brightest(cv2.absdiff(normal, painted)) > tolerance


def finish(
    normal: np.ndarray,
    painted: np.ndarray,
    mask: np.ndarray,
    tolerance: float | None = None,
    min_visibility: float = 8.0,
    min_share: float = 0.1,
) -> Finished:
    """Turn a painted window into an image with a verified label.

    normal, painted: (h, w, 3) uint8; mask: (h, w) bool, where change was asked for. `tolerance` is the difference in
    grey levels that counts as change (default: `change_tolerance`). The change is closed over gaps of two pixels, holes
    are filled and specks removed, always inside the mask; pixels outside the label go back to the photograph. Refused
    when nothing or nearly nothing changed (`min_share` of the mask), or when the mean difference inside the label is
    below `min_visibility` grey levels.

    Scores: change_iou (label against mask), visibility (mean difference inside the label), area (label pixels),
    restored (share of changed pixels outside the label that were put back).
    """
    if tolerance is None:
        tolerance = change_tolerance(normal)
    changed = changed_region(normal, painted, tolerance) & mask
    label = _repair(changed, mask)
    image = np.where(label[..., None], painted, normal)
    area, asked = int(label.sum()), int(mask.sum())
    difference = images.brightest(cv2.absdiff(normal, image))
    visibility = float(difference[label].mean()) if area else 0.0
    any_change = images.brightest(cv2.absdiff(normal, painted)) > 0
    scores = {
        "change_iou": round(area / asked, 4) if asked else 0.0,  # the label lies in the mask
        "visibility": round(visibility, 2),
        "area": area,
        "tolerance": round(tolerance, 2),
        "restored": round(float((any_change & ~label).sum() / max(1, any_change.sum())), 4),
    }
    rejected = ""
    if area == 0:
        rejected = "nothing visible changed"
    elif area < MIN_LABEL_PIXELS and area < asked:
        rejected = f"only {area} pixels visibly changed"
    elif area < min_share * asked:
        rejected = f"only {area / asked:.0%} of the mask visibly changed"
    elif visibility < min_visibility:
        rejected = f"the change is too faint (mean {visibility:.1f} grey levels, {min_visibility:g} wanted)"
    return Finished(image, label, scores, rejected)


def _repair(changed: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Close two-pixel gaps, fill holes, drop specks; never leave the mask."""
    if not changed.any():
        return changed
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    padded = np.pad(changed.astype(np.uint8), 4)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, ellipse)[4:-4, 4:-4]
    label = _filled(closed) & mask
    count, parts, stats, _ = cv2.connectedComponentsWithStats(label.astype(np.uint8), connectivity=8)
    if count > 2:
        areas = stats[1:, cv2.CC_STAT_AREA]
        # A speck is small in itself and against the largest part; many equal spots are all kept.
        keep = (areas >= MIN_LABEL_PIXELS // 2) & (areas >= 0.02 * areas.max())
        label = np.concatenate([[False], keep])[parts]
    return label


def _filled(mask: np.ndarray) -> np.ndarray:
    """A mask (h, w) of 0 and 1 without its holes, bool: all that the outside does not reach by steps along the axes."""
    rest = np.pad(1 - mask, 1, constant_values=1)
    cv2.floodFill(rest, None, (0, 0), 0, flags=4)
    return mask.astype(bool) | rest[1:-1, 1:-1].astype(bool)
