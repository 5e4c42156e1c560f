"""Where real defects were on their objects, so that new ones are put there: part of the product, depth in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flawsmith.masks.placement import Ground, sample_points
from flawsmith.masks.segment import foreground
from flawsmith.records import Sample

DEPTH_COST = 80.0  # grey levels charged for lying at an edge instead of in the middle of the object
PLACE_COST = 12.0  # for being a fifth of the object away from where real defects were


@dataclass(frozen=True)
class Homes:
    """Where real defects were on their objects: `places` (n, 2) as shares of the object's box, and how deep in it the
    first one's pixels lay (three quantiles, 1 = as deep as can be). `first`: that one's object.
    """

    places: np.ndarray
    depth: np.ndarray
    spread: float
    first: Ground

    @classmethod
    def of(cls, samples: Sequence[Sample], spread: float) -> Homes | None:
        """From whole photographs; None where the first is a part of one."""
        if "whole" in samples[0].info:
            return None
        found = []
        for sample in samples:
            if "whole" in sample.info or not sample.mask.any():
                continue
            ground = Ground.of(foreground(sample.image) | sample.mask)
            found.append((ground, np.stack(sample_points(sample.mask)).astype(np.float64)))
        places = [(points.mean(axis=1) - ground.corner) / ground.size for ground, points in found]
        first, points = found[0]
        return cls(np.array(places), _quantiles(first, points[None])[0], spread, first)

    def seek(self, centres: np.ndarray, ground: Ground, kept: int, rng: np.random.Generator) -> np.ndarray:
        """Centres (K, 2) of poses; all but the first `kept` and a share of `spread` of them move to about the homes."""
        count = len(centres)
        near = self.places[rng.integers(0, len(self.places), count)]
        near = near + rng.normal(0, 0.03 + 0.3 * self.spread, (count, 2))
        stays = (rng.random(count) < self.spread) | (np.arange(count) < kept)
        return np.where(stays[:, None], centres, ground.corner + np.clip(near, 0, 1) * ground.size)

    def cost(self, centres: np.ndarray, points: np.ndarray, ground: Ground) -> np.ndarray:
        """Grey levels (K,) charged to poses with these centres (K, 2) and points of the mask (K, 2, n)."""
        depth = _quantiles(ground, points)
        place = (centres - ground.corner) / ground.size
        away = np.linalg.norm(place[:, None] - self.places[None], axis=2).min(axis=1)
        deep = DEPTH_COST * np.abs(depth - self.depth).mean(axis=1)
        return np.asarray((1 - self.spread) * (deep + PLACE_COST * np.minimum(away / 0.2, 2)))


def _quantiles(ground: Ground, points: np.ndarray) -> np.ndarray:
    """How deep points (K, 2, n) lie in an area, (K, 3): quantiles of the depth over the deepest."""
    found = ground.deep(points[:, 0], points[:, 1]) / max(float(ground.depth.max()), 1e-6)
    return np.quantile(found, (0.05, 0.5, 0.95), axis=1).T
