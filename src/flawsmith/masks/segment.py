"""Finding the object in a photograph without any model.

Three questions on a reduced copy: does something stand out from the colours of the frame and is it one thing (a
product on a background)? If not, does the part fill the photograph but for a nearly black margin (a crop around a
part on a dark table)? If not either, the photograph is a surface and all of it is object.
"""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith import images

REDUCED = 192  # longest side of the copy that is segmented
OPENING = 0.02  # of the object: a smaller place of the background's colours may be a hole that is a defect
RARE = 0.12  # a colour on less of the frame than this is not background: the object reaches the frame there


def foreground(image: np.ndarray) -> np.ndarray:
    """The object in (H, W, 3) uint8 as (H, W) bool; all True for a surface, or when no object stands out."""
    height, width = image.shape[:2]
    small, step = images.reduced(image, REDUCED)
    if min(small.shape[:2]) < 16:
        return np.ones((height, width), dtype=bool)
    found = _product(small)
    if found is None:
        found = _inside_margin(small)
    if found is None:
        return np.ones((height, width), dtype=bool)
    if step == 1:
        return found
    soft = cv2.resize(found.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(soft >= 128)


def _product(small: np.ndarray) -> np.ndarray | None:
    """One object that differs from the frame's colours, or None."""
    lab = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), (0, 0), 1.0).astype(np.float32)
    height, width = lab.shape[:2]
    rim = 2
    frame = np.concatenate(
        [lab[:rim].reshape(-1, 3), lab[-rim:].reshape(-1, 3), lab[:, :rim].reshape(-1, 3), lab[:, -rim:].reshape(-1, 3)]
    )
    distance = np.full((height, width), np.inf, dtype=np.float32)
    for centre, spread in _colours(frame):
        away = np.sqrt((((lab - centre) / spread) ** 2).sum(axis=2))
        distance = np.minimum(distance, away)
    levels = np.clip(distance * 8, 0, 255).astype(np.uint8)
    limit, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if not _bimodal(levels, limit):
        return None
    limit = float(np.clip(limit, 24, 90))  # 3 to 11 standard deviations of the background
    apart = (levels > limit).astype(np.uint8)
    side = max(3, round(0.03 * max(height, width))) | 1
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    apart = cv2.morphologyEx(
        cv2.morphologyEx(apart, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), cv2.MORPH_CLOSE, ellipse
    )
    count, parts, stats, _ = cv2.connectedComponentsWithStats(apart, connectivity=8)
    if count < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA].astype(float)
    touch = np.zeros(count)
    on_frame = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    np.add.at(touch, on_frame, 1)
    touching = touch[1:] / len(on_frame)
    main = int(np.argmax(areas * (touching < 0.3)))
    area = areas[main] / (height * width)
    others = float(areas[(touching < 0.05)].sum() - areas[main] * (touching[main] < 0.05))
    # A product: one large thing that hardly meets the frame. Several things alike are a pattern.
    if not 0.04 <= area <= 0.97 or touching[main] > 0.12 or others > 0.5 * areas[main]:
        return None
    outline, _ = cv2.findContours((parts == 1 + main).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.contourArea(cv2.convexHull(max(outline, key=cv2.contourArea)))
    if areas[main] < 0.5 * hull:  # straggling: tracks, shadows, a vignette
        return None
    filled = cv2.drawContours(np.zeros((height, width), np.uint8), outline, -1, 1, cv2.FILLED)
    if not _sharp(lab, filled):
        return None
    filled -= _openings(levels <= limit, filled)
    # The blurred rim belongs to the object: a defect that breaks the edge must not leave a hair of it standing.
    return cv2.dilate(filled, np.ones((3, 3), np.uint8)).astype(bool)


def _openings(background: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Where the background is seen through the object, as in a ring: large places of its colours, uint8 0 or 1."""
    seen = cv2.morphologyEx((background & (filled > 0)).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(seen, connectivity=8)
    large = [part for part in range(1, count) if stats[part, cv2.CC_STAT_AREA] >= OPENING * filled.sum()]
    return np.isin(parts, large).astype(np.uint8)


def _sharp(lab: np.ndarray, filled: np.ndarray) -> bool:
    """Whether the outline is an edge nearly all around: shading and reflexes on a surface fade, a product does not."""
    ring = np.ones((3, 3), np.uint8)
    outline = cv2.subtract(filled, cv2.erode(filled, ring, borderValue=1)).astype(bool)
    wide = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    strength = np.zeros(filled.shape, dtype=np.float32)
    for channel in cv2.split(lab):
        step = cv2.subtract(cv2.dilate(channel, wide), cv2.erode(channel, wide))
        strength = np.maximum(strength, step)
    values = strength[outline]
    return len(values) > 0 and float(np.quantile(values, 0.1)) > max(12.0, 2.5 * float(np.median(strength)))


def _colours(frame: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and spread (3,) float32 of up to three colours of the frame's pixels (n, 3), rare ones left out."""
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 12, 0.5)
    # Start from thirds along the direction of largest spread: no random numbers, the same answer every time.
    centred = frame - frame.mean(axis=0)
    along = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]
    start = np.searchsorted(np.quantile(along, (1 / 3, 2 / 3)), along).astype(np.int32)[:, None]
    _, labels, _ = cv2.kmeans(frame, 3, start, criteria, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    colours = []
    for index in range(3):
        members = frame[labels[:, 0] == index]
        if len(members) >= RARE * len(frame):
            colours.append((members.mean(axis=0), np.maximum(members.std(axis=0), 3.0)))
    return colours or [(frame.mean(axis=0), np.maximum(frame.std(axis=0), 3.0))]


def _bimodal(levels: np.ndarray, limit: float) -> bool:
    """Whether a limit parts the levels into two clear groups (share of the variance that lies between them)."""
    high = levels > limit
    share = float(high.mean())
    if not 0.03 < share < 0.98:
        return False
    between = share * (1 - share) * (float(levels[high].mean()) - float(levels[~high].mean())) ** 2
    return between > 0.62 * float(levels.var())


def _inside_margin(small: np.ndarray) -> np.ndarray | None:
    """All but the nearly black margin that reaches in from the frame, or None when there is none."""
    grey = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), (0, 0), 0.7)
    typical = float(np.median(grey))
    for share in (0.4, 0.3, 0.22):  # a strict limit where shading on the part itself is dark, too
        margin = _margin(grey < max(8.0, share * typical))
        if margin is not None:
            inside = cv2.morphologyEx((~margin).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
            _, parts, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
            return np.asarray(parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))
    return None


def _margin(dark: np.ndarray) -> np.ndarray | None:
    """The dark pixels joined to the frame, when they are a shallow strip and hardly anything else is dark."""
    count, parts = cv2.connectedComponents(dark.astype(np.uint8), connectivity=4)
    if count < 2:
        return None
    on_frame = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    margin = np.isin(parts, on_frame[on_frame > 0])
    height, width = dark.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    deep = np.minimum(np.minimum(rows, height - 1 - rows) / height, np.minimum(columns, width - 1 - columns) / width)
    spans = [line.mean() for line in (margin[0], margin[-1], margin[:, 0], margin[:, -1])]
    # Along most of one side, shallow, and the only dark thing: tracks and shadows go deeper.
    if margin.mean() < 0.002 or max(spans) < 0.4 or (deep[margin] > 0.15).mean() > 0.02:
        return None
    return margin if (dark & ~margin).mean() < 0.03 else None
