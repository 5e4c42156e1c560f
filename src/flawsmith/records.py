"""The four types everyone speaks: Record and Job are words, Sample and Request are pixels.

Two functions cross from words to pixels: `Record.load` and `generation.loading.Loader.request`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith import images
from flawsmith.errors import FlawsmithError
from flawsmith.warp import Warp

GOOD = "good"
COMBINED = "combined"  # as MVTec AD calls images that show several defect types

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
class Region(ABC):
    """One defect as an annotation file describes it, where there is no mask image; see `datasets.regions`.

    `source` is the file, `entry` names the place in it as messages print it ("annotation 17"); both together are the
    region's identity. `label` is its own defect type. `proposed`: its pixels are a guess, which `check` reports.
    """

    source: Path
    entry: str
    label: str
    proposed: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return f"{self.source}, {self.entry}"

    @abstractmethod
    def draw(self, size: tuple[int, int], read: Callable[[], np.ndarray]) -> np.ndarray:
        """The region's pixels, (H, W) bool of `size`; `read` gives the photograph where the pixels depend on it.

        Raises FlawsmithError naming file and entry where the two do not fit.
        """


@dataclass(frozen=True)
class Saturation:
    """From how many pixels on a defect counts as found whole: of all defects whose mask has this grey level.

    `threshold` is a number of pixels, or where `relative` the share of the defect's own. `name` is the kind of defect,
    finer than the defect type. Source: MVTec LOCO's `defects_config.json`.
    """

    level: int
    threshold: float
    relative: bool
    name: str = ""

    def pixels(self, area: int) -> float:
        """For a defect of `area` pixels; never more than it has."""
        return self.threshold * area if self.relative else min(self.threshold, area)


@dataclass(frozen=True)
class Record:
    """One photograph of a data set as a reader found it: paths and words, no pixels.

    `masks` may hold several files or regions (one per defect); their union is the mask. `group` names the physical part
    or shot series: records of one group never stand on both sides of a split. `root` is the data set's folder, so
    that manifests can hold relative paths. `any_level`: every non-zero pixel of a mask is defect. `saturation`: of
    the grey levels of its mask images, where the data set says how its defects are scored.
    """

    image: Path
    category: str
    defect_type: str = GOOD
    masks: tuple[Path | Region, ...] = ()
    caption: str = ""
    split: str = "train"
    group: str = ""
    root: Path = Path()
    any_level: bool = False
    saturation: tuple[Saturation, ...] = ()

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

    @property
    def is_proposed(self) -> bool:
        """Whether pixels of its masks were guessed, from boxes or lines."""
        return any(isinstance(mask, Region) and mask.proposed for mask in self.masks)

    @property
    def labels(self) -> tuple[str, ...]:
        """The defect types of its regions, each once; its own type where the masks are images, () of a good one."""
        if self.is_good:
            return ()
        own = (mask.label if isinstance(mask, Region) else self.defect_type for mask in self.masks)
        return tuple(dict.fromkeys(own)) or (self.defect_type,)

    @property
    def files(self) -> tuple[Path, ...]:
        """What it is made of: the image, and the mask images or annotation files, each once."""
        sources = (mask.source if isinstance(mask, Region) else mask for mask in self.masks)
        return tuple(dict.fromkeys((self.image, *sources)))

    def parts(self, size: tuple[int, int], read: Callable[[], np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """(label, (H, W) bool) of every mask, one at a time; `size` and `read` as in `Region.draw`.

        Raises FlawsmithError naming the mask when it is damaged or of another size.
        """
        for mask in self.masks:
            if isinstance(mask, Region):
                yield mask.label, mask.draw(size, read)
                continue
            part = images.read_mask(mask, self.any_level)
            if part.shape != size:
                raise FlawsmithError(
                    f"Mask {mask} is {part.shape[1]} x {part.shape[0]} pixels, its image {self.image.name} is "
                    f"{size[1]} x {size[0]}: export the mask again at the image's size."
                )
            yield self.defect_type, part

    def saturated(self, size: tuple[int, int]) -> Iterator[tuple[np.ndarray, float]]:
        """((H, W) bool, pixels) of every defect, and from how many pixels on it counts as found whole.

        A grey level of a mask image that `saturation` lists is a defect of its own; anything else needs all its pixels.
        Raises FlawsmithError as `parts`.
        """
        for mask, (_, part) in zip(self.masks, self.parts(size, lambda: images.read_image(self.image)), strict=True):
            left = part
            levels = None if isinstance(mask, Region) else images.brightest(images.read_image(mask))
            for kind in self.saturation if levels is not None else ():
                found = part & (levels == kind.level)
                if found.any():
                    yield found, kind.pixels(int(found.sum()))
                    left = left & ~found
            if left.any():
                yield left, float(left.sum())

    def marks_something(self) -> bool:
        """Whether its masks hold a pixel; the photograph itself is not decoded unless a mask depends on it."""
        parts = self.parts(images.image_size(self.image), lambda: images.read_image(self.image))
        return any(part.any() for _, part in parts)

    def load(self) -> Sample:
        """Read the pixels. Raises FlawsmithError naming the file when one is damaged or sizes disagree."""
        image = images.read_image(self.image)
        size = image.shape[0], image.shape[1]
        if not self.masks:  # a view of one False: a normal photograph's mask costs no memory
            none = np.broadcast_to(np.False_, size)
            return Sample(image, none, self.category, self.defect_type, self.caption)
        mask = np.zeros(size, dtype=bool)
        for _, part in self.parts(size, lambda: image):
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
class Target:
    """A real defect that an image is to be like, as far as no dial says otherwise.

    image: its name. size: shares of the object's area. place: the centre, x and y as shares of the image. severity: see
    `Request`. Each None where it is left alone.
    """

    image: str
    size: tuple[float, float] | None = None
    place: tuple[float, float] | None = None
    severity: tuple[float, float] | None = None


@dataclass(frozen=True)
class Growth:
    """How much larger and stronger a defect is than the real one that it follows: factors of its side and contrast.

    A line grows in `length`, at its own width, in the place of its side.
    """

    side: float = 1.0
    contrast: float = 1.0
    length: float = 1.0

    def nearer(self, redraw: int) -> Growth:
        """Half as far from the real one with every redraw (of the logarithm): what was refused was perhaps too much."""
        share = 0.5**redraw
        return Growth(self.side**share, self.contrast**share, self.length**share)


@dataclass(frozen=True)
class Job:
    """One image to make, in words: one line of the plan. `mask` is a name in MASKS or an image's path.

    An image of several types is COMBINED, and its `parts` are what is painted, one after the other on one photograph.
    """

    index: int
    normal: Record
    reference: Record | None
    mask: str
    defect_type: str
    caption: str
    seed: int
    others: tuple[Record, ...] = ()  # further references, for methods that blend several
    target: Target | None = None
    growth: Growth = Growth()
    parts: tuple[Job, ...] = ()

    @property
    def painted(self) -> tuple[Job, ...]:
        """What the method is asked for: the job itself, or its parts."""
        return self.parts or (self,)


@dataclass(frozen=True)
class Request:
    """One image to make, in pixels. `mask` (H, W) bool says where the image may change; never empty.

    `warp` is set when the mask is a warped copy of the reference's own mask: it maps reference pixels to the
    normal image, so that a method may lay the reference's pixels exactly under the mask. `others` are further
    references, for methods that blend several. `severity`: how strong the defect is to be, 0 (barely visible) to 1;
    None leaves it to the method. `whole`: the reference's pixels belong to its shape, as where a lead is cut.
    `contrast`: factor on what is painted, where no severity says how strong it is to be.
    """

    normal: Sample
    mask: np.ndarray
    defect_type: str
    caption: str = ""
    reference: Sample | None = None
    seed: int = 0
    warp: Warp | None = None
    others: tuple[Sample, ...] = ()
    severity: float | None = None
    whole: bool = False
    contrast: float = 1.0

    def __post_init__(self) -> None:
        _check_pair("Request", self.normal.image, self.mask)
        if not self.mask.any():
            raise FlawsmithError("Request mask is empty: at least one pixel must be allowed to change.")
