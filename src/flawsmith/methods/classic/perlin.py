"""Perlin: a foreign texture shows through a mask of noise, as in DRAEM.

Reference: Zavrtanik et al., "DRAEM - A Discriminatively Trained Reconstruction Embedding for Surface Anomaly
Detection", ICCV 2021, section 3.2 and equation 3. The paper takes textures from DTD and augments them; here they come
from the folder `textures`, or, needing no download, from another place of the photograph or from rendered noise.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from flawsmith import compose, images, inputs
from flawsmith.errors import FlawsmithError
from flawsmith.masks.options import Span, between
from flawsmith.masks.shapes import perlin_noise
from flawsmith.methods import base
from flawsmith.methods.classic.patches import is_grey, take, turned
from flawsmith.records import Request


class PerlinOptions(base.Options):
    """Dials of `perlin`."""

    beta: Annotated[Span, between(0.001, 1)] = Field(
        default=(0.1, 1.0), description="opacity of the texture (paper: 0.1 to 1)"
    )
    source: Literal["any", "photo", "rendered", "folder"] = Field(
        default="any", description="where textures come from; any: the folder when given, else photo or rendered"
    )
    textures: str | None = Field(default=None, description="folder of texture images")
    augment: int = Field(default=3, ge=0, le=7, description="random colour changes per texture (paper: 3)")


class Perlin(base.Synthesizer):
    """Blend an augmented texture into a mask of Perlin noise."""

    name = "perlin"
    imitates = False
    Options: ClassVar[type[base.Options]] = PerlinOptions

    def default_mask(self, defect_type: str) -> str:
        return "perlin"

    def paint(
        self,
        normal: np.ndarray,
        mask: np.ndarray,
        request: Request,
        area: compose.Window,
        rng: np.random.Generator,
        options: Any,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        low, high = options.beta
        beta = float(rng.uniform(low, high))
        texture, facts = texture_for(normal.shape[:2], request.normal.image, rng, options)
        painted = compose.blend(normal, texture, mask.astype(np.float32) * beta)
        return painted, {"beta": round(beta, 3), **facts}


def texture_for(
    shape: tuple[int, ...], photo: np.ndarray, rng: np.random.Generator, options: Any
) -> tuple[np.ndarray, dict[str, Any]]:
    """An augmented texture (h, w, 3) uint8 and where it came from."""
    size = (int(shape[0]), int(shape[1]))
    kind = options.source
    if kind == "any":
        kind = "folder" if options.textures else ("photo", "rendered")[int(rng.integers(0, 2))]
    facts: dict[str, Any] = {"texture": kind}
    if kind == "folder":
        if not options.textures:
            raise FlawsmithError("Option source='folder' for perlin needs the option textures: a folder of images.")
        files = _texture_files(options.textures)
        path = files[int(rng.integers(0, len(files)))]
        texture, _ = take(images.read_image(path), size, rng, (0.5, 2.0), flip=True)
        facts["texture_file"] = path.name
    elif kind == "photo":
        texture, facts["source"] = take(photo, size, rng, (0.5, 2.0), flip=True)
    else:
        texture = rendered(size, rng, photo)
    changes = rng.permutation(len(CHANGES))[: options.augment]
    for index in changes:
        texture = CHANGES[int(index)](texture, rng)
    if options.augment:
        texture = turned(texture, float(rng.uniform(-45, 45)))
    if is_grey(photo):  # a grey camera sees no coloured defect
        texture = np.repeat(cv2.cvtColor(texture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    return texture, facts


@lru_cache(maxsize=8)
def _texture_files(folder: str) -> tuple[Path, ...]:
    root = inputs.home(Path(folder))
    files = tuple(sorted(p for p in root.rglob("*") if p.suffix.lower() in images.SUFFIXES)) if root.is_dir() else ()
    if not files:
        raise FlawsmithError(
            f"Folder {folder} (option textures of perlin) holds no image: give a folder with "
            f"{', '.join(sorted(images.SUFFIXES))} files."
        )
    for file in files:
        inputs.refuse_odd_name(file.name, f"Texture in {folder}:")
    return files


def rendered(shape: tuple[int, int], rng: np.random.Generator, photo: np.ndarray) -> np.ndarray:
    """Two colours mixed by two scales of Perlin noise, with grain; (h, w, 3) uint8.

    One colour is taken from the photograph and changed, the other is free.
    """
    pixel = photo[int(rng.integers(0, photo.shape[0])), int(rng.integers(0, photo.shape[1]))]
    colours = np.stack([np.clip(pixel + rng.normal(0, 30, 3), 0, 255), rng.uniform(0, 255, 3)])
    weight = np.zeros(shape, dtype=np.float32)
    for strength in (1.0, 0.5):
        cells = tuple(int(np.clip(2 ** rng.integers(1, 6), 1, max(1, side // 2))) for side in shape)
        weight += strength * perlin_noise(shape, cells, rng)
    weight = np.clip(0.5 + weight * rng.uniform(0.4, 1.2), 0, 1)[..., None]
    mixed = colours[0] * weight + colours[1] * (1 - weight) + rng.normal(0, rng.uniform(0, 12), (*shape, 1))
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _gamma(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    power = float(np.exp(rng.uniform(np.log(0.5), np.log(2.0))))
    return _through(image, 255 * (np.arange(256) / 255) ** power)


def _brightness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _through(image, np.arange(256) * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30))


def _solarize(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    limit = int(rng.integers(32, 129))
    return _through(image, np.where(np.arange(256) < limit, np.arange(256), 255 - np.arange(256)))


def _posterize(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    bits = int(rng.integers(3, 6))
    return _through(image, (np.arange(256) >> (8 - bits)) << (8 - bits))


def _invert(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(255 - image)


def _contrast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    low, high = np.percentile(image[::2, ::2], [1, 99])
    return _through(image, (np.arange(256) - low) * 255 / max(1.0, high - low))


def _hue(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    turned_hue = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    turned_hue[..., 0] = (turned_hue[..., 0].astype(int) + int(rng.integers(-25, 26))) % 180
    turned_hue[..., 1] = np.clip(turned_hue[..., 1] * rng.uniform(0.6, 1.6), 0, 255).astype(np.uint8)
    return cv2.cvtColor(turned_hue, cv2.COLOR_HSV2RGB)


def _through(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    return cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8))


CHANGES = (_gamma, _brightness, _solarize, _posterize, _invert, _contrast, _hue)
