"""What a reader makes of each reference, once: the window it sees, ASEA, and a cache on disk by content.

A stored feature is what was computed, in float32, so that a cached image equals an uncached one.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from flawsmith import compose, images
from flawsmith.diffusion import tensors
from flawsmith.errors import FlawsmithError
from flawsmith.methods.anomalycontrol.enhanced_attention import optimise_guidance, token_mask
from flawsmith.methods.anomalycontrol.semantic import SemanticModeling
from flawsmith.methods.diffusion.tiles import resized
from flawsmith.records import Sample

__all__ = ["Asea", "Reading", "ReferenceFeatures", "cache_folder", "invisible", "seen"]

LOCK = threading.Lock()  # a fit's threads ask one after another
MIN_SIDE, MIN_PIXELS = 16, 4  # of a reference photograph, and of its defect at the size the reader sees
CONTEXT = 1.3  # side of the reader's window over the defect's
BATCH, KEPT = 8, 1024  # references optimised together; readings held in memory


@dataclass(frozen=True)
class Asea:
    """How e_g is optimised; 0 updates switch it off."""

    updates: int = 5
    rate: float = 0.1


@dataclass(frozen=True)
class Reading:
    """A reference as the reader saw it."""

    states: Tensor  # (Q, E) float32, on the CPU
    energy: tuple[float, ...]  # before each update and after the last: 1 = it looks elsewhere, 0 = at the defect only


def cache_folder() -> Path:
    """FLAWSMITH_CACHE, or the user's cache folder: where features of references are kept between runs."""
    home = os.environ.get("FLAWSMITH_CACHE")
    return Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flawsmith"


def invisible(sample: Sample, size: int) -> str:
    """Why a reader of `size` pixels cannot see this reference's defect; "" when it can."""
    height, width = sample.mask.shape
    if not sample.mask.any():
        return "its mask is empty: paint the defect white"
    if min(height, width) < MIN_SIDE:
        return (
            f"it is {width} x {height} pixels, {MIN_SIDE} x {MIN_SIDE} are needed: give the photograph, not a thumbnail"
        )
    side = max(compose.square_window(sample.mask, size, CONTEXT).shape)
    pixels = int(sample.mask.sum()) * min(1.0, size / side) ** 2
    if pixels < MIN_PIXELS:
        return (
            f"its defect covers {pixels:.2g} pixels of the {size} x {size} that the reader sees, {MIN_PIXELS} are "
            "needed: give a photograph from nearer, or mark the whole defect"
        )
    if np.ptp(sample.image.reshape(-1, 3), axis=0).max() < 2:
        return "it is one flat colour: the photograph did not load as it should, or shows nothing"
    return ""


def seen(sample: Sample, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The image (S, S, 3) uint8 and mask (S, S) bool given to the reader: the defect and its surroundings.

    The paper squeezes the whole photograph to 224 x 224, where small defects vanish. The mask keeps every pixel that
    it touches.
    """
    view = compose.square_window(sample.mask, size, CONTEXT)
    return resized(sample.image, sample.mask, view, size, keep=True)


class ReferenceFeatures:
    """Readings of references by one reader; `folder` None keeps them in memory only."""

    def __init__(self, reader: SemanticModeling, folder: Path | None) -> None:
        self.reader, self.folder = reader, folder
        self.made = 0  # readings computed, not found
        self._fingerprint = reader.fingerprint()
        self._held: OrderedDict[str, Reading] = OrderedDict()

    def __call__(
        self, shown: Sequence[tuple[np.ndarray, np.ndarray]], texts: Sequence[str], asea: Asea
    ) -> list[Reading]:
        """One Reading per (image (S, S, 3) uint8, mask (S, S) bool) and text, computed where not known yet."""
        with LOCK:
            return self._found(shown, texts, asea)

    def _found(self, shown: Sequence[tuple[np.ndarray, np.ndarray]], texts: Sequence[str], asea: Asea) -> list[Reading]:
        keys = [self.key(*pair, text, asea) for pair, text in zip(shown, texts, strict=True)]
        found = {key: reading for key in keys if (reading := self._known(key)) is not None}
        missing = list({key: i for i, key in enumerate(keys) if key not in found}.items())
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            rows = [i for _, i in part]
            image = tensors.from_images([shown[i][0] for i in rows])
            mask = tensors.from_masks([shown[i][1] for i in rows])
            for (key, _), reading in zip(part, self.read(image, mask, [texts[i] for i in rows], asea), strict=True):
                found[key] = reading
                self._keep(key, reading)
        return [found[key] for key in keys]

    def read(self, image: Tensor, mask: Tensor, texts: Sequence[str], asea: Asea) -> list[Reading]:
        """Compute, keeping nothing: images (B, 3, S, S) in [-1, 1], masks (B, 1, S, S) in {0, 1}."""
        with self.reader.reading():
            prompt = self.reader.prompt(image, mask, texts)
            cells = token_mask(mask, self.reader.grid).to(prompt.visual.device)
            guided = optimise_guidance(prompt.read, prompt.visual, cells, self.reader.prefix, asea.updates, asea.rate)
        self.made += len(image)
        states, energy = guided.states.float().cpu(), guided.energy.T.tolist()
        return [Reading(states[i].clone(), tuple(energy[i])) for i in range(len(image))]

    def key(self, image: np.ndarray, mask: np.ndarray, text: str, asea: Asea) -> str:
        """Hash of everything that decides a reading: pixels, mask, words, the reader's weights, ASEA's settings."""
        words = json.dumps([text, self._fingerprint, asea.updates, asea.rate, image.shape])
        digest = hashlib.sha256(words.encode())
        digest.update(np.ascontiguousarray(image).tobytes())
        digest.update(np.packbits(mask).tobytes())
        return digest.hexdigest()

    def _known(self, key: str) -> Reading | None:
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        if self.folder is None:
            return None
        try:
            with safe_open(self._path(key), framework="pt") as file:
                reading = Reading(file.get_tensor("states"), tuple(file.get_tensor("energy").tolist()))
        except (OSError, SafetensorError):
            return None  # not there, or damaged: it is made again
        if tuple(reading.states.shape) != (self.reader.queries, self.reader.width):
            return None
        self._hold(key, reading)
        return reading

    def _keep(self, key: str, reading: Reading) -> None:
        self._hold(key, reading)
        if self.folder is None:
            return
        stored = {"states": reading.states, "energy": torch.tensor(reading.energy, dtype=torch.float64)}
        try:
            images.write_bytes(self._path(key), save(stored), durable=False)
        except FlawsmithError:
            self.folder = None  # a disk that cannot be written costs time, not images

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / "references" / key[:2] / f"{key}.safetensors"

    def _hold(self, key: str, reading: Reading) -> None:
        self._held[key] = reading
        while len(self._held) > KEPT:
            self._held.popitem(last=False)
