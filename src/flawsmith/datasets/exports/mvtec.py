"""MVTec AD's layout: train/good, validation/good, test/<defect>, ground_truth/<defect>, prompt/<defect>.

The layout trains on good images only, so that all defects stand in test, whatever their split; `origin.csv` names it.
With several products each has a folder of its own. Where a data set says how its defects are scored (MVTec LOCO), masks
keep their grey levels, a file for each, and `defects_config.json` stands beside them: the layout of MVTec LOCO.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath

from flawsmith import images
from flawsmith.datasets import mvtec_loco
from flawsmith.datasets.exports.item import Item, Write
from flawsmith.datasets.exports.naming import slug
from flawsmith.errors import FlawsmithError
from flawsmith.records import Region, Saturation

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

    def close(self, splits: Sequence[str]) -> None:
        for category, known in self.saturation.items():
            if known:
                text = json.dumps(mvtec_loco.table(known.values()), indent=2) + "\n"
                self.write(f"{category}/{mvtec_loco.CONFIG}", text.encode())
