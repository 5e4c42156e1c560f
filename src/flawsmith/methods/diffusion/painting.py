"""Requests to images by denoising: windows, tiles, sampling, pasting back and labels, the same for every method.

A method says what the denoiser attends to (`prepare`, `condition`); what it learns and how it is kept on disk stands
in `synthesizer`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flawsmith import compose
from flawsmith.diffusion import tensors
from flawsmith.diffusion.adapters import merged, use_adapter
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.compiled import Compiled, described
from flawsmith.diffusion.denoise import Conditioning, denoise, draw_noise
from flawsmith.diffusion.memory import halved
from flawsmith.diffusion.side_by_side import computed, threads_for
from flawsmith.methods import base
from flawsmith.methods.analogy.synthesizer import Analogy
from flawsmith.methods.diffusion.appearance import AppearanceStats, appearance_of
from flawsmith.methods.diffusion.canvas import Canvas, begins_real, cut, paste
from flawsmith.methods.diffusion.finishing import finish
from flawsmith.methods.diffusion.tiles import resized
from flawsmith.records import Request, Sample


@dataclass(frozen=True)
class Views:
    """What is sampled at a time: one window of each of several requests, at the backbone's size S. B of each."""

    requests: list[Request]
    images: list[np.ndarray]  # (S, S, 3) uint8
    masks: list[np.ndarray]  # (S, S) bool, what is to be painted
    starts: list[np.ndarray]  # (S, S, 3) uint8, what denoising begins from; empty where that is noise
    drafts: list[np.ndarray | None]  # (S, S, 3) uint8, for a backbone that sees one
    seeds: list[int]

    def part(self, rows: slice) -> Views:
        return Views(*(getattr(self, field.name)[rows] for field in fields(self)))


