"""Datumaro's own JSON: images/<split>/*, annotations/<split>.json, a polygon for every connected part of a defect.

Parts of one defect share a `group`. A caption is an annotation; product, part and origin are attributes of the item.
Reference: github.com/open-edge-platform/datumaro, "Datumaro" format.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flawsmith.datasets.exports.item import Item, Write


class Datumaro:
    def __init__(self, names: Sequence[str], write: Write) -> None:
        self.write = write
        self.numbers = {name: number for number, name in enumerate(names)}
        self.items: dict[str, list[str]] = {}

    def image(self, item: Item) -> str:
        return f"images/{item.split}/{item.name}"

    def add(self, item: Item) -> None:
        common: dict[str, Any] = {"attributes": {}, "z_order": 0}
        marked: list[dict[str, Any]] = [
            {"type": "polygon", "label_id": self.numbers[one.label], "group": number, "points": points, **common}
            for number, one in enumerate(item.instances, start=1)
            for points in (ring.ravel().tolist() for ring in one.polygons)
        ]
        if item.record.caption:
            marked.append({"type": "caption", "attributes": {}, "group": 0, "caption": item.record.caption})
        origin = {key: str(value) for key, value in item.origin.items()}
        entry = {
            "id": item.stem,
            "annotations": [{"id": number, **one} for number, one in enumerate(marked)],
            "attr": {"product": item.record.category, "part": item.record.group, **origin},
            "image": {"path": item.name, "size": list(item.size)},
        }
        self.items.setdefault(item.split, []).append(json.dumps(entry, ensure_ascii=False))

    def close(self, splits: Sequence[str]) -> None:
        labels = [{"name": name, "parent": "", "attributes": []} for name in self.numbers]
        kinds = json.dumps({"label": {"labels": labels, "label_groups": [], "attributes": []}}, ensure_ascii=False)
        for split in splits:
            items = ",\n".join(self.items.get(split, []))
            text = (
                '{"dm_format_version": "1.0", "media_type": 2, "infos": {},\n'
                f'"categories": {kinds},\n"items": [\n{items}\n]}}\n'
            )
            self.write(f"annotations/{split}.json", text.encode())
