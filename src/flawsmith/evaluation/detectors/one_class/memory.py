"""The detector without any defect: what a frozen encoder sees of normal images, and which patches of it are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from flawsmith import images
from flawsmith.config import SETTINGS, Count, Share, Whole
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation import features
from flawsmith.evaluation.detectors.one_class.neighbours import Detector, Patches, coreset
from flawsmith.evaluation.judge import pixels
from flawsmith.records import GOOD, Progress, Record, Sample

NAME = "one-class"
CHANNELS = 128  # of a map; wider ones go through a fixed random projection, which keeps distances nearly
POOL = 4  # patches drawn at random for each one that the coreset keeps
EVERY = 4  # of four normal images one is held out of the memory, for the threshold


@settings(frozen=True, config=SETTINGS)
class OneClassConfig:
    """The detector. Images are brought to a square of `size` pixels, where the encoder takes several sizes."""

    encoder: str = "compact"  # folder, hub id or "compact", as --features
    size: Count = 256
    memory: Count = 2000  # normal patches kept
    synthetic: Share = 0.9  # share of the generated among the defects' weight, where there are both
    device: str = "cpu"
    seed: Whole = 0


def look(
    items: Sequence[Sample | Record], encoder: features.Extractor, progress: Progress | None = None
) -> list[Patches]:
    """Two maps of the encoder per image, the middle ones, averaged over 3 x 3 cells and laid on the finer grid."""
    side, found = encoder.preprocessing.size, []
    for sample in map(pixels, items):
        maps = encoder.levels([sample.image])
        maps = maps[-3:-1] or maps[-1:]
        grid = max(one.shape[-1] for one in maps)
        rows = []
        for one in maps:
            x = nn.functional.avg_pool2d(one, 3, 1, 1, count_include_pad=False)
            x = nn.functional.interpolate(x, (grid, grid), mode="bilinear", align_corners=False)
            flat = x[0].flatten(1).T
            if flat.shape[1] > CHANNELS:
                flat = flat @ _projection(flat.shape[1]).to(flat)
            rows.append(flat)
        mask = np.zeros((side, side), bool)
        if sample.mask.any():
            shrunk = images.resize(sample.mask.astype(np.float32), side, side)
            mask = shrunk > min(0.25, float(shrunk.max()) / 2)
        kind = sample.defect_type if sample.mask.any() else GOOD
        widths = tuple(one.shape[1] for one in rows)
        found.append(Patches(torch.cat(rows, 1).half(), widths, mask, kind))
        if progress:
            progress("features", len(found), len(items), {})
    return found


@cache
def _projection(width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(width, CHANNELS, generator=generator))[0]


@dataclass(frozen=True)
class Prepared:
    """What is the same in every arm of a seed: the detector without defects, and what it saw."""

    encoder: features.Extractor
    detector: Detector
    centre: Tensor
    spread: Tensor
    held: list[Patches]
    validation: list[Patches]
    test: list[Patches]

    def look(self, items: Sequence[Sample | Record], progress: Progress | None = None) -> list[Patches]:
        """Images in units of what normal ones show."""
        return self.standard(look(items, self.encoder, progress))

    def standard(self, seen: Sequence[Patches]) -> list[Patches]:
        """What `look` has seen, in the same units."""
        return [replace(one, rows=((one.rows.float() - self.centre) / self.spread).half()) for one in seen]


def prepare(
    config: OneClassConfig, normals: Sequence[Record], validation: Sequence[Record], test: Sequence[Record]
) -> Prepared:
    """The detector of these normal images, and these images as it sees them; what was prepared last is kept.

    Raises FlawsmithError for an encoder that cannot be loaded, or fewer than two normal images.
    """
    shared = replace(config, synthetic=0.0)  # what does not matter to it
    stamps = _stamps(config, normals, validation, test)
    return _prepared(shared, tuple(normals), tuple(validation), tuple(test), stamps)


def _stamps(config: OneClassConfig, *sides: Sequence[Record]) -> tuple[int, ...]:
    """When the files of images and encoder were written: what was seen of others is not taken for theirs."""
    files = [path for side in sides for record in side for path in record.files]
    folder = Path(config.encoder)
    files += sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return tuple(path.stat().st_mtime_ns for path in files)


@lru_cache(maxsize=1)  # the arms of a seed follow each other
def _prepared(
    config: OneClassConfig,
    normals: tuple[Record, ...],
    validation: tuple[Record, ...],
    test: tuple[Record, ...],
    stamps: tuple[int, ...],
) -> Prepared:
    if len(normals) < 2:
        raise FlawsmithError(f"{NAME} needs at least two good photographs to train on, got {len(normals)}.")
    encoder = features.load(config.encoder).at(config.size).to(config.device)
    seen = look(normals, encoder)
    held = seen[EVERY - 1 :: EVERY] or seen[-1:]
    learnt = [one for one in seen if all(one is not other for other in held)]
    count = sum(len(one.rows) for one in learnt)
    mean = sum(one.rows.float().sum(0) for one in learnt) / count
    square = sum(((one.rows.float() - mean) ** 2).sum(0) for one in learnt) / count
    assert isinstance(mean, Tensor) and isinstance(square, Tensor)
    spread = square.sqrt()
    spread = spread.clamp_min(1e-3 * float(spread.max()) + 1e-6)
    rng = np.random.default_rng(config.seed)
    each = -(-POOL * config.memory // len(learnt))
    drawn = [one.rows[rng.permutation(len(one.rows))[:each]].float() for one in learnt]
    widths = held[0].widths  # every map counts the same, whatever its number of channels
    weights = torch.cat([torch.full((width,), 1 / width / len(widths)) for width in widths]).to(mean)
    pool = (torch.cat(drawn) - mean) / spread
    memory = pool[coreset(pool, config.memory)]
    whole = Prepared(encoder, Detector(memory, weights), mean, spread, [], [], [])
    held = whole.standard(held)
    sides = [whole.look(side) for side in (validation, test)]
    return replace(whole, detector=centred(whole.detector, held), held=held, validation=sides[0], test=sides[1])


def centred(detector: Detector, held: Sequence[Patches]) -> Detector:
    """The detector with the median of its maps of normal images as `middle`."""
    middle = float(np.median([np.median(detector.distances(one)) for one in held]))
    return replace(detector, middle=max(middle, 1e-9))
