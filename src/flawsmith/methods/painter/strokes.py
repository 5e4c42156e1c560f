"""Masks inside masks: lines, threads, cracks and spots for a kind that is finer than the mask it was given."""

from __future__ import annotations

import cv2
import numpy as np

SUPERSAMPLE = 4


def axes(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre (x, y), unit axes (2, 2) rows long then short, and extents (2,) in pixels of a (h, w) bool mask."""
    rows, columns = np.nonzero(mask)
    points = np.stack([columns, rows], axis=1).astype(np.float32)
    centre = points.mean(axis=0)
    away = points - centre
    spread = away.T @ away / max(1, len(points))
    _, vectors = np.linalg.eigh(spread + 1e-6 * np.eye(2))
    turned = vectors.T[::-1].astype(np.float32)
    projected = away @ turned.T
    extent = projected.max(axis=0) - projected.min(axis=0) + 1
    return centre, turned, extent


def ridge(inside: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """(cross, half): distance from the middle line of a mask and the mask's half width there, (h, w) in pixels."""
    size = 2 * int(np.ceil(min(radius, 24))) + 1
    half = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    return np.maximum(half - inside, 0), np.maximum(half, 0.5)


def is_line(mask: np.ndarray, radius: float) -> bool:
    """Whether the mask is itself a line or a net of lines: much longer than it is wide."""
    return float(mask.sum()) > 5.0 * (2 * radius) ** 2 or radius <= 1.5


def draw(shape: tuple[int, int], lines: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """Rasterise polylines [(points (n, 2) x, y; width)] as coverage (h, w) float32 in 0..1, anti-aliased."""
    scale = SUPERSAMPLE if shape[0] * shape[1] <= 256 * 256 else 2
    canvas = np.zeros((shape[0] * scale, shape[1] * scale), np.uint8)
    for points, width in lines:
        fixed = np.rint((points + 0.5) * scale * 8).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(canvas, [fixed], False, 255, max(1, round(width * scale)), cv2.LINE_8, 3)
    return np.asarray(cv2.resize(canvas, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.float32) / 255


def scratches(mask: np.ndarray, rng: np.random.Generator, thin: bool) -> np.ndarray:
    """A few nearly parallel, slightly curved lines along the mask's long axis, (h, w) bool inside the mask."""
    centre, (along, across), (length, width) = axes(mask)
    count = int(rng.integers(1, 3)) if thin else int(rng.integers(2, 5))
    thickness = float(np.clip(0.22 * mask.sum() / (count * length), 2.0, 3.0 if thin else 6.0))
    turn = float(rng.normal(0, 0.12))
    way = along * np.cos(turn) + across * np.sin(turn)
    normal = np.array([-way[1], way[0]], np.float32)
    steps = np.linspace(-0.6, 0.6, 12, dtype=np.float32)[:, None]
    lines = []
    for _ in range(count):
        offset = float(rng.uniform(-0.28, 0.28)) * width
        bow = float(rng.normal(0, 0.05)) * length
        start = float(rng.normal(0, 0.1)) * length
        points = centre + (steps * length + start) * way + (offset + bow * (1 - (steps / 0.6) ** 2)) * normal
        lines.append((points, thickness * float(rng.uniform(0.7, 1.2))))
    return _within(draw(mask.shape, lines), mask)


def cracks(mask: np.ndarray, rng: np.random.Generator, thin: bool) -> np.ndarray:
    """A jagged line through the mask with branches, (h, w) bool inside the mask."""
    centre, (along, _), (length, width) = axes(mask)
    share = 0.18 if thin else 0.3
    lines: list[tuple[np.ndarray, float]] = []
    drawn = 0.0
    thickness = float(np.clip(0.045 * width, 2.0, 5.0))
    for index in range(12):
        if index == 0:
            start, heading, reach = centre - 0.55 * length * along, float(np.arctan2(along[1], along[0])), 1.15 * length
        else:
            parent, _ = lines[int(rng.integers(min(index, 3)))]
            start = parent[int(rng.integers(1, len(parent)))]
            side = 1 if rng.random() < 0.5 else -1
            heading = float(np.arctan2(along[1], along[0])) + side * float(rng.uniform(0.4, 1.3))
            heading += np.pi * int(rng.random() < 0.4)
            reach = float(rng.uniform(0.35, 0.9)) * max(width, 0.4 * length)
        count = max(4, int(reach / 7))
        turns = heading + np.cumsum(rng.normal(0, 0.28, count)) * 0.6 + rng.normal(0, 0.38, count)
        step = reach / count
        path = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=1) * step, axis=0)
        points = np.concatenate([start[None], start + path]).astype(np.float32)
        lines.append((points, thickness * (1.0 if index == 0 else float(rng.uniform(0.5, 0.85)))))
        drawn += reach * lines[-1][1]
        if drawn > share * float(mask.sum()) and index >= 1:
            break
    return _within(draw(mask.shape, lines), mask)


def threads(mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Curved threads within the mask: coverage (h, w) in 0..1 and their width in pixels."""
    centre, turned, extent = axes(mask)
    count = int(rng.choice([1, 1, 2, 3]))
    thickness = float(np.clip(0.28 * mask.sum() / (count * 2.0 * extent[0]), 1.6, 0.02 * extent[0] + 4.0))
    time = np.linspace(0, 1, 60, dtype=np.float32)[:, None]
    lines = []
    for _ in range(count):
        # A Bezier curve of degree 4 over points scattered in the mask's box: loops and hooks, never a kink.
        knots = rng.uniform(-0.62, 0.62, size=(5, 2))
        knots[0, 0], knots[-1, 0] = -0.5, 0.5
        weights = [1, 4, 6, 4, 1]
        curve = sum(w * (1 - time) ** (4 - i) * time**i * knots[i][None] for i, w in enumerate(weights))
        points = centre + np.asarray(curve, np.float32) * extent @ turned
        lines.append((points.astype(np.float32), thickness))
    return draw(mask.shape, lines), thickness


def scattered(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round spots of several sizes scattered over the mask until more than half is covered, (h, w) bool inside it."""
    rows, columns = np.nonzero(mask)
    area = len(rows)
    typical = float(np.clip(0.11 * np.sqrt(area), 1.3, 12))
    canvas = np.zeros(mask.shape, np.uint8)
    covered = 0.0
    for _ in range(120):
        index = int(rng.integers(area))
        size = typical * float(np.clip(rng.lognormal(-0.1, 0.55), 0.4, 2.8))
        tall = size * float(rng.uniform(0.7, 1.0))
        centre = (int(columns[index] * 8 + rng.integers(8)), int(rows[index] * 8 + rng.integers(8)))
        cv2.ellipse(
            canvas,
            (centre[0] // 8, centre[1] // 8),
            (max(1, round(size)), max(1, round(tall))),
            float(rng.uniform(0, 180)),
            0,
            360,
            255,
            -1,
        )
        covered += np.pi * size * tall
        if covered > 1.1 * area:  # they overlap, and their edges fray
            break
    return _within(canvas.astype(np.float32) / 255, mask)


def _within(coverage: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The covered part of the mask, or the whole mask when nothing of it was hit."""
    hit = (coverage > 0.5) & mask
    return hit if hit.sum() >= min(8, mask.sum()) else mask
