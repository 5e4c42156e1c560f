"""Findings about files without opening images: strays, masks of nothing, captions, links, names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flawsmith.datasets import caption_table, mvtec_ad, tree
from flawsmith.records import Record

ERROR, WARNING, NOTE = "error", "warning", "note"
_COMPANIONS = frozenset({tree.ORIGIN, "manifest.jsonl", "generate.json", *caption_table.NAMES})
_DOCUMENTS = ("readme", "license", "licence", "notice", "copying", "credits")


@dataclass(frozen=True)
class Finding:
    """Something a person should know about a data set.

    `severity`: "error" stops flawsmith or spoils results, "warning" should be looked at, "note" explains. `file` is
    relative to the data set (or names a category and type), `kind` a short fixed name of the cause.
    """

    severity: str
    file: str
    reason: str
    fix: str = ""
    kind: str = ""


def stray(
    root: Path, records: Sequence[Record], category: str | None, group_by: str, annotated: bool = False
) -> Iterator[Finding]:
    """Findings about the files below `root` (of one category's folder when it has one of its own).

    `annotated`: annotation files describe the images, so that texts are no captions and folders no classes.
    """
    base = root / category if category and (root / category).is_dir() else root
    loops: list[Path] = []
    places = list(tree.walk(base, loops.append))
    for loop in loops:
        fix = "Remove the link."
        yield Finding(WARNING, _name(root, loop), "a link that leads back to a folder above it: skipped", fix, "loop")
    used = {file for record in records for file in record.files}
    classes = {record.image.parent for record in records}
    stems: dict[str, set[str]] = {}
    for record in records:
        stems.setdefault(tree.stem_key(record.image.stem), set()).add(record.image.parent.name)
    for place, files in places:
        yield from _names(root, place)
        for path in files:
            if tree.is_image_file(path):
                if path not in used and not (annotated and _is_label_picture(path)):
                    yield _undescribed(root, path) if annotated else _unused(root, base, path)
            elif annotated:
                continue
            elif path.suffix.lower() == ".txt" and _is_caption(path, base, stems):
                yield from _caption(root, path, stems)
            elif place in classes and not _is_document(path):
                yield Finding(
                    NOTE,
                    _name(root, path),
                    "not an image: ignored here, but tools that take every file of a class folder stumble over it",
                    "Move it out of the folder with the images.",
                    "not-a-image",
                )
    yield from _groups(root, base, records, group_by)
    if category is None:
        yield from _tables(root, records)


def _tables(root: Path, records: Sequence[Record]) -> Iterator[Finding]:
    """Tables of captions that name images which are not there."""
    for table in caption_table.beside(root, records):
        lost = caption_table.match(caption_table.read(table), records, table.parent)[1]
        if lost:
            text = f"describes {len(lost)} images that are not there, the first: {lost[0].file}"
            fix = "Correct the names in the column 'file', or remove the lines."
            yield Finding(WARNING, _name(root, table), text, fix, "caption-absent")


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _is_document(path: Path) -> bool:
    name = path.name.casefold()
    return name in _COMPANIONS or name.startswith(_DOCUMENTS)


def _names(root: Path, place: Path) -> Iterator[Finding]:
    """Dead links, and names of one folder that some file systems take for the same."""
    same: dict[str, list[str]] = {}
    with os.scandir(place) as entries:
        for entry in sorted(entries, key=lambda one: tree.natural(one.name)):
            if tree.is_noise(entry.name):
                continue
            if entry.is_symlink() and not os.path.exists(entry.path):
                where = _name(root, place / entry.name)
                fix = "Restore the file it points to, or remove the link."
                yield Finding(WARNING, where, "a link to a file that does not exist: skipped", fix, "dead-link")
            same.setdefault(tree.stem_key(entry.name), []).append(entry.name)
    for names in same.values():
        if len(names) > 1:
            yield Finding(
                WARNING,
                _name(root, place / names[0]),
                f"{', '.join(names[1:])} differs from it only in capital letters or accents: on Windows and macOS "
                "one would replace the other",
                "Rename one of them.",
                "same-name",
            )


def _is_label_picture(path: Path) -> bool:
    folders = {*tree.MASK_FOLDERS, "segmentationobject", "segmentationclass"}
    return path.parent.name.casefold() in folders or path.stem.endswith(".mask")


def _undescribed(root: Path, path: Path) -> Finding:
    return Finding(
        NOTE,
        _name(root, path),
        "an image that no annotation file describes: not read",
        "Add it to the annotations (without a defect where it is good), or remove it.",
        "unused-image",
    )


def _unused(root: Path, base: Path, path: Path) -> Finding:
    parts = [part.casefold() for part in path.relative_to(base).parts[:-1]]
    name = _name(root, path)
    if tree.MASK_FOLDERS & set(parts) or tree.mask_stem(path.stem) != path.stem:
        return Finding(
            WARNING,
            name,
            "a mask that belongs to no defect image: none has this name, or more than one",
            "Give image and mask the same name (000.png and 000_mask.png), or remove the mask.",
            "mask-without-image",
        )
    if "train" in parts and mvtec_ad.is_category(base):
        return Finding(
            WARNING,
            name,
            "a defect image under train/: not read, and other tools would take it for a good part",
            "Move the folder to test/.",
            "defect-in-train",
        )
    return Finding(
        WARNING,
        name,
        "an image that belongs to no class: not read here, but some tools take every image they find",
        "Move it into a class folder, or out of the data set.",
        "unused-image",
    )


def _is_caption(path: Path, base: Path, stems: dict[str, set[str]]) -> bool:
    parts = {part.casefold() for part in path.relative_to(base).parts[:-1]}
    return bool(parts & tree.CAPTION_FOLDERS) or path.parent.name in stems.get(tree.stem_key(path.stem), ())


def _caption(root: Path, path: Path, stems: dict[str, set[str]]) -> Iterator[Finding]:
    name = _name(root, path)
    owners = stems.get(tree.stem_key(path.stem), set())
    if not owners or (path.parent.name not in owners and path.parent.name.casefold() not in tree.CAPTION_FOLDERS):
        fix = "Rename it to its image's name, or remove it."
        yield Finding(WARNING, name, "a caption that belongs to no image", fix, "caption-without-image")
        return
    try:
        with open(path, encoding="utf-8-sig") as file:
            line = file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        yield Finding(
            WARNING, name, f"the caption cannot be read ({error}): left out", "Save it as UTF-8 text.", "caption"
        )
        return
    if not line:
        fix = "Write the caption into the first line, or remove the file."
        yield Finding(NOTE, name, "the caption's first line is empty", fix, "caption-empty")


def _groups(root: Path, base: Path, records: Sequence[Record], group_by: str) -> Iterator[Finding]:
    homes = dict.fromkeys([root, base, *(root / record.category for record in records)])
    groups = tree.Groups(list(homes), group_by)
    if not groups.tables:
        return
    table = _name(root, groups.tables[0])
    absent = groups.absent()
    if absent:
        fix = "Correct the names in the column 'file', or remove the lines."
        text = f"names {len(absent)} files that do not exist, the first: {Path(absent[0]).name}"
        yield Finding(WARNING, table, text, fix, "group-absent")
    missed = [record.name for record in records if not groups.mentions(record.image)]
    if missed:
        fix = "Add a line for each; without, every image counts as a part of its own."
        yield Finding(NOTE, table, f"gives no group to {len(missed)} images, the first: {missed[0]}", fix, "no-group")
