"""MVTec AD 2: each object under several lights, public test set with masks, private ones without.

    can/train/good/000_regular.png          can/validation/good/000_regular.png
    can/test_public/good/000_overexposed.png
    can/test_public/bad/000_regular.png     can/test_public/ground_truth/bad/000_regular_mask.png
    can/test_private, can/test_private_mixed   nobody knows what is in them: not read

Images of one number show one object: they are one group.
Reference: Heckler-Kram et al., "The MVTec AD 2 Dataset", 2025.
"""

from __future__ import annotations

import re
from pathlib import Path

from flawsmith.datasets import tree
from flawsmith.errors import FlawsmithError
from flawsmith.records import GOOD, Record

PLACES = {"train": "train", "validation": "validation", "test_public": "test"}
_NUMBER = re.compile(r"(\d+)_(regular|overexposed|underexposed|shift)")


def is_category(folder: Path) -> bool:
    return (folder / "test_public").is_dir()


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read one category or all: train, validation, then the public test set; good before defects.

    Raises FlawsmithError for a folder of another layout or an unknown category.
    """
    tree.require_folder(root)
    found = tree.categories(root, is_category)
    if not found:
        raise FlawsmithError(f"Folder {root} is not MVTec AD 2: neither it nor a sub-folder has test_public.")
    found = tree.only(category, found, root)
    groups = tree.Groups([root, *found.values()], group_by)
    records = []
    for name, folder in found.items():
        for place, split in PLACES.items():
            kinds = [kind for kind in tree.listing(folder / place)[0] if kind.name not in tree.MASK_FOLDERS]
            for kind in sorted(kinds, key=lambda one: not tree.is_good_name(one.name)):
                good = tree.is_good_name(kind.name)
                if not good and split != "test":
                    continue
                truth = folder / place / "ground_truth" / kind.name
                masks = tree.Stems((tree.mask_stem(path.stem), path) for path in tree.images(truth))
                for image in tree.images(kind):
                    number = _NUMBER.match(image.stem)
                    own = image.relative_to(root).as_posix()
                    shown = f"{own.rpartition('/')[0]}/{number[1]}" if number else own
                    record = Record(
                        image=image,
                        category=name,
                        defect_type=GOOD if good else kind.name,
                        masks=() if good else tuple(masks.get(image.stem)),
                        split=split,
                        group=groups.get(image, shown),
                        root=root,
                    )
                    records.append(record)
    if not records:
        raise tree.no_images(root)
    return records
