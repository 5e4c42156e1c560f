"""COCO instances: images/<split>/*, annotations/instances_<split>.json, one annotation per defect.

Captions stand with their image (`caption`), and so do product, part and origin (`flawsmith`): COCO's own tools pass
over keys they do not know. Reference: Lin et al., "Microsoft COCO", ECCV 2014; cocodataset.org, "Data format".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flawsmith.datasets.exports.item import Item, Write


class Coco:
    def __init__(self, names: Sequence[str], write: Write) -> None:
        self.write = write
        self.ids = {name: number for number, name in enumerate(names, start=1)}
        self.images: dict[str, list[str]] = {}
        self.annotations: dict[str, list[str]] = {}
        self.count = 0

    def image(self, item: Item) -> str:
        return f"images/{item.split}/{item.name}"

    def add(self, item: Item) -> None:
        image = {
            "id": item.index + 1,
            "file_name": item.name,
            "width": item.size[1],
            "height": item.size[0],
            "caption": item.record.caption,
            "flawsmith": {"category": item.record.category, "group": item.record.group, **item.origin},
        }
        self.images.setdefault(item.split, []).append(json.dumps(image, ensure_ascii=False))
        lines = self.annotations.setdefault(item.split, [])
        for one in item.instances:
            self.count += 1
            annotation: dict[str, Any] = {
                "id": self.count,
                "image_id": item.index + 1,
                "category_id": self.ids[one.label],
                "bbox": one.box,
                "area": int(one.mask.sum()),
                "iscrowd": 0,
                "segmentation": [points.ravel().tolist() for points in one.polygons],
            }
            lines.append(json.dumps(annotation))

    def close(self, splits: Sequence[str]) -> None:
        names = [{"id": number, "name": name, "supercategory": "defect"} for name, number in self.ids.items()]
        for split in splits:
            parts = ["\n" + ",\n".join(lines.get(split, [])) + "\n" for lines in (self.images, self.annotations)]
            text = (
                f'{{"info": {{"description": "{split}, written by flawsmith"}}, "licenses": [],\n'
                f'"categories": {json.dumps(names, ensure_ascii=False)},\n'
                f'"images": [{parts[0]}],\n"annotations": [{parts[1]}]}}\n'
            )
            self.write(f"annotations/instances_{split}.json", text.encode())
