"""Photographs in any folder: any names, any depth, with or without masks. For people whose data has no layout.

photos/*.jpg                          all good; a photo with a mask is a "defect"
photos/good/*.png, photos/scratch/*   sub-folders good, ok, normal are good, any other name is a defect type
photos/bottle/good/*, photos/can/ok/* several categories
masks/, mask/, ground_truth/, labels/ beside or above the images, same stem (or stem_mask, -mask, _gt, _label)
scratch/a.jpg + scratch/a_mask.png    masks beside the images
scratch/a.txt or prompt/scratch/a.txt captions, first line counts
train/, test/, val/, images/          allowed at any level, not taken for a defect type
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flawsmith.datasets import tree
from flawsmith.datasets.tree import CAPTION_FOLDERS, IMAGE_FOLDERS, MASK_FOLDERS
from flawsmith.records import GOOD, Record

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation"), "validation"
)
BESIDE = ("_mask", "-mask", "_gt")  # not "_label": bottle_label.png may well be a photograph
FLAT_DEFECT = "defect"

Key = tuple[tuple[str, ...], str]  # (folders that tell something, stem), for pairing


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read every photograph below `root`, in natural order; see the module's text for what is understood.

    `category` names the product (default: the folder's name). Where sub-folders are categories of their own (each
    with a good folder inside), it picks one of them. Raises FlawsmithError when there is nothing to read.
    """
    tree.require_folder(root)
    found = categories(root)
    if category is not None:
        if found:
            tree.choose_category(category, found, root, single=False)
        found = {category: found.get(category, root)}
    elif not found:
        found = {root.resolve().name: root}
    groups = tree.Groups([root, *found.values()], group_by)
    records = [record for name, folder in found.items() for record in _read_category(root, folder, name, groups)]
    if not records:
        raise tree.no_images(root)
    return records


def categories(root: Path) -> dict[str, Path]:
    """Sub-folders that are categories: they hold a good folder of their own while `root` holds none."""
    children = [child for child in tree.listing(root)[0] if child.name.casefold() not in SPLITS]
    if any(tree.is_good_name(child.name) for child in children):
        return {}
    special = MASK_FOLDERS | IMAGE_FOLDERS | CAPTION_FOLDERS
    return {
        child.name: child
        for child in children
        if child.name.casefold() not in special and any(map(_is_good_folder, tree.listing(child)[0]))
    }


def _is_good_folder(folder: Path) -> bool:
    if folder.name.casefold() in SPLITS:
        return any(tree.is_good_name(child.name) for child in tree.listing(folder)[0])
    return tree.is_good_name(folder.name)


@dataclass
class _Found:
    """The files of one category, sorted by what they are; paths stay in natural order."""

    photos: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    captions: list[Path] = field(default_factory=list)


def _sort_files(folder: Path) -> _Found:
    found = _Found()
    for place, files in tree.walk(folder):
        parts = {part.casefold() for part in place.relative_to(folder).parts}
        stems = {tree.stem_key(path.stem) for path in files if tree.is_image_file(path)}
        for path in files:
            if path.suffix.lower() == ".txt":
                found.captions.append(path)
            elif tree.is_image_file(path):
                if parts & MASK_FOLDERS or _is_beside(path, stems):
                    found.masks.append(path)
                elif not parts & CAPTION_FOLDERS:
                    found.photos.append(path)
    return found


def _is_beside(path: Path, stems: set[str]) -> bool:
    """Whether `path` is called like a mask of a photograph in the same folder."""
    stem = tree.stem_key(path.stem)
    return any(stem.endswith(suffix) and stem[: -len(suffix)] in stems for suffix in BESIDE)


def _folders(folder: Path, path: Path, dropped: Iterable[str]) -> tuple[str, ...]:
    """The sub-folder names between `folder` and a file, without those that only say what kind of file it is."""
    return tuple(part for part in path.relative_to(folder).parts[:-1] if part.casefold() not in dropped)


def _pair(folder: Path, photos: list[Path], files: list[Path], masks: bool) -> dict[Path, list[Path]]:
    """Photograph -> its masks (or captions). The closest match wins; a file that fits several photos fits none.

    Tried in turn: same sub-folders and stem; the same but for train and test; a folder named like the photo with
    several masks in it; the stem alone.
    """
    kinds = IMAGE_FOLDERS | MASK_FOLDERS | CAPTION_FOLDERS
    loose = kinds | SPLITS.keys()
    tables: list[dict[Key, list[Path]]] = [{}, {}, {}]
    for photo in photos:
        keys: list[tuple[str, ...]] = [_folders(folder, photo, kinds), _folders(folder, photo, loose), ()]
        for table, key in zip(tables, keys, strict=True):
            table.setdefault((key, tree.stem_key(photo.stem)), []).append(photo)
    pairs: dict[Path, list[Path]] = {}
    for path in files:
        stem = tree.stem_key(tree.mask_stem(path.stem) if masks else path.stem)
        exact, split_free = _folders(folder, path, kinds), _folders(folder, path, loose)
        tries: list[tuple[int, Key]] = [(0, (exact, stem)), (1, (split_free, stem))]
        if masks and exact:
            tries += [(0, (exact[:-1], tree.stem_key(exact[-1]))), (1, (split_free[:-1], tree.stem_key(exact[-1])))]
        if not split_free:
            tries.append((2, ((), stem)))
        for table_index, wanted in tries:
            fits = tables[table_index].get(wanted, [])
            if len(fits) > 1:
                named = [photo for photo in fits if photo.stem in (path.stem, tree.mask_stem(path.stem))]
                same_name = len({photo.parent for photo in fits}) == 1  # a.jpg and a.png: the mask is for both
                fits = fits if same_name and not named else named if same_name or len(named) == 1 else []
            if fits:
                for photo in fits:
                    pairs.setdefault(photo, []).append(path)
                break
    return pairs


def _read_category(root: Path, folder: Path, category: str, groups: tree.Groups) -> list[Record]:
    found = _sort_files(folder)
    masks = _pair(folder, found.photos, found.masks, masks=True)
    captions = _pair(folder, found.photos, found.captions, masks=False)
    records = []
    for photo in found.photos:
        places = _folders(folder, photo, IMAGE_FOLDERS)
        split = next((SPLITS[part.casefold()] for part in places if part.casefold() in SPLITS), "train")
        kinds = [part for part in places if part.casefold() not in SPLITS]
        own_masks = tuple(masks.get(photo, ()))
        if not kinds:
            defect_type = FLAT_DEFECT if own_masks else GOOD
        else:
            defect_type = GOOD if tree.is_good_name(kinds[0]) else kinds[0]
        records.append(
            Record(
                image=photo,
                category=category,
                defect_type=defect_type,
                masks=own_masks if defect_type != GOOD else (),
                caption=next(map(tree.read_caption, captions.get(photo, ())), ""),
                split=split,
                group=groups.get(photo, photo.relative_to(root).as_posix()),
                root=root,
            )
        )
    return records
