"""AnomalyXFusion: one model for many defect types, steered by caption, mask and a learned texture per type.

Tokens of the three modalities are fused (MIF), re-tuned at every step (DDF) and inserted into what the frozen denoiser
attends to. Reference: AnomalyXFusion, arXiv 2404.19444; docs/methods/anomalyxfusion.md lists what differs and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from flawsmith.diffusion import tensors
from flawsmith.diffusion.batch import Batch
from flawsmith.diffusion.compiled import Compiled
from flawsmith.diffusion.denoise import Conditioning
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.methods import base
from flawsmith.methods.anomalyxfusion.dif_fusion import DifFusion
from flawsmith.methods.anomalyxfusion.features import ClipFeatures, OwnFeatures
from flawsmith.methods.anomalyxfusion.in_fusion import InFusion
from flawsmith.methods.anomalyxfusion.location import COUNT, LocationEncoder, PaperLocationEncoder
from flawsmith.methods.anomalyxfusion.reweighting import reweighted
from flawsmith.methods.anomalyxfusion.tokens import NullTokens, SemanticTokens, TextureTokens
from flawsmith.methods.base import Learns
from flawsmith.methods.diffusion.appearance import AppearanceStats, appearance_of
from flawsmith.methods.diffusion.canvas import Canvas
from flawsmith.methods.diffusion.options import DiffusionConfig, DiffusionOptions
from flawsmith.methods.diffusion.painting import Views
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.records import Request, Sample

PROMPTS = (  # {} is where the tokens go, or "a defect"; sampling uses the first
    "a photo of {}",
    "a close-up photo of {}",
    "a photo of a part with {}",
    "a cropped photo of {}",
    "a sharp photo of {}",
    "an inspection photo that shows {}",
)
PLACEHOLDER = "*"
LOOKS = 12  # per type, on a run's card


class XFusionConfig(DiffusionConfig):
    """Architecture of AnomalyXFusion."""

    tokens: int = Field(4, ge=1, le=32, description="tokens per learned group, k")
    text: bool = Field(True, description="semantic tokens, and the caption in the prompt")
    in_fusion: bool = Field(True, description="MIF; without it the groups are only concatenated")
    dif_fusion: Literal["film", "concat", "off"] = Field("film", description="DDF, in either reading of the paper")
    location: Literal["compact", "paper"] = Field("compact", description="mask encoder; paper = IR-50 with four heads")
    insertion: Literal["auto", "context", "before_encoder"] = Field(
        "auto", description="append to the text encoder's output, or replace the prompt's placeholder before it"
    )
    prompt: Literal["caption", "template"] = Field("caption", description="what the backbone's own text encoder reads")
    clip: str = Field("", description="CLIP folder or hub id for text and image features; '' = the backbone's own")


class XFusionOptions(DiffusionOptions):
    """Dials of AnomalyXFusion."""

    guidance_floor: float = Field(
        0.0, ge=0, description="noise over signal up to which steps go unguided; 0 = all are guided, as in the paper"
    )
    reweight: bool = Field(False, description="listen more to the inserted tokens where the image still looks normal")


@dataclass
class Fused:
    """What is computed once for a whole sampling."""

    text: Tensor  # (B, L, D); with `before_encoder` X stands in it already, ...
    first: Tensor | None  # ... from the places (B,) on, which the prompts decide; None = behind the text
    x: Tensor  # (B, N, D), re-tuned at every step
    dropped: Tensor  # (B,) bool: rows whose tokens are the null ones, which are the same at every step


def _places(first: Tensor, x: Tensor) -> Tensor:
    """Index (B, N, D) of the tokens x (B, N, D) from the places `first` (B,) on."""
    return (first[:, None] + torch.arange(x.shape[1], device=x.device))[..., None].expand_as(x)


class AnomalyXFusion(DiffusionSynthesizer):
    """Paints the defect types it was trained on, one model for all of them."""

    name = "anomalyxfusion"
    learns: ClassVar[Learns] = "model"
    Config: ClassVar[type[DiffusionConfig]] = XFusionConfig
    Options: ClassVar[type[base.Options]] = XFusionOptions
    presets: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "default": {
            "fit": {"steps": 600, "drop_text": 0.1, "drop_tokens": 0.05, "drop_both": 0.1, "mask_steps": 250},
            "config": {"lora_rank": 8},
        },
        "paper": {
            "fit": {
                "batch_size": 4,
                "learning_rate": 1e-3,
                "name_rate": 20.0,  # 0.02 for the table: 5e-3, scaled by the batch
                "weight_decay": 0.0,
                "beta2": 0.999,
                "schedule": "constant",
                "warmup": 0,
                "ema": 0.0,
                "patience": 0,
                **dict.fromkeys(("normal", "drawn", "drop_text", "drop_tokens", "drop_both"), 0.0),
                **dict.fromkeys(("outside", "edges", "colour", "snr_cap"), 0.0),
                "widen": 0,
                "loss_norm": "all",
            },
            "config": {"lora_rank": 0, "prompt": "template"},
            "options": {"sampler": "ddim", "steps": 200, "eta": 1.0, "guidance_scale": 1.0, "start": "noise"},
        },
    }

    # -- parts -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        config, backbone, width = self.config, self.backbone, self.backbone.context_width
        own = backbone.reader is not None and not config.clip
        if not own and not config.clip:
            raise FlawsmithError(
                f"Backbone {backbone.source} has no features of its own for captions and images: name a CLIP model, "
                "for example --set clip=openai/clip-vit-base-patch32, or a folder with one."
            )
        self.features = OwnFeatures(backbone) if own else ClipFeatures(config.clip, backbone.device)
        bert = type(backbone.text_encoder).__name__ == "LDMBertModel"
        self.insertion = config.insertion if config.insertion != "auto" else ("before_encoder" if bert else "context")
        if self.insertion == "before_encoder" and not bert:
            raise FlawsmithError(
                f"insertion=before_encoder needs a text encoder that takes embeddings (LDM text2img-large), "
                f"{backbone.source} has none: use insertion=context."
            )
        appearance = self.features.tokens if isinstance(self.features, OwnFeatures) else config.tokens
        self.sizes = [appearance, COUNT, *([config.tokens] if config.text else [])]
        # The compact backbone has places for what a reference says: there the texture tokens stand, and null ones are
        # its own "no reference". Elsewhere texture starts from a word, and null from nothing.
        word = torch.zeros(1, width) if own else self._word("anomaly")
        null = torch.zeros(sum(self.sizes), width)
        if own:
            null[:appearance] = backbone.reader.absent(1)[0]
        self.texture = TextureTokens(word.expand(appearance, -1), self.features.image_width, identity=own)
        self.null = NullTokens(null)
        self.location = PaperLocationEncoder(width) if config.location == "paper" else LocationEncoder(width)
        self.semantic = SemanticTokens(self.features.text_width, width, config.tokens) if config.text else None
        if own and isinstance(self.location, LocationEncoder):
            # The compact denoiser also pools its context, normalised, into every layer: tokens a little off zero would
            # shout there before they have anything to say. From exact zeros it starts within 0.2 % of the backbone
            # itself: zero tokens have nothing to say, but take their share of the attention.
            for project in (self.location.project, *([self.semantic.project] if self.semantic else [])):
                nn.init.zeros_(project.weight)
        heads = 8 if width >= 512 else 4
        self.in_fusion = InFusion(width, self.sizes, heads) if config.in_fusion else None
        self.dif_fusion = DifFusion(width, self.sizes, config.dif_fusion) if config.dif_fusion != "off" else None
        for module in self.trainable().values():
            module.to(backbone.device)

    @torch.no_grad()
    def _word(self, word: str) -> Tensor:
        """A word as the inserted tokens' kind of vector, (1, D)."""
        if self.insertion == "before_encoder":
            ids = self.backbone.tokenizer(word, add_special_tokens=False, return_tensors="pt").input_ids
            embedded: Tensor = self.backbone.text_encoder.model.embed_tokens(ids.to(self.backbone.device))
            return embedded[0].mean(0, keepdim=True)
        return self.backbone.encode_text([word])[0, 1:2]  # after the token that starts, or sums up, the sentence

    def trainable(self) -> dict[str, nn.Module]:
        names = ("texture", "location", "semantic", "in_fusion", "dif_fusion", "null")
        return {name: module for name in names if (module := getattr(self, name)) is not None}

    def encoders(self) -> dict[str, nn.Module]:
        return {"clip": self.features.model} if isinstance(self.features, ClipFeatures) else {}

    def extend(self, support: Mapping[str, Sequence[Sample]]) -> None:
        for name, samples in support.items():
            feature = None
            if samples:
                image, mask = zip(*(self.reference_window(sample) for sample in samples), strict=True)
                device = self.backbone.device
                feature = self.features.image(torch.stack(image).to(device), torch.stack(mask).to(device)).mean(0)
            self.texture.add(name, feature)

    def remember(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The looks of up to LOOKS images, so that contrast and colours are known where no defect image is."""
        return {"appearances": [asdict(appearance_of(sample)) for sample in samples if sample.mask.any()][:LOOKS]}

    def appearance(self, canvas: Canvas) -> AppearanceStats | None:
        """Of the request's reference where it has one, else one of those that the card remembers."""
        shown, request = super().appearance(canvas), canvas.request
        if shown is not None:
            return shown
        learned = self.card["learned"].get(self.known(request.normal.category, request.defect_type), {})
        appearances = learned.get("appearances", ())
        return AppearanceStats(**appearances[request.seed % len(appearances)]) if appearances else None

    def own(self, name: str) -> list[str]:
        return [f"texture.table.{self.texture.index(name)}"]

    # -- conditioning ------------------------------------------------------------------------------------------------

    def fuse(self, captions: Sequence[str], names: Sequence[str], masks: Tensor) -> Tensor:
        """The embedding X (B, N, D): texture, location and semantic tokens, fused."""
        null = self.null()
        groups = [self.texture(names, null[: self.sizes[0]]), self.location(masks)]
        if self.semantic is not None:
            groups.append(self.semantic(self.features.text(captions)))
        e = torch.cat([group.float() for group in groups], 1)
        return e if self.in_fusion is None else self.in_fusion(e)

    def insert(
        self, captions: Sequence[str], x: Tensor, dropped: Tensor, templates: Sequence[str] | None = None
    ) -> Fused:
        """X beside the prompt's own tokens, one of PROMPTS per row; null tokens in its place in `dropped` rows."""
        templates = templates or PROMPTS[:1] * len(x)
        x = torch.where(dropped[:, None, None], self.null().to(x.dtype), x)
        if self.insertion == "before_encoder":
            encoded, first = self._encode_with([template.format(PLACEHOLDER) for template in templates], x)
            return Fused(encoded, first, encoded.gather(1, _places(first, x)), dropped)
        said = self.config.prompt == "caption" and self.config.text
        words = [(c if said else p.format("a defect")) if c else "" for c, p in zip(captions, templates, strict=True)]
        own = isinstance(self.features, OwnFeatures)  # then texture tokens stand where "no reference" would
        text = self.backbone.encode_text(words) if own else self.backbone.context(words)
        return Fused(text, None, x, dropped)

    def _encode_with(self, prompts: Sequence[str], x: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts encoded with X in their placeholders' places, cut to the encoder's length; and where X begins."""
        tokenizer, encoder = self.backbone.tokenizer, self.backbone.text_encoder
        length = int(encoder.config.max_position_embeddings)
        ids = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True).input_ids
        first = [row.index(tokenizer.convert_tokens_to_ids(PLACEHOLDER)) for row in ids]
        embedded = encoder.model.embed_tokens(torch.tensor(ids, device=x.device))
        rows = zip(embedded, x.to(embedded.dtype), first, strict=True)
        whole = torch.stack([torch.cat([row[:at], own, row[at + 1 :]])[:length] for row, own, at in rows])
        return encoder(inputs_embeds=whole)[0], torch.tensor(first, device=x.device)

    def condition(self, prepared: Any, t: Tensor) -> Conditioning:
        """X re-tuned for steps t (B,), beside the prompt's tokens or at its place among them."""
        x = prepared.x
        if self.dif_fusion is not None:
            x = torch.where(prepared.dropped[:, None, None], x, self.dif_fusion(x, t).to(x.dtype))
        if prepared.first is None:
            return Conditioning(torch.cat([prepared.text, x], 1))
        return Conditioning(prepared.text.scatter(1, _places(prepared.first, x), x))

    def training_condition(self, batch: Batch, t: Tensor) -> Conditioning:
        masks = tensors.from_masks(batch.mask).to(self.backbone.device)
        dropped = torch.tensor(batch.dropped, device=masks.device)
        x = self.fuse(batch.captions, batch.names, masks)
        templates = [PROMPTS[step % len(PROMPTS)] for step in t.tolist()]  # the row's own, however a batch is divided
        return self.condition(self.insert(batch.captions, x, dropped, templates), t)

    def prepare(self, requests: Sequence[Request], masks: Tensor, options: Any) -> Fused:
        names = [self.known(r.normal.category, r.defect_type) for r in requests]
        captions = [r.caption for r in requests]
        # a late tile may find its part painted already; what it then gives is not used
        masks = torch.where(masks.flatten(1).any(1)[:, None, None, None], masks, 1.0)
        none = torch.zeros(len(requests), dtype=torch.bool, device=masks.device)
        return self.insert(captions, self.fuse(captions, names, masks), none)

    def _nothing(self, count: int) -> Fused:
        x = self.null().expand(count, -1, -1)
        return self.insert([""] * count, x, torch.ones(count, dtype=torch.bool, device=x.device))

    def unconditional(self, count: int) -> Conditioning:
        nothing = self._nothing(count)
        return self.condition(nothing, torch.zeros(count, dtype=torch.long, device=nothing.x.device))

    # -- generation --------------------------------------------------------------------------------------------------

    def types(self, category: str, shown: Sequence[str] = ()) -> tuple[str, ...]:
        """The types this run has learned for a category, or for all where it does not know the category."""
        if not self.texture.names:
            raise FlawsmithError(
                "anomalyxfusion has learned no defect type yet: its texture tokens come from a few real defects. Run "
                "`flawsmith train anomalyxfusion --data READER:DIR --out RUN`, then `flawsmith generate RUN`."
            )
        pairs = [name.split("/", 1) for name in self.texture.names]
        found = [kind for own, kind in pairs if own == category]
        return tuple(dict.fromkeys(found or [kind for _, kind in pairs]))

    def check_type(self, category: str, defect_type: str) -> None:
        if defect_type not in self.types(category):
            raise unknown("Defect", defect_type, self.types(category), "in this run")

    def known(self, category: str, defect_type: str) -> str:
        """The name under which a defect type was learned; of another category when only one knows the type."""
        name = f"{category}/{defect_type}"
        if name in self.texture.names:
            return name
        self.types(category)
        others = [other for other in self.texture.names if other.split("/", 1)[1] == defect_type]
        if len(others) != 1:
            raise unknown("Defect", name, self.texture.names, "in this run")
        return others[0]

    def denoiser(self, options: Any) -> Compiled | None:
        """Re-weighting changes the attention at every step, by the image: a graph compiled once has no place for it."""
        return None if options.reweight else super().denoiser(options)

    def marked(self, views: Views, options: Any) -> AbstractContextManager[object] | None:
        if not options.reweight:
            return None
        backbone = self.backbone
        with torch.no_grad():
            normal = backbone.encode(tensors.from_images(views.images).to(backbone.device))
            mask = tensors.pool_mask(tensors.from_masks(views.masks), normal.shape[-1]).to(normal.device)
            nothing = self._nothing(1)
        first = nothing.text.shape[1] if nothing.first is None else int(nothing.first[0])
        return reweighted(backbone.unet, (first, first + sum(self.sizes)), normal, mask)
