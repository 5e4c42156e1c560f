"""AnomalyControl: paint the kind of defect that a text-image reference shows, on any material.

A frozen reader looks at the reference (CSM), is made to look at the defect (ASEA), and what it saw reaches the frozen
denoiser through a second cross-attention (SGA), the only trained part. One model for all categories; a reference it
never saw needs no training.

Reference: He et al. 2024, arXiv 2412.06510.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from flawsmith.captions import article, words
from flawsmith.diffusion import tensors
from flawsmith.diffusion.attention import SemanticAttention, attach, attached
from flawsmith.diffusion.batch import Batch
from flawsmith.diffusion.denoise import Conditioning
from flawsmith.errors import FlawsmithError
from flawsmith.methods.anomalycontrol.adapter import Resampler, SemanticProjection, load_ip_adapter
from flawsmith.methods.anomalycontrol.features import Asea, Reading, ReferenceFeatures, cache_folder, invisible, seen
from flawsmith.methods.anomalycontrol.semantic import Blip2Reader, CompactReader
from flawsmith.methods.base import Learns, References
from flawsmith.methods.diffusion.options import DiffusionConfig, DiffusionOptions, Start
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.records import Request, Sample


class AnomalyControlConfig(DiffusionConfig):
    """Architecture: fixed when a run begins, written on its card."""

    reader: str | None = Field(None, description="BLIP-2 folder or hub id; default: the backbone's own reader")
    pooling: Literal["mean", "resample"] = Field(
        "mean", description="mean of the query states, as in the paper, or a resampler that keeps several tokens"
    )
    tokens: int = Field(4, ge=1, le=32, description="tokens of the second cross-attention")
    context_reference: bool = Field(
        True, description="the backbone's own reader, where it has one, also speaks through the context"
    )
    asea: bool = Field(True, description="make the reader look at the defect, in training and ever after")
    ip_adapter: str | None = Field(None, description="IP-Adapter file (.safetensors) that training starts from")


class AnomalyControlOptions(DiffusionOptions):
    """Dials of a call."""

    start: Start = Field(
        "analogy",
        description="begin from noise, the normal, the reference laid in place, its texture in the mask (analogy), or "
        "a sketch",
    )
    guidance_floor: float = Field(
        0.0, ge=0, description="noise over signal up to which steps go unguided; 0 = all are guided, as in the paper"
    )
    adapter_scale: float = Field(
        1.0, ge=0, le=4, description="lambda: how much the reference counts; 0 = not at all, 1 = as trained"
    )
    asea: bool = Field(True, description="make the reader look at the defect, where the run was trained so")
    e_g_updates: int = Field(5, ge=1, le=100, description="steps of ASEA; 4 reproduces the released code's feature")
    cache: bool = Field(True, description="keep what was read of a reference on disk (FLAWSMITH_CACHE)")


class AnomalyControl(DiffusionSynthesizer):
    """Reference-guided synthesis: CSM and ASEA once per reference, SGA in every cross-attention layer."""

    name = "anomalycontrol"
    learns: ClassVar[Learns] = "model"
    references: ClassVar[References] = "many"
    Options: ClassVar[type[DiffusionOptions]] = AnomalyControlOptions
    Config: ClassVar[type[DiffusionConfig]] = AnomalyControlConfig
    presets: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "default": {
            "fit": {
                "reference": 1.0,
                "self_reference": 0.5,
                "drawn_reference": 1.0,
                "drop_text": 0.05,
                "drop_tokens": 0.05,
                "drop_both": 0.05,
            },
        },
        "paper": {  # section 4 of the paper as far as known, and the released training code
            "fit": {
                "self_reference": 1.0,
                "reference_views": 1,
                "normal": 0.0,
                "drawn": 0.0,
                "widen": 0,
                "batch_size": 8,
                "learning_rate": 1e-4,
                "weight_decay": 1e-2,
                "beta2": 0.999,
                "schedule": "constant",
                "warmup": 0,
                "ema": 0.0,
                "patience": 0,
                "loss_norm": "all",
                "outside": 1.0,
                "edges": 0.0,
                "colour": 0.0,
                "snr_cap": 0.0,
            },
            "config": {"context_reference": False},
            "options": {"sampler": "ddim", "steps": 50, "guidance_scale": 7.0, "start": "normal", "strength": 0.7},
        },
    }

    def build(self) -> None:
        backbone = self.backbone
        named = self.config.reader
        self.reader = CompactReader(backbone) if named is None else Blip2Reader.from_pretrained(named)
        if isinstance(self.reader, Blip2Reader):  # 1.2 G parameters, needed once per reference
            self.reader.settle(backbone.device, visits=backbone.preset is not None and backbone.preset.offload)
        self.features = ReferenceFeatures(self.reader, cache_folder())
        self.attention = SemanticAttention(backbone.unet)
        width, context = self.reader.width, backbone.context_width
        if self.config.pooling == "mean":
            hidden = 1024 if width == 768 else 2 * width  # IP-Adapter's own projection is 1024 wide
            self.projection: nn.Module = SemanticProjection(width, context, self.config.tokens, hidden)
        else:
            self.projection = Resampler(width, context, self.config.tokens)
        self.projection.to(backbone.device)
        # the backbone's own reader was pretrained with it, so its states also mean something as context tokens
        self.speaks = self.config.context_reference and named is None
        self.fitting = False

    @property
    def adapting(self) -> bool:
        """Whether the adapter has been trained, or is being trained: a fresh one has nothing to say and is left out."""
        return self.fitting or bool(self.card["learned"])

    def trainable(self) -> dict[str, nn.Module]:
        return {"attention": self.attention, "projection": self.projection}

    def contrast_strength(self, options: Any) -> float:
        """Fades with lambda: at 0 the image is the frozen backbone's."""
        return super().contrast_strength(options) * min(1.0, float(options.adapter_scale))

    def start(self, options: Any) -> dict[str, Any]:
        """Options that let the start fade with lambda, too: at 0 what the reference lends is all noise."""
        if options.start not in ("auto", "reference", "analogy"):
            return {}
        return {"strength": 1 - (1 - options.noised) * min(1.0, float(options.adapter_scale))}

    def encoders(self) -> dict[str, nn.Module]:
        resident = isinstance(self.reader, Blip2Reader) and not self.reader.visits
        return {"reader": self.reader.model} if resident and isinstance(self.reader, Blip2Reader) else {}

    def begin(self) -> None:
        if self.config.ip_adapter:
            load_ip_adapter(self.config.ip_adapter, self.projection, self.attention)

    # -- references --------------------------------------------------------------------------------------------------

    def check_reference(self, reference: Sample, name: str = "The reference") -> None:
        reason = invisible(reference, self.reader.size)
        if reason:
            raise FlawsmithError(f"{name} cannot be used: {reason}")

    def _asea(self, options: Any) -> Asea:
        return Asea(options.e_g_updates if options.asea and self.config.asea else 0)

    def read(self, requests: Sequence[Request], options: Any) -> list[list[Reading]]:
        """Per request one Reading for each of its references; CSM and ASEA run for those not known yet."""
        self.features.folder = cache_folder() if options.cache else None
        shown = [(request, reference) for request in requests for reference in references_of(request)]
        images = [seen(reference, self.reader.size) for _, reference in shown]
        texts = [reference_text(reference, request.normal.category) for request, reference in shown]
        found = iter(self.features(images, texts, self._asea(options)))
        return [[next(found) for _ in references_of(request)] for request in requests]

    # -- what the denoiser attends to --------------------------------------------------------------------------------

    def prepare(self, requests: Sequence[Request], masks: Tensor, options: Any) -> Conditioning:
        """The same at every step: the paper's condition does not depend on t. Several references are blended by the
        mean of their states.
        """
        states = torch.stack([torch.stack([r.states for r in found]).mean(0) for found in self.read(requests, options)])
        shown = torch.ones(len(requests), dtype=torch.bool)
        return self._conditioning([request.caption for request in requests], states, shown, options.adapter_scale)

    def unconditional(self, count: int) -> Conditioning:
        """No words and no reference, whose feature is zero."""
        nothing = torch.zeros(count, self.reader.queries, self.reader.width)
        return self._conditioning([""] * count, nothing, torch.zeros(count, dtype=torch.bool), 1.0)

    def training_condition(self, batch: Batch, t: Tensor) -> Conditioning:
        """Windows whose tokens are dropped, and those without a reference, get the feature zero."""
        self.fitting = True
        attach(self.backbone.unet, self.attention)
        used = {i: r for i, r in enumerate(batch.references) if r is not None and not batch.dropped[i]}
        rows, images = list(used), list(used.values())
        states = torch.zeros(len(batch.captions), self.reader.queries, self.reader.width)
        shown = torch.zeros(len(states), dtype=torch.bool)
        if rows:
            texts = [training_text(batch, i, int(t[i])) for i in rows]
            asea = Asea() if self.config.asea else Asea(0)
            if self.config.reader is None:  # quick, and no two windows are alike
                image, mask = (
                    tensors.from_images([p[0] for p in images]),
                    tensors.from_masks([p[1] for p in images]),
                )
                found = self.features.read(image, mask, texts, asea)
            else:
                found = self.features(images, texts, asea)
            states[rows], shown[rows] = torch.stack([r.states for r in found]), True
        return self._conditioning(batch.captions, states, shown, 1.0)

    def _conditioning(self, captions: Sequence[str], states: Tensor, shown: Tensor, weight: float) -> Conditioning:
        """captions of B targets, states (B, Q, E), shown (B,) bool: False where there is no reference."""
        backbone = self.backbone
        states, shown = states.to(backbone.device), shown.to(backbone.device)
        context = backbone.encode_text(captions)
        if backbone.reader is not None:
            tokens = backbone.reader.absent(len(context)).float()
            if self.speaks:  # lambda fades these, too: at 0 nothing of the reference is left
                share = min(weight, 1.0) * shown.float()[:, None, None]
                tokens = torch.lerp(tokens, backbone.reader.project(states).float(), share)
            context = torch.cat([context, tokens.to(context.dtype)], 1)
        return Conditioning(context, self.projection(states) if self.adapting else None, weight)

    # -- generation --------------------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request], **options: Any) -> list[Sample]:
        """As every method; the manifest's `info` gets what ASEA did for each request's references."""
        chosen: Any = self.parse_options(options, base=self.options)
        for request in requests:
            for reference in references_of(request):
                self.check_reference(reference)
        if not self.adapting and not self.speaks:
            raise FlawsmithError(
                f"{self.name} has learned nothing yet, and this backbone cannot read references by itself: train it "
                f"first, `flawsmith train {self.name} --data READER:DIR --out RUN`, and generate with RUN."
            )
        with attached(self.backbone.unet, self.attention) if self.adapting else nullcontext():
            samples = super().generate(requests, **{**options, **self.start(chosen)})
            readings = self.read(requests, chosen)
        return [
            replace(sample, info={**sample.info, "asea": asea_facts(found, self._asea(chosen))})
            for sample, found in zip(samples, readings, strict=True)
        ]


