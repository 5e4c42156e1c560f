"""MVTec LOCO: MVTec AD's layout with several masks per image, whose grey level names the kind of defect.

    breakfast_box/test/logical_anomalies/000.png
    breakfast_box/ground_truth/logical_anomalies/000/000.png, 001.png ...

Every non-zero pixel of any file is defect, also where levels are mixed in one file: the data set's levels lie far below
255. (The public captioning script keeps the first file's levels and drops dark pixels of the others.)
Reference: Bergmann et al., "Beyond Dents and Scratches", IJCV 2022.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flawsmith.datasets import mvtec_ad
from flawsmith.records import Record


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """As `mvtec_ad.read`, with the masks' own rule."""
    return [replace(record, any_level=True) for record in mvtec_ad.read(root, category, group_by)]
