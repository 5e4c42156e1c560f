"""Frozen features of captions and of masked defects: from the compact backbone itself, or from a CLIP model.

Both offer `text(captions) -> (B, F)`, zeros for an empty caption, and `image(image, mask) -> (B, G)` of (B, 3, S, S) in
[-1, 1] and (B, 1, S, S) in {0, 1}.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flawsmith.diffusion import tensors
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.sentences import Sentences
from flawsmith.errors import FlawsmithError

__all__ = ["ClipFeatures", "OwnFeatures"]


class OwnFeatures:
    """The compact backbone's: sentences from the static word table, images from the reference encoder and reader.

    `image` gives the reader's tokens for the image alone, flattened: they are tokens the denoiser already reads.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.text_width = int(backbone.text_encoder.table.width)
        self.tokens = int(backbone.reader.queries.shape[0])
        self.image_width = self.tokens * backbone.context_width

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> Tensor:
        ids, valid = self.backbone.tokenizer(list(captions))
        device = self.backbone.device
        found: Tensor = self.backbone.text_encoder.table.pool(ids.to(device), valid.to(device))
        return found

    @torch.no_grad()
    def image(self, image: Tensor, mask: Tensor) -> Tensor:
        pairs = list(zip(image, mask, strict=True))
        return self.backbone.context([""] * len(pairs), pairs)[:, -self.tokens :].flatten(1)


class ClipFeatures:
    """CLIP's projected text and image features, as in the paper (ViT-B/32). A folder, or a hub id."""

    def __init__(self, name: str, device: torch.device) -> None:
        from transformers import AutoTokenizer, CLIPModel

        try:
            self.model: Any = CLIPModel.from_pretrained(name).eval().requires_grad_(False).to(device)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise FlawsmithError(
                f"CLIP model {name!r} cannot be read ({str(error).splitlines()[0]}): give a folder in transformers "
                f"format{'' if Path(name).exists() else ', or a hub id that can be fetched'}."
            ) from error
        self.device = device
        self._sentences = Sentences(self._encoded)
        self.text_width = self.image_width = int(self.model.config.projection_dim)

    def text(self, captions: Sequence[str]) -> Tensor:
        return torch.stack(self._sentences(captions)).to(self.device)

    @torch.no_grad()
    def _encoded(self, captions: Sequence[str]) -> Iterator[Tensor]:
        """In float32 whatever the caller's autocast: kept sentences serve training and painting."""
        length = int(self.model.config.text_config.max_position_embeddings)
        with torch.autocast(self.device.type, enabled=False):
            for caption in captions:
                ids = self.tokenizer(
                    [caption], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
                ).to(self.device)
                states = self.model.text_model(input_ids=ids.input_ids, attention_mask=ids.attention_mask)
                yield self.model.text_projection(states.pooler_output)[0] * float(bool(caption))

    @torch.no_grad()
    def image(self, image: Tensor, mask: Tensor) -> Tensor:
        """Of x * m: outside the mask the image is grey, CLIP's own mean."""
        side = int(self.model.config.vision_config.image_size)
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        seen = tensors.resize(tensors.normalise(image, mean, std) * mask, side)
        states = self.model.vision_model(pixel_values=seen.to(self.device))
        return self.model.visual_projection(states.pooler_output)