def references_of(request: Request) -> list[Sample]:
    """A request's references, at least one."""
    if request.reference is None:
        raise FlawsmithError(
            "anomalycontrol needs a reference defect with a mask: name a data set with defects (READER:DIR) or give "
            "--reference and --reference-mask."
        )
    return [request.reference, *request.others]


def asea_facts(readings: Sequence[Reading], asea: Asea) -> dict[str, Any]:
    """For the manifest: the energy before and after, one number per reference."""
    before, after = ([round(r.energy[place], 6) for r in readings] for place in (0, -1))
    return {"updates": asea.updates, "energy_before": before, "energy_after": after}


def reference_text(reference: Sample, category: str) -> str:
    """T_a: the reference's own caption on the same product; of another one, only the kind of defect."""
    if reference.caption and reference.category == category:
        return reference.caption
    return template(reference.defect_type)


def template(defect_type: str) -> str:
    """The paper's sentence for a reference: "This is an image with a broken large." """
    return f"This is an image with {article(words(defect_type) or 'defect')}."


def training_text(batch: Batch, row: int, step: int) -> str:
    """Captions at even diffusion steps, the template at odd ones, so that both are known when images are made."""
    name = batch.names[row].partition("/")[2]
    return template(name) if name and step % 2 else batch.words[row]
