"""Feature extractors: images to vectors, from any vision model in transformers format. Named and fingerprinted.

Numbers from two extractors are never comparable, so every key carries the extractor's name, and every report its
hash. No torchvision: images are resized here, antialiased, and only here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flawsmith.diffusion import tensors
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.compact import SHIPPED
from flawsmith.errors import FlawsmithError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
STATISTICS = {  # mean and spread in [0, 1], for folders without preprocessor_config.json
    "mobilenet_v1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "mobilenet_v2": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "vit": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
FIRST_TOKEN = ("vit", "deit")  # their pooler is an extra layer that many checkpoints leave untrained
LEVELS = 5  # feature maps of an image in a feature distance


@dataclass(frozen=True)
class Preprocessing:
    """Everything done to an image before the model sees it: resized to a square whole, never cropped."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "bicubic-antialias"


@dataclass(frozen=True)
class Features:
    """What an extractor saw in N images.

    pooled: (N, D) float32. logits: (N, K) float32 of a classifier, else None. maps: (N, M) float16 or None, the
    unit-normalised feature maps of several levels laid end to end and scaled so that the squared Euclidean distance of
    two rows is the feature distance: per level and position the squared distance of unit vectors, averaged over
    positions, then over levels (LPIPS without its learned weights; Zhang et al., CVPR 2018).
    """

    pooled: np.ndarray
    logits: np.ndarray | None = None
    maps: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pooled)

    def __getitem__(self, rows: Any) -> Features:
        """The images chosen by a slice or an index array."""
        chosen = [None if a is None else a[rows] for a in (self.pooled, self.logits, self.maps)]
        assert chosen[0] is not None
        return Features(chosen[0], chosen[1], chosen[2])


