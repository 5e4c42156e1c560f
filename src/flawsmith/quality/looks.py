"""What the checks look at: a window around a defect, in a colour space in which equal steps look equally large."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from flawsmith import compose, images

LEAST, CONTEXT = 64, 2.2  # the window's side: pixels, and over the label's box
LARGEST = 256  # a larger window is reduced: nobody looks at a large defect through a magnifying glass


@dataclass(frozen=True)
class Look:
    """A window of an image: `image` (h, w, 3) uint8, `label` (h, w) bool, not empty.

    `normal` is the photograph before painting, None of a real defect; `product` (h, w) bool where a defect may sit.
    `share`: the square root of the label's share of the whole photograph, so to say its side, 0 to 1.
    """

    image: np.ndarray
    label: np.ndarray
    normal: np.ndarray | None
    product: np.ndarray | None
    share: float

    @classmethod
    def at(
        cls, image: np.ndarray, label: np.ndarray, normal: np.ndarray | None = None, product: np.ndarray | None = None
    ) -> Look:
        """The window around a label (H, W) bool of an image (H, W, 3) uint8; `normal`, `product` of the same size."""
        area = compose.square_window(label, LEAST, CONTEXT)
        view, factor = area.slices, min(1.0, LARGEST / max(area.shape))
        share = float(np.sqrt(np.count_nonzero(label) / label.size))
        size = [max(1, round(side * factor)) for side in area.shape]
        if factor == 1.0:
            parts = [None if part is None else part[view] for part in (image, normal, label, product)]
        else:
            parts = [None if part is None else images.resize(part[view], *size) for part in (image, normal)]
            parts += [None if part is None else images.resize_mask(part[view], *size) for part in (label, product)]
        shown, before, marked, ground = parts
        assert shown is not None and marked is not None
        if not marked.any():  # a hair that the reduction lost
            marked = np.zeros_like(marked)
            marked[marked.shape[0] // 2, marked.shape[1] // 2] = True
        return cls(shown, marked, before, ground, share)

    @cached_property
    def channels(self) -> int:
        """3, or 1 where neither the image nor its photograph has colour: then lightness says everything."""
        return 1 if all(part is None or _is_grey(part) for part in (self.image, self.normal)) else 3

    @cached_property
    def lab(self) -> np.ndarray:
        """(h, w, C) float32: the image in CIE L*a*b*, or only L* of a grey one; see `channels`."""
        return lab(self.image, self.channels)

    @cached_property
    def lab_before(self) -> np.ndarray:
        assert self.normal is not None
        return lab(self.normal, self.channels)

    def soft(self, sigma: float) -> np.ndarray:
        """`lab` blurred; computed once, since most checks ask for the same."""
        if sigma not in self._soft:
            self._soft[sigma] = blurred(self.lab, sigma)
        return self._soft[sigma]

    @cached_property
    def _soft(self) -> dict[float, np.ndarray]:
        return {}

    @cached_property
    def distance(self) -> np.ndarray:
        """Pixels to the label's border, (h, w) float32: positive inside, negative outside; the frame is no border."""
        return signed(self.label)

    @property
    def side(self) -> float:
        """The side of a square as large as the label, in pixels of the window."""
        return float(np.sqrt(np.count_nonzero(self.label)))

    def ring(self, near: float, far: float) -> np.ndarray:
        """Pixels more than `near` and at most `far` outside the label, (h, w) bool; all outside where they are few."""
        away = 0.5 - self.distance
        found = (away > near) & (away <= far)
        if np.count_nonzero(found) >= 12:
            return np.asarray(found)
        rest = ~self.label
        return rest if np.count_nonzero(rest) >= 12 else np.ones_like(rest)

    @cached_property
    def beside(self) -> np.ndarray:
        """The ring in which the surface beside the defect is measured, (h, w) bool."""
        return self.ring(1.5, float(np.clip(0.6 * self.side, 4, 40)))

    @cached_property
    def level(self) -> np.ndarray:
        """The median colour of that ring, (C,) in L*a*b*."""
        return np.asarray(np.median(self.lab[self.beside], axis=0))

    @cached_property
    def before(self) -> Look:
        """The same window before anything was painted; beside the label nothing was."""
        assert self.normal is not None
        plain = Look(self.normal, self.label, None, self.product, self.share)
        own = {name: getattr(self, name) for name in ("channels", "distance", "beside", "level")}
        plain.__dict__.update(own, lab=self.lab_before)  # computed once
        return plain


def lab(image: np.ndarray, channels: int = 3) -> np.ndarray:
    """The first `channels` of (h, w, 3) uint8 RGB as CIE L*a*b*, (h, w, C) float32: L* 0 to 100."""
    values = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., :channels].astype(np.float32)
    values[..., 0] *= 100 / 255
    return values


def _is_grey(image: np.ndarray) -> bool:
    red, green, blue = (image[..., channel] for channel in range(3))
    return bool((red == green).all() and (green == blue).all())


def signed(mask: np.ndarray) -> np.ndarray:
    """Pixels to a mask's border (h, w) float32, 0.5 at the first pixel inside; large where there is no border."""
    padded = np.pad(mask, 2, mode="edge").astype(np.uint8)
    if padded.all():
        return np.full(mask.shape, 1e3, np.float32)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - padded, cv2.DIST_L2, 5)
    return np.asarray((inside - outside - np.where(padded > 0, 0.5, -0.5))[2:-2, 2:-2], np.float32)


def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """Values (h, w[, C]) float32 blurred; wide blurs on a reduced copy, since what they leave is smooth."""
    return values if sigma <= 0 else _blurred(values, sigma).reshape(values.shape)  # OpenCV drops a single channel


def slopes(values: np.ndarray) -> list[np.ndarray]:
    """Derivatives of values (h, w[, C]) float32 along x and y, of the same shape, per px."""
    return [cv2.Sobel(values, cv2.CV_32F, *d, scale=1 / 8).reshape(values.shape) for d in ((1, 0), (0, 1))]


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    step = int(sigma / 2)
    height, width = values.shape[:2]
    if step < 2 or min(height, width) < 4 * step:
        return cv2.GaussianBlur(values, (0, 0), sigma)
    small = cv2.resize(values, (width // step, height // step), interpolation=cv2.INTER_AREA)
    rest = float(np.sqrt(sigma**2 - step**2 / 6)) / step  # the reduction and the way back blur, too
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), rest), (width, height), interpolation=cv2.INTER_LINEAR)
