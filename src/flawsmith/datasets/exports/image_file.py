"""A photograph's file on its way into an export: copied as it is, or as 8-bit PNG where trainers would misread it."""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from flawsmith import images

_ORIENTATION = 0x0112


class ImageFile:
    """`size` is (H, W) upright, `suffix` that of the exported file.

    Raises FlawsmithError naming a damaged file, when it is made: nothing broken is passed on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pixels: np.ndarray | None = None
        self._content: bytes | None = None
        self.is_copy = self._is_plain()
        images.verify(path)
        self.suffix = path.suffix.lower() if self.is_copy else ".png"

    def _is_plain(self) -> bool:
        """Whether every tool sees the same pixels as we do: 8 bits, grey or RGB, upright, in a file all can read."""
        if self.path.suffix.lower() in images.HEIC:
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(self.path) as opened:
                    deep = bool(opened.tile) and ";16" in str(opened.tile[0][3])
                    asked = "exif" in opened.info or opened.format != "PNG"
                    upright = not asked or opened.getexif().get(_ORIENTATION, 1) == 1
                    return opened.mode in ("L", "RGB") and upright and not deep and getattr(opened, "n_frames", 1) == 1
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return False  # `verify` says what is wrong, or OpenCV reads it

    @cached_property
    def size(self) -> tuple[int, int]:
        return images.image_size(self.path)

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8; kept for as long as the image is."""
        if self._pixels is None:
            self._pixels = images.read_image(self.path)
        return self._pixels

    def content(self) -> bytes:
        """The bytes of the exported file; kept for as long as the image is."""
        if self._content is None:
            self._content = self.path.read_bytes() if self.is_copy else images.encode_png(self.pixels())
        return self._content
