"""Masks learned from a few real ones, told what to draw by defect type and caption.

The paper learns masks with its own recipe, drawn as images of 256 px. Here a mask is taken apart: a small diffusion
model learns shapes in their own box, so that a hairline is as large to it as a hole, and place and size are drawn from
those of the real masks whose captions say the same. Trained in minutes on a CPU. `whole_masks` is the other kind, which
learns masks whole.
Reference: AnomalyXFusion, mask generation (its second model).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import torch
from pydantic import BaseModel, Field, TypeAdapter
from safetensors.torch import save as to_bytes
from torch import Tensor

from flawsmith import compose, images
from flawsmith.config import Share
from flawsmith.diffusion import tensor_files
from flawsmith.diffusion.compact import SHIPPED
from flawsmith.diffusion.compact.words import WordPiece, WordTable
from flawsmith.diffusion.denoise import scheduler_for
from flawsmith.diffusion.mask_denoiser import Denoiser, ShapeDenoiser
from flawsmith.diffusion.mask_examples import MARGIN, SIDE, Example, example, outline, varied
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.masks.options import MINIMUM
from flawsmith.records import Sample
from flawsmith.registry import resolve

FILE = "masks.safetensors"
KINDS = {
    "shape": "flawsmith.diffusion.mask_model:LearnedMasks",
    "whole": "flawsmith.diffusion.whole_masks:WholeMasks",
}


class Notes(BaseModel, extra="forbid", allow_inf_nan=False):
    """What the file says of an example beside its shape."""

    name: str
    caption: str
    fill: Share
    centre: tuple[Annotated[float, Field(ge=-9, le=9)], Annotated[float, Field(ge=-9, le=9)]]
    size: Annotated[float, Field(gt=0, le=9)]
    on_object: Share
    aligned: bool


STEPS, TRIES, REDRAWS = 12, 24, 4
COPY = 0.9  # intersection over union above which a shape is called a copy


class LearnedMasks:
    """A run's mask model: `draw` puts a mask of a learned type on an object.

    This kind learns shapes. Another one overrides what is learned of a real mask (`made_of`, `arrays`, `notes`,
    `example`, `lesson`), by which network, and how a mask is drawn (`attempt`).
    """

    kind: ClassVar[str] = "shape"
    side: ClassVar[int] = SIDE
    made_of: ClassVar[type[Example]] = Example
    arrays: ClassVar[dict[str, str]] = {"shapes": "shape"}  # the example's field behind each tensor of the file
    notes: ClassVar[type[Notes]] = Notes
    examples: Sequence[Example]

    def __init__(self, examples: Sequence[Example], seed: int = 0) -> None:
        from diffusers import DDIMScheduler

        if not examples:
            raise FlawsmithError("A mask model needs at least one real mask to learn from.")
        self.examples = list(examples)
        self.names = list(dict.fromkeys(one.name for one in examples))
        folder = SHIPPED["compact"] / "text"
        self.pieces = WordPiece.from_file(folder / "vocab.txt")
        self.table = WordTable.from_file(folder / "words.safetensors")
        self.words = self.features([one.caption for one in examples])  # (n, E)
        self._outlines = [outline(one.shape, one.fill, 2 * SIDE) for one in examples]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = self.network()
        self.scheduler: Any = DDIMScheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False
        )

    @staticmethod
    def example(name: str, sample: Sample, foreground: np.ndarray) -> Example:
        """What is learned of a real mask; foreground (H, W) bool is the object in its photograph."""
        return example(name, sample, foreground)

    def network(self) -> Denoiser:
        return ShapeDenoiser(len(self.names), self.table.width)

    def features(self, captions: Sequence[str]) -> Tensor:
        """Captions as the word table reads them, (n, E)."""
        return self.table.pool(*self.pieces(list(captions)))

    def lesson(self, row: int, rng: np.random.Generator, drop: float) -> tuple[np.ndarray, Tensor]:
        """An example varied, (side, side) in -1..1, and what is said of it, (E,): no caption at a share `drop`."""
        return varied(rng, self.examples[row]), self.words[row] * float(rng.random() >= drop)

    # -- drawing -----------------------------------------------------------------------------------------------------

    def draw(self, name: str, caption: str, allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A mask (H, W) bool of type `name` ("category/defect_type") inside `allowed` (H, W) bool, never empty.

        A copy of a real shape is drawn again; where all REDRAWS are copies, as of a disc that is round as the real
        ones are, the least alike is taken. Raises FlawsmithError for an unknown type, listing the known ones.
        """
        name = self._known(name)
        rows = [i for i, one in enumerate(self.examples) if one.name == name]
        words = self.features([caption])
        # real masks whose captions say the same lend place and size; without a caption all do
        near = (self.words[rows] @ words[0]).numpy().astype(float) / 0.1
        weight = np.exp(near - near.max())
        shrunk, found = 1.0, list[tuple[float, np.ndarray]]()
        for _ in range(REDRAWS):
            one = self.examples[rows[int(rng.choice(len(rows), p=weight / weight.sum()))]]
            mask = self.attempt(name, words, replace(one, size=one.size * shrunk), allowed, rng)
            if np.count_nonzero(mask) < min(MINIMUM, int(allowed.sum())):
                shrunk *= 0.85
                continue
            found.append((self.likeness(mask), mask))
            if found[-1][0] <= COPY:
                return mask
        if found:
            return min(found, key=lambda pair: pair[0])[1]
        row, column = (int(v) for v in rng.choice(np.argwhere(allowed)))
        dot = cv2.circle(np.zeros(allowed.shape, np.uint8), (column, row), 3, 1, cv2.FILLED).astype(bool)
        return dot & allowed

    def attempt(
        self, name: str, words: Tensor, one: Example, allowed: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """A mask (H, W) bool inside `allowed`, of about the size of a real one and where it was; perhaps empty."""
        size = one.size * float(np.exp(rng.normal(0, 0.12)))
        side = max(6, round(MARGIN * size * allowed.size**0.5))
        fill = one.fill * float(np.exp(rng.normal(0, 0.15)))
        whole = outline(self.shape(name, words, fill, rng), fill, side)
        return self._place(whole[compose.mask_box(whole).slices], one, allowed, rng)

    @torch.no_grad()
    def shape(self, name: str, words: Tensor, fill: float, rng: np.random.Generator) -> np.ndarray:
        """One new shape as a distance field (side, side) float32 in -1..1, by DDIM.

        Drawn again, as in the paper, when more than a third of a border row or column is set.
        """
        kind = torch.tensor([self.names.index(name)])
        found = np.zeros((self.side, self.side), np.float32)
        for _ in range(REDRAWS):
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            x = torch.randn(1, 1, self.side, self.side, generator=generator)
            sampler = scheduler_for(self.scheduler.config, "ddim")
            sampler.set_timesteps(STEPS)
            for t in sampler.timesteps:
                x = sampler.step(self.model(x, t[None], kind, words), t, x, return_dict=False)[0]
            found = x[0, 0].clamp(-1, 1).numpy()
            mask = outline(found, fill, self.side)
            if max(float(edge.mean()) for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1])) <= 1 / 3:
                break
        return found

    @staticmethod
    def _place(shape: np.ndarray, one: Example, allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The shape on the object: about where the real one was on an object, anywhere on a surface."""
        frame, best, most = compose.mask_box(allowed), np.zeros_like(allowed), -1
        height, width = shape.shape
        for _ in range(TRIES):
            where = np.asarray(one.centre) + rng.normal(0, 0.05, 2) if one.aligned else rng.uniform(0, 1, 2)
            top = round(frame.top + where[0] * frame.shape[0] - height / 2)
            left = round(frame.left + where[1] * frame.shape[1] - width / 2)
            drawn = np.zeros_like(allowed)
            rows = slice(max(0, top), max(0, min(allowed.shape[0], top + height)))
            columns = slice(max(0, left), max(0, min(allowed.shape[1], left + width)))
            if rows.stop > rows.start and columns.stop > columns.start:
                part = shape[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
                drawn[rows, columns] = part
            drawn &= allowed
            if int(drawn.sum()) > most:
                best, most = drawn, int(drawn.sum())
            if most >= min(0.95, one.on_object) * int(shape.sum()):
                break
        return best

    def _known(self, name: str) -> str:
        if name in self.names:
            return name
        others = [other for other in self.names if other.split("/", 1)[-1] == name.split("/", 1)[-1]]
        if len(others) != 1:
            raise unknown("Defect", name, self.names, "among the learned masks")
        return others[0]

    def likeness(self, mask: np.ndarray) -> float:
        """The largest intersection over union, 0 to 1, of the shape of a mask (H, W) bool with that of a real one it
        learned from, both in their own boxes, in any turn; above COPY it is a copy.
        """
        own = example("", Sample(np.zeros((*mask.shape, 3), np.uint8), mask), np.ones_like(mask))
        drawn = outline(own.shape, own.fill, 2 * SIDE)
        turns = [np.rot90(side, quarter) for side in (drawn, drawn[:, ::-1]) for quarter in range(4)]
        return max(float((turn & real).sum() / (turn | real).sum()) for real in self._outlines for turn in turns)

    # -- disk --------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write `folder/masks.safetensors`: the model, and the examples without their photographs."""
        words = [one.name for one in fields(self.made_of) if one.name not in self.arrays.values()]
        notes = [{key: getattr(one, key) for key in words} for one in self.examples]
        weights = {f"model.{key}": value.contiguous() for key, value in self.model.state_dict().items()}
        for name, key in self.arrays.items():
            weights[name] = torch.from_numpy(np.stack([getattr(one, key) for one in self.examples])).half()
        images.write_bytes(folder / FILE, to_bytes(weights, metadata={"examples": json.dumps(notes)}))

    @classmethod
    def _made(cls, stored: dict[str, Tensor], about: dict[str, str]) -> LearnedMasks:
        notes = TypeAdapter(list[cls.notes]).validate_json(about["examples"])  # type: ignore[name-defined]
        arrays = {key: stored.pop(name).float().numpy() for name, key in cls.arrays.items()}
        for key, found in arrays.items():
            side = SIDE if key == "shape" else cls.side
            if found.shape != (len(notes), side, side) or not len(notes):
                raise ValueError(f"{len(notes)} examples have {key}s {found.shape}")
        rows = [{key: found[i] for key, found in arrays.items()} for i in range(len(notes))]
        made = cls([cls.made_of(**row, **one.model_dump()) for row, one in zip(rows, notes, strict=True)])
        made.model.load_state_dict({key.removeprefix("model."): value for key, value in stored.items()})
        return made

    @staticmethod
    def load(folder: str | Path) -> LearnedMasks:
        """Read a run's mask model, of whatever kind. Raises FlawsmithError when the run has none."""
        path = Path(folder) / FILE
        if not path.is_file():
            raise FlawsmithError(
                f"{folder} holds no learned masks ({FILE}): train it with --set mask_steps=600, or choose another mask."
            )
        try:
            stored, about = tensor_files.read(path)
            kind = "whole" if "wholes" in stored else "shape"
            made: LearnedMasks = resolve(kind, KINDS, "Mask model")._made(stored, about)
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            problem = str(error).splitlines()[0]
            raise FlawsmithError(f"{path} cannot be read ({problem}): train the run's masks again.") from error
        made.model.eval().requires_grad_(False)
        return made