class Extractor:
    """A frozen vision model with its preprocessing. Call it with uint8 RGB images of any sizes."""

    def __init__(
        self,
        model: nn.Module,
        name: str,
        preprocessing: Preprocessing,
        smoke: bool = False,
        joint: tuple[nn.Module, Any] | None = None,
    ) -> None:
        # Convolutions on a CPU run a quarter faster with the channels last.
        self.model = model.float().eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.name, self.preprocessing = name, preprocessing
        self.smoke = smoke  # a figure of merit that proves little: ours, and it grew up with our generator
        self.joint = joint  # (model of images and words, tokenizer), where the extractor reads words
        self.hash = _fingerprint(self.model, preprocessing)

    def describe(self) -> dict[str, Any]:
        """What a report records about this extractor."""
        return {"name": self.name, "hash": self.hash, "smoke": self.smoke, **asdict(self.preprocessing)}

    def __call__(self, images: Sequence[np.ndarray], maps: bool = False, batch_size: int = 16) -> Features:
        """Features of N images (H, W, 3) uint8 RGB of any sizes; `maps` adds what feature distances need.

        Raises FlawsmithError when there is no image or one is not uint8 RGB.
        """
        if not len(images):
            raise FlawsmithError("An extractor needs at least one image.")
        pooled: list[Tensor] = []
        logits: list[Tensor] = []
        stacks: list[Tensor] = []
        for start in range(0, len(images), batch_size):
            batch = self._batch(images[start : start + batch_size])
            with torch.inference_mode():
                vectors, scores, levels = self._look(batch)
                pooled.append(vectors.float().cpu())
                logits += [] if scores is None else [scores.float().cpu()]
                stacks += [_unit(levels).half().cpu()] if maps else []
        return Features(
            torch.cat(pooled).numpy(),
            torch.cat(logits).numpy() if logits else None,
            torch.cat(stacks).numpy() if maps else None,
        )

    @torch.inference_mode()
    def levels(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        """Feature maps (N, C, h, w) float32 of N images on the model's device, the earliest first.

        A convolutional model's last map of each of its (at most five) coarsest resolutions, or a patch model's layers,
        evenly spaced, on their square grid.
        """
        found = self._look(self._batch(images))[2]
        grids = [one.unflatten(2, (-1, _side(one.shape[2]))) if one.ndim == 3 else one for one in found]
        return [one.float() for one in grids]

    def to(self, device: str) -> Extractor:
        """Move the model to a device; features come back to the CPU."""
        self.model.to(device)
        if self.joint is not None:
            self.joint[0].to(device)
        return self

    def at(self, size: int) -> Extractor:
        """The same weights with images brought to another size; itself where the model takes one size only."""
        if self.smoke or size == self.preprocessing.size or not _takes_any_size(self.model):
            return self
        name = f"{self.name.split('@')[0]}@{size}"
        return Extractor(self.model, name, replace(self.preprocessing, size=size))

    def agreement(self, images: Sequence[np.ndarray], words: Sequence[str], batch_size: int = 16) -> np.ndarray | None:
        """Cosines (N, K) float32 of N images with K texts, in [-1, 1]; None for a model that reads no words."""
        if self.joint is None:
            return None
        model, tokenizer = self.joint
        known = getattr(getattr(model.config, "text_config", None), "max_position_embeddings", None)
        longest = min(tokenizer.model_max_length, known or tokenizer.model_max_length)  # not every folder says both
        sides: list[Tensor] = []
        with torch.inference_mode():
            seen = [
                _embedding(model.get_image_features(pixel_values=self._batch(images[start : start + batch_size])))  # type: ignore[operator]
                for start in range(0, len(images), batch_size)
            ]
            device = next(model.parameters()).device
            read = []
            for start in range(0, len(words), 64):
                some = list(words[start : start + 64])
                tokens = tokenizer(some, padding=True, truncation=True, max_length=longest, return_tensors="pt").to(
                    device
                )
                read.append(_embedding(model.get_text_features(**tokens)))  # type: ignore[operator]
        for side in (seen, read):
            sides.append(nn.functional.normalize(torch.cat(side).float(), dim=-1))
        return (sides[0] @ sides[1].T).cpu().numpy()

    def _batch(self, images: Sequence[np.ndarray]) -> Tensor:
        given, size = self.preprocessing, self.preprocessing.size
        batch = torch.cat([tensors.resize(tensors.from_images([image]), size) for image in images]).clamp_(-1, 1)
        device = next(self.model.parameters()).device
        return tensors.normalise(batch.to(device, memory_format=torch.channels_last), given.mean, given.std)

    def _look(self, batch: Tensor) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """(B, 3, S, S) -> pooled (B, D), logits (B, K) or None, and the levels' feature maps (B, C, ...)."""
        model: Any = self.model
        prefix = getattr(model, "base_model_prefix", "")
        base = getattr(model, prefix, model) if prefix else model
        seen: list[Any] = []
        handle = base.register_forward_hook(lambda module, args, output: seen.append(output))
        try:
            found = model(pixel_values=batch, output_hidden_states=True, return_dict=True)
        finally:
            handle.remove()
        last, hidden = seen[-1].last_hidden_state, found.hidden_states
        pooled = getattr(seen[-1], "pooler_output", None)
        if last.ndim == 4:
            pooled = (last.mean((2, 3)) if pooled is None else pooled).flatten(1)
        elif pooled is None or model.config.model_type in FIRST_TOKEN:
            pooled = last[:, 0]
        return pooled, getattr(found, "logits", None), _levels(hidden)


class CompactExtractor(Extractor):
    """Our own reference encoder: for smoke tests only, since it grew up on the defects our generator paints."""

    def _look(self, batch: Tensor) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        tokens = self.model(batch, torch.ones_like(batch[:, :1]))
        return tokens[:, 0], None, [tokens[:, 1:].transpose(1, 2)]


def load(source: str | Path, size: int | None = None) -> Extractor:
    """An extractor from a folder in transformers format, a hub id, "compact", or a compact backbone's folder.

    `size` is the side in pixels that images are brought to, where the model takes several; its own by default, else
    it stands in the name ("...@96"), since such values are not comparable with others. Raises FlawsmithError when the
    model cannot be loaded or does not read images.
    """
    path = Path(source)
    if str(source) in SHIPPED or (path / "model_index.json").is_file():
        backbone = Backbone.from_pretrained(source)
        if backbone.reference is None:
            raise FlawsmithError(f"Backbone {source} has no reference encoder: name a folder with a vision model.")
        half = (0.5, 0.5, 0.5)  # the encoder takes images in [-1, 1]
        return CompactExtractor(backbone.reference, "compact-smoke", Preprocessing(backbone.size, half, half), True)
    import transformers

    transformers.logging.disable_progress_bar()  # for a tenth of a second
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        named = (getattr(config, "architectures", None) or [""])[0]
        classifies = named.endswith("ForImageClassification")
        kind: Any = transformers.AutoModelForImageClassification if classifies else transformers.AutoModel
        model = kind.from_pretrained(source, dtype=torch.float32, use_safetensors=True)
    except Exception as error:  # transformers raises a dozen kinds for a damaged folder
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise FlawsmithError(
            f"Extractor {source} cannot be loaded: {first}. Give a folder in transformers format, a hub id, "
            "or 'compact'."
        ) from error
    whole, model = model, getattr(model, "vision_model", model)
    given = getattr(config, "vision_config", config)
    if not hasattr(given, "num_channels"):
        raise FlawsmithError(f"Extractor {source} is a {config.model_type} model, which does not read images.")
    name = name_of(source)
    own = _preprocessing(source, given, config.model_type)
    if size is not None and size != own.size:
        name, own = f"{name}@{size}", replace(own, size=size)
    return Extractor(model, name, own, joint=_joint(source, whole))


def name_of(source: str | Path) -> str:
    """What keys call the model of a folder or hub id: "mobilenet-v2-1.0-224"."""
    path = Path(source)
    return (path.resolve().name if path.is_dir() else str(source).split("/")[-1]).lower().replace("_", "-")


def _joint(source: str | Path, model: nn.Module) -> tuple[nn.Module, Any] | None:
    """The model and its tokenizer where it puts words and images into one space (CLIP, SigLIP), else None."""
    if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
        return None
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, ImportError):
        return None  # a folder without its tokenizer still judges images
    return model.float().eval().requires_grad_(False), tokenizer


