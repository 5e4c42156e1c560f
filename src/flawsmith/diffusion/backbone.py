"""`Backbone`: a denoiser with its codec, text encoder and scheduler behind one small interface, whatever its
size.

The shipped compact model, a Stable Diffusion folder and an LDM folder load through the same class; only the
attributes differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from flawsmith.diffusion import folders, noise_levels
from flawsmith.diffusion.compact import SHIPPED
from flawsmith.diffusion.compact.codec import PixelCodec
from flawsmith.diffusion.denoise import Conditioning, scheduler_for
from flawsmith.diffusion.devices import Preset, preset_of, refuse_device, work_dtype
from flawsmith.diffusion.sentences import Sentences
from flawsmith.diffusion.tensors import pool_mask, smooth_fill
from flawsmith.errors import FlawsmithError

__all__ = ["Backbone", "PixelCodec", "fingerprint"]


class Backbone:
    """Denoiser, codec, text encoder, tokenizer, scheduler: plain attributes, one instance per loaded folder.

    `vae` is None for pixel codecs. `reference` (encoder) and `reader` exist in the compact recipe only.
    `scheduler` is a diffusers scheduler whose config holds the betas and the prediction type; samplers are
    derived from it.
    """

    def __init__(
        self,
        unet: Any,  # the parts are modules; their classes differ by recipe, and with them their configs
        scheduler: Any,
        *,
        vae: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        reference: Any = None,
        reader: Any = None,
        source: str = "",
        info: dict[str, Any] | None = None,
    ) -> None:
        self.unet, self.scheduler, self.vae = unet, scheduler, vae
        self.text_encoder, self.tokenizer = text_encoder, tokenizer
        self.reference, self.reader = reference, reader
        self.source, self.info = source, dict(info or {})
        self.preset: Preset | None = None  # set by `place`
        self.digest = ""  # of the weights as they were loaded, where `place` has rounded them; see runs.fingerprint
        self._sentences = Sentences(self._encoded)
        channels = int(unet.config.out_channels)
        self.codec: PixelCodec | None = None
        if vae is None:
            factor = round((channels / 3) ** 0.5)
            if 3 * factor * factor != channels:
                raise FlawsmithError(
                    f"A denoiser of {channels} channels needs a vae: only 3 * f * f channels can be pixels."
                )
            self.codec = PixelCodec(factor, getattr(unet, "plain_cells", False))
            self.factor = factor
        else:
            self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.latent_channels = channels
        self.mask_channels = 1 if vae is not None else self.factor**2
        taken = int(unet.config.in_channels)
        kinds: dict[int, Literal["inpaint", "blend"]] = {
            channels: "blend",
            2 * channels + self.mask_channels: "inpaint",
            3 * channels + self.mask_channels: "inpaint",
        }
        if taken not in kinds:
            raise FlawsmithError(f"The denoiser takes {taken} channels; known: {sorted(kinds)} (blend, inpaint).")
        self.input_kind = kinds[taken]
        self.takes_drafts = taken == 3 * channels + self.mask_channels
        self.context_width = int(unet.config.cross_attention_dim)
        size = unet.config.sample_size
        self.size = int(size if isinstance(size, int) else size[0]) * self.factor  # pixels of a window's side

    # ---- parts -----------------------------------------------------------------------------------------------------

    def modules(self) -> dict[str, nn.Module]:
        """The parts that exist, by name."""
        names = ("unet", "vae", "text_encoder", "reference", "reader")
        return {name: module for name in names if (module := getattr(self, name)) is not None}

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def unet_dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def to(self, device: torch.device | str) -> Backbone:
        for name, module in self.modules().items():
            module.to("cpu" if self.offloaded(name) else device)
        return self

    def place(
        self, device: torch.device | str = "cpu", memory: int | None = None, dtype: torch.dtype | None = None
    ) -> Backbone:
        """Move to a device within a memory preset (8, 12, 16 or 24 GiB; None = no limit).

        Behind a vae the frozen denoiser is kept in `dtype`, by default the GPU's half precision; the vae and the text
        encoder stay in float32, since their rounding would be seen. Raises FlawsmithError for a device that this
        machine has not.
        """
        refuse_device(str(device))
        target = torch.device(device)
        self.preset = None if memory is None else preset_of(memory)
        if self.vae is not None:
            chosen = dtype or work_dtype(target)
            if chosen != self.unet_dtype:
                self.digest = fingerprint(self)
                nn.Module.to(self.unet, chosen)
            if hasattr(self.vae, "enable_slicing"):
                self.vae.enable_slicing()  # one window fills a GPU, and eight would take eight times its memory
                tiled = self.preset is not None and self.preset.offload
                self.vae.enable_tiling() if tiled else self.vae.disable_tiling()
            if self.preset is not None and self.preset.checkpointing:
                self.unet.enable_gradient_checkpointing()
            elif self.unet.is_gradient_checkpointing:
                self.unet.disable_gradient_checkpointing()
        return self.to(target)

    def offloaded(self, name: str) -> bool:
        """Whether a part lives in the computer's memory and only visits the GPU."""
        if self.preset is None or not self.preset.offload or self.vae is None:
            return False
        # AnomalyXFusion trains through LDM's text encoder, whose weights must then stay where they are
        return name == "vae" or (name == "text_encoder" and not self.takes_embeddings)

    @property
    def takes_embeddings(self) -> bool:
        """Whether the text encoder accepts embeddings in the place of words, as LDM's does and CLIP's does not."""
        return type(self.text_encoder).__name__ == "LDMBertModel"

    @contextmanager
    def _visit(self, name: str) -> Iterator[Any]:
        """A part, on the denoiser's device for the length of a block."""
        part = getattr(self, name)
        away = self.offloaded(name) and self.device.type != "cpu"
        if away:
            part.to(self.device)
        try:
            yield part
        finally:
            if away:
                part.to("cpu")

    def freeze(self) -> Backbone:
        """Evaluation mode, no gradients: what the methods build on."""
        for module in self.modules().values():
            module.eval().requires_grad_(False)
        return self

    # ---- images --------------------------------------------------------------------------------------------------

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> latents (B, C, S / f, S / f)."""
        if self.codec is not None:
            return self.codec.encode(images)
        with self._visit("vae") as vae:
            found = vae.encode(images)
        latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        return latents * vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> (B, 3, S, S), not clipped."""
        if self.codec is not None:
            return self.codec.decode(latents)
        with self._visit("vae") as vae:
            return vae.decode(latents / vae.config.scaling_factor).sample

    def encode_mask(self, mask: Tensor) -> Tensor:
        """(B, 1, S, S) in {0, 1} -> the mask channels (B, m, S / f, S / f): every pixel for pixel codecs,
        max-pooled else.
        """
        if self.codec is not None:
            return self.codec.encode_mask(mask)
        return pool_mask(mask, (mask.shape[-2] // self.factor, mask.shape[-1] // self.factor))

    def inpaint_input(self, images: Tensor, mask: Tensor, drafts: Sequence[Tensor | None] = ()) -> Tensor | None:
        """Mask and context (B, m + C, h, w), the channels after the noisy latents; None for a blending backbone.

        The context is the image without what the hole hides: mid grey there, as Stable Diffusion expects it, or for
        pixel codecs the smooth continuation of the surroundings. A backbone that takes drafts gets them as further C
        channels, as what they add to that continuation: a real defect laid in the hole (3, S, S) for each row, or
        None; () for none at all.
        """
        if self.input_kind == "blend":
            return None
        context = images * (1 - mask) if self.codec is None else smooth_fill(images, mask)
        found = [self.encode_mask(mask), self.encode(context)]
        if self.takes_drafts:
            laid = context.clone()
            for row, draft in enumerate(drafts):
                if draft is not None:
                    laid[row] = draft.to(context.device)
            found.append(self.encode((laid - context) * mask))
        return torch.cat(found, 1)

    # ---- words and references --------------------------------------------------------------------------------------

    def _reading(self) -> AbstractContextManager[Any]:
        """Around all that reads words and references: while these parts are frozen they compute in float32, whatever
        the caller's autocast is, so that a fit and painting read alike. In pretraining they follow the caller.
        """
        learning = any(p.requires_grad for p in self.text_encoder.parameters())
        return nullcontext() if learning else torch.autocast(self.device.type, enabled=False)

    def encode_text(self, words: Sequence[str]) -> Tensor:
        """Sentences -> context tokens (B, L, D), L fixed by the encoder; an empty sentence is the
        unconditional one.
        """
        return self.text_tokens(words)[0]

    def text_tokens(self, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """As `encode_text`, with the validity (B, L) bool of the tokens."""
        encoder, tokenizer = self.text_encoder, self.tokenizer
        if encoder is None or tokenizer is None:
            raise FlawsmithError(f"Backbone {self.source or 'without a name'} has no text encoder.")
        if hasattr(encoder, "table"):  # ours: takes ids and validity
            ids, valid = tokenizer(words)
            with self._reading():
                return encoder(ids.to(self.device), valid.to(self.device))
        tokens = torch.stack(self._sentences(words)).to(self.device)
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

    @torch.no_grad()
    def _encoded(self, sentences: Sequence[str]) -> Iterator[Tensor]:
        """Each sentence's tokens (L, D), float32."""
        length = min(int(self.tokenizer.model_max_length), 77)
        with self._visit("text_encoder") as encoder, torch.autocast(self.device.type, enabled=False):
            for sentence in sentences:
                ids = self.tokenizer(
                    [sentence], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
                ).input_ids
                out = encoder(ids.to(self.device))
                tokens = out[0] if isinstance(out, tuple) else getattr(out, "last_hidden_state", out)
                yield tokens[0].float()

    def context(
        self,
        words: Sequence[str],
        references: Sequence[tuple[Tensor, Tensor] | Tensor | None] | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Everything the denoiser attends to (B, L + Q, D): text tokens, then reference tokens where this
        recipe has a reader.

        references: per sentence an image (3, S, S) in [-1, 1] with its mask (1, S, S), or its visual tokens
        (65, E) from `encode_references`, or None for the learned "no reference".
        """
        text, keep = self.text_tokens(words)
        if self.reader is None or self.reference is None:
            if references is not None and any(r is not None for r in references):
                raise FlawsmithError(
                    f"Backbone {self.source} cannot read references: use a method that brings its own encoder."
                )
            return text
        tokens = self.reader.absent(len(text)).to(text.dtype)
        rows = [i for i, r in enumerate(references or []) if r is not None]
        if rows:
            visual = torch.stack([r for r in self.encode_references(references or []) if r is not None])
            tokens = tokens.clone()
            with self._reading():
                tokens[rows] = self.reader(visual, text[rows], keep[rows], guidance).to(tokens.dtype)
        return torch.cat([text, tokens], 1)

    def encode_references(self, references: Sequence[tuple[Tensor, Tensor] | Tensor | None]) -> list[Tensor | None]:
        """Images with masks -> visual tokens (65, E) each; tokens and None are handed through."""
        found: list[Any] = list(references)
        rows = [i for i, r in enumerate(found) if isinstance(r, tuple)]
        if rows:
            image, mask = (torch.stack([found[i][k] for i in rows]).to(self.device) for k in (0, 1))
            with self._reading():
                visual = self.reference(image, mask)
            for i, tokens in zip(rows, visual, strict=True):
                found[i] = tokens
        return found

    def null(self, count: int) -> Conditioning:
        """The unconditional tokens: no words, no reference."""
        return Conditioning(self.context([""] * count))

    def sampler(self, name: str = "ddim", eta: float = 0.0) -> Any:
        """A fresh sampling scheduler ("ddim" or "dpm++") on this backbone's noise schedule."""
        return scheduler_for(self.scheduler.config, "dpm++1" if name == "ddim" and self._spaced(eta) else name)

    def timesteps(self, count: int, eta: float = 0.0) -> list[int] | None:
        """The steps a sampler takes, descending: evenly in noise level for pixels, see noise_levels. None = the
        sampler's own, evenly in t: behind a VAE, and with fresh noise, since DDIM's rule for it needs even steps.
        """
        return noise_levels.sampling_steps(self.scheduler.alphas_cumprod, count) if self._spaced(eta) else None

    def _spaced(self, eta: float) -> bool:
        return self.codec is not None and eta == 0

    def training_steps(self) -> Tensor | None:
        """Table for `losses.stratified_steps`: evenly in noise level for pixels; None = evenly in t, behind a VAE."""
        return None if self.codec is None else noise_levels.step_table(self.scheduler.alphas_cumprod)

    # ---- disk ------------------------------------------------------------------------------------------------------

    @classmethod
    def compact(cls, config: Any = None, seed: int = 0, text: Path | None = None) -> Backbone:
        """A fresh, untrained compact backbone: `config` a recipe.CompactConfig, `text` the folder with vocab.txt and
        words.safetensors (default: the shipped one).
        """
        from flawsmith.diffusion.compact import recipe

        return cls(**recipe.parts(config, seed, text))

    @classmethod
    def from_pretrained(cls, folder_or_id: str | Path, dtype: torch.dtype | None = None) -> Backbone:
        """Load "compact", a folder in diffusers format (safetensors only), or a hub id that is already on this machine
        or can be fetched.

        `dtype` is the denoiser's behind a vae; default float32. Raises FlawsmithError naming the part that is missing,
        damaged, a pickle, or of a kind that no method can use.
        """
        path = SHIPPED.get(str(folder_or_id), Path(folder_or_id))
        if path.is_file():
            raise FlawsmithError(
                f"{path} is one file; a backbone is a folder in diffusers format (model_index.json, unet/, ...). "
                'Convert it once where you trust it: python -c "from diffusers import StableDiffusionPipeline as P; '
                f"P.from_single_file('{path}').save_pretrained('{path.stem}')\""
            )
        index = path / "model_index.json"
        if not index.exists():
            if str(folder_or_id) in SHIPPED:
                raise FlawsmithError(
                    f"The shipped backbone {folder_or_id!r} is not in this installation: expected {index.name}."
                )
            if path.exists():
                raise FlawsmithError(
                    f"{path} is no backbone: it has no model_index.json (a folder in diffusers format is needed)."
                )
            path = folders.fetch(str(folder_or_id))
            return cls._of(path, str(folder_or_id), dtype)
        return cls._of(path, path.name, dtype)

    @classmethod
    def _of(cls, path: Path, source: str, dtype: torch.dtype | None) -> Backbone:
        if folders.read_index(path).get("_class_name") == "FlawsmithCompact":
            from flawsmith.diffusion.compact import recipe

            try:
                return cls(**recipe.load(path)).freeze()
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
                raise FlawsmithError(f"{path} holds no whole compact model ({error}): fetch it again.") from error
        made = cls(**folders.load_parts(path), source=source)
        return made if dtype is None else made.place("cpu", dtype=dtype)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder in diffusers format, weights as safetensors."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        if hasattr(self.text_encoder, "table"):
            from flawsmith.diffusion.compact import recipe

            recipe.save(self, path)
            return
        index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline"}
        for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
            part = getattr(self, name)
            if part is None:
                continue
            part.save_pretrained(path / name)
            home = type(part).__module__.split(".")[0]
            index[name] = [home if home in ("diffusers", "transformers") else "diffusers", type(part).__name__]
        (path / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def fingerprint(backbone: Backbone) -> str:
    """First 16 hex digits of a SHA-256 over names, shapes and a sample of the denoiser's weights, adapters aside; of
    the weights as they were loaded, whatever precision they are kept in now.
    """
    if backbone.digest:
        return backbone.digest
    digest = hashlib.sha256()
    for name, value in sorted(backbone.unet.state_dict().items()):
        if "lora_" in name:
            continue
        digest.update(f"{name.replace('.base_layer', '')} {tuple(value.shape)}".encode())
        digest.update(value.detach().reshape(-1)[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
