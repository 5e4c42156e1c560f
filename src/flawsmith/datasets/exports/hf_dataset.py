"""Hugging Face's imagefolder: <split>/* with metadata.jsonl, masks in <split>/masks.

`datasets.load_dataset("imagefolder", data_dir=...)` gives the columns image, mask and the words of every row. `objects`
is a JSON text: of lists that are empty in all rows of one split, the library would make a column of another type.
Reference: huggingface.co/docs/datasets, "Create an image dataset".
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from flawsmith import images
from flawsmith.datasets.exports import words
from flawsmith.datasets.exports.item import Item, Write

FOLDERS = {"train": "train", "val": "validation", "test": "test"}


class HfDataset:
    def __init__(self, names: Sequence[str], write: Write) -> None:
        self.write = write
        self.lines: dict[str, list[str]] = {}

    def image(self, item: Item) -> str:
        return f"{FOLDERS[item.split]}/{item.name}"

    def add(self, item: Item) -> None:
        folder, mask = FOLDERS[item.split], f"masks/{item.stem}.png"
        self.write(f"{folder}/{mask}", images.encode_png(item.mask()))  # also of a good image: a column has no gaps
        row = {"file_name": item.name, "mask_file_name": mask, **words.row(item)}
        row["objects"] = json.dumps(row["objects"], ensure_ascii=False)
        self.lines.setdefault(folder, []).append(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self, splits: Sequence[str]) -> None:
        for folder, lines in self.lines.items():
            self.write(f"{folder}/metadata.jsonl", "".join(lines).encode())
