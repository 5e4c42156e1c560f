"""KolektorSDD and KolektorSDD2: a label image beside every photograph, all black where it is good.

    kos01/Part0.jpg + kos01/Part0_label.bmp           KolektorSDD; a folder is one physical part
    train/10000.png + train/10000_GT.png, test/...    KolektorSDD2

Reference: Tabernik et al., J. Intell. Manuf. 2020; Bozic et al., "Mixed supervision", Comput. Ind. 2021.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flawsmith.datasets import tree
from flawsmith.errors import FlawsmithError
from flawsmith.records import GOOD, Record

DEFECT = "defect"


def pairs(root: Path, suffix: str) -> list[tuple[Path, Path]]:
    """(photograph, label) of the folders directly below `root`, or of `root` itself."""
    found = []
    for folder in (root, *tree.listing(root)[0]):
        images = tree.images(folder)
        labels = {path.stem[: -len(suffix)]: path for path in images if path.stem.casefold().endswith(suffix)}
        found += [(path, labels[path.stem]) for path in images if path.stem in labels]
    return found


def sdd(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """KolektorSDD: every photograph of a folder kosNN shows one part. Raises FlawsmithError for another layout."""
    return _read(root, category, group_by, "_label", "KolektorSDD (kos01/Part0.jpg beside Part0_label.bmp)")


def sdd2(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """KolektorSDD2, with its own division in train and test. Raises FlawsmithError for another layout."""
    return _read(root, category, group_by, "_gt", "KolektorSDD2 (train/10000.png beside 10000_GT.png)")


def _read(root: Path, category: str | None, group_by: str, suffix: str, layout: str) -> list[Record]:
    tree.require_folder(root)
    found = pairs(root, suffix)
    if not found:
        raise FlawsmithError(f"Folder {root} is not {layout}: name the folder that holds these.")
    groups = tree.Groups([root], group_by)
    records = []
    for image, label in found:
        marked = cv2.imdecode(np.frombuffer(label.read_bytes() or b"\0", np.uint8), cv2.IMREAD_GRAYSCALE)
        if marked is None:
            raise FlawsmithError(f"Mask {label} cannot be read: copy it again from the original data set.")
        own = image.relative_to(root).as_posix()
        split = "test" if image.parent.name == "test" else "train"
        record = Record(
            image=image,
            category=category or root.resolve().name,
            defect_type=DEFECT if marked.any() else GOOD,
            masks=(label,) if marked.any() else (),
            split=split,
            group=groups.get(image, image.parent.name if suffix == "_label" else own),
            root=root,
            any_level=True,
        )
        records.append(record)
    return records