class Painting(base.Synthesizer):
    """The painting half of DiffusionSynthesizer."""

    backbone: Backbone
    batch: int  # windows per forward pass
    compiled: Compiled | None  # what computes the denoiser in torch's place
    adapters: dict[str, str]  # "category/defect" -> name of the attached adapter
    options: Any

    # -- the hooks -----------------------------------------------------------------------------------------------------

    def prepare(self, requests: Sequence[Request], masks: Tensor, options: Any) -> Any:
        """What is computed once for the whole sampling: here, the context tokens of words and references.

        masks (B, 1, S, S) in {0, 1}: what is to be painted of each request in the windows about to be sampled;
        options: the dials of this call.
        """
        return Conditioning(self.backbone.context([r.caption for r in requests], self._references(requests)))

    def condition(self, prepared: Any, t: Tensor) -> Conditioning:
        """What the denoiser attends to at steps t (B,): here, the same at every step."""
        given: Conditioning = prepared
        return given

    def unconditional(self, count: int) -> Conditioning:
        """What guidance moves away from; as many tokens as `condition` gives."""
        return self.backbone.null(count)

    def marked(self, views: Views, options: Any) -> AbstractContextManager[object] | None:
        """What a batch leaves in the denoiser itself while it is sampled; None = nothing.

        A denoiser with such marks serves one batch at a time, others several.
        """
        return None

    def by_name(self, category: str, defect_type: str) -> bool:
        """Whether a type's name alone says what to paint."""
        return False

    def contrast_strength(self, options: Any) -> float:
        """How far the contrast of what was painted follows the reference's (or the sketch's), 0 to 1."""
        return float(options.contrast)

    def appearance(self, canvas: Canvas) -> AppearanceStats | None:
        """Whose contrast and colours the painted defect takes: the reference's, or a sketch's where a name is all."""
        shown = canvas.exemplar
        return appearance_of(shown) if shown is not None and shown.mask.any() else None

    def denoiser(self, options: Any) -> Compiled | None:
        """What runs in the place of the backbone's denoiser; None = torch itself."""
        return self.compiled

    def _references(self, requests: Sequence[Request]) -> list[tuple[Tensor, Tensor] | None] | None:
        if self.backbone.reader is None:
            return None
        return [
            None if r.reference is None or not r.reference.mask.any() else self.reference_window(r.reference)
            for r in requests
        ]

    def reference_window(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """A defect and its surroundings as encoders see them: (3, S, S) in [-1, 1] and (1, S, S) in {0, 1}."""
        view = compose.square_window(sample.mask, self.backbone.size, 1.3)
        image, mask = resized(sample.image, sample.mask, view, self.backbone.size)
        return tensors.from_images([image])[0], tensors.from_masks([mask])[0]

    # -- the job -------------------------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request], **options: Any) -> list[Sample]:
        """Make one Sample per Request, in order; all windows of a round share forward passes of `batch`.

        A real defect that is carried whole stays as it is: a cut lead, painted over, is neither lead nor gap.
        """
        chosen: Any = self.parse_options(options, base=self.options)
        whole = [request.warp is not None and request.whole and begins_real(request, chosen) for request in requests]
        limits = {key: getattr(chosen, key) for key in base.Options.model_fields}
        laid = iter(Analogy(**limits).generate([r for r, carried in zip(requests, whole, strict=True) if carried]))
        rest = iter(self._painted([r for r, carried in zip(requests, whole, strict=True) if not carried], chosen))
        return [next(laid if carried else rest) for carried in whole]

    def _painted(self, requests: Sequence[Request], options: Any) -> list[Sample]:
        canvases = [self._canvas(request, options) for request in requests]
        for members in self._groups(canvases):
            with merged(self.backbone.unet):
                for turn in range(max(len(canvas.tiles) for canvas in members)):
                    # what the tiles before have painted whole needs no further one
                    left = [c for c in members if turn < len(c.tiles) and (not turn or self._hole(c, turn).any())]
                    self._round(left, turn, options)
        with ThreadPoolExecutor(min(len(canvases), os.cpu_count() or 1) or 1) as pool:  # 40 ms each at 512 px
            return list(pool.map(lambda canvas: self._finish(canvas, options), canvases))

    def _canvas(self, request: Request, options: Any) -> Canvas:
        return cut(request, self.backbone, options, self.by_name(request.normal.category, request.defect_type))

    def _groups(self, canvases: Sequence[Canvas]) -> Iterator[list[Canvas]]:
        """The canvases that share one adapter, which is switched on, and that have or lack a start of their own."""
        alike: dict[tuple[str | None, bool], list[Canvas]] = {}
        for canvas in canvases:
            name = f"{canvas.request.normal.category}/{canvas.request.defect_type}"
            alike.setdefault((self.adapters.get(name), canvas.start is None), []).append(canvas)
        for (adapter, _), members in alike.items():
            if self.adapters:
                use_adapter(self.backbone, adapter)
            yield members

    def _round(self, canvases: Sequence[Canvas], turn: int, options: Any) -> None:
        """Paint the tile `turn` of each canvas, at most `batch` at a time."""
        rest = list(canvases)
        while rest:  # `batch` may shrink meanwhile
            part, rest = rest[: self.batch], rest[self.batch :]
            self._paint(part, turn, options)

    def _paint(self, chunk: Sequence[Canvas], turn: int, options: Any) -> None:
        """Paint one tile of each canvas; in smaller parts, from now on, where the memory does not suffice."""
        views = self._views(chunk, turn, options)
        try:
            painted = self._sampled(views, options)
        except torch.OutOfMemoryError:
            painted = None
        if painted is None:  # not inside `except`, where the error keeps the tensors alive
            self.batch = halved(len(chunk), "painting")
            self._round(chunk, turn, options)
            return
        for canvas, context, window in zip(chunk, views.images, painted, strict=True):
            paste(canvas, turn, context, window, options)

    def _views(self, chunk: Sequence[Canvas], turn: int, options: Any) -> Views:
        size = self.backbone.size

        def seen(canvas: Canvas, pixels: np.ndarray) -> np.ndarray:
            return resized(pixels, canvas.mask, canvas.tiles[turn], size)[0]

        cuts = [resized(c.pixels, self._hole(c, turn), c.tiles[turn], size, keep=True) for c in chunk]
        images, masks = [image for image, _ in cuts], [mask for _, mask in cuts]
        starts = [i if c.start is None else seen(c, c.start) for c, i in zip(chunk, images, strict=True)]
        if chunk[0].start is None and options.start != "normal":
            starts = []  # there is nothing to begin from
        drafts = [None if c.draft is None else seen(c, c.draft) for c in chunk]
        seeds = [(c.request.seed + 7919 * turn) & (2**63 - 1) for c in chunk]
        return Views([c.request for c in chunk], images, masks, starts, drafts, seeds)

    @staticmethod
    def _hole(canvas: Canvas, turn: int) -> np.ndarray:
        """What this tile paints: the mask, less what earlier tiles finished (it is context now)."""
        left = canvas.mask & ~canvas.done
        return left if turn else canvas.mask

    def _sampled(self, views: Views, options: Any) -> np.ndarray:
        """As `_sample`; where torch computes a small network, a part of the windows in each thread.

        Even one window then has one thread within an operation, so that it gets the same pixels in any batch.
        """
        device, count = self.backbone.device, len(views.seeds)
        marks = self.marked(views, options)
        small = self.backbone.codec is not None and device.type == "cpu" and self.denoiser(options) is None
        if not small or marks is not None:
            with marks or nullcontext():
                return self._sample(views, options)
        threads = threads_for(device, count)
        size = math.ceil(count / threads)
        rows = [slice(first, first + size) for first in range(0, count, size)]
        parts = [partial(self._sample, views.part(some), options) for some in rows]
        return np.concatenate(list(computed(parts, threads, within=1)))

    def _sample(self, views: Views, options: Any) -> np.ndarray:
        """Windows (B, S, S, 3) uint8 painted inside their masks."""
        backbone, device, seeds = self.backbone, self.backbone.device, views.seeds
        image = tensors.from_images(views.images).to(device)
        mask = tensors.from_masks(views.masks).to(device)
        drafts = [None if draft is None else tensors.from_images([draft])[0] for draft in views.drafts]
        side = backbone.size // backbone.factor
        noise = draw_noise(seeds, (backbone.latent_channels, side, side), device)
        blend = backbone.input_kind == "blend"
        with torch.no_grad():
            prepared = self.prepare(views.requests, mask, options)
            null = self.unconditional(len(seeds)) if options.guidance_scale != 1 else None
            latents = denoise(
                self.denoiser(options) or backbone.unet,
                backbone.sampler(options.sampler, options.eta),
                lambda t: self.condition(prepared, t),
                noise,
                extra=backbone.inpaint_input(image, mask, drafts),
                unconditional=None if null is None else lambda t: null,
                guidance_scale=options.guidance_scale,
                guidance_floor=options.guidance_floor,
                num_inference_steps=options.steps,
                timesteps=backbone.timesteps(options.steps, options.eta),
                eta=options.eta,
                step_noise=lambda i: draw_noise([seed + 104_729 * (i + 1) for seed in seeds], noise.shape[1:], device),
                start=backbone.encode(tensors.from_images(views.starts).to(device)) if views.starts else None,
                strength=options.noised,
                known=backbone.encode(image) if blend else None,
                mask=tensors.pool_mask(mask, side) if blend else None,
            )
            return tensors.to_images(backbone.decode(latents))

    def _finish(self, canvas: Canvas, options: Any) -> Sample:
        strength = self.contrast_strength(options)
        appearance = self.appearance(canvas) if strength and canvas.mask.any() and not canvas.real else None
        facts = {"runtime": described(self.backbone, self.denoiser(options))}
        return finish(canvas, options, strength, appearance, facts)
