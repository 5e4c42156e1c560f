"""One defect photographed several times, in other light: images that would leak from one side of a split to another.

`leaks` finds images that are nearly equal. Another exposure is not: here the defect tells, by its place and pattern.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from flawsmith.datasets.leaks import Print
from flawsmith.records import Record

# On magnetic tiles, each spot under up to six exposures, nine in ten pairs that are found show one spot, and about half
# of all such pairs are found; lower limits join different pits of ball screws.
OVERLAP = 0.3  # of the two masks, intersection over union
ALIKE = 0.65  # correlation of the patterns in and around both masks
BLUR = 5.0  # of 64 fields: what is coarser is the light's
REACH = 7  # fields around the masks that are compared

Seen = tuple[Record, Print, np.ndarray | None]  # with `Facts.marked`, (64, 64) uint8, of a defect


def same_defects(seen: Sequence[Seen]) -> list[list[Record]]:
    """Clusters of defects of one type that show the same place of the same part, most likely; of two or more images.

    What all images of a category have in common, as products always laid the same way have, tells nothing.
    """
    clusters: list[list[Record]] = []
    for category in dict.fromkeys(record.category for record, _, _ in seen):
        own = [one for one in seen if one[0].category == category]
        common = np.mean([_pattern(print_.thumb) for _, print_, _ in own], axis=0)
        kinds: dict[str, list[tuple[Record, np.ndarray, np.ndarray]]] = {}
        for record, print_, marked in own:
            if marked is not None:
                kinds.setdefault(record.defect_type, []).append((record, _pattern(print_.thumb) - common, marked))
        for members in kinds.values():
            clusters += _clusters(members)
    return clusters


def _clusters(members: Sequence[tuple[Record, np.ndarray, np.ndarray]]) -> list[list[Record]]:
    patterns = np.stack([pattern.ravel() for _, pattern, _ in members])
    masks = np.stack([marked.ravel() for _, _, marked in members]).astype(np.float32) / 255
    reach = cv2.getStructuringElement(cv2.MORPH_RECT, (REACH, REACH))
    wide = np.stack([cv2.dilate(marked, reach).ravel() > 0 for _, _, marked in members])
    leader = list(range(len(members)))

    def top(place: int) -> int:
        while leader[place] != place:
            place = leader[place]
        return place

    # What two masks share is at most what they share in fields of 8 x 8: this spares most comparisons and drops none.
    fields = masks.reshape(-1, 8, 8, 8, 8).sum(axis=(2, 4)).reshape(-1, 64)
    for i in range(len(members) - 1):
        maybe = i + 1 + np.flatnonzero(_overlap(fields[i], fields[i + 1 :]) > OVERLAP)
        for j in maybe[_overlap(masks[i], masks[maybe]) > OVERLAP]:
            if _correlation(patterns[i], patterns[j], wide[i] | wide[j]) > ALIKE:
                leader[top(int(j))] = top(i)
    found: dict[int, list[Record]] = {}
    for place, (record, _, _) in enumerate(members):
        found.setdefault(top(place), []).append(record)
    return [records for records in found.values() if len(records) > 1]


def _overlap(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one mask (n,) with others (m, n), as shares of fields: (m,)."""
    shared = np.minimum(one, others).sum(axis=1)
    return np.asarray(shared / np.maximum(one.sum() + others.sum(axis=1) - shared, 1e-6))


def _pattern(thumb: np.ndarray) -> np.ndarray:
    """A thumbnail (64, 64) without what light and exposure do to it, float32."""
    grey = thumb.astype(np.float32)
    detail = grey - cv2.GaussianBlur(grey, (0, 0), BLUR)
    return np.asarray(detail / (np.sqrt(cv2.GaussianBlur(detail**2, (0, 0), BLUR)) + 2))


def _correlation(first: np.ndarray, second: np.ndarray, where: np.ndarray) -> float:
    a, b = first[where] - first[where].mean(), second[where] - second[where].mean()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-6))


def suggest(clusters: Sequence[Sequence[Record]]) -> dict[tuple[str, str], str]:
    """(category, group) -> the group that it should have, so that the records of every cluster share one."""
    leader: dict[tuple[str, str], tuple[str, str]] = {}

    def top(key: tuple[str, str]) -> tuple[str, str]:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    for members in clusters:
        keys = [(record.category, record.group) for record in members]
        for key in keys[1:]:
            if top(key) != top(keys[0]):
                leader[top(key)] = top(keys[0])
    return {key: top(key)[1] for key in leader if top(key) != key}
