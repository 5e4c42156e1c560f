"""What formats of their own words hold of an image: a row that `datasets.rows` reads back."""

from __future__ import annotations

from typing import Any

from flawsmith.datasets.exports.item import Item

ORIGIN = ("source", "origin_file", "method", "seed", "normal", "reference")  # all of them in every row


def row(item: Item) -> dict[str, Any]:
    """Product, type, part, split and caption; `objects`: box, type, polygons of every defect, in pixels; `origin`."""
    record = item.record
    objects = {
        "bbox": [list(one.box) for one in item.instances],
        "categories": [one.label for one in item.instances],
        "segmentation": [[points.ravel().tolist() for points in one.polygons] for one in item.instances],
    }
    return {
        "width": item.size[1],
        "height": item.size[0],
        "category": record.category,
        "defect_type": record.defect_type,
        "group": record.group,
        "split": item.split,
        "caption": record.caption,
        "objects": objects,
        "origin": {key: str(item.origin.get(key, "")) for key in ORIGIN},
    }
