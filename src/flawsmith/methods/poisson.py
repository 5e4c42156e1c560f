"""Gradient-domain blending: paint so that the seam disappears, by solving Poisson's equation inside the mask.

Reference: Perez, Gangnet and Blake, "Poisson Image Editing", SIGGRAPH 2003, equations 7 to 13.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse import linalg

DIRECT = 20_000  # unknowns up to which one factorisation for all channels is fastest; above, conjugate gradients
NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def seamless(normal: np.ndarray, source: np.ndarray, mask: np.ndarray, mixed: bool = False) -> np.ndarray:
    """Paint `source` into `mask` so that its gradients are kept and its border meets `normal`.

    normal, source: (h, w, 3) uint8 or float; mask: (h, w) bool. Inside the mask the result's five-point Laplacian is
    the source's, on the pixels just outside it is `normal`. With `mixed`, the stronger of both gradients is kept
    pixel by pixel (equation 12), so that the photograph's own texture shows through. At the window's border the
    gradient is the source's (there is no pixel to meet). Returns (h, w, 3) float64, not rounded or clipped.
    """
    result = normal.astype(np.float64)
    inside = np.flatnonzero(mask)
    if not len(inside):
        return result
    height, width = mask.shape
    here, guide = normal.reshape(-1, 3).astype(np.float64), source.reshape(-1, 3).astype(np.float64)
    number = np.full(mask.size, -1, dtype=np.int64)
    number[inside] = np.arange(len(inside))
    rows, columns = np.divmod(inside, width)

    diagonal = np.zeros(len(inside))
    known = np.zeros((len(inside), 3))  # right-hand side: the guiding field plus the pixels that are given
    links: list[tuple[np.ndarray, np.ndarray]] = []
    for down, right in NEIGHBOURS:
        exists = (rows + down >= 0) & (rows + down < height) & (columns + right >= 0) & (columns + right < width)
        at = np.flatnonzero(exists)
        pixel, neighbour = inside[at], inside[at] + down * width + right
        gradient = guide[pixel] - guide[neighbour]
        if mixed:
            own = here[pixel] - here[neighbour]
            gradient = np.where(np.abs(own) > np.abs(gradient), own, gradient)
        diagonal[at] += 1
        known[at] += gradient
        unknown = number[neighbour] >= 0
        known[at[~unknown]] += here[neighbour[~unknown]]
        links.append((at[unknown], number[neighbour[unknown]]))
    if bool(mask.all()):  # nothing to meet: keep the source's brightness
        diagonal += 1e-3
        known += 1e-3 * guide
    row = np.concatenate([np.arange(len(inside)), *(a for a, _ in links)])
    column = np.concatenate([np.arange(len(inside)), *(b for _, b in links)])
    values = np.concatenate([diagonal, np.full(len(row) - len(inside), -1.0)])
    matrix = sparse.csc_matrix((values, (row, column)), shape=(len(inside), len(inside)))
    if len(inside) <= DIRECT:
        solution = np.asarray(linalg.splu(matrix).solve(known))
    else:
        start = guide[inside] + _membrane(normal, source, mask).reshape(-1, 3)[inside]
        solution = _iterate(matrix, known, start)
    result.reshape(-1, 3)[inside] = solution
    return result


def _iterate(matrix: sparse.csc_matrix, known: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Solve every channel by conjugate gradients to a hundredth of a grey level, from a good guess."""
    scale = sparse.diags(1 / matrix.diagonal())
    columns = [
        linalg.cg(matrix, known[:, c], x0=start[:, c], rtol=0, atol=1e-2, maxiter=600, M=scale)[0]
        for c in range(known.shape[1])
    ]
    return np.stack(columns, axis=1)


def _membrane(normal: np.ndarray, source: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A smooth guess (h, w, 3) of the correction that joins source and normal, from the ring around the mask."""
    ring = (cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~mask).astype(np.float32)
    gap = (normal.astype(np.float32) - source.astype(np.float32)) * ring[..., None]
    total, weight = np.zeros_like(gap), np.zeros_like(ring)
    for sigma in (2.0, 6.0, 18.0, 54.0):  # near the ring the fine scale decides, far from it the coarse ones
        share = cv2.GaussianBlur(ring, (0, 0), sigma) * 0.02 ** (sigma > 2)
        total += cv2.GaussianBlur(gap, (0, 0), sigma) * 0.02 ** (sigma > 2)
        weight += share
    return np.asarray(total / np.maximum(weight, 1e-9)[..., None])