def _embedding(found: Any) -> Tensor:
    """transformers 5 wraps the projected features, 4 returns them bare."""
    embedding = found if isinstance(found, Tensor) else found.pooler_output
    assert isinstance(embedding, Tensor)
    return embedding


def _takes_any_size(model: nn.Module) -> bool:
    """Convolutional models do; patch models have learned positions of one grid."""
    return not hasattr(getattr(model, "config", None), "patch_size")


def _preprocessing(source: str | Path, config: Any, model_type: str) -> Preprocessing:
    """From preprocessor_config.json where there is one, else what this kind of model was trained with."""
    from transformers.utils import cached_file

    mean, std = STATISTICS.get(model_type, IMAGENET)
    size: Any = getattr(config, "image_size", 224)
    file = cached_file(str(source), "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    if file is not None:
        stated = json.loads(Path(file).read_text(encoding="utf-8"))
        mean, std = stated.get("image_mean", mean), stated.get("image_std", std)
        # The input is what remains after the usual crop; here the whole image is brought to that size.
        size = (stated.get("do_center_crop") and stated.get("crop_size")) or stated.get("size") or size
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge") or 224
    side = int(size[0] if isinstance(size, (list, tuple)) else size)
    return Preprocessing(side, tuple(map(float, mean)), tuple(map(float, std)))


def _levels(hidden: Sequence[Tensor]) -> list[Tensor]:
    """A few feature maps (B, C, ...) of a model: the last of each resolution, or evenly spaced transformer layers."""
    if hidden[-1].ndim == 4:
        by_size = {tuple(state.shape[2:]): state for state in hidden}
        return list(by_size.values())[-LEVELS:]
    later = list(hidden[1:]) or list(hidden)
    rows = sorted({round(place) for place in np.linspace(0, len(later) - 1, LEVELS)})
    grids = []
    for row in rows:
        tokens = later[row]
        first = tokens.shape[1] - _square(tokens.shape[1])  # class and register tokens stand in front
        grids.append(tokens[:, first:].transpose(1, 2))
    return grids


def _side(count: int) -> int:
    return int(count**0.5)


def _square(count: int) -> int:
    """The largest square number up to `count`."""
    return _side(count) ** 2


def _unit(levels: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, ...) -> (B, M): unit length over the channels, divided by sqrt(positions x levels)."""
    rows = []
    for level in levels:
        flat = level.float().flatten(2)
        unit = flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-10)
        rows.append(unit.flatten(1) / (flat.shape[2] * len(levels)) ** 0.5)
    return torch.cat(rows, 1)


def _fingerprint(model: nn.Module, preprocessing: Preprocessing) -> str:
    """First 16 hex digits of a SHA-256 over every weight and the preprocessing."""
    digest = hashlib.sha256(json.dumps(asdict(preprocessing), sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]
