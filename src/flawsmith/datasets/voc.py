"""Pascal VOC: Annotations/*.xml with boxes, SegmentationObject/*.png where pixels of the n-th object hold n.

Without the image of objects a mask is proposed in every box; where no XML file names an object, the class image in
SegmentationClass/ does (`voc_classes`). JPEGImages/ holds the images (or any folder, or the same one);
ImageSets/*/train.txt and the like name the splits. An image without objects is a good part.
Reference: Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2010.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from flawsmith.datasets import annotated, levels, regions, tree, voc_classes
from flawsmith.datasets.annotated import Found, Tree
from flawsmith.datasets.folder import SPLITS
from flawsmith.datasets.voc_classes import CLASSES, OBJECTS
from flawsmith.errors import FlawsmithError, short
from flawsmith.records import Record, Region


def is_annotation(path: Path) -> bool:
    """Whether an XML file begins as VOC's do."""
    try:
        with open(path, "rb") as file:
            return re.search(rb"<annotation[\s>]", file.read(4096)) is not None
    except OSError:
        return False


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """Read every image, with its annotation where there is one, in natural order.

    Raises FlawsmithError naming file and object for boxes that are none or lie outside their image, two files for
    one image, class images with an unknown class, and names that lead out of the folder.
    """
    found = Tree(root)
    splits = _splits(found)
    listed = annotated.described(found, ".xml", is_annotation, lambda path: _read_file(path, found, splits))
    labelmap = cache(voc_classes.labelmap)
    for path in (image for image in found.images if image.parent.name == CLASSES):
        photo = _photo(path, found)
        one = listed.setdefault(photo, Found(photo, str(path), _split(photo, found, splits)))
        if not one.regions:
            one.regions += voc_classes.defects(path, labelmap(path.parent.parent / voc_classes.LABELMAP))
    if not listed:
        raise FlawsmithError(
            f"Folder {root} holds no Pascal VOC annotation (*.xml) and no {CLASSES}: export it with its annotations, "
            "or name the right folder."
        )
    homes = {image.parent for image in listed}
    for image in found.images:
        if image.parent in homes and image not in listed:
            listed[image] = Found(image, found.name(image), _split(image, found, splits))
    return annotated.records(root, list(listed.values()), category, group_by)


def _splits(found: Tree) -> dict[str, str]:
    """Stem -> split, from ImageSets: train, val and test, of Main before the others."""
    splits: dict[str, str] = {}
    for path in sorted(found.others, key=lambda path: path.parent.name != "Main"):
        split = SPLITS.get(path.stem.casefold())
        if "ImageSets" in path.parts and path.suffix == ".txt" and split:
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.strip():
                    splits.setdefault(tree.stem_key(line.split()[0]), split)
    return splits


def _split(image: Path, found: Tree, splits: dict[str, str]) -> str:
    return splits.get(tree.stem_key(image.stem)) or annotated.split_of(found.name(image))


def _photo(path: Path, found: Tree) -> Path:
    """The image that a class image belongs to. Raises FlawsmithError where none, or several, are called like it."""
    alike = _photos(path.stem, found)
    near = [image for image in alike if path.parent.parent in image.parents]
    alike = near if len(near) == 1 else alike
    if len(alike) != 1:
        fault = "several images are" if alike else "no image is"
        raise FlawsmithError(f"{path}: {fault} called {path.stem!r} in {found.root}: put one there, in JPEGImages.")
    return alike[0]


def _photos(stem: str, found: Tree) -> list[Path]:
    return [image for image in found.by_stem(stem) if image.parent.name not in (OBJECTS, CLASSES)]


def _text(node: ElementTree.Element, tag: str) -> str:
    return (node.findtext(tag) or "").strip()


def parse(path: Path) -> ElementTree.Element:
    """The root of an XML file. Raises FlawsmithError naming the file where it is damaged or defines entities."""
    try:
        content = path.read_bytes()
        if b"<!ENTITY" in content:
            raise ValueError("it defines entities")
        return ElementTree.fromstring(content)
    except (OSError, ValueError, ElementTree.ParseError, RecursionError) as error:
        raise FlawsmithError(f"{path} cannot be read as XML ({error}): export the annotations again.") from error


def _read_file(path: Path, found: Tree, splits: dict[str, str]) -> Found:
    root = parse(path)
    where = str(path)
    image = _image(path, root, found, where)
    said = {key: _text(root, key) for key in ("caption", "group", "category")}
    one = Found(image, where, _split(image, found, splits)).told(said)
    size = _size(root)
    objects = next(
        (
            p
            for p in (path.parent.parent / OBJECTS / f"{image.stem}.png", path.parent / OBJECTS / f"{image.stem}.png")
            if p.is_file()
        ),
        None,
    )
    for number, node in enumerate(root.findall("object"), start=1):
        one.regions.append(_object(path, number, node, size, objects))
    return one


def _image(path: Path, root: ElementTree.Element, found: Tree, where: str) -> Path:
    """The image called like the annotation, else the one that it names, which is often another's old name."""
    given = _text(root, "filename")
    alike = _photos(path.stem, found)
    if given and (".." in given or given.startswith(("/", "~"))):
        found.find(given, path.parent, where)  # refuses it
    if len(alike) == 1:
        return alike[0]
    return found.find(given, path.parent.parent / "JPEGImages" if not alike else alike[0].parent, where)


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    node = root.find("size")
    texts = [] if node is None else [_text(node, "height"), _text(node, "width")]
    if len(texts) == 2 and all(text.isdecimal() and int(text[:9]) > 0 for text in texts):
        return int(texts[0][:9]), int(texts[1][:9])
    return None  # many tools leave 0 here


def _object(
    path: Path, number: int, node: ElementTree.Element, size: tuple[int, int] | None, objects: Path | None
) -> Region:
    entry = f"object {number}"
    where = f"{path}, {entry}"
    name = annotated.label(_text(node, "name"), where)
    box = node.find("bndbox")
    texts = [] if box is None else [_text(box, key) for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        left, top, right, bottom = (float(text) for text in texts)
    except ValueError:
        raise FlawsmithError(f"{where}: its box is {short(texts)}: give xmin, ymin, xmax, ymax.") from None
    place = regions.box([left - 1, top - 1, right - left + 1, bottom - top + 1], where)
    if size:
        regions.refuse_outside(place[:2], (place[0] + place[2], place[1] + place[3]), size, where)
    if objects is not None and number < 255:
        return levels.Level(path, entry, name, image=objects, value=number)
    return regions.Box(path, entry, name, place=place)
