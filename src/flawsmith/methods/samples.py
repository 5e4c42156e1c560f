"""Samples: what a method returned, as a list that can be looked at and saved as a data set."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flawsmith import __version__, compose, images
from flawsmith.datasets.writer import Writer
from flawsmith.errors import FlawsmithError
from flawsmith.records import GOOD, Sample

# what the manifest names of every image; a Sample from elsewhere does not know it
EMPTY: dict[str, Any] = {
    "seed": None,
    "redraws": 0,
    "normal": {"file": "", "sha": ""},
    "reference": None,
    "window": None,
    "scores": {},
    "method": "",
    "options": {},
}


class Samples(list[Sample]):
    """A list of Sample; `refused` holds those that no redraw could save, with `info["rejected"]` saying why.

    In a notebook it shows itself as a contact sheet.
    """

    def __init__(self, samples: Iterable[Sample] = (), refused: Iterable[Sample] = ()) -> None:
        super().__init__(samples)
        self.refused = list(refused)

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return Samples(found) if isinstance(place, slice) else found

    def sheet(self, count: int = 8, cell: int = 192) -> np.ndarray:
        """A contact sheet (H, W, 3) uint8 of `count` samples, evenly spaced: image, mask, and a zoom on the defect."""
        if not self:
            raise FlawsmithError("There is no sample to show: all were refused, see `refused`.")
        places = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)
        chosen = [self[int(i)] for i in places]
        rows = [[images.overlay(s.image, s.mask), images.mask_image(s.mask), _zoom(s)] for s in chosen]
        captions = [sample.caption or sample.defect_type for sample in chosen]
        return images.contact_sheet(rows, ("image", "mask", "zoom"), captions, cell)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(self.sheet()).save(buffer, "PNG")
        return buffer.getvalue()

    def save(self, out: str | Path) -> Path:
        """Write `out` as a data set in MVTec layout with prompts and a manifest; good samples go to train/good.

        Saving the same samples again resumes. Raises FlawsmithError when `out` holds something else.
        """
        folder = Path(out)
        defects = [sample for sample in self if sample.mask.any()]
        types = list(dict.fromkeys((s.category, s.defect_type) for s in defects))
        several = len({category for category, _ in types}) > 1
        numbers: dict[tuple[str, str], int] = {}
        description = {
            "flawsmith": __version__,
            "source": "memory",
            "n": len(defects),
            "types": [list(pair) for pair in types],
            "several_categories": several,
            "samples": images.array_sha(np.array([images.array_sha(s.image) for s in defects])),
            "support": {name: sha for s in defects for name, sha in s.info.get("support", {}).items()},
            "licences": [],
        }
        with Writer(folder, description) as writer:
            for index, sample in enumerate(defects):
                kind = (sample.category, sample.defect_type)
                number = numbers[kind] = numbers.get(kind, -1) + 1
                if index >= writer.count:
                    _write(writer, index, number, f"{sample.category}/" if several else "", sample)
        for number, sample in enumerate(sample for sample in self if not sample.mask.any()):
            start = folder / sample.category if several and sample.category else folder
            images.write_image(start / "train" / GOOD / f"{number:05d}.png", sample.image)
        return folder


def _zoom(sample: Sample) -> np.ndarray:
    view = compose.square_window(sample.mask, 48, 1.8).slices if sample.mask.any() else np.s_[:, :]
    return np.ascontiguousarray(sample.image[view])


def _write(writer: Writer, index: int, number: int, start: str, sample: Sample) -> None:
    image, mask = images.encode_png(sample.image), images.encode_png(sample.mask)
    facts = dict(sample.info)
    line: dict[str, Any] = {
        "index": index,
        "status": "kept",
        "category": sample.category,
        "defect_type": sample.defect_type,
        "caption": sample.caption,
        **{key: facts.pop(key, empty) for key, empty in EMPTY.items()},
        "info": {key: value for key, value in facts.items() if key != "support"},
        "flawsmith": __version__,
        "image": f"{start}test/{sample.defect_type}/{number:03d}.png",
        "mask": f"{start}ground_truth/{sample.defect_type}/{number:03d}_mask.png",
        "prompt": f"{start}prompt/{sample.defect_type}/{number:03d}.txt",
        "image_sha": images.bytes_sha(image),
        "mask_sha": images.bytes_sha(mask),
    }
    writer.write(line, image, mask)
