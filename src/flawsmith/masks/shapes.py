"""Shapes that look like real defects, each drawn on a small canvas of its own.

Every family is one function `family(rng, area, elongation) -> (h, w) bool`: a single connected shape of about `area`
pixels (an aim, not a promise to the pixel); `elongation` is long side over short side.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

WORKING = 128  # the longest side at which a soft outline is computed; larger shapes are enlarged smoothly
FINEST = 4  # lines are drawn this many times larger and reduced, for widths of a fraction of a pixel


def blob(rng: np.random.Generator, area: float, elongation: float = 1.0) -> np.ndarray:
    """A rounded spot with a smooth noisy outline: stains, dents, patches."""
    half_long, half_short = math.sqrt(area * elongation / math.pi), math.sqrt(area / elongation / math.pi)
    angle, rough = rng.uniform(0, math.pi), rng.uniform(0.15, 0.5)

    def soft(side: int, step: float) -> np.ndarray:
        x, y = _turned(side, step, angle)
        noise = sum(_smooth_noise(rng, side, cells) / weight for cells, weight in ((4, 1.0), (8, 2.2), (16, 5.0)))
        return -np.hypot(x / half_long, y / half_short) + rough * noise

    return _grow(soft, 2 * 1.7 * half_long, area)


def perlin(rng: np.random.Generator, area: float, elongation: float = 1.0) -> np.ndarray:
    """Thresholded Perlin noise: ragged, lobed regions.

    Reference: Zavrtanik et al., "DRAEM", ICCV 2021, section 3.2. There the whole image is thresholded; here the
    noise is bounded by a soft ellipse, so that the size can be asked for.
    """
    angle = rng.uniform(0, math.pi)
    cells = tuple(int(2 ** rng.integers(1, 4)) for _ in range(2))
    half_long, half_short = math.sqrt(area * elongation), math.sqrt(area / elongation)

    def soft(side: int, step: float) -> np.ndarray:
        x, y = _turned(side, step, angle)
        across, along = y / half_short, x / half_long
        noise = perlin_noise((side, side), cells, rng)  # stretched with the ellipse
        scale = (side - 1) / 3.2
        noise = cv2.remap(noise, (along + 1.6) * scale, (across + 1.6) * scale, cv2.INTER_LINEAR)
        return noise - 0.35 * (across**2 + along**2)

    return _grow(soft, 2 * 1.6 * half_long, area)


def box(rng: np.random.Generator, area: float, elongation: float = 1.0) -> np.ndarray:
    """An upright rectangle, lying or standing."""
    long, short = max(1, round(math.sqrt(area * elongation))), max(1, round(math.sqrt(area / elongation)))
    return np.ones((long, short) if rng.random() < 0.5 else (short, long), dtype=bool)


def polygon(rng: np.random.Generator, area: float, elongation: float = 1.0) -> np.ndarray:
    """A polygon with 4 to 9 corners and slightly rough edges: chips, flakes, broken pieces."""
    corners = int(rng.integers(4, 10))
    angles = (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * 2 * math.pi / corners
    radii = rng.uniform(0.6, 1.0, corners)
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    for scale in (0.12, 0.06):  # midpoint displacement, twice: no edge of a real chip is straight
        middle = (points + np.roll(points, -1, axis=0)) / 2
        middle = middle + rng.normal(0, scale * 0.5, middle.shape)
        points = np.stack([points, middle], axis=1).reshape(-1, 2)
    points = points * [math.sqrt(elongation), 1 / math.sqrt(elongation)]
    x, y = points.T
    drawn = abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
    turn = rng.uniform(0, 2 * math.pi)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    points = points @ rotation * math.sqrt(area / max(drawn, 1e-6))
    points -= points.min(axis=0) - 1
    width, height = (math.ceil(v) + 2 for v in points.max(axis=0))
    canvas = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(canvas, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
    return _whole(canvas.astype(bool))


def scratch(rng: np.random.Generator, area: float, elongation: float = 40.0) -> np.ndarray:
    """A slightly curved stroke whose width swells and fades."""
    length, width = math.sqrt(area * elongation), math.sqrt(area / elongation)
    count = 40
    bow, wave = rng.normal(0, 0.45), rng.normal(0, 0.25)
    t = np.linspace(0, 1, count)
    heading = rng.uniform(0, 2 * math.pi) + bow * t + wave * np.sin(2 * math.pi * (t + rng.random()))
    heading += np.cumsum(rng.normal(0, 0.02, count))
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * (length / (count - 1))
    points = np.cumsum(steps, axis=0)
    peak = rng.uniform(0.25, 0.75)
    swell = np.where(t < peak, t / peak, (1 - t) / (1 - peak))
    widths = width * 1.35 * (0.3 + 0.7 * np.sqrt(swell)) * (1 + 0.2 * np.interp(t, np.linspace(0, 1, 9), _pm(rng, 9)))
    return _strokes([(points, widths)], area)


def crack(rng: np.random.Generator, area: float, elongation: float = 60.0) -> np.ndarray:
    """A thin branching crack: a random walk that keeps its heading, tapers, and sends out shorter branches."""
    length, width = math.sqrt(area * elongation), math.sqrt(area / elongation)
    share = rng.uniform(0.6, 0.85)  # of the total length in the main path
    main = _walk(rng, length * share, rng.uniform(0, 2 * math.pi), width)
    strokes, left = [main], length * (1 - share)
    while left > 4 * width and len(strokes) < 7:
        points, widths = strokes[int(rng.integers(0, min(2, len(strokes))))]
        start = int(rng.integers(len(points) // 5, 1 + 4 * len(points) // 5))
        piece = min(left, length * rng.uniform(0.08, 0.25))
        along = points[min(start + 1, len(points) - 1)] - points[max(start - 1, 0)]
        heading = math.atan2(along[1], along[0]) + rng.choice([-1, 1]) * rng.uniform(0.4, 1.2)
        branch, thin = _walk(rng, piece, heading, 0.75 * float(widths[start]))
        strokes.append((branch - branch[0] + points[start], thin))
        left -= piece
    return _strokes(strokes, area)


def spot(rng: np.random.Generator, area: float, elongation: float = 1.0) -> np.ndarray:
    """One small disc, not quite round; the member of a cluster (`spots`)."""
    radius = math.sqrt(area / math.pi)
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    radii = radius * (
        1 + 0.12 * np.sin(2 * angles + rng.uniform(0, 6.3)) + 0.08 * np.sin(3 * angles + rng.uniform(0, 6.3))
    )
    turn, stretch = rng.uniform(0, math.pi), math.sqrt(elongation)
    x, y = radii * np.cos(angles) * stretch, radii * np.sin(angles) / stretch
    points = np.stack([x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)], axis=1)
    points -= points.min(axis=0) - 1
    width, height = (math.ceil(v) + 2 for v in points.max(axis=0))
    fine = np.zeros((height * FINEST, width * FINEST), dtype=np.uint8)
    cv2.fillPoly(fine, [np.rint((points + 0.5) * FINEST * 16).astype(np.int32)], 255, shift=4)
    return _whole(cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA) >= 128)


def perlin_noise(shape: tuple[int, int], cells: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Gradient noise (H, W) float32, about -1 to 1, with `cells` (rows, columns) lattice cells across.

    Reference: Perlin, "Improving Noise", SIGGRAPH 2002 (the quintic fade), with random unit gradients.
    """
    angles = rng.uniform(0, 2 * math.pi, (cells[0] + 1, cells[1] + 1)).astype(np.float32)
    gradient = np.stack([np.sin(angles), np.cos(angles)])  # (2, rows + 1, columns + 1)
    axes = [(np.arange(n, dtype=np.float32) + 0.5) * (c / n) for n, c in zip(shape, cells, strict=True)]
    base = [np.minimum(axis.astype(int), c - 1) for axis, c in zip(axes, cells, strict=True)]
    inside = [axis - start for axis, start in zip(axes, base, strict=True)]
    fade = [f**3 * (f * (6 * f - 15) + 10) for f in inside]
    v, u = inside[0][:, None], inside[1][None, :]

    def corner(down: int, right: int) -> np.ndarray:
        picked = gradient[:, (base[0] + down)[:, None], (base[1] + right)[None, :]]
        return np.asarray(picked[0] * (v - down) + picked[1] * (u - right))

    row, column = fade[0][:, None], fade[1][None, :]
    upper = corner(0, 0) * (1 - column) + corner(0, 1) * column
    lower = corner(1, 0) * (1 - column) + corner(1, 1) * column
    return np.asarray((upper * (1 - row) + lower * row) * math.sqrt(2), dtype=np.float32)


