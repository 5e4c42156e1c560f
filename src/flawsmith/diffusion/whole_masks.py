"""Masks learned whole: all parts of one in the box of its object, so that their number and place are learned, too.

A diffusion U-Net without attention draws 64 x 64 cells, told type, caption and share of the box. Nearer to the second
diffusion of AnomalyXFusion than `mask_model`, and in want of more real masks than that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from flawsmith import compose
from flawsmith.config import Share
from flawsmith.diffusion.mask_denoiser import WholeDenoiser
from flawsmith.diffusion.mask_examples import WHOLE, WholeExample, outline, varied_whole, whole_example
from flawsmith.diffusion.mask_model import LearnedMasks, Notes
from flawsmith.records import Sample


class WholeNotes(Notes):
    """The same of a whole mask, and its share of the object's box."""

    share: Share


def told(words: Tensor, share: float) -> Tensor:
    """Features of a caption (..., E) and the share of the box to cover as one tensor (..., E + 1)."""
    size = words.new_full((*words.shape[:-1], 1), math.log(max(share, 1e-6)) / 4)
    return torch.cat([words * words.shape[-1] ** 0.5, size], -1)  # entries of about 1, as those of the type are


class WholeMasks(LearnedMasks):
    """A run's mask model that draws whole masks."""

    kind, side, made_of, notes = "whole", WHOLE, WholeExample, WholeNotes
    arrays: ClassVar[dict[str, str]] = {"shapes": "shape", "wholes": "whole"}  # shapes, too: by them a copy is known
    examples: Sequence[WholeExample]

    @staticmethod
    def example(name: str, sample: Sample, foreground: np.ndarray) -> WholeExample:
        return whole_example(name, sample, foreground)

    def network(self) -> WholeDenoiser:
        return WholeDenoiser(len(self.names), self.table.width + 1)

    def lesson(self, row: int, rng: np.random.Generator, drop: float) -> tuple[np.ndarray, Tensor]:
        field, share = varied_whole(rng, self.examples[row])
        return field, told(self.words[row] * float(rng.random() >= drop), share)

    def attempt(self, name: str, words: Tensor, one: Any, allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A mask (H, W) bool inside `allowed` that covers about the share of its box that a real one did."""
        share = min(1.0, one.share * float(np.exp(rng.normal(0, 0.15))))
        field, frame = self.shape(name, told(words, share), share, rng), compose.mask_box(allowed)
        square = outline(field, share, max(frame.shape)).astype(np.uint8)
        mask = np.zeros_like(allowed)
        mask[frame.slices] = cv2.resize(square, frame.shape[::-1], interpolation=cv2.INTER_NEAREST)
        return mask & allowed
