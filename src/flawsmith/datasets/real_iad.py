"""Real-IAD: several views of every sample, masks beside the images of defects.

    audiojack/OK/S0001/audiojack_0001_OK_C1_2023.jpg
    audiojack/NG/AK/S0005/audiojack_0005_AK_C1_2023.jpg + the same name .png as its mask
    audiojack.json beside or in realiad_jsons/          train and test; without, good ones train, defects test

A defect type is the data set's two letters. A view without a mask shows no defect of its sample: it is good, but tests.
Images of one sample are one group. Reference: Wang et al., "Real-IAD", CVPR 2024.
"""

from __future__ import annotations

from pathlib import Path

from flawsmith.datasets import annotated, tree
from flawsmith.errors import FlawsmithError
from flawsmith.records import GOOD, Record


def is_category(folder: Path) -> bool:
    return (folder / "OK").is_dir() and any(
        sample.name.startswith("S") and sample.name[1:].isdigit() for sample in tree.listing(folder / "OK")[0][:3]
    )


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read one category or all, in natural order. Raises FlawsmithError for another layout or a damaged JSON file."""
    tree.require_folder(root)
    found = tree.categories(root, is_category)
    if not found:
        raise FlawsmithError(f"Folder {root} is not Real-IAD: neither it nor a sub-folder has OK/S0001.")
    found = tree.only(category, found, root)
    groups = tree.Groups([root, *found.values()], group_by)
    records = []
    for name, folder in found.items():
        splits = _splits(root, folder, name)
        kinds = [folder / "OK", *tree.listing(folder / "NG")[0]]
        for kind in kinds:
            for place, _ in tree.walk(kind):
                photos = [path for path in tree.images(place) if path.suffix.lower() in (".jpg", ".jpeg")]
                masks = {path.stem: path for path in tree.images(place) if path.suffix.lower() == ".png"}
                for image in photos:
                    own = image.relative_to(folder).as_posix()
                    mask = masks.get(image.stem) if kind.name != "OK" else None
                    record = Record(
                        image=image,
                        category=name,
                        defect_type=kind.name if mask else GOOD,
                        masks=(mask,) if mask else (),
                        split=splits.get(own, "train" if kind.name == "OK" else "test"),
                        group=groups.get(image, f"{name}/{own.rpartition('/')[0]}"),
                        root=root,
                        any_level=True,
                    )
                    records.append(record)
    if not records:
        raise tree.no_images(root)
    return records


def _splits(root: Path, folder: Path, name: str) -> dict[str, str]:
    """Path below the category's folder -> train or test, as the data set's JSON file says."""
    places = (folder, root, root.parent, root / "realiad_jsons", root.parent / "realiad_jsons")
    path = next((place / f"{name}.json" for place in places if (place / f"{name}.json").is_file()), None)
    if path is None:
        return {}
    content = annotated.read_json(path)
    return {
        str(entry.get("image_path")): split
        for split in ("train", "test")
        for entry in annotated.entries(content, split, path)
    }
