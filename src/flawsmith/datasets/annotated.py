"""What the readers of annotation files share: images found again by name, labels, and Records from both.

An annotation file is a stranger's: every path in it must lead to an image inside the data set's folder, and whatever
it says wrongly is refused with the file, the entry and the remedy.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from flawsmith import inputs
from flawsmith.datasets import regions, tree
from flawsmith.datasets.folder import SPLITS
from flawsmith.errors import FlawsmithError, short
from flawsmith.records import COMBINED, GOOD, Record, Region

LARGEST = 4_000_000_000  # bytes of an annotation file


class Tree:
    """Every file below a data set's folder, walked once: `images` and `others`, in natural order."""

    def __init__(self, root: Path) -> None:
        tree.require_folder(root)
        self.root = root
        self.images: list[Path] = []
        self.others: list[Path] = []
        for _, files in tree.walk(root):
            for path in files:
                (self.images if tree.is_image_file(path) else self.others).append(path)
        self._at = {tree.stem_key(self.name(path)): path for path in self.images}
        self._named: dict[str, list[Path]] = {}
        self._stems: dict[str, list[Path]] = {}
        for path in self.images:
            self._named.setdefault(tree.stem_key(path.name), []).append(path)
            self._stems.setdefault(tree.stem_key(path.stem), []).append(path)

    def name(self, path: Path) -> str:
        """A path below the root, with forward slashes."""
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    def by_stem(self, stem: str) -> list[Path]:
        """The images of this stem, in any folder."""
        return self._stems.get(tree.stem_key(stem), [])

    def find(self, given: Any, near: Path, where: str, may_go_up: bool = False) -> Path:
        """The image that an annotation file in the folder `near` calls `given`.

        Tried in turn: from that folder, from the root, and the one image of this name anywhere; only names that were
        found below the root are looked among. With `may_go_up` the name may hold ".." as long as it stays inside.
        Raises FlawsmithError that begins with `where` for an absolute path, one that leads out, or an image that is
        not there.
        """
        if not isinstance(given, str) or not given.strip() or "\0" in given or not inputs.is_text(given):
            raise FlawsmithError(f"{where}: the image's name is {short(given)}: give the name of a file.")
        name = given.strip().replace("\\", "/")
        out = name.startswith(("/", "~")) or (len(name) > 1 and name[1] == ":")
        up = may_go_up and ".." in name.split("/")
        if up:
            name = posixpath.normpath(f"{self.name(near)}/{name}")
        if out or ".." in name.split("/"):
            raise FlawsmithError(
                f"{where}: the image's name {short(given)} leads out of the data set: write it relative to "
                f"{self.root}, without '..'."
            )
        name = str(PurePosixPath(name))
        bases = (self.name(near) + "/", "") if near != self.root and not up else ("",)
        for base in bases:
            found = self._at.get(tree.stem_key(base + name))
            if found is not None:
                return found
        alike = self._named.get(tree.stem_key(name.rpartition("/")[2]), [])
        if len(alike) > 1:  # the one whose folders fit best: train/a.png and val/a.png
            best = [path for path in alike if _split_of(self.name(path)) == _split_of(self.name(near / "x"), near.stem)]
            ends = [path for path in alike if tree.stem_key(self.name(path)).endswith("/" + tree.stem_key(name))]
            alike = ends if len(ends) == 1 else [path for path in ends if path in best] or best
        if len(alike) != 1:
            fault = "several images have this name" if alike else "there is no such image"
            raise FlawsmithError(
                f"{where}: the image {short(given)} was not found below {self.root} ({fault}): put it there, or "
                "correct the name."
            )
        return alike[0]


def _split_of(name: str, *more: str) -> str:
    """The split that a path's folders tell (train, valid, val2017, instances_test), or ""."""
    words = [*PurePosixPath(name).parts[:-1], *more]
    for word in reversed(words):
        for part in (word, word.rpartition("_")[2]):
            found = SPLITS.get(part.casefold().rstrip("0123456789"))
            if found:
                return found
    return ""


def split_of(name: str, *more: str) -> str:
    """The split that a relative path's folders tell, or one of the words in `more`; "train" where none does."""
    return _split_of(name, *more) or "train"


def label(given: Any, where: str) -> str:
    """A defect type's name. Raises FlawsmithError that begins with `where` for what is none."""
    text = given.strip() if isinstance(given, str) else given
    if not isinstance(text, str) or not text or len(text) > 200 or "\0" in text or not inputs.is_text(text):
        raise FlawsmithError(f"{where}: the label is {short(given)}: give a defect type's name.")
    return text


