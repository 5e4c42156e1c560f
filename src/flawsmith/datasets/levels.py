"""Defects as numbers or colours in an image of classes or objects, as Pascal VOC has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from flawsmith.errors import FlawsmithError
from flawsmith.records import Region


def colour(number: int) -> tuple[int, int, int]:
    """VOC's colour of a number from 0 to 255: its bits, spread over red, green and blue."""
    red, green, blue = (
        sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)
    )
    return red, green, blue


def numbered(colours: np.ndarray) -> np.ndarray:
    """The numbers (H, W) uint8 that VOC's colours (H, W, 3) stand for: Datumaro writes these in place of a palette."""
    levels = np.zeros(colours.shape[:2], np.uint8)
    for place in range(8):
        high, channel = divmod(place, 3)
        levels |= (colours[..., channel] >> (7 - high) & 1) << place
    return levels


def levels_of(path: Path, where: str) -> np.ndarray:
    """The numbers (H, W) in an image of classes or objects. Raises FlawsmithError that begins with `where`."""
    with _opened(path, where) as image:
        return np.asarray(image) if image.mode in ("P", "L", "1") else numbered(np.asarray(image.convert("RGB")))


def packed(path: Path, where: str) -> np.ndarray:
    """The colours of an image as (H, W) int32, 65536 red + 256 green + blue. Raises FlawsmithError as `levels_of`."""
    with _opened(path, where) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int32) @ np.array([65536, 256, 1], dtype=np.int32)


@contextmanager
def _opened(path: Path, where: str) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FlawsmithError(f"{where}: {path} cannot be read ({error}): export it again.") from error


@dataclass(frozen=True)
class Level(Region):
    """The pixels that hold `value` in an image of classes or objects (Pascal VOC); `image` is that file.

    In an image without a palette a pixel's colour says the number, as VOC's palette has it. `colours`: the value is a
    colour itself, as `packed` gives it.
    """

    image: Path = field(default=Path(), compare=False)
    value: int = field(default=0, compare=False)
    colours: bool = field(default=False, compare=False)

    def draw(self, size: tuple[int, int], read: Callable[[], np.ndarray]) -> np.ndarray:
        levels = packed(self.image, str(self)) if self.colours else levels_of(self.image, str(self))
        if levels.shape != size:
            raise FlawsmithError(
                f"{self}: {self.image} is {levels.shape[1]} x {levels.shape[0]} pixels, its image {size[1]} x "
                f"{size[0]}: export it again at the image's size."
            )
        return np.asarray(levels == self.value)
