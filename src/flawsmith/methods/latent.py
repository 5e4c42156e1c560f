"""DiffusionSynthesizer: requests to pictures through a backbone, written once for every diffusion method.

A method says what the denoiser attends to (`prepare`, `condition`); windows, tiles, sampling, pasting back and labels
are the same for all. Used as it is (`inpaint`), it paints from words and an optional reference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from flawsmith import compose, images, tensors
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.denoise import Conditioning, denoise, draw_noise
from flawsmith.diffusion.fewshot import load_adapter, use_adapter
from flawsmith.errors import FlawsmithError
from flawsmith.methods import base
from flawsmith.methods.copypaste import CopyPaste
from flawsmith.methods.patches import is_grey
from flawsmith.methods.procedural import Procedural
from flawsmith.records import Request, Sample

BATCH = (
    8  # windows per forward pass: always filled up to this, so that a window's bytes do not depend on its neighbours
)


class DiffusionOptions(base.Options):
    """Dials of every diffusion method."""

    steps: int = Field(10, ge=1, le=1000, description="denoising steps")
    sampler: Literal["dpm++", "ddim"] = Field("dpm++", description="DPM-Solver++ or DDIM")
    guidance_scale: float = Field(1.5, ge=0, le=30, description="1 = none; above 3 oversaturates")
    start: Literal["noise", "normal", "reference", "painted"] = Field(
        "noise", description="begin from noise, the normal, the reference laid in place, or the painter's sketch"
    )
    strength: float = Field(0.7, gt=0, le=1, description="how far a start other than noise is noised first")
    context: float = Field(1.5, ge=1, le=8, description="window side over the mask's box")
    max_reduction: float = Field(2.0, ge=1, le=16, description="longest mask a window may shrink by, before tiling")
    keep_grain: bool = Field(True, description="keep the photograph's grain, also in reduced windows")
    threshold: float = Field(0.8, ge=0, le=10, description="change that counts, in local standard deviations")


@dataclass
class Canvas:
    """One request while it is painted: its region of the photograph and the square windows that cover the mask."""

    request: Request
    area: compose.Window
    pixels: np.ndarray  # (h, w, 3) uint8, the region, painted tile by tile
    mask: np.ndarray  # (h, w) bool
    tiles: list[compose.Window]  # inside the region
    start: np.ndarray | None = None  # (h, w, 3) uint8, what denoising begins from
    done: np.ndarray = field(init=False)  # (h, w) bool, what earlier tiles painted

    def __post_init__(self) -> None:
        self.done = np.zeros(self.mask.shape, dtype=bool)


def tiles(mask: np.ndarray, size: int, context: float, max_reduction: float) -> list[compose.Window]:
    """Square windows that together cover a mask (h, w) bool, none reduced by more than `max_reduction`.

    A mask that fits one window gets one. A long or large one is walked in overlapping windows, so that a crack keeps
    its width in pixels (architecture.md, section 14: shrunk cracks become faint and broken).
    """
    whole = compose.square_window(mask, size, context)
    largest = round(size * max_reduction)
    if max(whole.shape) <= largest:
        return [whole]
    rest, found = mask.copy(), []
    core = round(largest * 0.6)
    while rest.any():
        rows, columns = np.nonzero(rest)
        # The next tile starts at the first uncovered pixel along the longer direction, and centres on what it meets.
        if np.ptp(rows) >= np.ptp(columns):
            first = rows.min()
            near = columns[rows < first + core]
            place = (first + core // 2, int(np.median(near)))
        else:
            first = columns.min()
            near = rows[columns < first + core]
            place = (int(np.median(near)), first + core // 2)
        piece = np.zeros_like(mask)
        top, left = max(0, place[0] - core // 2), max(0, place[1] - core // 2)
        piece[top : top + core, left : left + core] = rest[top : top + core, left : left + core]
        if not piece.any():  # a gap in the mask: take the uncovered pixel itself
            piece[rows[0], columns[0]] = True
        found.append(compose.square_window(piece, largest, 1.0))
        rest &= ~piece
    return found


class DiffusionSynthesizer(base.Synthesizer):
    """Paint from words, and from a reference where the backbone can read one, with a frozen backbone."""

    name = "inpaint"
    names_from_data = True
    batched = True
    Options: ClassVar[type[base.Options]] = DiffusionOptions

    def __init__(self, backbone: str | Backbone = "compact", **options: Any) -> None:
        super().__init__(**options)
        self.backbone = backbone if isinstance(backbone, Backbone) else Backbone.from_pretrained(backbone).freeze()
        self.adapters: dict[str, str] = {}  # "category/defect" -> name of the attached adapter
        named = backbone if isinstance(backbone, str) else backbone.source
        self.card: dict[str, Any] = {"method": self.name, "backbone": named, "adapters": {}}
        self.folder: Path | None = None

    def default_mask(self, defect_type: str) -> str:
        return "reference"

    # -- disk ------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> DiffusionSynthesizer:
        """Load a run's card, its backbone and its adapters. Raises FlawsmithError when the backbone is another one."""
        folder = Path(folder)
        card = base.read_card(folder)
        made = cls(card.get("backbone", "compact"), **card.get("options", {}))
        expected, actual = card.get("backbone_fingerprint"), fingerprint(made.backbone)
        if expected and expected != actual:
            raise FlawsmithError(
                f"{folder} was trained on backbone {card['backbone']!r} with fingerprint {expected}, this one has "
                f"{actual}: install the flawsmith version named on its card, or train again."
            )
        for number, (key, entry) in enumerate(card.get("adapters", {}).items()):
            made.adapters[key] = f"adapter{number}"
            load_adapter(made.backbone, made.adapters[key], base.inside(folder, entry["file"]))
        made.card, made.folder = card, folder
        return made

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the card and copies of the adapters; the backbone is named, with its fingerprint, not copied."""
        from flawsmith import __version__

        folder = Path(folder)
        card = {**self.card, "options": self.options.model_dump(mode="json"), "flawsmith": __version__}
        card["backbone_fingerprint"] = fingerprint(self.backbone)
        for entry in self.card["adapters"].values():
            if self.folder is not None and self.folder != folder:
                images.write_bytes(folder / entry["file"], (self.folder / entry["file"]).read_bytes())
        images.write_bytes(folder / "card.json", (json.dumps(card, indent=2) + "\n").encode())

    # -- the three hooks ---------------------------------------------------------------------------------------------

    def prepare(self, requests: Sequence[Request]) -> Conditioning:
        """What is computed once for the whole sampling: here, the context tokens of words and references."""
        return Conditioning(self.backbone.context([r.caption for r in requests], self._references(requests)))

    def condition(self, prepared: Conditioning, t: Tensor) -> Conditioning:
        """What the denoiser attends to at steps t (B,): here, the same at every step."""
        return prepared

    def unconditional(self, count: int) -> Conditioning:
        return self.backbone.null(count)

    def _references(self, requests: Sequence[Request]) -> list[tuple[Tensor, Tensor] | None] | None:
        if self.backbone.reader is None:
            return None
        found: list[tuple[Tensor, Tensor] | None] = []
        for request in requests:
            sample = request.reference
            if sample is None or not sample.mask.any():
                found.append(None)
                continue
            view = compose.square_window(sample.mask, self.backbone.size, 1.3)
            image, mask = _resized(sample.image, sample.mask, view, self.backbone.size)
            found.append((tensors.from_images([image])[0], tensors.from_masks([mask])[0]))
        return found

    # -- generation --------------------------------------------------------------------------------------------------

    def generate(
        self, requests: Sequence[Request], progress: Callable[[int, int], None] | None = None, **options: Any
    ) -> list[Sample]:
        """Make one Sample per Request, in order; all windows of a round share forward passes of `BATCH`."""
        chosen: Any = self.parse_options(options, base=self.options)
        canvases = [self._canvas(request, chosen) for request in requests]
        rounds = max((len(canvas.tiles) for canvas in canvases), default=0)
        for turn in range(rounds):
            active = [canvas for canvas in canvases if turn < len(canvas.tiles)]
            for chunk in self._chunks(active):
                views = [
                    _resized(c.pixels, self._hole(c, turn), c.tiles[turn], self.backbone.size, keep=True) for c in chunk
                ]
                seeds = [(c.request.seed + 7919 * turn) & (2**63 - 1) for c in chunk]
                starts = [
                    _resized(c.start, c.mask, c.tiles[turn], self.backbone.size)[0] if c.start is not None else view[0]
                    for c, view in zip(chunk, views, strict=True)
                ]
                painted = self._sample([c.request for c in chunk], views, starts, seeds, chosen)
                for canvas, (context, _), window in zip(chunk, views, painted, strict=True):
                    _paste(canvas, turn, context, window, chosen)
        return [self._finish(canvas, chosen) for canvas in canvases]

    def _chunks(self, canvases: Sequence[Canvas]) -> Iterator[list[Canvas]]:
        """At most BATCH canvases at a time that share one adapter, which is switched on."""
        by_adapter: dict[str | None, list[Canvas]] = {}
        for canvas in canvases:
            request = canvas.request
            by_adapter.setdefault(self.adapters.get(f"{request.normal.category}/{request.defect_type}"), []).append(
                canvas
            )
        for adapter, members in by_adapter.items():
            if self.adapters:
                use_adapter(self.backbone, adapter)
            for start in range(0, len(members), BATCH):
                yield members[start : start + BATCH]

    def _canvas(self, request: Request, options: Any) -> Canvas:
        size = self.backbone.size
        area = compose.window(request.mask, round(size * options.max_reduction), options.context)
        mask = request.mask[area.slices]
        pixels = request.normal.image[area.slices].copy()
        sketch = SKETCHES.get(options.start)
        start = sketch(request, area, pixels, mask) if sketch else None
        return Canvas(request, area, pixels, mask, tiles(mask, size, options.context, options.max_reduction), start)

    @staticmethod
    def _hole(canvas: Canvas, turn: int) -> np.ndarray:
        """What this tile paints: the mask, less what earlier tiles finished (it is context now)."""
        left = canvas.mask & ~canvas.done
        return left if turn else canvas.mask

    def _sample(
        self,
        requests: list[Request],
        views: list[tuple[np.ndarray, np.ndarray]],
        starts: list[np.ndarray],
        seeds: list[int],
        options: Any,
    ) -> np.ndarray:
        """Windows (B, S, S, 3) uint8 painted inside their masks."""
        backbone = self.backbone
        image = tensors.from_images([v[0] for v in views]).to(backbone.device)
        mask = tensors.from_masks([v[1] for v in views]).to(backbone.device)
        side = backbone.size // backbone.factor
        noise = draw_noise(seeds, (backbone.latent_channels, side, side), backbone.device)
        blend = backbone.input_kind == "blend"
        with torch.no_grad():
            prepared = self.prepare(requests)
            null = self.unconditional(len(views)) if options.guidance_scale != 1 else None
            latents = denoise(
                backbone.unet,
                backbone.sampler(options.sampler),
                lambda t: self.condition(prepared, t),
                noise,
                extra=backbone.inpaint_input(image, mask),
                unconditional=None if null is None else lambda t: null,
                guidance_scale=options.guidance_scale,
                num_inference_steps=options.steps,
                start=None
                if options.start == "noise"
                else backbone.encode(tensors.from_images(starts).to(image.device)),
                strength=1.0 if options.start == "noise" else options.strength,
                known=backbone.encode(image) if blend else None,
                mask=tensors.pool_mask(mask, side) if blend else None,
            )
            return tensors.to_images(backbone.decode(latents))

    def _finish(self, canvas: Canvas, options: Any) -> Sample:
        request, view = canvas.request, canvas.area.slices
        normal = np.ascontiguousarray(request.normal.image[view])
        painted = canvas.pixels
        if is_grey(normal):  # a grey camera sees no colour
            painted = np.repeat(painted.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
        if options.keep_grain:
            painted = _with_grain(normal, painted, canvas.mask)
        painted = _only_real_change(normal, painted, canvas.mask, options.threshold)
        done = compose.finish(
            normal, painted, canvas.mask, options.tolerance, options.min_visibility, options.min_share
        )
        image = request.normal.image.copy()
        label = np.zeros(request.mask.shape, dtype=bool)
        info: dict[str, Any] = {"window": canvas.area.as_list(), "tiles": len(canvas.tiles), "scores": done.scores}
        if done.rejected:
            info["rejected"] = done.rejected
        else:
            image[view], label[view] = done.image, done.label
        return Sample(image, label, request.normal.category, request.defect_type, request.caption, info)


def _laid(request: Request, area: compose.Window, normal: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """The reference's defect laid on the region as `copypaste` would, or None without a reference."""
    if request.reference is None or not request.reference.mask.any():
        return None
    paste = CopyPaste(brightness=0.0)
    rng = np.random.default_rng(request.seed)
    return paste.paint(normal, mask, request, area, rng, paste.options)[0]


