"""How varied generated defects are, and whether they are copies: distances of feature maps.

All functions take rows (N, M) whose squared Euclidean distance is the feature distance (`Features.maps`), or distance
matrices made from them. Definitions: docs/evaluation.md, "Images"; the key is IC-FD unless LPIPS weights were used.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.metrics.fidelity import squared_distances


def distances(first: np.ndarray, second: np.ndarray | None = None) -> np.ndarray:
    """Feature distances (N, K) float64 between rows (N, M) and (K, M), or among the first (symmetric, diagonal 0)."""
    if second is not None:
        return squared_distances(first, second)
    found = squared_distances(first, first)
    found = (found + found.T) / 2
    np.fill_diagonal(found, 0.0)
    return found


def mean_pairwise(among: np.ndarray) -> float | None:
    """Mean distance over all pairs of a symmetric matrix (N, N); None for fewer than two images.

    Not biased by the number of images, so that eight real defects and two hundred generated ones may be compared.
    """
    count = len(among)
    if among.shape != (count, count):
        raise FlawsmithError(f"Pairwise distances must be a square matrix, got {among.shape}.")
    return float(among.sum() / (count * (count - 1))) if count > 1 else None


@dataclass(frozen=True)
class Clustered:
    """`value`: mean over clusters with two members or more, None if there are none; `empty_as_zero`: others count 0.

    `sizes`: members of every cluster, in the order of the centres.
    """

    value: float | None
    empty_as_zero: float
    sizes: tuple[int, ...]

    @property
    def left_out(self) -> int:
        """Clusters with fewer than two members, which `value` does not count."""
        return sum(size < 2 for size in self.sizes)


def cluster_diversity(rows: np.ndarray, centres: np.ndarray, cap: int = 200) -> Clustered:
    """IC-LPIPS's rule on any feature distance: mean pairwise distance inside clusters around the real defects.

    rows (N, M): the generated images of one type; centres (C, M): its real training defects. Every row joins its
    nearest centre; the first `cap` of each cluster are compared. A generator that copies its references exactly has
    tight clusters. Ojha et al., CVPR 2021, section 4.1.
    """
    if not len(centres):
        raise FlawsmithError("Clustering needs at least one real defect as a centre.")
    nearest = distances(rows, centres).argmin(axis=1)
    values, sizes = [], []
    for number in range(len(centres)):
        members = np.flatnonzero(nearest == number)
        sizes.append(len(members))
        if len(members) > 1:
            values.append(mean_pairwise(distances(rows[members[:cap]])))
    found = [value for value in values if value is not None]
    return Clustered(float(np.mean(found)) if found else None, float(sum(found)) / len(centres), tuple(sizes))


def aligned_crop(
    image: np.ndarray, mask: np.ndarray, angle: float = 0.0, mirror: bool = False, size: int = 96, context: float = 1.3
) -> np.ndarray:
    """The defect alone, (size, size, 3) uint8: mirrored, turned by `angle` degrees, and cut tightly around its mask.

    image (H, W, 3) uint8, mask (H, W) bool with a pixel set. The crop's side is `context` times the longer side of the
    turned mask (at least 16 px), so that neither place nor scale nor turn hides a copy.
    """
    if mirror:
        image, mask = image[:, ::-1], mask[:, ::-1]
    rows, columns = np.nonzero(mask)
    if not len(rows):
        raise FlawsmithError("The mask is empty: there is no defect to cut out.")
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned = np.stack([columns, rows], axis=1) @ rotation.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    scale = size / (max(16.0, float((high - low).max()) + 1) * context)
    matrix = np.hstack([scale * rotation, (size / 2 - 0.5 - scale * (low + high) / 2)[:, None]])
    source = np.ascontiguousarray(image)
    if scale < 0.8:  # no aliasing where it shrinks
        source = cv2.GaussianBlur(source, (0, 0), 0.5 / scale)
    return np.asarray(
        cv2.warpAffine(source, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    )


def all_turns(image: np.ndarray, mask: np.ndarray, angles: int = 24, size: int = 96) -> list[np.ndarray]:
    """`aligned_crop` at evenly spaced angles, each also mirrored: 2 x angles images of one training defect."""
    return [
        aligned_crop(image, mask, 360 * step / angles, mirror, size)
        for step in range(angles)
        for mirror in (False, True)
    ]


@dataclass(frozen=True)
class Memorisation:
    """Nearest-training-neighbour statistics.

    ratio: median distance of generated images to their nearest training defect, over that of held-out real ones
    (1 = as far as reality, near 0 = copies). near_copies: share of generated images nearer than `limit`, the 1st
    percentile of the real ones' distances; about 0.01 is what reality itself shows.
    """

    ratio: float
    near_copies: float
    limit: float
    generated: float
    real: float


def memorisation(generated: np.ndarray, real: np.ndarray) -> Memorisation:
    """Compare distances to the training defects: generated (N, K) and held-out real (M, K), K >= 1 training images.

    Each image counts with its nearest training image; real images of the same physical part as a training
    image must not be among the held-out ones.
    """
    if not generated.size or not real.size or generated.shape[1] != real.shape[1]:
        raise FlawsmithError(
            f"Memorisation compares distances to the same training images, got {generated.shape} and {real.shape}."
        )
    own, others = generated.min(axis=1), real.min(axis=1)
    limit = float(np.percentile(others, 1))
    middle = float(np.median(others))
    ratio = float(np.median(own)) / middle if middle > 0 else float("nan")
    return Memorisation(ratio, float((own < limit).mean()), limit, float(np.median(own)), middle)
