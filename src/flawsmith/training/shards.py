"""Training windows on disk: shards of arrays with one JSON file of words each, and the batches drawn from
them.

A window is a square image with a defect, the same place without it, the defect's mask, and a few words.
Batches are a pure function of (seed, step), so that a resumed run sees what an uninterrupted one would have
seen.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from flawsmith import compose
from flawsmith.diffusion.batch import Batch
from flawsmith.errors import FlawsmithError
from flawsmith.methods.diffusion import sketches
from flawsmith.records import Request, Sample


@dataclass(frozen=True)
class Note:
    """The words of a window."""

    caption: str
    kind: str  # the type of defect: "scratch"; "" for a window without one
    colour: str = ""
    source: str = ""  # "procedural", or the name of a real data set
    group: str = ""  # same physical part or shot series
    split: str = "train"  # "train" or "val"; a group stands on one side


@dataclass(frozen=True)
class TrainingWindow:
    """One training window; `clean` equals `image` outside the mask, and everywhere where no clean image
    exists.
    """

    image: np.ndarray  # (S, S, 3) uint8
    clean: np.ndarray  # (S, S, 3) uint8
    mask: np.ndarray  # (S, S) bool; all False for a window without a defect
    note: Note


def write_shards(folder: Path | str, windows: Iterable[TrainingWindow], per_shard: int = 1000, start: int = 0) -> int:
    """Write `windows-NNNN.npz` and `windows-NNNN.json` from shard number `start` on; returns the number of
    windows.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    held: list[TrainingWindow] = []
    count = 0

    def flush() -> None:
        nonlocal held, start
        if not held:
            return
        name = f"windows-{start:04d}"
        partial = path / f".{name}.partial.npz"
        arrays = {key: np.stack([getattr(w, key) for w in held]) for key in ("image", "clean", "mask")}
        np.savez(partial, **arrays)  # type: ignore[arg-type]
        notes = json.dumps([asdict(w.note) for w in held], indent=0)
        (path / f"{name}.json").write_text(notes + "\n", encoding="utf-8")
        os.replace(partial, path / f"{name}.npz")  # the arrays last: a shard without them is not read
        held, start = [], start + 1

    for window in windows:
        held.append(window)
        count += 1
        if len(held) == per_shard:
            flush()
    flush()
    return count


@dataclass(frozen=True)
class Mix:
    """How batches are put together; all are shares between 0 and 1."""

    real: float = 0.25  # samples from real data sets, where there are any
    normal: float = 0.15  # windows without a defect, to be continued under a borrowed mask
    self_reference: float = 0.4  # the reference is the sample itself, strongly changed
    drop_text: float = 0.12
    drop_text_with_reference: float = 0.5  # words say most of what a reference shows: together, it is not learned
    drop_reference: float = 0.3
    drop_both: float = 0.1
    wider_mask: float = 0.2  # the mask is a little larger than the defect, as hand-drawn ones are
    draft: float = 0.0  # of the samples with a reference: it is laid in the hole, too
    near: float = 0.0  # of the drafts that come from the sample itself: hardly turned, so that drafts are trusted
    carried: float = 0.0  # samples without a defect and words, whose draft is another piece of the same surface
    native: float = 0.0  # where windows are smaller than those stored: cut, not shrunk, if the defect leaves room


NO_DEFECT = ("no defect", "flawless surface", "good part without any damage", "undamaged", "clean surface")


