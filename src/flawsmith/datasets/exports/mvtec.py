"""MVTec AD's layout: train/good, validation/good, test/<defect>, ground_truth/<defect>, prompt/<defect>.

The layout trains on good images only, so that all defects stand in test, whatever their split; `origin.csv` names it.
With several products each has a folder of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from flawsmith import images
from flawsmith.datasets.exports.item import Item, Write
from flawsmith.datasets.exports.naming import slug

GOOD_SPLITS = {"train": "train", "val": "validation", "test": "test"}


class Mvtec:
    def __init__(self, names: Sequence[str], write: Write) -> None:
        self.write = write

    def image(self, item: Item) -> str:
        kind = slug(item.record.defect_type)
        split = GOOD_SPLITS[item.split] if item.record.is_good else "test"
        return f"{slug(item.record.category)}/{split}/{kind}/{item.name}"

    def add(self, item: Item) -> None:
        if item.record.is_good:
            return
        place = PurePosixPath(self.image(item))
        category, kind = place.parts[0], place.parts[2]
        if item.instances:
            self.write(f"{category}/ground_truth/{kind}/{item.stem}_mask.png", images.encode_png(item.mask()))
        if item.record.caption:
            text = item.record.caption.strip() + "\n"
            self.write(f"{category}/prompt/{kind}/{item.stem}.txt", text.encode())

    def close(self, splits: Sequence[str]) -> None:
        pass
