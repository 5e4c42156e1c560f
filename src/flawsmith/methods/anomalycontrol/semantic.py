"""CSM: a frozen vision-language reader turns an image of a defect and a sentence about it into query states.

Two readers with one interface: the small one inside the compact backbone, and BLIP-2's image-text model. Queries and
words share one self-attention, queries look at the image; the semantic feature is the mean of the queries' states.

Reference: He et al. 2024 (AnomalyControl), cross-modal semantic modeling; Li et al. 2023 (BLIP-2), stage 1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flawsmith.diffusion import tensors
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.compact.reference import GRID
from flawsmith.errors import FlawsmithError

__all__ = ["Blip2Reader", "CompactReader", "Prompt", "SemanticModeling", "digest"]

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MAX_WORDS = 64  # word pieces of a reference text


@dataclass(frozen=True)
class Prompt:
    """B references, encoded once: what ASEA adds to, and how the sum is read."""

    visual: Tensor  # e_v (B, N, V), detached
    read: Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]]  # e_g -> states (B, Q, E), maps (B, heads, Q, N)


class SemanticModeling(Protocol):
    """What a reader is. All of its weights are frozen."""

    size: int  # side of the images it sees
    grid: tuple[int, int]  # its visual tokens form this grid, behind `prefix` others
    prefix: int
    queries: int
    width: int  # E

    def reading(self) -> AbstractContextManager[None]:
        """Around every `prompt` and what is read from it: the reader is on its device and computes in float32, in
        training as in painting.
        """
        ...

    def prompt(self, images: Tensor, masks: Tensor, texts: Sequence[str]) -> Prompt:
        """images (B, 3, S, S) in [-1, 1], masks (B, 1, S, S) in {0, 1}, one text each."""
        ...

    def fingerprint(self) -> str:
        """Names these weights in cache keys and on cards."""
        ...


def digest(*modules: nn.Module) -> str:
    """16 hex digits over names, shapes and the first values of all weights."""
    found = hashlib.sha256()
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            found.update(f"{name} {tuple(value.shape)}".encode())
            found.update(value.detach().reshape(-1)[:64].float().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


class CompactReader:
    """The compact backbone's own reference encoder and Q-Former-shaped reader; the mask is one of its inputs."""

    def __init__(self, backbone: Backbone) -> None:
        if backbone.reader is None or backbone.reference is None:
            raise FlawsmithError(
                f"Backbone {backbone.source} has no reader of its own: name one, --set reader=FOLDER with BLIP-2, or "
                "a hub id."
            )
        self.backbone = backbone
        self.size, self.grid, self.prefix = backbone.size, (GRID, GRID), 1
        self.queries, self.width = (int(n) for n in backbone.reader.queries.shape)

    def reading(self) -> AbstractContextManager[None]:
        return torch.autocast(self.backbone.device.type, enabled=False)  # it lives in the backbone

    def prompt(self, images: Tensor, masks: Tensor, texts: Sequence[str]) -> Prompt:
        backbone = self.backbone
        with torch.no_grad():
            visual = backbone.reference(images.to(backbone.device), masks.to(backbone.device))  # (B, 65, V)
            words, keep = backbone.text_tokens(texts)
        return Prompt(visual, lambda e_g: backbone.reader.features(visual, words, keep, e_g))

    def fingerprint(self) -> str:
        return digest(self.backbone.reference, self.backbone.reader, self.backbone.text_encoder)


class Blip2Reader:
    """transformers' `Blip2ForImageTextRetrieval`: the joint query-and-text pass of its matching branch."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """`model` must use the eager attention implementation, the only one that returns its maps."""
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        vision = model.config.vision_config
        size = vision.image_size
        self.size = int(size if isinstance(size, int) else size[0])
        self.grid, self.prefix = (self.size // vision.patch_size,) * 2, 1
        self.queries, self.width = (int(n) for n in model.query_tokens.shape[1:])
        self.device, self.visits = torch.device("cpu"), False

    @classmethod
    def from_pretrained(cls, folder_or_id: str | Path) -> Blip2Reader:
        """A local folder, or a hub id, which is fetched when it is not on this machine."""
        from transformers import AutoTokenizer, Blip2ForImageTextRetrieval

        try:
            model = Blip2ForImageTextRetrieval.from_pretrained(
                folder_or_id, attn_implementation="eager", dtype=torch.float32, use_safetensors=True
            )
            tokenizer = AutoTokenizer.from_pretrained(folder_or_id)
        except (OSError, ValueError, KeyError) as error:
            raise FlawsmithError(
                f"Reader {str(folder_or_id)!r} is no BLIP-2 image-text model that can be loaded ({error}): give a "
                "folder with its config, safetensors and tokenizer, or the hub id Salesforce/blip2-itm-vit-g."
            ) from error
        return cls(model, tokenizer)

    def settle(self, device: torch.device, visits: bool) -> None:
        """Where it reads; with `visits` its weights are there only while it does."""
        self.device, self.visits = device, visits
        self.model.to("cpu" if visits else device)

    @contextmanager
    def reading(self) -> Iterator[None]:
        self.model.to(self.device)
        try:
            with torch.autocast(self.device.type, enabled=False):
                yield
        finally:
            if self.visits:
                self.model.to("cpu")

    def prompt(self, images: Tensor, masks: Tensor, texts: Sequence[str]) -> Prompt:
        model, count = self.model, self.queries
        device = model.query_tokens.device
        with torch.no_grad():
            pixels = tensors.normalise(tensors.resize(images, self.size).clamp(-1, 1), CLIP_MEAN, CLIP_STD)
            visual = model.vision_model(pixel_values=pixels.to(device)).last_hidden_state  # (B, 257, 1408)
            batch = self.tokenizer(
                [plain(text) for text in texts],
                padding=True,
                truncation=True,
                max_length=MAX_WORDS,
                return_tensors="pt",
            ).to(device)
            asked = model.query_tokens.expand(len(images), -1, -1)
            joined = model.embeddings(input_ids=batch.input_ids, query_embeds=asked)  # (B, 32 + L, 768)
            keep = torch.cat([batch.attention_mask.new_ones(len(images), count), batch.attention_mask], 1)

        def read(e_g: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            found = model.qformer(
                query_embeds=joined,
                query_length=count,
                attention_mask=keep,
                encoder_hidden_states=visual + e_g,
                output_attentions=True,
            )
            return found.last_hidden_state[:, :count], tuple(found.cross_attentions)

        return Prompt(visual, read)

    def fingerprint(self) -> str:
        return digest(self.model.vision_model, self.model.qformer, self.model.embeddings)


def plain(text: str) -> str:
    """BLIP's caption clean-up: lower case, these marks become spaces, commas stay."""
    return " ".join(re.sub(r"[.!\"()*#:;~]", " ", text.lower()).split())
