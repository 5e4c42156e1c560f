"""The MVTec AD layout, which is also what flawsmith writes: one folder per category with train, test, ground_truth.

    bottle/train/good/000.png             photographs of good parts
    bottle/validation/good/000.png        (MVTec LOCO)
    bottle/test/good/000.png
    bottle/test/<defect>/000.png
    bottle/ground_truth/<defect>/000_mask.png, 000.png, or a folder 000/ with several masks (MVTec LOCO)
    bottle/instances/<defect>/000.png     pixels of the n-th defect hold n, and 000.json says of which type each is:
                                          [{"id": 1, "defect_type": "crack"}, ...] (flawsmith); they stand for the mask
    bottle/prompt/<defect>/000.txt        captions, first line counts (MVTec Caption, flawsmith)
    bottle/origin.csv                     groups (optional)

Reference: Bergmann et al., "MVTec AD", IJCV 2021; "Beyond Dents and Scratches" (MVTec LOCO), IJCV 2022.
"""

from __future__ import annotations

from pathlib import Path

from flawsmith.datasets import annotated, levels, tree
from flawsmith.datasets.writer import MANIFEST
from flawsmith.errors import FlawsmithError, short
from flawsmith.records import GOOD, Record, Region

SPLITS = ("train", "validation", "test")


def is_category(folder: Path) -> bool:
    """Whether a folder looks like one category: train/good, or test with sub-folders that are classes."""
    if any(tree.is_good_name(child.name) for child in tree.listing(folder / "train")[0]):
        return True
    # test/images beside test/masks is the layout of segmentation sets: `folder` reads it.
    special = tree.IMAGE_FOLDERS | tree.MASK_FOLDERS
    return any(child.name.casefold() not in special for child in tree.listing(folder / "test")[0])


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read one category or all of a data set root, in natural order: train, validation, test; good before defects.

    Masks and captions are paired by file stem, never by rank. A missing mask is allowed here (`masks=()`) and
    reported by `datasets.check`. Raises FlawsmithError for a folder of another layout or an unknown category.
    """
    tree.require_folder(root)
    found = tree.categories(root, is_category)
    if not found and (root / MANIFEST).is_file():
        raise tree.none_kept(root)
    if not found:
        raise FlawsmithError(
            f"Folder {root} is not in MVTec AD layout: neither it nor a sub-folder has train/good or test/<defect>. "
            f"Name the right folder, or read any other layout with folder:{root}."
        )
    found = tree.only(category, found, root)
    groups = tree.Groups([root, *found.values()], group_by)
    records = [record for name, folder in found.items() for record in _read_category(root, folder, name, groups)]
    if not records:
        raise tree.no_images(root)
    return records


def _read_category(root: Path, folder: Path, category: str, groups: tree.Groups) -> list[Record]:
    records = []
    for split in SPLITS:
        classes = tree.listing(folder / split)[0]
        good = [path for path in classes if tree.is_good_name(path.name)]
        # Defects under train/ would be taken for good parts by most tools; we leave them out and `check` says so.
        defects = [path for path in classes if path not in good] if split == "test" else []
        for kind in (*good, *defects):
            defect_type = GOOD if kind in good else kind.name
            masks = _masks(folder / "ground_truth" / kind.name) if defect_type != GOOD else tree.Stems(())
            marked = _marked(folder / "instances" / kind.name) if defect_type != GOOD else {}
            prompts = tree.Stems(
                (path.stem, path)
                for path in (tree.listing(folder / "prompt" / kind.name)[1] if split == "test" else ())
                if path.suffix.lower() == ".txt"
            )
            for image in tree.images(kind):
                record = Record(
                    image=image,
                    category=category,
                    defect_type=defect_type,
                    masks=marked.get(image.stem) or _mask_files(masks.get(image.stem)),
                    caption=next(map(tree.read_caption, prompts.get(image.stem)), ""),
                    split=split,
                    group=groups.get(image, image.relative_to(root).as_posix()),
                    root=root,
                )
                records.append(record)
    return records


def _marked(folder: Path) -> dict[str, tuple[Region, ...]]:
    """Stem -> its defects, each of its own type. Raises FlawsmithError for a file of types that is none."""
    files = {path.name: path for path in tree.listing(folder)[1]}
    found: dict[str, tuple[Region, ...]] = {}
    for path in files.values():
        ids = files.get(f"{path.stem}.png")
        if path.suffix == ".json" and ids is not None:
            entries = annotated.objects(annotated.read_json(path, list), path, "defects")
            given = [entry.get("id") for entry in entries]
            numbers = [number for number in given if type(number) is int and 0 < number < 256]
            if len(set(numbers)) < len(given):
                raise FlawsmithError(f"{path}: the ids are {short(given)}: give each defect its own, from 1 to 255.")
            kinds = [annotated.label(entry.get("defect_type"), f"{path}, id {entry['id']}") for entry in entries]
            found[path.stem] = tuple(
                levels.Level(path, f"id {number}", kind, image=ids, value=number)
                for number, kind in zip(numbers, kinds, strict=True)
            )
    return found


def _masks(folder: Path) -> tree.Stems:
    folders, files = tree.listing(folder)
    named = [(tree.mask_stem(path.stem), path) for path in files if tree.is_image_file(path)]
    return tree.Stems([*named, *((path.name, path) for path in folders)])


def _mask_files(found: list[Path]) -> tuple[Path, ...]:
    """`000_mask.png` wins over `000.png`; a folder stands for every image in it (their union is the mask)."""
    files: list[Path] = []
    for path in found:
        files += tree.images(path) if path.is_dir() else [path]
    marked = [path for path in files if tree.mask_stem(path.stem) != path.stem]
    return tuple(marked if marked and len({path.parent for path in files}) == 1 else files)
