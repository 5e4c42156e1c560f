"""What a caller may give in place of a Sample: arrays, PIL images, paths, pairs of image and mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from flawsmith import images as pixels
from flawsmith import masks as families
from flawsmith.errors import FlawsmithError
from flawsmith.records import Sample


def as_image(image: Any) -> np.ndarray:
    """A PIL image, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8, or a path -> (H, W, 3) uint8 RGB."""
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray):
        return pixels.read_image(image)
    array = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise FlawsmithError(
            f"An image must be (H, W), (H, W, 3) or (H, W, 4) uint8, got {image.shape} {image.dtype}: "
            "multiply floats in 0 to 1 by 255 and convert them with .astype('uint8')."
        )
    return np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else np.ascontiguousarray(array[..., :3])


def as_mask(mask: Any) -> np.ndarray:
    """A bool array, a grey array or PIL image (white = defect), or a path -> (H, W) bool."""
    if isinstance(mask, Image.Image):
        mask = np.asarray(mask.convert("L"))
    if not isinstance(mask, np.ndarray):
        return pixels.read_mask(mask)
    if mask.ndim == 3:
        mask = mask[..., 0]
    if mask.dtype == bool:
        return mask
    level = 0.5 * (255 if mask.dtype == np.uint8 and mask.max(initial=0) > 1 else 1)
    return np.asarray(mask > level)


def as_list(given: Any) -> list[Any]:
    """One image, one pair (image, mask) or a list of them as a list; None is an empty one."""
    if given is None:
        return []
    pair = isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], (np.ndarray, Image.Image))
    return [given] if pair or not isinstance(given, Sequence) or isinstance(given, str) else list(given)


def as_normal(image: Any, category: str) -> Sample:
    """An image of a good part, see `as_image`, as a Sample with an empty mask."""
    if isinstance(image, Sample):
        return image
    array = as_image(image)
    return Sample(array, np.zeros(array.shape[:2], dtype=bool), category)


def as_reference(given: Any, category: str, defect_type: str) -> Sample:
    """A Sample with a mask, or a pair (image, mask), as a Sample."""
    if isinstance(given, Sample):
        return given
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise FlawsmithError("A reference is a pair (image, mask) or a Sample with a mask: its mask says what to copy.")
    return Sample(as_image(given[0]), as_mask(given[1]), category, defect_type or "defect")


def allowed_on(normal: Sample, roi: Any) -> np.ndarray:
    """Where a defect may sit, (H, W) bool: on the product, and inside the region of interest `roi` (see `as_mask`).

    Raises FlawsmithError where the two do not meet.
    """
    ground = families.foreground(normal.image)
    if roi is None:
        return ground
    allowed = ground & as_mask(roi)
    if not allowed.any():
        raise FlawsmithError("The region of interest and the object do not meet: mark where defects may sit.")
    return allowed


def own_masks(masks: Any) -> list[np.ndarray]:
    """The caller's own masks, each (H, W) bool; none where a family or the method is to draw them."""
    if masks is None or isinstance(masks, str):
        return []
    given = [as_mask(mask) for mask in as_list(masks)]
    if not given:
        raise FlawsmithError("The list of masks is empty: pass one, one for each image, or the name of a family.")
    return given
