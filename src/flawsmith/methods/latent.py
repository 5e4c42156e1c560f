"""DiffusionSynthesizer: requests to pictures through a backbone, written once for every diffusion method.

A method says what the denoiser attends to (`prepare`, `condition`); windows, tiles, sampling, pasting back and labels
are the same for all. Used as it is (`inpaint`), it paints from words and an optional reference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

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
from flawsmith.methods.canvas import Canvas, only_real_change, paste, resized, tiles, with_grain
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

    def seen(self) -> dict[str, str]:
        return {name: sha for entry in self.card["adapters"].values() for name, sha in entry["support"].items()}

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
            image, mask = resized(sample.image, sample.mask, view, self.backbone.size)
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
                    resized(c.pixels, self._hole(c, turn), c.tiles[turn], self.backbone.size, keep=True) for c in chunk
                ]
                seeds = [(c.request.seed + 7919 * turn) & (2**63 - 1) for c in chunk]
                starts = [
                    resized(c.start, c.mask, c.tiles[turn], self.backbone.size)[0] if c.start is not None else view[0]
                    for c, view in zip(chunk, views, strict=True)
                ]
                painted = self._sample([c.request for c in chunk], views, starts, seeds, chosen)
                for canvas, (context, _), window in zip(chunk, views, painted, strict=True):
                    paste(canvas, turn, context, window, chosen)
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
            painted = with_grain(normal, painted, canvas.mask)
        painted = only_real_change(normal, painted, canvas.mask, options.threshold)
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
