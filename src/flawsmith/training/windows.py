"""Few-shot fitting: a small adapter (LoRA) on the frozen backbone learns one defect type from a handful of images.

Batches mix the real defects with normal windows of the same product and painted defects on it: with real ones alone
five to seven physical parts are copied, not learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith import compose, images
from flawsmith.captions import sentence, words
from flawsmith.diffusion.batch import Batch
from flawsmith.errors import FlawsmithError
from flawsmith.records import Sample
from flawsmith.training.settings import FitConfig
from flawsmith.training.shards import NO_DEFECT, _light, _turn, _vary, laid_in


def crop(sample: Sample, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A square window with (part of) the sample's defect at the model's size: (S, S, 3) uint8 and (S, S) bool.

    Near native resolution: never enlarged where the photograph is large enough, never reduced by more than two.
    """
    box = compose.mask_box(sample.mask)
    longest = max(box.shape)
    side = round(float(np.clip(longest * rng.uniform(1.15, 1.7), size, 2 * size)))
    if longest < side:  # the whole defect, anywhere in the window
        corner = [
            int(rng.integers(max(0, end - side), max(0, end - side, start) + 1))
            for start, end in ((box.top, box.bottom), (box.left, box.right))
        ]
    else:
        places = np.argwhere(sample.mask)
        corner = [int(c) - int(rng.integers(side // 4, side - side // 4)) for c in places[rng.integers(len(places))]]
    height, width = sample.mask.shape
    corner = [int(np.clip(c, 0, max(0, limit - side))) for c, limit in zip(corner, (height, width), strict=True)]
    view = np.s_[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
    image, mask = sample.image[view], sample.mask[view]
    pad = [side - length for length in mask.shape]
    if any(pad):
        image = np.pad(image, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="symmetric")
        mask = np.pad(mask, ((0, pad[0]), (0, pad[1])))
    if side != size:
        image = images.resize(image, size, size)
        mask = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) > 0.25
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def _widened(mask: np.ndarray, radius: int) -> np.ndarray:
    if radius <= 0:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def caption_of(sample: Sample) -> str:
    return sample.caption or sentence(sample.category, words(sample.defect_type))


@dataclass(frozen=True)
class Drawn:
    """One window of a batch; see the fields of Batch."""

    image: np.ndarray
    mask: np.ndarray
    caption: str
    words: str
    reference: tuple[np.ndarray, np.ndarray] | None
    name: str
    dropped: bool
    draft: np.ndarray | None


def stack(windows: Sequence[Drawn]) -> Batch:
    image, mask = np.stack([w.image for w in windows]), np.stack([w.mask for w in windows])
    return Batch(
        image,
        image,
        mask,
        [w.caption for w in windows],
        [w.reference for w in windows],
        words=[w.words for w in windows],
        names=[w.name for w in windows],
        dropped=[w.dropped for w in windows],
        drafts=[w.draft for w in windows],
    )


class FewShotWindows:
    """Batches from a handful of defects, the product's normal photographs, and painted defects on them."""

    def __init__(
        self, real: Sequence[Sample], normals: Sequence[Sample], drawn: Sequence[Sample], size: int, config: FitConfig
    ) -> None:
        self.real = [sample for sample in real if sample.mask.any()]
        if not self.real:
            raise FlawsmithError("Few-shot fitting needs at least one defect image with a mask that is not empty.")
        self.normals, self.drawn, self.size, self.config = list(normals), list(drawn), size, config
        self.shown: Sequence[Sample] = self.real  # what the references of real windows are of

    def batch(self, step: int, count: int, real_only: bool = False) -> Batch:
        """Batch number `step`, a pure function of (seed, step)."""
        rng = np.random.default_rng([self.config.seed, step, int(real_only)])
        return stack([self.window(rng, real_only) for _ in range(count)])

    def window(self, rng: np.random.Generator, real_only: bool = False, name: str = "") -> Drawn:
        """One training window; `name` is entered for real defects only, since neither a normal surface nor a painted
        defect is an example of it.
        """
        config = self.config
        draw = rng.random()
        reference = None
        if not real_only and draw < config.normal and self.normals:
            image, mask = self._normal(rng)
            caption, name = NO_DEFECT[rng.integers(len(NO_DEFECT))], ""
        else:
            use_drawn = not real_only and draw < config.normal + config.drawn and self.drawn
            pool = self.drawn if use_drawn else self.real
            sample = pool[rng.integers(len(pool))]
            image, mask = self._crop(sample, rng)
            caption, name = caption_of(sample), "" if use_drawn else name
            if rng.random() < (config.drawn_reference if use_drawn else config.reference):
                reference = self._reference(rng, sample, [] if use_drawn else self.shown)
        words, dropped = caption, False
        if not real_only:
            image, mask = _turn(rng, image, mask)
            (image,) = _light(rng, image)
            place = rng.random() - np.cumsum([config.drop_text, config.drop_tokens, config.drop_both])
            part = int(np.argmax(place < 0)) if place[-1] < 0 else 3
            caption, dropped = "" if part in (0, 2) else caption, part in (1, 2)
        mask = _widened(mask, int(rng.integers(0, config.widen + 1)))
        image, draft = np.ascontiguousarray(image), None
        if reference is not None and config.draft and (real_only or rng.random() < config.draft):
            draft = laid_in(image, mask, reference, int(rng.integers(2**31)))
        return Drawn(image, mask, caption, words, reference, name, dropped, draft)

    def _reference(
        self, rng: np.random.Generator, sample: Sample, pool: Sequence[Sample]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Another defect of the pool or, where it is one of them or there is no other, the window's own; as another
        photograph might show it.
        """
        others = [other for other in pool if other is not sample]
        own = not others or (len(others) < len(pool) and rng.random() < self.config.self_reference)
        chosen = sample if own else others[rng.integers(len(others))]
        if self.config.reference_views:
            view = int(rng.integers(self.config.reference_views))
            rng = np.random.default_rng([self.config.seed, view, 3])
        shown, where = self._crop(chosen, rng)
        return _vary(rng, shown, where, strong=own)

    def _crop(self, sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        for _ in range(8):  # a large window may miss a ragged defect
            image, mask = crop(sample, self.size, rng)
            if mask.any():
                return image, mask
        centre = compose.square_window(sample.mask, self.size, 1.0)
        whole = Sample(sample.image[centre.slices], sample.mask[centre.slices])
        return crop(whole, self.size, rng)

    def _normal(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        photo = self.normals[rng.integers(len(self.normals))].image
        lender = self.real[rng.integers(len(self.real))]
        _, mask = self._crop(lender, rng)
        height, width = photo.shape[:2]
        place = np.zeros((height, width), dtype=bool)
        place[rng.integers(height), rng.integers(width)] = True
        image, _ = self._crop(Sample(photo, place), rng)
        return image, mask