def _painted(request: Request, area: compose.Window, normal: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What `procedural` paints for the same words: a sketch with the right place, kind and colour."""
    painter = Procedural()
    rng = np.random.default_rng(request.seed)
    return painter.paint(normal, mask, request, area, rng, painter.options)[0]


SKETCHES = {"reference": _laid, "painted": _painted}


def fingerprint(backbone: Backbone) -> str:
    """First 16 hex digits of a SHA-256 over names, shapes and a sample of the denoiser's weights, adapters aside."""
    digest = hashlib.sha256()
    for name, value in sorted(backbone.unet.state_dict().items()):
        if "lora_" in name:
            continue
        digest.update(f"{name.replace('.base_layer', '')} {tuple(value.shape)}".encode())
        digest.update(value.detach().reshape(-1)[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _resized(
    image: np.ndarray, mask: np.ndarray, view: compose.Window, size: int, keep: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """A window at the model's size: (S, S, 3) uint8 and (S, S) bool, padded by reflection where not square.

    A reduced mask keeps every cell it touched, so that no thin line vanishes.
    """
    part, hole = image[view.slices], mask[view.slices]
    side = max(part.shape[:2])
    if part.shape[0] != part.shape[1]:
        pad = ((0, side - part.shape[0]), (0, side - part.shape[1]))
        mode: Any = "symmetric" if min(part.shape[:2]) * 2 >= side else "edge"
        part, hole = np.pad(part, (*pad, (0, 0)), mode=mode), np.pad(hole, pad)
    if side == size:
        return np.ascontiguousarray(part), hole.copy()
    small = images.resize(part, size, size)
    if side > size:
        share = cv2.resize(hole.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        return small, share > (1e-6 if keep else 0.25) if hole.any() else share > 1
    return small, images.resize_mask(hole, size, size)


def _paste(canvas: Canvas, turn: int, context: np.ndarray, window: np.ndarray, options: Any) -> None:
    """Lay one painted window (S, S, 3) back on its region, inside the hole only."""
    view = canvas.tiles[turn]
    height, width = view.shape
    side = max(height, width)
    target = canvas.pixels[view.slices]
    if side <= len(window) or not options.keep_grain:
        new = window if side == len(window) else images.resize(window, side, side)
        painted = new[:height, :width]
    else:
        residual = window.astype(np.float32) - context
        grown = cv2.resize(residual, (side, side), interpolation=cv2.INTER_CUBIC)[:height, :width]
        painted = np.clip(np.rint(target + grown), 0, 255).astype(np.uint8)
    hole = (canvas.mask & ~canvas.done)[view.slices]
    if len(canvas.tiles) > 1:  # leave a margin to the next tile, which then continues what this one painted
        inner = np.zeros_like(hole)
        edge = 0 if turn == len(canvas.tiles) - 1 else max(4, side // 16)
        inner[edge : height - edge or None, edge : width - edge or None] = True
        hole &= inner
    target[hole] = painted[hole]
    canvas.done[view.slices] |= hole


def _with_grain(normal: np.ndarray, painted: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Add the grain that a few denoising steps leave out: the photograph's own, from another place of the window.

    Only as much as is missing, so that a picture that has its grain keeps it. Edges of the place it is taken from are
    clipped away.
    """
    wanted, got = compose.noise_level(normal), compose.noise_level(painted, mask)
    if got >= wanted or wanted <= 0:
        return painted
    fine = normal.astype(np.float32) - cv2.GaussianBlur(normal.astype(np.float32), (0, 0), 1.0)
    other = np.roll(fine, (normal.shape[0] // 2, normal.shape[1] // 2), axis=(0, 1))
    limit = min(2.5 * wanted + 0.5, 12.0)
    missing = float(np.sqrt(1 - (got / wanted) ** 2))
    grained = painted + missing * np.clip(other, -limit, limit)
    return np.where(mask[..., None], np.clip(np.rint(grained), 0, 255).astype(np.uint8), painted)


def _only_real_change(normal: np.ndarray, painted: np.ndarray, mask: np.ndarray, threshold: float) -> np.ndarray:
    """Put the photograph back where the painted surface merely differs in grain, with a soft passage.

    Change is judged on smoothed pictures against the local standard deviation of the photograph: a repainted texture
    is not a defect, and a label that counted it would teach the detector that texture is one.
    """
    difference = cv2.GaussianBlur(painted.astype(np.float32) - normal, (0, 0), 1.2)
    strength = np.abs(difference).max(axis=2)
    grey = cv2.cvtColor(normal, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean = cv2.GaussianBlur(grey, (0, 0), 6)
    deviation = np.sqrt(np.maximum(cv2.GaussianBlur(grey * grey, (0, 0), 6) - mean * mean, 0))
    limit = np.maximum(6.0, threshold * deviation)
    alpha = np.clip((strength - 0.6 * limit) / (0.4 * limit), 0, 1)
    alpha = cv2.GaussianBlur(alpha, (0, 0), 0.8) * mask
    return compose.blend(normal, painted, alpha)
