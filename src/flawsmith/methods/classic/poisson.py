"""Gradient-domain blending: paint so that the seam disappears, by solving Poisson's equation inside the mask.

Reference: Perez, Gangnet and Blake, "Poisson Image Editing", SIGGRAPH 2003, equations 7 to 13.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from flawsmith import images

DIRECT = 100_000  # unknowns solved exactly (a third of a second, 60 MB); above, conjugate gradients from a coarse guess
NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def seamless(normal: np.ndarray, source: np.ndarray, mask: np.ndarray, mixed: bool = False) -> np.ndarray:
    """Paint `source` into `mask` so that its gradients are kept and its border meets `normal`.

    normal, source: (h, w, 3) uint8 or float; mask: (h, w) bool. Inside the mask the result's five-point Laplacian is
    the source's, on the pixels just outside it is `normal`. With `mixed`, the stronger of both gradients is kept
    pixel by pixel (equation 12), so that the photograph's own texture shows through. At the window's border the
    gradient is the source's (there is no pixel to meet). Returns (h, w, 3) float32, not rounded or clipped.
    """
    result = normal.astype(np.float32)
    inside = np.flatnonzero(mask)
    if not len(inside):
        return result
    height, width = mask.shape
    # Only what lies in the mask or beside it is made wide: a scattered mask's window may be as large as a photograph.
    here, guide = normal.reshape(-1, 3), source.reshape(-1, 3)
    inside = inside.astype(np.int32)
    number = np.full(mask.size, -1, dtype=np.int32)
    number[inside] = np.arange(len(inside), dtype=np.int32)
    rows, columns = np.divmod(inside, np.int32(width))

    diagonal = np.zeros(len(inside))
    known = np.zeros((len(inside), 3))  # right-hand side: the guiding field plus the pixels that are given
    links: list[tuple[np.ndarray, np.ndarray]] = []
    for down, right in NEIGHBOURS:
        exists = (rows + down >= 0) & (rows + down < height) & (columns + right >= 0) & (columns + right < width)
        at = np.flatnonzero(exists).astype(np.int32)
        pixel, neighbour = inside[at], inside[at] + down * width + right
        gradient = guide[pixel].astype(np.float64) - guide[neighbour]
        if mixed:
            own = here[pixel].astype(np.float64) - here[neighbour]
            gradient = np.where(np.abs(own) > np.abs(gradient), own, gradient)
        diagonal[at] += 1
        known[at] += gradient
        unknown = number[neighbour] >= 0
        known[at[~unknown]] += here[neighbour[~unknown]]
        links.append((at[unknown], number[neighbour[unknown]]))
    if bool(mask.all()):  # nothing to meet: keep the source's brightness
        diagonal += 1e-3
        known += 1e-3 * guide[inside]
    row = np.concatenate([np.arange(len(inside), dtype=np.int32), *(a for a, _ in links)])
    column = np.concatenate([np.arange(len(inside), dtype=np.int32), *(b for _, b in links)])
    values = np.concatenate([diagonal, np.full(len(row) - len(inside), -1.0)])
    matrix = sparse.csc_matrix((values, (row, column)), shape=(len(inside), len(inside)))
    if len(inside) <= DIRECT:
        # The matrix is symmetric: this ordering needs half the fill-in of the default.
        symmetric = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
        solution = np.asarray(linalg.splu(matrix, **symmetric).solve(known))
    else:
        start = guide[inside] + _coarse(normal, source, mask, mixed).reshape(-1, 3)[inside]
        solution = _iterate(matrix, known, start)
    result.reshape(-1, 3)[inside] = solution
    return result


def _iterate(matrix: sparse.csc_matrix, known: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Solve every channel by conjugate gradients to a hundredth of a grey level, from a good guess."""
    scale = sparse.diags(1 / matrix.diagonal())
    columns = [
        linalg.cg(matrix, known[:, c], x0=start[:, c], rtol=0, atol=1e-2, maxiter=300, M=scale)[0]
        for c in range(known.shape[1])
    ]
    return np.stack(columns, axis=1)


def _coarse(normal: np.ndarray, source: np.ndarray, mask: np.ndarray, mixed: bool) -> np.ndarray:
    """What is to be added to the source, solved on a reduced copy: smooth inside, so nearly the answer. (h, w, 3)."""
    height, width = mask.shape
    step = math.ceil(math.sqrt(np.count_nonzero(mask) / DIRECT)) + 1
    small = max(1, height // step), max(1, width // step)
    old, new = (images.resize(part.astype(np.float32), *small) for part in (normal, source))
    added = seamless(old, new, images.resize_mask(mask, *small), mixed) - new
    return cv2.resize(added, (width, height), interpolation=cv2.INTER_LINEAR)
