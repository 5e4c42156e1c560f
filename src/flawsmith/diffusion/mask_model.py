"""Masks learned from a few real ones, told what to draw by defect type and caption.

The paper learns masks with its own recipe, drawn as images of 256 px. Here a mask is taken apart: a small diffusion
model learns shapes in their own box, so that a hairline is as large to it as a hole, and place and size are drawn from
those of the real masks whose captions say the same. Trained in minutes on a CPU.
Reference: AnomalyXFusion, mask generation (its second model).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from pydantic import BaseModel, Field, TypeAdapter
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from flawsmith import compose, images
from flawsmith.config import Share
from flawsmith.diffusion import tensor_files
from flawsmith.diffusion.compact import SHIPPED
from flawsmith.diffusion.compact.words import WordPiece, WordTable
from flawsmith.diffusion.denoise import scheduler_for
from flawsmith.diffusion.mask_examples import MARGIN, SIDE, Example, example, outline
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.masks.options import MINIMUM
from flawsmith.records import Sample

FILE = "masks.safetensors"


class _Notes(BaseModel, extra="forbid", allow_inf_nan=False):
    """What the file says of an example beside its shape."""

    name: str
    caption: str
    fill: Share
    centre: tuple[Annotated[float, Field(ge=-9, le=9)], Annotated[float, Field(ge=-9, le=9)]]
    size: Annotated[float, Field(gt=0, le=9)]
    on_object: Share
    aligned: bool


EXAMPLES = TypeAdapter(list[_Notes])
STEPS, TRIES, REDRAWS = 12, 24, 4
COPY = 0.9  # intersection over union above which a shape is called a copy


class ShapeModel(nn.Module):
    """Predicts v of noisy shapes (B, 1, S, S) at steps t (B,), given type numbers (B,) and caption features (B, E)."""

    def __init__(self, names: int, words: int) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.unet: Any = UNet2DModel(
            sample_size=SIDE,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(16, 32, 48),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
            class_embed_type="identity",
        )
        self.kind, self.said = nn.Embedding(names, 64), nn.Linear(words, 64)

    def forward(self, noisy: Tensor, t: Tensor, kinds: Tensor, words: Tensor) -> Tensor:
        given = self.kind(kinds) + self.said(words)
        found: Tensor = self.unet(noisy, t, class_labels=given, return_dict=False)[0]
        return found


class LearnedMasks:
    """A run's mask model: `draw` puts a mask of a learned type on an object."""

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
            self.model = ShapeModel(len(self.names), self.table.width)
        self.scheduler: Any = DDIMScheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False
        )

    def features(self, captions: Sequence[str]) -> Tensor:
        """Captions as the word table reads them, (n, E)."""
        return self.table.pool(*self.pieces(list(captions)))

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
            size = one.size * float(np.exp(rng.normal(0, 0.12))) * shrunk
            side = max(6, round(MARGIN * size * allowed.size**0.5))
            fill = one.fill * float(np.exp(rng.normal(0, 0.15)))
            whole = outline(self.shape(name, words, fill, rng), fill, side)
            mask = self._place(whole[compose.mask_box(whole).slices], one, allowed, rng)
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

    @torch.no_grad()
    def shape(self, name: str, words: Tensor, fill: float, rng: np.random.Generator) -> np.ndarray:
        """One new shape as a distance field (SIDE, SIDE) float32 in -1..1, by DDIM.

        Drawn again, as in the paper, when more than a third of a border row or column is set.
        """
        kind = torch.tensor([self.names.index(name)])
        found = np.zeros((SIDE, SIDE), np.float32)
        for _ in range(REDRAWS):
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            x = torch.randn(1, 1, SIDE, SIDE, generator=generator)
            sampler = scheduler_for(self.scheduler.config, "ddim")
            sampler.set_timesteps(STEPS)
            for t in sampler.timesteps:
                x = sampler.step(self.model(x, t[None], kind, words), t, x, return_dict=False)[0]
            found = x[0, 0].clamp(-1, 1).numpy()
            mask = outline(found, fill, SIDE)
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
        notes = [{key: value for key, value in asdict(one).items() if key != "shape"} for one in self.examples]
        weights = {f"model.{key}": value.contiguous() for key, value in self.model.state_dict().items()}
        weights["shapes"] = torch.from_numpy(np.stack([one.shape for one in self.examples])).half()
        images.write_bytes(folder / FILE, to_bytes(weights, metadata={"examples": json.dumps(notes)}))

    @classmethod
    def load(cls, folder: str | Path) -> LearnedMasks:
        """Read a run's mask model. Raises FlawsmithError when the run has none."""
        path = Path(folder) / FILE
        if not path.is_file():
            raise FlawsmithError(
                f"{folder} holds no learned masks ({FILE}): train it with --set mask_steps=600, or choose another mask."
            )
        try:
            stored, about = tensor_files.read(path)
            notes = EXAMPLES.validate_json(about["examples"])
            shapes = stored.pop("shapes").float().numpy()
            if shapes.shape != (len(notes), SIDE, SIDE) or not len(notes):
                raise ValueError(f"{len(notes)} examples have shapes {shapes.shape}")
            made = cls([Example(shape=s, **n.model_dump()) for n, s in zip(notes, shapes, strict=True)])
            made.model.load_state_dict({key.removeprefix("model."): value for key, value in stored.items()})
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            problem = str(error).splitlines()[0]
            raise FlawsmithError(f"{path} cannot be read ({problem}): train the run's masks again.") from error
        made.model.eval().requires_grad_(False)
        return made
