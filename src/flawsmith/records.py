"""The four types everyone speaks: Record and Job are words, Sample and Request are pixels.

Two functions cross from words to pixels: `Record.load` and `generation.loading.Loader.request`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith import images
from flawsmith.errors import FlawsmithError
from flawsmith.warp import Warp

GOOD = "good"

# Who listens to long work hears what is being done ("" = nothing but what the listener knows), how much of how much is
# done, and facts: a fit tells its loss.
Progress = Callable[[str, int, int, Mapping[str, Any]], None]


def under(progress: Progress | None, name: str) -> Progress | None:
    """The listener for a part of the work, whose own words stand behind the part's name."""
    if progress is None:
        return None
    return lambda what, done, total, facts: progress(f"{name}: {what}" if what else name, done, total, facts)


def hash_seed(seed: int, *parts: Any) -> int:
    """A 63-bit seed from a seed and any words, the same on every machine and Python."""
    text = json.dumps([seed, *parts], ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Record:
    """One photograph of a data set as a reader found it: paths and words, no pixels.

    `masks` may hold several files (one per region); their union is the mask. `group` names the physical part or
    shot series: records of one group never stand on both sides of a split. `root` is the data set's folder, so
    that manifests can hold relative paths. `any_level`: every non-zero pixel of a mask is defect.
    """

    image: Path
    category: str
    defect_type: str = GOOD
    masks: tuple[Path, ...] = ()
    caption: str = ""
    split: str = "train"
    group: str = ""
    root: Path = Path()
    any_level: bool = False

    @property
    def is_good(self) -> bool:
        return self.defect_type == GOOD

    @property
    def name(self) -> str:
        """The path relative to the data set root, with forward slashes; what manifests and messages print."""
        try:
            return self.image.relative_to(self.root).as_posix()
        except ValueError:
            return self.image.as_posix()

    def load(self) -> Sample:
        """Read the pixels. Raises FlawsmithError naming the file when one is damaged or sizes disagree."""
        image = images.read_image(self.image)
        if not self.masks:  # a view of one False: a normal photograph's mask costs no memory
            none = np.broadcast_to(np.False_, image.shape[:2])
            return Sample(image, none, self.category, self.defect_type, self.caption)
        mask = np.zeros(image.shape[:2], dtype=bool)
        for path in self.masks:
            part = images.read_mask(path, self.any_level)
            if part.shape != mask.shape:
                height, width = image.shape[:2]
                raise FlawsmithError(
                    f"Mask {path} is {part.shape[1]} x {part.shape[0]} pixels, its image {self.image.name} is "
                    f"{width} x {height}: export the mask again at the image's size."
                )
            mask |= part
        return Sample(image, mask, self.category, self.defect_type, self.caption)


def _check_pair(owner: str, image: np.ndarray, mask: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise FlawsmithError(f"{owner} image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}.")
    if mask.dtype != bool or mask.shape != image.shape[:2]:
        raise FlawsmithError(
            f"{owner} mask is {mask.shape} {mask.dtype}, image is {image.shape[:2]}: give a bool mask of the "
            "image's size."
        )


@dataclass(frozen=True)
class Sample:
    """Pixels: `image` (H, W, 3) uint8 RGB, `mask` (H, W) bool, all False for a normal image.

    `info` holds what the maker wants to tell (scores, window, "rejected": reason).
    """

    image: np.ndarray
    mask: np.ndarray
    category: str = ""
    defect_type: str = GOOD
    caption: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_pair("Sample", self.image, self.mask)


@dataclass(frozen=True)
class Job:
    """One image to make, in words: one line of the plan. `mask` is a name in MASKS or an image's path."""

    index: int
    normal: Record
    reference: Record | None
    mask: str
    defect_type: str
    caption: str
    seed: int
    others: tuple[Record, ...] = ()  # further references, for methods that blend several


@dataclass(frozen=True)
class Request:
    """One image to make, in pixels. `mask` (H, W) bool says where the image may change; never empty.

    `warp` is set when the mask is a warped copy of the reference's own mask: it maps reference pixels to the
    normal image, so that a method may lay the reference's pixels exactly under the mask. `others` are further
    references, for methods that blend several.
    """

    normal: Sample
    mask: np.ndarray
    defect_type: str
    caption: str = ""
    reference: Sample | None = None
    seed: int = 0
    warp: Warp | None = None
    others: tuple[Sample, ...] = ()

    def __post_init__(self) -> None:
        _check_pair("Request", self.normal.image, self.mask)
        if not self.mask.any():
            raise FlawsmithError("Request mask is empty: at least one pixel must be allowed to change.")
