"""Masks inside masks: lines, threads, cracks and spots for a kind that is finer than the mask it was given."""

from __future__ import annotations

import cv2
import numpy as np

SUPERSAMPLE = 4
SHARE = 0.2  # of a wide mask that lines should fill: labels of less than a tenth are refused


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
    """Whether the mask is itself a line or a net of lines: much longer than it is wide, the more so if it is wide."""
    return radius <= 1.5 or float(mask.sum()) > (5.0 if radius <= 5 else 12.0) * (2 * radius) ** 2


def draw(shape: tuple[int, int], lines: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """Rasterise polylines [(points (n, 2) x, y; width)] as coverage (h, w) float32 in 0..1, anti-aliased."""
    scale = SUPERSAMPLE if shape[0] * shape[1] <= 256 * 256 else 2
    canvas = np.zeros((shape[0] * scale, shape[1] * scale), np.uint8)
    for points, width in lines:
        fixed = np.rint((points + 0.5) * scale * 8).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(canvas, [fixed], False, 255, max(1, round(width * scale)), cv2.LINE_8, 3)
    return np.asarray(cv2.resize(canvas, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.float32) / 255


def scratches(mask: np.ndarray, rng: np.random.Generator, thin: bool) -> np.ndarray:
    """Nearly parallel, slightly curved lines along the mask's long axis, (h, w) bool inside the mask."""
    centre, (along, across), (length, width) = axes(mask)
    thickness = float(np.clip(0.03 * length, 2.0, 2.6 if thin else 4.0))
    count = int(np.clip(SHARE * mask.sum() / (thickness * length), 1 + (rng.random() < 0.5), 12))
    turn = float(rng.normal(0, 0.12))
    way = along * np.cos(turn) + across * np.sin(turn)
    normal = np.array([-way[1], way[0]], np.float32)
    steps = np.linspace(-0.6, 0.6, 12, dtype=np.float32)[:, None]
    lines = []
    for _ in range(count):
        offset = float(np.clip(rng.normal(0, 0.2), -0.42, 0.42)) * width
        bow = float(rng.normal(0, 0.05)) * length
        start = float(rng.normal(0, 0.12)) * length
        points = centre + (steps * length + start) * way + (offset + bow * (1 - (steps / 0.6) ** 2)) * normal
        lines.append((points, thickness * float(rng.uniform(0.6, 1.2))))
    return _within(draw(mask.shape, lines), mask, SHARE)


def cracks(mask: np.ndarray, rng: np.random.Generator, thin: bool) -> np.ndarray:
    """A jagged line through the mask with branches, (h, w) bool inside the mask."""
    centre, (along, _), (length, width) = axes(mask)
    rows, columns = np.nonzero(mask)
    thickness = float(np.clip(0.03 * length, 1.8, 2.2 if thin else 3.2))
    axis = float(np.arctan2(along[1], along[0]))
    lines: list[tuple[np.ndarray, float]] = []
    hit = np.zeros(mask.shape, bool)
    for index in range(24):
        if index == 0:
            start, heading, reach = centre - 0.55 * length * along, axis, 1.15 * length
        else:
            parent = lines[int(rng.integers(min(len(lines), 4)))][0]
            start = parent[int(rng.integers(1, len(parent)))]
            if not mask[int(np.clip(start[1], 0, mask.shape[0] - 1)), int(np.clip(start[0], 0, mask.shape[1] - 1))]:
                pick = int(rng.integers(len(rows)))  # the line left a crooked mask: another one starts within
                start = np.array([columns[pick], rows[pick]], np.float32)
            heading = (
                axis + float(rng.choice([-1.0, 1.0])) * float(rng.uniform(0.4, 1.3)) + np.pi * int(rng.random() < 0.4)
            )
            reach = float(rng.uniform(0.35, 0.9)) * max(width, 0.4 * length)
        count = max(4, int(reach / 7))
        turns = heading + np.cumsum(rng.normal(0, 0.28, count)) * 0.6 + rng.normal(0, 0.38, count)
        path = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=1) * (reach / count), axis=0)
        points = np.concatenate([start[None], start + path]).astype(np.float32)
        lines.append((points, thickness * (1.0 if index == 0 else float(rng.uniform(0.6, 0.9)))))
        if index % 4 == 1:
            hit = (draw(mask.shape, lines) > 0.5) & mask
            if hit.sum() > 0.7 * SHARE * len(rows):
                break
    return _within(hit.astype(np.float32), mask, 0.7 * SHARE)


def threads(mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Curled threads within the mask: coverage (h, w) in 0..1 and their width in pixels."""
    centre, turned, extent = axes(mask)
    thickness = float(np.clip(0.025 * extent[0] + 0.8, 1.5, 4.0))
    reach = float(np.sqrt(extent[0] * extent[1]))
    count = int(np.clip(SHARE * mask.sum() / (1.5 * reach * thickness), 1, 10))
    time = np.linspace(0, 1, 60, dtype=np.float32)
    lines = []
    for _ in range(count):
        # The heading wanders smoothly: arcs, hooks and loops of a springy thread.
        heading = float(rng.uniform(0, 2 * np.pi)) + sum(
            float(rng.normal(0, 1.6 / wave)) * np.sin(np.pi * wave * time + float(rng.uniform(0, 2 * np.pi)))
            for wave in (1, 2, 3)
        )
        path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
        path = path - path.mean(axis=0)
        # Turned into the mask's axes and shrunk to its box, never stretched by more than the box is long.
        room = 0.5 * extent * float(rng.uniform(0.75, 0.98))
        scale = min(float((room / np.maximum(np.abs(path).max(axis=0), 1e-3)).max()), 1.6 * reach / len(time))
        path = np.clip(path * scale, -room, room)
        away = rng.uniform(-0.2, 0.2, size=2) * extent * (count > 1)
        lines.append(((centre + (path + away) @ turned).astype(np.float32), thickness))
    return draw(mask.shape, lines), thickness


def scattered(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spots of several sizes scattered over the mask until half of it or more is covered, (h, w) bool inside it."""
    rows, columns = np.nonzero(mask)
    area = len(rows)
    typical = float(np.clip(0.1 * np.sqrt(area), 1.3, 6.0))
    # Spots overlap and fray. A large mask holds many separate spots rather than one patch.
    wanted = (1.1 if typical < 4 else 0.75) * area
    canvas = np.zeros(mask.shape, np.uint8)
    covered = 0.0
    for _ in range(400):
        index = int(rng.integers(area))
        size = typical * float(np.clip(rng.lognormal(-0.1, 0.55), 0.4, 2.8))
        tall = size * float(rng.uniform(0.7, 1.0))
        centre = (int(columns[index]), int(rows[index]))
        lengths = (max(1, round(size)), max(1, round(tall)))
        cv2.ellipse(canvas, centre, lengths, float(rng.uniform(0, 180)), 0, 360, 255, -1)
        covered += np.pi * size * tall
        if covered > wanted:
            break
    return _within(canvas.astype(np.float32) / 255, mask)


def _within(coverage: np.ndarray, mask: np.ndarray, share: float = 0.0) -> np.ndarray:
    """The covered part of the mask, thickened until it fills `share` of it; the whole mask when nothing was hit."""
    hit = (coverage > 0.5) & mask
    total = int(mask.sum())
    if hit.sum() < min(8, total):
        return mask
    for _ in range(4):
        if hit.sum() >= 0.75 * share * total:
            break
        hit = cv2.dilate(hit.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & mask
    return hit