class Windows:
    """All shards of a folder in memory, indexed by split, source and (kind, colour)."""

    def __init__(self, folders: Sequence[Path | str], mix: Mix | None = None, size: int | None = None) -> None:
        """`size`: the side of the windows given, a divisor of that of the stored ones; a quarter of the pixels train
        four times as fast.
        """
        self.mix = mix or Mix()
        self.notes: list[Note] = []
        arrays: dict[str, list[np.ndarray]] = {"image": [], "clean": [], "mask": []}
        for folder in folders:
            found = sorted(Path(folder).glob("windows-*.npz"))
            if not found:
                raise FlawsmithError(
                    f"No windows-NNNN.npz in {folder}: make shards first (recipes/compact/make_windows.py)."
                )
            for shard in found:
                with np.load(shard) as stored:
                    for key, held in arrays.items():
                        held.append(stored[key])
                self.notes += [Note(**n) for n in json.loads(shard.with_suffix(".json").read_text(encoding="utf-8"))]
        self._arrays = arrays
        lengths = [len(a) for a in arrays["image"]]
        self._start = np.concatenate([[0], np.cumsum(lengths)])
        if self._start[-1] != len(self.notes):
            raise FlawsmithError(
                f"{self._start[-1]} windows but {len(self.notes)} notes: a shard is damaged, make it again."
            )
        stored_size = int(arrays["image"][0].shape[1])
        self.size = size or stored_size
        if stored_size % self.size:
            raise FlawsmithError(f"Windows of {stored_size} px cannot be shrunk to {size}: choose a divisor.")
        self._index()

    def __len__(self) -> int:
        return len(self.notes)

    def _index(self) -> None:
        self.pools: dict[tuple[str, str], np.ndarray] = {}
        pools: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.alike: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
        for i, note in enumerate(self.notes):
            pool = "normal" if not note.kind else ("drawn" if note.source == "procedural" else "real")
            pools[note.split, pool].append(i)
            self.alike[self._likeness(note)].append(i)
        self.pools = {key: np.array(rows) for key, rows in pools.items()}
        if not len(self.pools.get(("train", "drawn"), ())) and not len(self.pools.get(("train", "real"), ())):
            raise FlawsmithError("The shards hold no training window with a defect.")

    @staticmethod
    def _likeness(note: Note) -> tuple[str, str, str, str]:
        real = "" if note.source == "procedural" else note.source
        return note.split, real, note.kind, note.colour if note.kind else note.group

    def window(self, row: int) -> TrainingWindow:
        shard = int(np.searchsorted(self._start, row, side="right")) - 1
        local = row - int(self._start[shard])
        image, clean, mask = (self._arrays[key][shard][local] for key in ("image", "clean", "mask"))
        return TrainingWindow(image, clean, mask, self.notes[row])

    def _view(self, rng: np.random.Generator, row: int) -> TrainingWindow:
        """A stored window at the size that is given: cut out around the defect, or shrunk."""
        window, size = self.window(row), self.size
        stored = len(window.mask)
        if stored == size:
            return window
        places = np.argwhere(window.mask) if window.mask.any() else np.full((1, 2), stored // 2)
        low, high = places.min(0), places.max(0) + 1
        if (high - low).max() > 0.75 * size or rng.random() >= self.mix.native:
            arrays = (_shrink(part[None], size)[0] for part in (window.image, window.clean, window.mask))
        else:
            corner = [
                int(rng.integers(max(0, min(b - size, stored - size)), min(a, stored - size) + 1))
                for a, b in zip(low, high, strict=True)
            ]
            cut = np.s_[corner[0] : corner[0] + size, corner[1] : corner[1] + size]
            arrays = (part[cut] for part in (window.image, window.clean, window.mask))
        image, clean, mask = arrays
        return TrainingWindow(image, clean, mask, window.note)

    def _row(self, rng: np.random.Generator, split: str, pool: str) -> int:
        choices = [p for p in (pool, "drawn", "real") if len(self.pools.get((split, p), ()))]
        if not choices:
            raise FlawsmithError(f"The shards hold no window for split {split!r}.")
        return int(rng.choice(self.pools[split, choices[0]]))

    def _partner(self, rng: np.random.Generator, row: int, other_group: bool = True) -> int | None:
        """Another window of the same kind and colour, by default of another group where the source is real; without
        a kind, another of the same part or photograph.
        """
        note = self.notes[row]
        rows = self.alike[self._likeness(note)]
        for _ in range(8):
            other = int(rows[rng.integers(len(rows))])
            free = not other_group or note.source == "procedural" or self.notes[other].group != note.group
            if other != row and free:
                return other
        return None

    def batch(self, size: int, seed: int, step: int, split: str = "train", augment: bool = True) -> Batch:
        """Batch number `step`: the same for the same arguments, whatever was drawn before."""
        rng = np.random.default_rng([seed, step, int(split == "val")])
        mix, found = self.mix, Batch(*(np.empty(0),) * 3, captions=[])
        images, cleans, masks = [], [], []
        for _ in range(size):
            draw = rng.random()
            shares = np.cumsum([mix.normal, mix.carried, mix.real])
            pool = ("normal", "carried", "real", "drawn")[int(np.searchsorted(shares, draw, side="right"))]
            row = self._row(rng, split, "normal" if pool == "carried" else pool)
            window = self._view(rng, row)
            image, clean, mask, caption = window.image, window.clean, window.mask, window.note.caption
            reference: tuple[np.ndarray, np.ndarray] | None = None
            carried: tuple[np.ndarray, np.ndarray] | None = None
            if pool in ("normal", "carried"):
                lender = self._view(rng, self._row(rng, split, "drawn"))
                if pool == "carried":
                    image, mask, caption = clean, lender.mask, ""
                    partner = self._partner(rng, row, other_group=False)
                    near = partner is None or rng.random() < mix.near
                    other = window if near or partner is None else self._view(rng, partner)
                    carried = _vary(rng, other.clean, mask, strong=False, turn=not near)
                else:
                    if lender.note.source == "procedural" and (window.note.kind or rng.random() < 0.5):
                        clean = lender.clean  # the same hole that elsewhere holds a defect: only the words tell
                    mask, image, caption = lender.mask, clean, NO_DEFECT[rng.integers(len(NO_DEFECT))]
            else:
                partner = row if rng.random() < mix.self_reference else self._partner(rng, row)
                if partner is not None:
                    other = self._view(rng, partner)
                    reference = _vary(rng, other.image, other.mask, strong=partner == row)
                    if rng.random() < mix.draft:
                        near = partner == row and rng.random() < mix.near
                        carried = _vary(rng, image, mask, strong=False, turn=False) if near else reference
            found.words.append(caption)
            if augment:
                image, clean, mask = _turn(rng, image, clean, mask)
                image, clean = _light(rng, image, clean)
                if rng.random() < mix.wider_mask:
                    mask = _widen(rng, mask)
                draw = rng.random()
                both = draw < mix.drop_both
                if both or rng.random() < mix.drop_reference:
                    reference = None
                if both or rng.random() < (mix.drop_text if reference is None else mix.drop_text_with_reference):
                    caption = ""
            images.append(image)
            cleans.append(clean)
            masks.append(mask)
            found.captions.append(caption)
            found.references.append(reference)
            found.drafts.append(None if carried is None else laid_in(clean, mask, carried, int(rng.integers(2**31))))
            found.rows.append(row)
        found.image, found.clean, found.mask = np.stack(images), np.stack(cleans), np.stack(masks)
        return found


def laid_in(
    clean: np.ndarray, mask: np.ndarray, carried: tuple[np.ndarray, np.ndarray], seed: int
) -> np.ndarray | None:
    """A reference (image, mask) laid in the hole `mask` of `clean` (S, S, 3), as painting does it."""
    clean, mask = np.ascontiguousarray(clean), np.ascontiguousarray(mask)
    if not mask.any() or not carried[1].any():
        return None
    request = Request(Sample(clean, np.zeros_like(mask)), mask, "", "", Sample(*carried), seed)
    return sketches.draft("laid", request, compose.Window(0, 0, *mask.shape), clean, mask)


def _shrink(stack: np.ndarray, size: int) -> np.ndarray:
    """Images (N, S, S, 3) or masks (N, S, S) to a side that S is a multiple of, by area; masks by a quarter."""
    factor = stack.shape[1] // size
    cells = stack.reshape(len(stack), size, factor, size, factor, *stack.shape[3:])
    mean = cells.mean((2, 4), dtype=np.float32)
    return mean > 0.25 if stack.dtype == bool else np.rint(mean).astype(stack.dtype)


def _turn(rng: np.random.Generator, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same of the eight flips and quarter turns for all."""
    quarter, flip = int(rng.integers(4)), bool(rng.integers(2))
    turned = tuple(np.rot90(a, quarter) for a in arrays)
    return tuple(a[:, ::-1] for a in turned) if flip else turned


def _light(rng: np.random.Generator, *images: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same gain, offset and gamma for all images, one curve for all channels: colour words stay true."""
    gain, offset, gamma = rng.uniform(0.85, 1.15), rng.uniform(-12, 12), rng.uniform(0.85, 1.18)
    curve = np.clip(255 * (np.arange(256) / 255) ** gamma * gain + offset, 0, 255).astype(np.uint8)
    return tuple(curve[image] for image in images)


def _widen(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    radius = int(rng.integers(1, 4))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def _vary(
    rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, strong: bool, turn: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """A reference as another photograph might show it: turned (by quarters and mirrored with `turn`), scaled, shifted,
    other light; more so if it is the sample itself.
    """
    image, mask = _turn(rng, image, mask) if turn else (image, mask)
    size = image.shape[0]
    angle, scale = rng.uniform(-45, 45), rng.uniform(0.7, 1.4) if strong else rng.uniform(0.85, 1.2)
    rows, columns = np.nonzero(mask)
    centre = (float(columns.mean()), float(rows.mean())) if len(rows) else (size / 2, size / 2)
    matrix = cv2.getRotationMatrix2D(centre, angle if strong else angle / 3, scale)
    reach = 0.2 * size if strong else 0.08 * size
    matrix[:, 2] += (size / 2 - np.array(centre)) * rng.random() + rng.uniform(-reach, reach, 2)
    moved = cv2.warpAffine(
        np.ascontiguousarray(image), matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    covered = cv2.warpAffine(mask.astype(np.uint8), matrix, (size, size), flags=cv2.INTER_NEAREST).astype(bool)
    if not covered.any():  # pushed out of the image: keep it as it was
        moved, covered = np.ascontiguousarray(image), np.ascontiguousarray(mask)
    return _light(rng, moved)[0], covered
