"""Ways to lay a real mask on a photograph: random ones within the dials, and small changes of good ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flawsmith.masks.options import MINIMUM, MaskOptions, log_uniform
from flawsmith.masks.piece import Piece
from flawsmith.masks.placement import Ground
from flawsmith.masks.scene import Surroundings, turns
from flawsmith.warp import Warp

TRIES, CHANGES = 320, 8
ATTEMPTS = 5  # to find a place, each with a smaller mask; the last draws none smaller than MINIMUM pixels
HOME = 24  # of the tries: near the reference's own place, which is right where photographs are aligned


@dataclass(frozen=True)
class Poses:
    """K ways to lay the mask: its middle goes to `centres` (K, 2), enlarged, turned and perhaps mirrored, each (K,)."""

    centres: np.ndarray
    scales: np.ndarray
    angles: np.ndarray
    flips: np.ndarray

    @property
    def linear(self) -> np.ndarray:
        cos, sin = self.scales * np.cos(self.angles), self.scales * np.sin(self.angles)
        return np.stack([np.stack([cos * self.flips, -sin], -1), np.stack([sin * self.flips, cos], -1)], 1)  # (K, 2, 2)

    def place(self, points: np.ndarray) -> np.ndarray:
        """Points (2, n) around the mask's middle -> (K, 2, n) in the photograph."""
        linear = self.linear.astype(np.float32)
        return np.asarray(linear @ points.astype(np.float32) + self.centres.astype(np.float32)[:, :, None])

    def warp(self, index: int, middle: np.ndarray, options: MaskOptions, seed: int, extent: float) -> Warp:
        linear = np.round(self.linear[index], 12)
        offset = self.centres[index] - linear @ middle
        if np.array_equal(np.abs(linear), np.eye(2)) or np.array_equal(np.abs(linear), np.eye(2)[::-1]):
            offset = np.rint(offset)  # not enlarged, not turned: keep whole pixels, they stay as sharp as they are
        (a, b), (c, d) = linear.tolist()
        return Warp(((a, b, float(offset[0])), (c, d, float(offset[1]))), options.bend, seed, extent)


def first(
    old: Surroundings,
    new: Surroundings,
    piece: Piece,
    ground: Ground,
    rng: np.random.Generator,
    options: MaskOptions,
    attempt: int,
    blind: bool,
) -> Poses:
    """Random poses within the dials; smaller with every attempt that found no room, at last large enough to be seen.

    A small defect on a photograph of fewer pixels may be nothing on the grid.
    """
    base = enlargement(new.height * new.width / (old.height * old.width)) * 0.7**attempt
    low, high = math.log(options.scale[0]), math.log(options.scale[1])
    scales = np.exp(rng.uniform(low, high, TRIES)) * base
    if options.severity is not None:
        scales = np.full(TRIES, math.exp(low + (high - low) * options.severity) * base)
    if options.size is not None:
        area = log_uniform(rng, options.size, options.severity) * ground.area
        scales = np.full(TRIES, math.sqrt(area / piece.size) * 0.9**attempt)
    if attempt == ATTEMPTS - 1:
        scales = np.maximum(scales, math.sqrt(MINIMUM / piece.size))
    reach = math.sqrt(piece.size / math.pi) * float(scales.mean())
    centres = ground.centres(rng, options.place, reach, TRIES)
    ring = piece.colours[piece.framed]
    anywhere = options.place == "anywhere" and ground.heat is None
    if anywhere and len(ring):
        brighter = float(new.small.mean()) - float(old.small.mean())
        alike = new.alike(ring, brighter, piece.extent, ground.lookup, rng, TRIES // 2)
        centres[HOME : HOME + len(alike)] = alike
    flips = np.where(rng.random(TRIES) < 0.5, -1.0, 1.0) if options.flip else np.ones(TRIES)
    turn = 180.0 if options.rotate is None else options.rotate
    if options.rotate is not None:
        angles = np.radians(rng.uniform(-turn, turn, TRIES))
    elif blind:
        angles = rng.uniform(-math.pi, math.pi, TRIES)
    else:
        angles = turns(old, new, piece.middle, piece.extent, centres, flips, rng)
    if anywhere:
        home = piece.middle * [new.width / old.width, new.height / old.height]
        centres[:HOME] = home + rng.normal(0, 0.01 * math.hypot(new.height, new.width), (HOME, 2))
        angles[:HOME], flips[:HOME] = np.radians(np.clip(rng.normal(0, 3, HOME), -turn, turn)), 1.0
    return Poses(centres, scales, angles, flips)


def changed(poses: Poses, chosen: np.ndarray, shift: float, rng: np.random.Generator, options: MaskOptions) -> Poses:
    """The chosen poses, each with CHANGES small changes of place and turn that keep to the dials."""
    index = np.repeat(chosen, CHANGES)
    steady = np.tile(np.arange(CHANGES) == 0, len(chosen))
    centres = poses.centres[index] + np.where(steady, 0, rng.normal(0, shift, len(index)))[:, None] * _unit(rng, index)
    angles = poses.angles[index] + np.where(steady, 0, np.radians(rng.normal(0, 3, len(index))))
    if options.rotate is not None:
        limit = math.radians(options.rotate)
        angles = np.clip(angles, -limit, limit)
    return Poses(centres, poses.scales[index], angles, poses.flips[index])


def _unit(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    angle = rng.uniform(0, math.pi, len(like))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def enlargement(share: float) -> float:
    """How much a defect is enlarged on a photograph that has `share` times its own photograph's pixels.

    Photographs of about one resolution keep its size in pixels; another resolution keeps its share.
    """
    ratio = math.sqrt(share)
    return 1.0 if 0.5 <= ratio <= 2 else ratio
