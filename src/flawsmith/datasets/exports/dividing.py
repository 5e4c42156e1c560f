"""Which images train, which choose settings, which test: by physical part, every defect type in its share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flawsmith.datasets import splits
from flawsmith.records import Record

Part = list[Record]


def parts(records: Sequence[Record]) -> list[Part]:
    """Records that hang together, by group or by equal content, in the order of their first one."""
    links = splits.links_of(records)
    owner: dict[str, str] = {}

    def find(link: str) -> str:
        root = link
        while owner.setdefault(root, root) != root:
            root = owner[root]
        while owner[link] != root:
            owner[link], link = root, owner[link]
        return root

    for image, own in links.items():
        first = find(f"file {image}")
        for link in own:
            owner[find(link)] = first
    found: dict[str, Part] = {}
    for record in records:
        found.setdefault(find(f"file {record.image}"), []).append(record)
    return list(found.values())


def by_part(
    records: Sequence[Record], val: float, test: float, seed: int = 0, pinned: frozenset[Path] = frozenset()
) -> dict[Path, str]:
    """Image -> train, val or test: `val` and `test` are shares of every category and type's images.

    A part is on one side only. Parts that show a `pinned` image train, and of every type at least one part does.
    The rarest types choose first; `seed` shuffles the parts.
    """
    units = parts(records)
    order = np.random.default_rng(seed).permutation(len(units))
    units = [units[number] for number in order]
    total = Counter((record.category, record.defect_type) for record in records)
    contents = [Counter((record.category, record.defect_type) for record in unit) for unit in units]
    side: dict[int, str] = {
        number: "train" for number, unit in enumerate(units) if any(record.image in pinned for record in unit)
    }
    showing = {kind: [number for number, content in enumerate(contents) if content[kind]] for kind in total}
    placed = {name: Counter[tuple[str, str]]() for name in ("test", "val")}
    left = {kind: len(numbers) for kind, numbers in showing.items()}  # parts that may still train
    for kind in sorted(total, key=lambda one: (len(showing[one]), one)):
        for name, share in (("test", test), ("val", val)):
            for number in showing[kind]:
                content = contents[number]
                wanted = share * total[kind] - placed[name][kind]
                # A long series is taken where at least half of it is wanted.
                if number in side or 2 * wanted < content[kind] or any(left[other] < 2 for other in content):
                    continue
                side[number] = name
                placed[name].update(content)
                left.update({other: left[other] - 1 for other in content})
    return {record.image: side.get(number, "train") for number, unit in enumerate(units) for record in unit}
