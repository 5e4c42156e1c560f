"""Images that are equal or nearly equal: by content hash, and by a small image of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from flawsmith import images
from flawsmith.errors import FlawsmithError
from flawsmith.records import Record

HASH_LIMIT = 4  # of 64 bits
GREY_LIMIT = 3.0  # grey levels; on bottles, tiles and machine parts every pair below it was one part taken twice
THUMB = 64


@dataclass(frozen=True)
class Print:
    """An image's fingerprint: `bits`, the 64-bit difference hash; `thumb`, (64, 64) uint8 grey."""

    bits: int
    thumb: np.ndarray


def fingerprint(image: np.ndarray) -> Print:
    """Fingerprint of an (H, W, 3) uint8 image.

    The difference hash says for 8 x 8 fields whether the right neighbour is brighter (Krawetz, "Kind of like that",
    2013). It finds candidates; parts of one product share it often, so the thumbnail has the last word.
    """
    # Shrunk before it is made grey: a large photograph is not copied a second time.
    thumb = cv2.cvtColor(cv2.resize(image, (THUMB, THUMB), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(thumb, (9, 8), interpolation=cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return Print(int.from_bytes(bits.tobytes(), "big"), thumb)


def near(
    first: Sequence[Print],
    second: Sequence[Print] | None = None,
    bits: int = HASH_LIMIT,
    grey: float = GREY_LIMIT,
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, difference) that look alike; within `first` (i < j) when `second` is None.

    Alike: hashes differ in at most `bits` of 64 and thumbnails by at most `grey` grey levels, root mean square,
    after their mean brightness is made equal (another exposure of the same scene is alike too).
    """
    other = first if second is None else second
    if not first or not other:
        return []
    hashes = np.array([item.bits for item in other], dtype=np.uint64)
    thumbs = np.stack([item.thumb for item in other])
    coarse = _coarse(thumbs)
    own = coarse if second is None else _coarse(np.stack([item.thumb for item in first]))
    pairs = []
    for i, item in enumerate(first):
        # Means over blocks differ less than the pixels do, so this drops no pair and spares most comparisons.
        maybe = ((coarse - own[i]) ** 2).mean(axis=1) <= grey**2
        if second is None:
            maybe[: i + 1] = False
        candidates = np.flatnonzero(maybe)
        candidates = candidates[popcount(hashes[candidates] ^ np.uint64(item.bits)) <= bits]
        for start in range(0, len(candidates), 256):
            block = candidates[start : start + 256]
            spread = (thumbs[block].astype(np.float32) - item.thumb).std(axis=(1, 2))
            pairs += [(i, int(j), round(float(s), 2)) for j, s in zip(block, spread, strict=True) if s <= grey]
    return pairs


def _coarse(thumbs: np.ndarray) -> np.ndarray:
    """(N, 64, 64) uint8 -> (N, 64) float32: means of 8 x 8 fields, less the image's mean."""
    fields = thumbs.reshape(-1, 8, THUMB // 8, 8, THUMB // 8).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 64)
    return np.asarray(fields - fields.mean(axis=1, keepdims=True))


def popcount(values: np.ndarray) -> np.ndarray:
    """Number of set bits of uint64 values (numpy has a function for it only from 2.0 on)."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(values))
    return np.asarray(np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1))


def same_parts(printed: Sequence[tuple[Record, Print]]) -> list[list[Record]]:
    """Clusters of look-alike images whose groups differ: most likely one part under several group names."""
    leader: dict[tuple[str, str], tuple[str, str]] = {}  # union-find over (category, group)

    def top(key: tuple[str, str]) -> tuple[str, str]:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    keys = [(record.category, record.group) for record, _ in printed]
    involved: set[int] = set()
    for i, j, _ in near([item for _, item in printed]):
        if keys[i][0] == keys[j][0] and keys[i] != keys[j]:
            leader[top(keys[j])] = top(keys[i])
            involved |= {i, j}
    clusters: dict[tuple[str, str], list[Record]] = {}
    for index in sorted(involved):
        clusters.setdefault(top(keys[index]), []).append(printed[index][0])
    return list(clusters.values())


def merge_lookalikes(records: Sequence[Record]) -> list[Record]:
    """The records with one group for look-alike images, so that `few_shot` keeps them on one side.

    For data sets without groups, or whose groups miss that a part was photographed again. Decodes every image.
    """
    printed = [(record, fingerprint(images.read_image(record.image))) for record in records]
    renamed: dict[tuple[str, str], str] = {}
    for members in same_parts(printed):
        name = members[0].group
        renamed |= {(record.category, record.group): name for record in members}
    return [replace(one, group=renamed.get((one.category, one.group), one.group)) for one in records]


def leak_check(
    support: Sequence[Record], test: Sequence[Record], near_bits: int | None = HASH_LIMIT
) -> list[tuple[Record, Record, float]]:
    """Refuse a split whose two sides share a file's content or a group; return pairs that merely look alike.

    Raises FlawsmithError naming up to five pairs. The returned pairs (support, test, difference in grey levels) are
    for a warning; `near_bits=None` skips them, and with them the decoding of every image.
    """
    by_group: dict[tuple[str, str], Record] = {(str(one.root), one.group): one for one in support if one.group}
    by_content = {images.file_sha(one.image): one for one in support}
    clashes = []
    for other in test:
        twin = by_content.get(images.file_sha(other.image))
        relative = by_group.get((str(other.root), other.group)) if other.group else None
        if twin is not None:
            clashes.append(f"{twin.name} and {other.name} (same content)")
        elif relative is not None:
            clashes.append(f"{relative.name} and {other.name} (same group {other.group!r})")
    if clashes:
        more = f" and {len(clashes) - 5} more" if len(clashes) > 5 else ""
        raise FlawsmithError(
            f"The split leaks: {'; '.join(clashes[:5])}{more} stand on both sides. Split again with few_shot, "
            "or remove one of each pair."
        )
    if near_bits is None:
        return []
    prints = [[fingerprint(images.read_image(one.image)) for one in side] for side in (support, test)]
    return [(support[i], test[j], difference) for i, j, difference in near(prints[0], prints[1], near_bits)]
