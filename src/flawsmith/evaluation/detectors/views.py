"""What the heads of a segmenter are trained on: views of images, and squares in them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flawsmith.diffusion import tensors
from flawsmith.evaluation.detectors import segmentation
from flawsmith.evaluation.detectors.encoder import Encoder
from flawsmith.evaluation.detectors.networks import MULTIPLE
from flawsmith.evaluation.detectors.segmentation import SegmentationConfig, Shrunk

MOST_VIEWS = 8  # of one image
MOST_PLACES = 2048  # defect pixels of a view that squares are centred on, about

Square = tuple[int, int, int]  # row, column and side, in blocks of 32 pixels


@dataclass(frozen=True)
class View:
    """One view of an image: the encoder's maps (C, h, w) float16, or the image where the encoder is tuned."""

    maps: tuple[Tensor, ...]
    image: np.ndarray  # (H, W, 3) uint8; empty where the maps are kept
    mask: Tensor  # (H, W) bool, sides multiples of 32
    places: np.ndarray  # (K, 2) rows and columns of defect pixels

    def cut(self, box: Square) -> tuple[list[Tensor], Tensor]:
        """Maps and mask in a square: `box` is row, column and side, in blocks of 32 pixels."""
        row, column, side = (MULTIPLE * part for part in box)
        height = self.mask.shape[0]
        found = []
        for one in self.maps:
            stride = height // one.shape[1]
            found.append(
                one[:, row // stride : (row + side) // stride, column // stride : (column + side) // stride].float()
            )
        if not self.maps:
            found = [tensors.from_images([self.image[row : row + side, column : column + side]])[0]]
        return found, self.mask[row : row + side, column : column + side].float()[None]


def views(group: Sequence[Shrunk], config: SegmentationConfig, encoder: Encoder) -> list[list[View]]:
    """Every image as it is, and in a small group also turned, mirrored and of other brightness.

    Padded to whole blocks and at least one crop. What is drawn depends on the image alone, not on the arm.
    """
    count = number(len(group), config)
    return [[_view(item, turn, config, encoder) for turn in range(count)] for item in group]


def number(images: int, config: SegmentationConfig) -> int:
    """How many views there are of each image in a group."""
    return min(MOST_VIEWS, math.ceil(config.views / max(1, images)))


def _view(item: Shrunk, turn: int, config: SegmentationConfig, encoder: Encoder) -> View:
    image, mask = item.image, item.mask
    if turn:
        image, mask = segmentation.varied(image, mask, np.random.default_rng([zlib.crc32(image.tobytes()), turn]))
    pad = [max(_blocks(side), _blocks(config.crop)) * MULTIPLE - side for side in mask.shape]
    image = np.pad(image, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="symmetric")
    mask = np.pad(mask, ((0, pad[0]), (0, pad[1])), mode="symmetric")
    places = np.argwhere(mask)
    places = places[:: max(1, len(places) // MOST_PLACES)]
    frozen = not config.encoder_rate
    maps = tuple(one[0].half().cpu() for one in encoder.seen(image)) if frozen else ()
    return View(maps, np.empty((0, 0, 3), np.uint8) if frozen else image, torch.from_numpy(mask), places)


def _blocks(side: int) -> int:
    return math.ceil(side / MULTIPLE)


def by_type(group: Sequence[Shrunk], seen: Sequence[list[View]]) -> dict[str, list[list[View]]]:
    pools: dict[str, list[list[View]]] = {}
    for item, views in zip(group, seen, strict=True):
        if len(item.places):
            pools.setdefault(item.defect_type, []).append(views)
    return pools


def plan_of(
    pools: list[dict[str, list[list[View]]]],
    good: list[list[View]],
    config: SegmentationConfig,
    rng: np.random.Generator,
) -> list[list[tuple[View, Square]]]:
    """What one head sees at every step: views and squares in them.

    Every choice takes one random number of its own, whatever the arm, and each of the seven is spread evenly over all
    crops (a Latin hypercube), so that images of one kind are drawn equally often.
    """
    count = config.steps * config.batch_size
    even = rng.permuted(np.arange(count)[:, None].repeat(7, 1), axis=0)
    plan = []
    for normal, which, generated, view, near, *place in (even + rng.random((count, 7))) / count:
        if normal < config.normals:
            views = good[int(which * len(good))]
        else:
            first, second = (pools[1], pools[0]) if generated < config.synthetic else (pools[0], pools[1])
            pool = list((first or second).values())
            members = pool[int(which * len(pool))]
            views = members[int(which * len(pool) % 1 * len(members))]
        item = views[int(view * len(views))]
        plan.append((item, _square(item, _blocks(config.crop), near, place)))
    return [plan[start : start + config.batch_size] for start in range(0, count, config.batch_size)]


def _square(item: View, side: int, near: float, place: Sequence[float]) -> Square:
    """A square of `side` blocks: in three of four cases about a defect pixel, where there is one."""
    limits = [length // MULTIPLE - side for length in item.mask.shape]
    if len(item.places) and near < 0.75:
        centre = item.places[int(near / 0.75 * len(item.places))] / MULTIPLE + (np.array(place) - 0.5) * side * 0.7
        corner = [int(np.clip(round(c - side / 2), 0, limit)) for c, limit in zip(centre, limits, strict=True)]
    else:
        corner = [int(p * (limit + 1)) for p, limit in zip(place, limits, strict=True)]
    return corner[0], corner[1], side


def batch(plan: Sequence[tuple[View, Square]], device: str) -> tuple[list[Tensor], Tensor]:
    cuts = [item.cut(box) for item, box in plan]
    maps = [
        torch.stack(one).to(device, memory_format=torch.channels_last)
        for one in zip(*(m for m, _ in cuts), strict=True)
    ]
    return maps, torch.stack([mask for _, mask in cuts]).to(device)
