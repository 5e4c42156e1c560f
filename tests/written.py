"""A run of the command line, and what it has written, for comparisons byte by byte; exports for our readers."""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Callable
from pathlib import Path

from flawsmith.datasets.exports import FORMATS

Run = Callable[..., tuple[int, str, str]]  # the fixture `run`
READS = {name: name.replace("-", "_") for name in FORMATS} | {
    "mvtec": "mvtec_ad",
    "yolo-seg": "yolo",
}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder: path in it -> content."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def painted(folder: Path) -> dict[str, bytes]:
    """All that must repeat byte for byte; generate.json names its own settings."""
    return {name: content for name, content in tree(folder).items() if name != "generate.json"}


def unpack(folder: Path) -> None:
    """Shards beside themselves, each in a folder of its name, as origin.csv calls them."""
    for shard in folder.glob("*.tar"):
        packed = shard.with_suffix(".packed")
        shard.rename(packed)
        with tarfile.open(packed) as tar:
            tar.extractall(shard, filter="data")
        packed.unlink()


def origins(folder: Path) -> dict[str, dict[str, str]]:
    """What an export's origin.csv says of each file."""
    with open(folder / "origin.csv", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}
