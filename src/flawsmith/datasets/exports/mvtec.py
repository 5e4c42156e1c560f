"""MVTec AD's layout: train/good, validation/good, test/<defect>, ground_truth/<defect>, prompt/<defect>.

The layout trains on good images only, so that all defects stand in test, whatever their split; `origin.csv` names it.
With several products each has a folder of its own. Where a data set says how its defects are scored (MVTec LOCO), masks
keep their grey levels, a file for each, and `defects_config.json` stands beside them: the layout of MVTec LOCO.

The layout has one type per image: of an image with several, instances/<defect> holds the number of its defect in each
pixel, and which type each is of; our reader knows it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from flawsmith import images
from flawsmith.datasets import mvtec_loco
from flawsmith.datasets.exports.item import Item, Write
from flawsmith.datasets.exports.naming import slug
from flawsmith.errors import FlawsmithError
from flawsmith.records import Region, Saturation

MOST = 255  # defects of an image that 8 bits can number
GOOD_SPLITS = {"train": "train", "val": "validation", "test": "test"}


class Mvtec:
    def __init__(self, names: Sequence[str], write: Write) -> None:
        self.write = write
        self.saturation: dict[str, dict[int, Saturation]] = {}

    def image(self, item: Item) -> str:
        kind = slug(item.record.defect_type)
        split = GOOD_SPLITS[item.split] if item.record.is_good else "test"
        return f"{slug(item.record.category)}/{split}/{kind}/{item.name}"

    def add(self, item: Item) -> None:
        place = PurePosixPath(self.image(item))
        category, kind = place.parts[0], place.parts[2]
        self._keep(category, item)
        if item.record.is_good:
            return
        truth = f"{category}/ground_truth/{kind}/{item.stem}"
        if item.instances and item.record.saturation:
            self._levels(truth, item)
        elif item.instances:
            self.write(f"{truth}_mask.png", images.encode_png(item.mask()))
        if set(item.record.labels) != {item.record.defect_type}:
            self._mark(item, f"{category}/instances/{kind}/{item.stem}")
        if item.record.caption:
            text = item.record.caption.strip() + "\n"
            self.write(f"{category}/prompt/{kind}/{item.stem}.txt", text.encode())

    def _keep(self, category: str, item: Item) -> None:
        known = self.saturation.setdefault(category, {})
        for one in item.record.saturation:
            if known.setdefault(one.level, one) != one:
                raise FlawsmithError(
                    f"{item.record.name}: its data set scores masks of grey level {one.level} in another way than one "
                    f"exported before: export the two apart."
                )

    def _levels(self, truth: str, item: Item) -> None:
        """A file for each mask, as it is; a mended or drawn one is white."""
        parts = item.record.parts(item.size, lambda: images.read_image(item.record.image))
        for number, (mask, (_, part)) in enumerate(zip(item.record.masks, parts, strict=True)):
            levels = part if isinstance(mask, Region) else images.brightest(images.read_image(mask))
            self.write(f"{truth}/{number:03d}.png", images.encode_png(levels))

    def _mark(self, item: Item, place: str) -> None:
        """Which pixels are of which defect, and its type; of pixels that two share the later one's."""
        if len(item.instances) > MOST:
            raise FlawsmithError(
                f"{item.record.name} holds {len(item.instances)} defects of several types, an image of their numbers "
                f"{MOST} at most: choose another --format."
            )
        ids = np.zeros(item.size, dtype=np.uint8)
        for number, one in enumerate(item.instances, start=1):
            x, y, width, height = one.box
            ids[y : y + height, x : x + width][one.mask] = number
        types = [{"id": number, "defect_type": one.label} for number, one in enumerate(item.instances, start=1)]
        self.write(f"{place}.png", images.encode_png(ids))
        self.write(f"{place}.json", f"{json.dumps(types, ensure_ascii=False)}\n".encode())

    def close(self, splits: Sequence[str]) -> None:
        for category, known in self.saturation.items():
            if known:
                text = json.dumps(mvtec_loco.table(known.values()), indent=2) + "\n"
                self.write(f"{category}/{mvtec_loco.CONFIG}", text.encode())
