"""Thin defects unrolled along their centre lines, so that a crack is synthesised along a crack, whatever its bends.

A strip has the line's length as its columns and a pixel of the photograph as a pixel: nothing is reduced. Its rows run
across, from the side the light comes from (above and left) to the other; those of a line of another width than the
exemplar's lie closer or wider, or a crack grown thicker would have its dark core twice, as far from each of its borders
as the real one's was.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from skimage.morphology import skeletonize

from flawsmith.methods.analogy.guidance import signed_distance

THIN = 32.0  # pixels across, at most
LONG = 5.0  # length over width, at least
AROUND = 6  # pixels beside a line that belong to its strip
ALIKE, MOST = 1.15, 2.5  # factor between two widths below which rows stay pixels, and the largest that is followed


def centre_lines(mask: np.ndarray) -> list[np.ndarray]:
    """The lines (n, 2) float, one point (x, y) per pixel of length, through a mask (h, w) bool; longest first.

    The longest path of each part's skeleton, then the longest of what branches off. They reach to the mask's ends.
    """
    depth = signed_distance(np.pad(mask, 1))[1:-1, 1:-1]
    rest = skeletonize(mask)
    lines: list[np.ndarray] = []
    width = 2 * float(depth.max())
    while rest.any():
        path = _longest(rest)
        near = np.zeros(mask.shape, np.uint8)
        near[path[:, 1], path[:, 0]] = 1
        rest &= cv2.distanceTransform(1 - near, cv2.DIST_L2, 3) > max(2.0, 0.5 * width)
        if len(path) >= max(4.0, 1.5 * width) or not lines:
            lines.append(_smooth(path, depth))
    return sorted(lines, key=len, reverse=True)


def is_thin(mask: np.ndarray) -> bool:
    """Whether a mask (h, w) bool is a line: narrow, and much longer than it is wide."""
    width = 2 * float(signed_distance(np.pad(mask, 1)).max())
    if width > THIN:
        return False
    count = int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0]) - 1
    return float(mask.sum()) / max(width, 1.5) ** 2 >= LONG * min(count, 8)


class Strip:
    """The lines of one mask laid out side by side: `take` unrolls an array of its window, `give` rolls one back.

    like: half the width in pixels that the strip shall have in rows; without it a row is a pixel.
    """

    def __init__(self, mask: np.ndarray, mirrored: bool = False, like: float | None = None) -> None:
        lines = centre_lines(mask)
        self.half = float(signed_distance(np.pad(mask, 1)).max())
        wider = 1.0 if like is None else float(np.clip(self.half / like, 1 / MOST, MOST))
        self.step = wider if max(wider, 1 / wider) > ALIKE else 1.0  # pixels from row to row
        self.reach = int(np.ceil(self.half / self.step)) + AROUND
        points, normals, along = [], [], []
        for line in lines:
            slope = np.gradient(ndimage.gaussian_filter1d(line, 3, axis=0, mode="nearest"), axis=0)
            slope /= np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6)
            across = np.stack([-slope[:, 1], slope[:, 0]], axis=1)
            place = np.linspace(-1, 1, len(line))
            if across.mean(axis=0).sum() < 0:  # rows run away from the light
                line, across = line[::-1], -across[::-1]  # noqa: PLW2901
            if mirrored:
                line, across, place = line[::-1], across[::-1], -place  # noqa: PLW2901
            points.append(line)
            normals.append(across)
            along.append(place)
        self.gap = 6
        self.along = self._joined(along)[None].astype(np.float32)
        self.at = self._joined(points)
        self.normals = self._joined(normals)
        self.real = self._joined([np.ones(len(line)) for line in points], edge=False) > 0
        rows = self.step * np.arange(-self.reach, self.reach + 1)
        self.x = (self.at[None, :, 0] + rows[:, None] * self.normals[None, :, 0]).astype(np.float32)
        self.y = (self.at[None, :, 1] + rows[:, None] * self.normals[None, :, 1]).astype(np.float32)
        self.shape = mask.shape

    def _joined(self, parts: list[np.ndarray], edge: bool = True) -> np.ndarray:
        """Parts behind each other with gaps, in which the ends go on (or zeros)."""
        mode = "edge" if edge else "constant"
        padded = [np.pad(p, ((self.gap, self.gap), *[(0, 0)] * (p.ndim - 1)), mode=mode) for p in parts]  # type: ignore[call-overload]
        return np.concatenate(padded)

    def take(self, array: np.ndarray) -> np.ndarray:
        """An array of the window (h, w) bool or (h, w, C) float32 along the lines: (2 * reach + 1, length[, C])."""
        if array.dtype == bool:
            found = cv2.remap(
                array.astype(np.float32), self.x, self.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            return (found >= 0.5) & self.real[None]
        found = cv2.remap(array, self.x, self.y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        return found.reshape(*found.shape[:2], -1)

    def give(self, strip: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A strip (2 * reach + 1, length, C) rolled back onto a mask (h, w): values (h, w, C), and where it reached."""
        near = np.full(mask.shape, 1, np.uint8)
        at = np.rint(self.at).astype(int)
        keep = self.real & (at >= 0).all(axis=1) & (at[:, 0] < mask.shape[1]) & (at[:, 1] < mask.shape[0])
        index = np.zeros(mask.shape, np.int64)
        near[at[keep, 1], at[keep, 0]] = 0
        index[at[keep, 1], at[keep, 0]] = np.flatnonzero(keep)
        _, (rows, columns) = ndimage.distance_transform_edt(near, return_indices=True)
        y, x = np.nonzero(mask)
        which = index[rows[y, x], columns[y, x]]
        gap = np.stack([x, y], axis=1) - self.at[which]
        normal = self.normals[which]
        across = (gap * normal).sum(axis=1) / self.step
        ahead = (gap * np.stack([normal[:, 1], -normal[:, 0]], axis=1)).sum(axis=1)
        reached = np.zeros(mask.shape, dtype=bool)
        good = np.abs(across) <= self.reach - 1
        reached[y[good], x[good]] = True
        column = (which + np.clip(ahead, -1, 1))[good].astype(np.float32)
        row = (across + self.reach)[good].astype(np.float32)
        found = cv2.remap(strip, column[None], row[None], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        values = np.zeros((*mask.shape, strip.shape[2]), np.float32)
        values[y[good], x[good]] = found.reshape(-1, strip.shape[2])
        return values, reached


def _longest(skeleton: np.ndarray) -> np.ndarray:
    """The longest shortest path (n, 2) int, as (x, y), through the largest connected part of a skeleton (h, w)."""
    parts, count = ndimage.label(skeleton, np.ones((3, 3)))
    largest = 1 + int(np.argmax(np.bincount(parts.ravel(), minlength=count + 1)[1:]))
    y, x = np.nonzero(parts == largest)
    number = np.full((skeleton.shape[0] + 2, skeleton.shape[1] + 2), -1, np.int64)
    number[y + 1, x + 1] = np.arange(len(y))
    rows, columns, lengths = [], [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        other = number[y + 1 + down, x + 1 + right]
        here = np.flatnonzero(other >= 0)
        rows.append(here)
        columns.append(other[here])
        lengths.append(np.full(len(here), np.hypot(down, right)))
    links = np.concatenate(rows), np.concatenate(columns)
    graph = sparse.csr_matrix((np.concatenate(lengths), links), shape=(len(y), len(y)))
    first = int(csgraph.dijkstra(graph, directed=False, indices=0).argmax())
    away, before = csgraph.dijkstra(graph, directed=False, indices=first, return_predecessors=True)
    path = [int(away.argmax())]
    while path[-1] != first:
        path.append(int(before[path[-1]]))
    return np.stack([x[path], y[path]], axis=1)


def _smooth(path: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """A pixel path (n, 2) as a smooth line with a point per pixel of length, extended to the mask's ends."""
    line = ndimage.gaussian_filter1d(path.astype(float), min(2.0, len(path) / 4), axis=0, mode="nearest")
    ends = []
    for end, inner in ((0, min(5, len(line) - 1)), (-1, -1 - min(5, len(line) - 1))):
        slope = line[end] - line[inner]
        length = float(np.linalg.norm(slope))
        reach = max(0.5, float(depth[path[end, 1], path[end, 0]]))
        ends.append(line[end] + (slope / length if length else np.array([1.0 if end else -1.0, 0.0])) * reach)
    line = np.concatenate([ends[0][None], line, ends[1][None]])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    steps = np.arange(0, along[-1] + 1e-6)
    return np.stack([np.interp(steps, along, line[:, i]) for i in (0, 1)], axis=1)