def read_json(path: Path, kind: type = dict) -> Any:
    """An annotation file's JSON value, an object unless `kind` differs. Raises FlawsmithError naming the file."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST / 1e9:g} GB")
        return inputs.parse_json(path.read_bytes(), kind)
    except (OSError, ValueError) as error:
        raise FlawsmithError(f"{path} cannot be read as JSON ({error}): export the annotations again.") from error


def entries(content: dict[str, Any], key: str, where: str | Path) -> list[dict[str, Any]]:
    """The list of objects under a key of an entry. Raises FlawsmithError that begins with `where`."""
    return objects(content.get(key, []), where, key)


def objects(found: Any, where: str | Path, name: str) -> list[dict[str, Any]]:
    """`found`, refused with place and `name` unless it is a list of objects."""
    if not isinstance(found, list):
        raise FlawsmithError(f"{where}: {name} is a {type(found).__name__}: it must be a list.")
    for number, one in enumerate(found):
        if not isinstance(one, dict):
            raise FlawsmithError(f"{where}, {name}[{number}] is {short(one)}: it must be an object.")
    return found


@dataclass
class Found:
    """One image and what an annotation file says of it; what it leaves out, origin.csv may tell."""

    image: Path
    where: str  # the entry, for messages
    split: str = "train"
    regions: list[Region] = field(default_factory=list)
    caption: str = ""
    group: str = ""
    category: str = ""
    good: bool = False  # said to be good, whatever is marked on it
    tags: list[str] = field(default_factory=list)  # what is said of the whole image; counts where nothing is marked
    joined: dict[tuple[str, Any], int] = field(default_factory=dict)  # (label, group) -> place in `regions`

    def add(self, region: Region, group: Any = None) -> None:
        """Add a region; polygons of one label and `group`, a number or word other than 0, are one defect."""
        if isinstance(region, regions.Polygon) and isinstance(group, (int, str)) and group not in (0, ""):
            place = self.joined.setdefault((region.label, group), len(self.regions))
            if place < len(self.regions):
                before = self.regions[place]
                assert isinstance(before, regions.Polygon)
                self.regions[place] = replace(before, rings=(*before.rings, *region.rings))
                return
        self.regions.append(region)

    def told(self, said: Mapping[str, str]) -> Found:
        """Itself, with caption, group and category as `notes` found them."""
        self.caption, self.group, self.category = (said.get(key, "") for key in ("caption", "group", "category"))
        return self


def notes(entry: dict[str, Any]) -> dict[str, str]:
    """Caption, group and category of an image, where flawsmith wrote them."""
    own = entry.get("flawsmith")
    own = own if isinstance(own, dict) else {}
    said = {"caption": entry.get("caption"), "group": own.get("group"), "category": own.get("category")}
    return {key: value.strip() for key, value in said.items() if isinstance(value, str) and inputs.is_text(value)}


def described(
    found: Tree, ending: str, fits: Callable[[Path], bool], read: Callable[[Path], Found]
) -> dict[Path, Found]:
    """What files that are about one image each say, by image. Raises FlawsmithError where two are about the same."""
    listed: dict[Path, Found] = {}
    for path in found.others:
        if path.suffix.lower() != ending or not fits(path):
            continue
        one = read(path)
        if one.image in listed:
            raise FlawsmithError(
                f"{path} describes {one.image.name}, and so does {listed[one.image].where}: keep one of them."
            )
        listed[one.image] = one
    return listed


def records(root: Path, found: Sequence[Found], category: str | None, group_by: str) -> list[Record]:
    """Records in natural order; an image with several labels is of the type "combined".

    Raises FlawsmithError for an image that two entries describe, no image at all, or an unknown category.
    """
    groups = tree.Groups([root], group_by)
    own = root.resolve().name
    made: dict[Path, tuple[Record, str]] = {}
    for one in found:
        if one.image in made:
            raise FlawsmithError(
                f"{one.where} describes {one.image.name}, and so does {made[one.image][1]}: keep one of them, with all "
                "of the image's defects."
            )
        marked = tuple(region for region in one.regions if not tree.is_good_name(region.label))
        tags = () if marked else tuple(tag for tag in one.tags if not tree.is_good_name(tag))
        labels = list(dict.fromkeys((*(region.label for region in marked), *tags)))
        record = Record(
            image=one.image,
            category=groups.note(one.image, "category") or one.category or own,
            defect_type=GOOD if one.good or not labels else labels[0] if len(labels) == 1 else COMBINED,
            masks=() if one.good else marked,
            caption=one.caption or groups.note(one.image, "caption"),
            split=one.split,
            group=groups.get(one.image, one.group or os.path.relpath(one.image, root).replace(os.sep, "/")),
            root=root,
        )
        made[one.image] = record, one.where
    if not made:
        raise tree.no_images(root)
    listed = sorted((record for record, _ in made.values()), key=lambda record: tree.natural(record.name))
    if category is not None:
        known = list(dict.fromkeys(record.category for record in listed))
        if category not in known and known == [own]:  # the data set names no product: call it as you like
            return [replace(record, category=category) for record in listed]
        tree.choose_category(category, known, root, single=False)
        listed = [record for record in listed if record.category == category]
    return listed
