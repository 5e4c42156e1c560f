"""DiffusionSynthesizer: requests to images through a backbone, written once for every diffusion method.

A method says what the denoiser attends to (`prepare`, `condition`); windows, tiles, sampling, pasting back and labels
are the same for all. Used as it is (`inpaint`), it paints from words and an optional reference, and `flawsmith train`
gives it one adapter per defect type. One that learns a `model` is one for many categories and types: it also says
what is trained (`trainable`) and how a training batch is conditioned (`training_condition`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from flawsmith import captions, compose
from flawsmith.config import validated
from flawsmith.diffusion import tensors
from flawsmith.diffusion.adapters import add_adapter, merged, use_adapter
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.batch import Batch
from flawsmith.diffusion.compiled import Compiled, Runtime, compiled, described
from flawsmith.diffusion.denoise import Conditioning, denoise, draw_noise
from flawsmith.diffusion.estimate import weight_bytes
from flawsmith.diffusion.memory import batch_that_fits, halved
from flawsmith.diffusion.side_by_side import computed, threads_for
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.masks.growth import Spread
from flawsmith.methods import base
from flawsmith.methods.analogy.synthesizer import Analogy
from flawsmith.methods.diffusion.appearance import AppearanceStats, appearance_of
from flawsmith.methods.diffusion.canvas import Canvas, begins_real, cut, paste
from flawsmith.methods.diffusion.finishing import finish
from flawsmith.methods.diffusion.options import FAST, REFERENCE, DiffusionConfig, DiffusionOptions
from flawsmith.methods.diffusion.tiles import resized
from flawsmith.records import Request, Sample

BATCH = 8  # windows per forward pass, where the memory allows


class DiffusionSynthesizer(base.Synthesizer):
    """Paint from words, and from a reference where the backbone can read one, with a frozen backbone."""

    name = "inpaint"
    learns: ClassVar[base.Learns] = "adapters"
    Options: ClassVar[type[base.Options]] = DiffusionOptions
    Config: ClassVar[type[DiffusionConfig]] = DiffusionConfig
    # named settings of `flawsmith train`: fields of FitConfig ("fit"), Config ("config") and Options ("options"); what
    # a preset leaves out is the default's
    presets: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {"default": {}}
    options: Any

    def __init__(
        self,
        backbone: str | Backbone = "compact",
        config: Mapping[str, Any] | DiffusionConfig | None = None,
        device: str | None = None,
        memory: int | None = None,
        runtime: Runtime = "torch",
        **options: Any,
    ) -> None:
        """`device` ("cpu", "cuda") and `memory` (8, 12, 16, 24 GiB) place the backbone; see Backbone.place. `runtime`
        computes the denoiser when images are made: "torch", or "openvino" on the CPU; see diffusion.compiled.
        """
        super().__init__(**options)
        self.config: Any = config if isinstance(config, self.Config) else self.parse_config(dict(config or {}))
        self.backbone = backbone if isinstance(backbone, Backbone) else Backbone.from_pretrained(backbone).freeze()
        self.batch = BATCH  # windows per forward pass
        if device is not None or memory is not None:
            self.backbone.place(device or "cpu", memory)
        self.compiled = compiled(self.backbone, runtime)
        self.adapters: dict[str, str] = {}  # "category/defect" -> name of the attached adapter
        self.lora: dict[
            str, nn.Parameter
        ] = {}  # the shared adapter of a method that learns one model, once it is trained
        named = backbone if isinstance(backbone, str) else backbone.source
        self.card: dict[str, Any] = {"method": self.name, "backbone": named, "learned": {}}
        self.folder: Path | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.build()
        if device is not None or memory is not None:
            own = [*self.trainable().values(), *self.encoders().values()]
            self.batch = batch_that_fits(self.backbone, BATCH, beside=sum(weight_bytes(module) for module in own))

    @classmethod
    def parse_config(cls, given: dict[str, Any]) -> DiffusionConfig:
        """Check a Config and fill in defaults. Raises FlawsmithError naming the field."""
        return validated(cls.Config, given, "Setting", f"of {cls.name}'s config")

    @classmethod
    def parse_options(cls, given: dict[str, Any], base: base.Options | None = None) -> base.Options:
        """As every method's; "sampling" names a set of options, on which the others given come on top."""
        rest = dict(given)
        name = rest.pop("sampling", None)
        if name is None:
            return super().parse_options(rest, base)
        presets = {key: preset["options"] for key, preset in cls.presets.items() if "options" in preset}
        known: dict[str, dict[str, Any]] = {"fast": FAST, "reference": REFERENCE, **presets}
        if not isinstance(name, str) or name not in known:
            raise unknown("Sampling", str(name), known, f"of {cls.name}")
        return super().parse_options({**known[name], **rest}, base)

    def types(self, category: str, shown: Sequence[str] = ()) -> tuple[str, ...]:
        return tuple(shown)

    def default_category(self) -> str:
        """The one category that it has learned, if it is one."""
        known = {name.split("/", 1)[0] for name in self.card["learned"]}
        return known.pop() if len(known) == 1 else ""

    def default_mask(self, defect_type: str) -> str:
        return "varied" if self.options.follows else "reference"

    def spread(self, exemplars: Iterable[Sample], parts: Sequence[str], options: Any = None) -> Spread | None:
        """Only of what follows a real defect: what begins from noise is as strong as the method makes it."""
        return super().spread(exemplars, parts, options) if (options or self.options).follows else None

    @property
    def reference_count(self) -> int:
        """As of `analogy`; a method that blends its references reads one where nobody asks for more."""
        return Analogy.shown if self.options.follows and self.references == "none" else 1

    def default_caption(self, category: str, defect_type: str) -> str:
        return "" if self._told_by_name(category, defect_type) else super().default_caption(category, defect_type)

    def _told_by_name(self, category: str, defect_type: str) -> bool:
        """Whether a type's name alone says what to paint: nothing of this name was learned, and it tells a kind."""
        learned = self.learns == "model" or f"{category}/{defect_type}" in self.card["learned"]
        return not learned and bool(captions.kinds_of(defect_type))

    def seen(self) -> dict[str, str]:
        return {name: sha for entry in self.card["learned"].values() for name, sha in entry["support"].items()}

    # -- what a method that learns one model adds ----------------------------------------------------------------------

    def build(self) -> None:
        """Make the method's own modules; called once, with torch's generator seeded by the config."""

    def trainable(self) -> dict[str, nn.Module]:
        """The method's own modules by name: what the optimiser and the checkpoint see. The backbone is not among
        them.
        """
        return {}

    def encoders(self) -> dict[str, nn.Module]:
        """The method's own frozen models by name: readers, feature extractors."""
        return {}

    def extend(self, support: Mapping[str, Sequence[Sample]]) -> None:
        """Make room for new names ("category/defect_type"), starting from their support images; those are empty
        where weights will be loaded next.
        """

    def own(self, name: str) -> list[str]:
        """Parameters (as in `parameters`) that belong to one name alone: what adding it to a finished run trains."""
        return []

    def begin(self) -> None:
        """Start from the files that the config names; called once, before the first fit."""

    def training_condition(self, batch: Batch, t: Tensor) -> Conditioning:
        """What `prepare` and `condition` give for requests, for a training batch, with gradients. Rows of
        `batch.dropped` get the unconditional tokens in place of the method's own.
        """
        raise FlawsmithError(f"Method {self.name} has nothing of its own to train.")

    def parameters(self) -> dict[str, nn.Parameter]:
        """Everything that is trained, by name: "module.parameter", and the shared adapter's."""
        parts = self.trainable().items()
        found = {f"{part}.{name}": p for part, module in parts for name, p in module.named_parameters()}
        return {**found, **self.lora}

    def add_lora(self) -> None:
        """Attach the config's shared adapter to the denoiser, fresh."""
        if self.config.lora_rank and not self.lora:
            self.lora = add_adapter(self.backbone, "shared", self.config.lora_rank, self.config.seed)

    # -- disk ------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, folder: str | Path, **place: Any) -> DiffusionSynthesizer:
        """Load a run's card, its backbone and what it learned; `device` and `memory` as for a new one. Raises
        FlawsmithError when the backbone is another one.
        """
        from flawsmith.methods.diffusion import runs

        return runs.load(cls, Path(folder), **place)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the card and what was learned; the backbone is named, with its fingerprint, not copied."""
        from flawsmith.methods.diffusion import runs

        runs.save(self, Path(folder))

    # -- the three hooks ---------------------------------------------------------------------------------------------

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

    def remember(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What the card keeps of a learned type's images, beside the weights."""
        return {}

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

    # -- generation --------------------------------------------------------------------------------------------------

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

    def _painted(self, requests: Sequence[Request], chosen: Any) -> list[Sample]:
        canvases = [self._canvas(request, chosen) for request in requests]
        for members in self._groups(canvases):
            with merged(self.backbone.unet):
                for turn in range(max(len(canvas.tiles) for canvas in members)):
                    # what the tiles before have painted whole needs no further one
                    left = [c for c in members if turn < len(c.tiles) and (not turn or self._hole(c, turn).any())]
                    self._round(left, turn, chosen)
        with ThreadPoolExecutor(min(len(canvases), os.cpu_count() or 1) or 1) as pool:  # 40 ms each at 512 px
            return list(pool.map(lambda canvas: self._finish(canvas, chosen), canvases))

    def _paint(self, chunk: Sequence[Canvas], turn: int, options: Any) -> None:
        """Paint one tile of each canvas; in smaller parts, from now on, where the memory does not suffice."""
        views = [resized(c.pixels, self._hole(c, turn), c.tiles[turn], self.backbone.size, keep=True) for c in chunk]
        seeds = [(c.request.seed + 7919 * turn) & (2**63 - 1) for c in chunk]
        starts = [
            view[0] if c.start is None else resized(c.start, c.mask, c.tiles[turn], self.backbone.size)[0]
            for c, view in zip(chunk, views, strict=True)
        ]
        if chunk[0].start is None and options.start != "normal":
            starts = []  # there is nothing to begin from
        drafts = [
            None if c.draft is None else resized(c.draft, c.mask, c.tiles[turn], self.backbone.size)[0] for c in chunk
        ]
        try:
            painted = self._sampled([c.request for c in chunk], views, starts, drafts, seeds, options)
        except torch.OutOfMemoryError:
            painted = None
        if painted is None:  # not inside `except`, where the error keeps the tensors alive
            self.batch = halved(len(chunk), "painting")
            self._round(chunk, turn, options)
            return
        for canvas, (context, _), window in zip(chunk, views, painted, strict=True):
            paste(canvas, turn, context, window, options)

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

    def _canvas(self, request: Request, options: Any) -> Canvas:
        by_name = self._told_by_name(request.normal.category, request.defect_type)
        return cut(request, self.backbone, options, by_name)

    @staticmethod
    def _hole(canvas: Canvas, turn: int) -> np.ndarray:
        """What this tile paints: the mask, less what earlier tiles finished (it is context now)."""
        left = canvas.mask & ~canvas.done
        return left if turn else canvas.mask

    def divisible(self, options: Any) -> bool:
        """Whether several threads may ask the denoiser at a time: not where a batch leaves its own marks in it."""
        return True

    def _sampled(
        self,
        requests: list[Request],
        views: list[tuple[np.ndarray, np.ndarray]],
        starts: list[np.ndarray],
        drafts: list[np.ndarray | None],
        seeds: list[int],
        options: Any,
    ) -> np.ndarray:
        """As `_sample`; where torch computes a small network, a part of the windows in each thread.

        Even one window then has one thread within an operation, so that it gets the same pixels in any batch.
        """

        def part(rows: slice) -> np.ndarray:
            return self._sample(requests[rows], views[rows], starts[rows], drafts[rows], seeds[rows], options)

        device, count = self.backbone.device, len(views)
        small = self.backbone.codec is not None and device.type == "cpu" and self.denoiser(options) is None
        if not small or not self.divisible(options):
            return part(slice(count))
        threads = threads_for(device, count)
        size = math.ceil(count / threads)
        parts = [partial(part, slice(first, first + size)) for first in range(0, count, size)]
        return np.concatenate(list(computed(parts, threads, within=1)))

    def _sample(
        self,
        requests: list[Request],
        views: list[tuple[np.ndarray, np.ndarray]],
        starts: list[np.ndarray],
        drafts: list[np.ndarray | None],
        seeds: list[int],
        options: Any,
    ) -> np.ndarray:
        """Windows (B, S, S, 3) uint8 painted inside their masks."""
        backbone, device = self.backbone, self.backbone.device
        image = tensors.from_images([v[0] for v in views]).to(device)
        mask = tensors.from_masks([v[1] for v in views]).to(device)
        side = backbone.size // backbone.factor
        noise = draw_noise(seeds, (backbone.latent_channels, side, side), device)
        blend = backbone.input_kind == "blend"
        with torch.no_grad():
            prepared = self.prepare(requests, mask, options)
            null = self.unconditional(len(views)) if options.guidance_scale != 1 else None
            latents = denoise(
                self.denoiser(options) or backbone.unet,
                backbone.sampler(options.sampler, options.eta),
                lambda t: self.condition(prepared, t),
                noise,
                extra=backbone.inpaint_input(
                    image, mask, [None if d is None else tensors.from_images([d])[0] for d in drafts]
                ),
                unconditional=None if null is None else lambda t: null,
                guidance_scale=options.guidance_scale,
                guidance_floor=options.guidance_floor,
                num_inference_steps=options.steps,
                timesteps=backbone.timesteps(options.steps, options.eta),
                eta=options.eta,
                step_noise=lambda i: draw_noise([seed + 104_729 * (i + 1) for seed in seeds], noise.shape[1:], device),
                start=backbone.encode(tensors.from_images(starts).to(image.device)) if starts else None,
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
