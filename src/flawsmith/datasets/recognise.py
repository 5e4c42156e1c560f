"""Which reader fits a folder that came without a reader's name, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flawsmith.datasets import (
    coco,
    cvat,
    datumaro,
    kolektor,
    label_studio,
    labelme,
    mvtec_ad,
    mvtec_ad2,
    mvtec_loco,
    real_iad,
    rows,
    tree,
    visa,
    voc,
    voc_classes,
    yolo,
)
from flawsmith.datasets.writer import MANIFEST

LOOKED_AT = 2000  # files of a folder without layout: what makes a layout shows early


@dataclass(frozen=True)
class Layout:
    """`reader` is a key of DATASETS; `why` ends the sentence "Read as coco: ..."."""

    reader: str
    why: str


def recognise(folder: Path) -> Layout:
    """The layout of a folder; what nothing else fits is read as plain photographs.

    Raises FlawsmithError when the folder is missing or empty.
    """
    tree.require_folder(folder)
    for reader, look in LOOKS.items():
        why = look(folder)
        if why:
            return Layout(reader, why)
    return Layout("folder", "no data set's layout was found, so these are plain photographs in folders")


def _mvtec_ad2(folder: Path) -> str:
    found = tree.categories(folder, mvtec_ad2.is_category)
    return f"{_place(folder, found)} test_public" if found else ""


def _real_iad(folder: Path) -> str:
    found = tree.categories(folder, real_iad.is_category)
    return f"{_place(folder, found)} samples in OK/ as Real-IAD" if found else ""


def _visa(folder: Path) -> str:
    own, splits = visa.tables(folder)
    if own:
        return f"{own[0].relative_to(folder)} is a table of VisA"
    return f"it has {splits.relative_to(folder)}" if splits is not None and splits.is_relative_to(folder) else ""


def _ksdd(folder: Path) -> str:
    found = kolektor.pairs(folder, "_label")
    return f"{found[0][1].relative_to(folder)} is a label" if found and found[0][1].suffix == ".bmp" else ""


def _ksdd2(folder: Path) -> str:
    found = kolektor.pairs(folder, "_gt") if any((folder / name).is_dir() for name in ("train", "test")) else []
    return f"{found[0][1].relative_to(folder)} is a label" if found and found[0][1].stem.endswith("_GT") else ""


def _place(folder: Path, found: dict[str, Path]) -> str:
    name, place = next(iter(found.items()))
    return "it has" if place == folder else f"{name}/ has"


def _mvtec_ad(folder: Path) -> str:
    found = tree.categories(folder, mvtec_ad.is_category)
    if not found:
        return f"it has flawsmith's {MANIFEST}" if (folder / MANIFEST).is_file() else ""
    place = next(iter(found.values()))
    inside = [f"{split}/{kind.name}" for split in ("train", "test") for kind in tree.listing(place / split)[0]]
    return f"{_place(folder, found)} {', '.join(inside[:3])}{', ...' if len(inside) > 3 else ''}"


def _mvtec_loco(folder: Path) -> str:
    found = tree.categories(folder, mvtec_ad.is_category)
    for place in found.values():
        if (place / mvtec_loco.CONFIG).is_file():
            return f"{(place / mvtec_loco.CONFIG).relative_to(folder)} lists MVTec LOCO's kinds of defects"
    return ""


def _coco(folder: Path) -> str:
    found = coco.files(folder)
    return f"{found[0].relative_to(folder)} holds COCO's images and annotations" if found else ""


def _datumaro(folder: Path) -> str:
    found = datumaro.files(folder)
    return f"{found[0].relative_to(folder)} holds Datumaro's items" if found else ""


def _hf_dataset(folder: Path) -> str:
    found = [path for path in (folder / rows.METADATA, *folder.glob(f"*/{rows.METADATA}")) if path.is_file()]
    return f"{found[0].relative_to(folder)} holds a row for every image" if found else ""


def _webdataset(folder: Path) -> str:
    if any(path.suffix == ".tar" for path in tree.listing(folder)[1]):
        return "it holds shards of WebDataset"
    for path in _some(folder, lambda path: path.suffix.lower() == ".json"):
        if rows.is_row(path):
            return f"{path.relative_to(folder)} holds the words of the image beside it"
    return ""


def _yolo(folder: Path) -> str:
    for path in yolo.settings(folder):
        if path.suffix in (".yaml", ".yml", ".names"):
            return f"{path.name} names classes"
    for image in _some(folder, tree.is_image_file):
        text = next((path for path in yolo.labels_of(image) if path.is_file()), None)
        if text is not None and yolo.is_label(text):
            return f"{text.relative_to(folder)} holds a class and its box or outline for {image.name}"
    return ""


def _voc(folder: Path) -> str:
    if why := _file(".xml", voc.is_annotation, "is an annotation of Pascal VOC")(folder):
        return why
    for path in _some(folder, lambda path: path.parent.name == voc_classes.CLASSES and tree.is_image_file(path)):
        return f"{path.relative_to(folder)} is a class image of Pascal VOC"
    bare = all((folder / name).is_dir() for name in ("JPEGImages", "ImageSets"))
    return "it has JPEGImages and ImageSets as Pascal VOC" if bare else ""


def _some(folder: Path, fits: Callable[[Path], bool]) -> list[Path]:
    """The first files that fit, of the first LOOKED_AT."""
    found: list[Path] = []
    seen = 0
    for _, files in tree.walk(folder):
        found += [path for path in files if fits(path)]
        seen += len(files)
        if seen > LOOKED_AT or len(found) > 50:
            break
    return found[:50]


def _file(ending: str, fits: Callable[[Path], bool], says: str) -> Callable[[Path], str]:
    """The reason of a format that one of its files gives away."""

    def look(folder: Path) -> str:
        paths = _some(folder, lambda path: path.suffix.lower() == ending)
        return next((f"{path.relative_to(folder)} {says}" for path in paths if fits(path)), "")

    return look


# In this order: the first that fits is taken.
LOOKS: dict[str, Callable[[Path], str]] = {
    "mvtec_ad2": _mvtec_ad2,
    "mvtec_loco": _mvtec_loco,
    "mvtec_ad": _mvtec_ad,
    "real_iad": _real_iad,
    "visa": _visa,
    "datumaro": _datumaro,
    "hf_dataset": _hf_dataset,
    "coco": _coco,
    "cvat": _file(".xml", cvat.is_annotation, "holds CVAT's annotations"),
    "label_studio": _file(".json", label_studio.is_export, "holds Label Studio's tasks"),
    "voc": _voc,
    "labelme": _file(".json", labelme.is_annotation, "holds LabelMe's shapes"),
    "webdataset": _webdataset,
    "yolo": _yolo,
    "ksdd": _ksdd,
    "ksdd2": _ksdd2,
}