def _pm(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform(-1, 1, count)


def _turned(side: int, step: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (side, side) around the centre, in pixels of the photograph, turned by `angle`."""
    axis = ((np.arange(side) - (side - 1) / 2) * step).astype(np.float32)
    x, y = axis[None, :], axis[:, None]
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _smooth_noise(rng: np.random.Generator, side: int, cells: int) -> np.ndarray:
    grid = rng.normal(0, 1, (cells + 3, cells + 3)).astype(np.float32)
    return cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)


def _grow(soft: Callable[[int, float], np.ndarray], span: float, area: float) -> np.ndarray:
    """Threshold `soft(side, step)`, a field that is high inside, so that its largest part has about `area` pixels."""
    side = int(np.clip(math.ceil(span), 8, WORKING))
    step = max(1.0, span / side) if span > 8 else 1.0
    field = soft(side, step)
    wanted = max(1.0, area / step**2)
    ordered = np.sort(field, axis=None)
    ask = wanted
    best, best_error, best_level = None, math.inf, 0.0
    for _ in range(6):  # parts that fall away take their area with them: ask for more until the largest part fits
        level = float(ordered[-int(np.clip(round(ask), 1, ordered.size))])
        part = _whole(field >= level)
        got = int(part.sum())
        if abs(got - wanted) < best_error:
            best, best_error, best_level = part, abs(got - wanted), level
        if best_error <= 0.05 * wanted or ask >= ordered.size:
            break
        ask = min(ordered.size, ask * np.clip(wanted / got, 0.5, 2.0))
    assert best is not None
    rows, columns = _span(best)
    best, field = best[rows, columns], field[rows, columns]
    if step == 1.0:
        return best
    # Enlarge the soft field, not the mask: the outline stays smooth. Clipped to bytes to stay light.
    soft_edge = np.clip(
        np.where(best, np.maximum(field - best_level, 0), np.minimum(field - best_level, -1e-3)), -0.2, 0.2
    )
    padded = np.pad((soft_edge / 0.2 * 127 + 128).astype(np.uint8), 2, constant_values=1)
    padded[2:-2, 2:-2][best] = np.maximum(padded[2:-2, 2:-2][best], 128)
    size = (round(padded.shape[1] * step), round(padded.shape[0] * step))
    large = cv2.resize(padded, size, interpolation=cv2.INTER_CUBIC) >= 128
    return _cut(_whole(large))


def _walk(rng: np.random.Generator, length: float, heading: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """A jagged path of `length` pixels and its tapering widths."""
    step = max(2.0, 1.5 * width)
    count = max(3, int(length / step))
    wander = np.zeros(count)
    for index in range(1, count):  # mean-reverting: jagged in the small, straight in the large
        wander[index] = 0.75 * wander[index - 1] + rng.normal(0, 0.42)
    angles = heading + wander + np.cumsum(rng.normal(0, 0.05, count))
    points = np.cumsum(np.stack([np.cos(angles), np.sin(angles)], axis=1) * (length / count), axis=0)
    t = np.linspace(0, 1, count)
    widths = width * 1.3 * (1 - 0.75 * t) * (1 + 0.25 * _pm(rng, count))
    return points, widths


def _strokes(strokes: list[tuple[np.ndarray, np.ndarray]], area: float) -> np.ndarray:
    """Draw paths (n, 2) of (x, y) with widths (n,) as one connected mask of about `area`, at least a pixel wide."""
    every = np.concatenate([points for points, _ in strokes])
    widest = 2 * max(float(widths.max()) for _, widths in strokes)
    corner = every.min(axis=0) - widest - 1
    width, height = (math.ceil(v) for v in every.max(axis=0) + widest + 1 - corner)
    fine = FINEST if max(width, height) <= 400 else 2 if max(width, height) <= 1200 else 1
    factor = 1.0
    for attempt in range(3):  # ends, crossings and rounding change the area: correct the widths
        canvas = np.zeros((height * fine, width * fine), dtype=np.uint8)
        for points, widths in strokes:
            pixels = np.rint((points - corner) * fine * 16).astype(np.int32)
            thick = np.maximum(1.15, widths * factor) * fine
            for index in range(len(pixels) - 1):
                mean = max(1, round(float(thick[index] + thick[index + 1]) / 2))
                cv2.line(canvas, pixels[index].tolist(), pixels[index + 1].tolist(), 255, mean, cv2.LINE_8, 4)
        small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA) if fine > 1 else canvas
        drawn = _largest(small >= 100)
        wrong = area / max(1, int(drawn.sum()))
        if attempt == 2 or 0.9 < wrong < 1.1:
            break
        factor = float(np.clip(factor * wrong, 0.3, 2.0))
    return _cut(drawn)


def _largest(mask: np.ndarray) -> np.ndarray:
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])) if count > 2 else mask


def _whole(mask: np.ndarray) -> np.ndarray:
    """The largest connected part with its holes filled."""
    filled = _largest(mask).astype(np.uint8)
    contours, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(filled, contours, -1, 1, cv2.FILLED).astype(bool))


def _span(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _cut(mask: np.ndarray) -> np.ndarray:
    return mask[_span(mask)] if mask.any() else np.ones((1, 1), dtype=bool)
