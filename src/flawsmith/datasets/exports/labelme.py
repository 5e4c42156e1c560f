"""LabelMe: <split>/*.json beside the images, a polygon for every connected part of a defect.

Parts of one defect share a `group_id`. Captions are the file's `description`; product, part and origin stand in
`flawsmith`, which LabelMe keeps. Reference: github.com/wkentaro/labelme.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flawsmith.datasets.exports.item import Item, Write


class LabelMe:
    def __init__(self, names: Sequence[str], write: Write) -> None:
        self.write = write
        self.names = list(names)

    def image(self, item: Item) -> str:
        return f"{item.split}/{item.name}"

    def add(self, item: Item) -> None:
        shapes: list[dict[str, Any]] = [
            {
                "label": one.label,
                "points": points.tolist(),
                "group_id": number if len(one.polygons) > 1 else None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
            }
            for number, one in enumerate(item.instances)
            for points in one.polygons
        ]
        content = {
            "version": "5.5.0",
            "flags": {},
            "description": item.record.caption,
            "shapes": shapes,
            "imagePath": item.name,
            "imageData": None,
            "imageHeight": item.size[0],
            "imageWidth": item.size[1],
            "flawsmith": {"category": item.record.category, "group": item.record.group, **item.origin},
        }
        text = json.dumps(content, ensure_ascii=False, indent=1)
        self.write(f"{item.split}/{item.stem}.json", text.encode())

    def close(self, splits: Sequence[str]) -> None:
        self.write("labels.txt", "".join(f"{name}\n" for name in ("__ignore__", "_background_", *self.names)).encode())
