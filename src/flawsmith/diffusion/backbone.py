"""`Backbone`: a denoiser with its codec, text encoder and scheduler behind one small interface, whatever its
size.

The shipped compact model, a Stable Diffusion folder and an LDM folder load through the same class; only the
attributes differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flawsmith.diffusion.denoise import Conditioning, scheduler_for
from flawsmith.errors import FlawsmithError
from flawsmith.tensors import pool_mask, smooth_fill

__all__ = ["Backbone", "PixelCodec"]

SHIPPED = {"compact": Path(__file__).parents[1] / "weights" / "compact"}


class PixelCodec:
    """Pictures <-> latents without parameters: (B, 3, H, W) <-> (B, 3 f^2, H / f, W / f).

    Pixel-unshuffle, then one fixed rotation of every cell: brightness and two colour differences, each as a cosine
    transform of its f x f pixels. A rotation keeps white noise white and loses nothing (1e-6 in float32, so exact
    for 8-bit pictures); but now a few channels hold nearly all of the picture, and the denoiser can be told so.
    """

    def __init__(self, factor: int) -> None:
        self.factor = factor
        place, wave = torch.arange(factor).double(), torch.arange(factor).double()[:, None]
        cosine = torch.cos(torch.pi * (place + 0.5) * wave / factor) * (2 / factor) ** 0.5
        cosine[0] /= 2**0.5  # (f, f), rows orthonormal
        colour = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.double)
        colour /= colour.norm(dim=1, keepdim=True)
        self.rotation = torch.kron(colour, torch.kron(cosine, cosine)).float()  # (3 f^2, 3 f^2)

    def encode(self, images: Tensor) -> Tensor:
        cells = nn.functional.pixel_unshuffle(images.float(), self.factor)
        return torch.einsum("kc,bchw->bkhw", self.rotation.to(cells.device), cells)

    def decode(self, latents: Tensor) -> Tensor:
        cells = torch.einsum("kc,bkhw->bchw", self.rotation.to(latents.device), latents.float())
        return nn.functional.pixel_shuffle(cells, self.factor)

    def encode_mask(self, mask: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, f^2, H / f, W / f): every pixel of a cell in its own channel."""
        return nn.functional.pixel_unshuffle(mask, self.factor)


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
        channels = int(unet.config.out_channels)
        self.codec: PixelCodec | None = None
        if vae is None:
            factor = round((channels / 3) ** 0.5)
            if 3 * factor * factor != channels:
                raise FlawsmithError(
                    f"A denoiser of {channels} channels needs a vae: only 3 * f * f channels can be pixels."
                )
            self.codec = PixelCodec(factor)
            self.factor = factor
        else:
            self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.latent_channels = channels
        self.mask_channels = 1 if vae is not None else self.factor**2
        taken = int(unet.config.in_channels)
        kinds: dict[int, Literal["inpaint", "blend"]] = {
            channels: "blend",
            2 * channels + self.mask_channels: "inpaint",
        }
        if taken not in kinds:
            raise FlawsmithError(f"The denoiser takes {taken} channels; known: {sorted(kinds)} (blend, inpaint).")
        self.input_kind = kinds[taken]
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

    def to(self, device: torch.device | str) -> Backbone:
        for module in self.modules().values():
            module.to(device)
        return self

    def freeze(self) -> Backbone:
        """Evaluation mode, no gradients: what the methods build on."""
        for module in self.modules().values():
            module.eval().requires_grad_(False)
        return self

    # ---- pictures --------------------------------------------------------------------------------------------------

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> latents (B, C, S / f, S / f)."""
        if self.codec is not None:
            return self.codec.encode(images)
        vae = self.vae
        found = vae.encode(images)
        latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        return latents * vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> (B, 3, S, S), not clipped."""
        if self.codec is not None:
            return self.codec.decode(latents)
        vae = self.vae
        return vae.decode(latents / vae.config.scaling_factor).sample

    def encode_mask(self, mask: Tensor) -> Tensor:
        """(B, 1, S, S) in {0, 1} -> the mask channels (B, m, S / f, S / f): every pixel for pixel codecs,
        max-pooled else.
        """
        if self.codec is not None:
            return self.codec.encode_mask(mask)
        return pool_mask(mask, (mask.shape[-2] // self.factor, mask.shape[-1] // self.factor))

    def inpaint_input(self, images: Tensor, mask: Tensor) -> Tensor | None:
        """Mask and context (B, m + C, h, w), the channels after the noisy latents; None for a blending backbone.

        The context is the picture without what the hole hides: mid grey there, as Stable Diffusion expects it, or for
        pixel codecs the smooth continuation of the surroundings.
        """
        if self.input_kind == "blend":
            return None
        context = images * (1 - mask) if self.codec is None else smooth_fill(images, mask)
        return torch.cat([self.encode_mask(mask), self.encode(context)], 1)

    # ---- words and references --------------------------------------------------------------------------------------

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
            return encoder(ids.to(self.device), valid.to(self.device))
        length = min(int(tokenizer.model_max_length), 77)
        batch = tokenizer(list(words), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        found = encoder(batch.input_ids.to(self.device))
        tokens = found[0] if isinstance(found, tuple) else getattr(found, "last_hidden_state", found)
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

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
            tokens[rows] = self.reader(visual, text[rows], keep[rows], guidance).to(tokens.dtype)
        return torch.cat([text, tokens], 1)

    def encode_references(self, references: Sequence[tuple[Tensor, Tensor] | Tensor | None]) -> list[Tensor | None]:
        """Pictures with masks -> visual tokens (65, E) each; tokens and None are handed through."""
        found: list[Any] = list(references)
        rows = [i for i, r in enumerate(found) if isinstance(r, tuple)]
        if rows:
            image, mask = (torch.stack([found[i][k] for i in rows]).to(self.device) for k in (0, 1))
            for i, tokens in zip(rows, self.reference(image, mask), strict=True):
                found[i] = tokens
        return found

    def null(self, count: int) -> Conditioning:
        """The unconditional tokens: no words, no reference."""
        return Conditioning(self.context([""] * count))

    def sampler(self, name: str = "ddim") -> Any:
        """A fresh sampling scheduler ("ddim" or "dpm++") on this backbone's noise schedule."""
        return scheduler_for(self.scheduler.config, name)

    # ---- disk ------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, folder_or_id: str | Path) -> Backbone:
        """Load "compact", a folder in diffusers format, or a hub id that is already on this machine or can be
        fetched.
        """
        path = SHIPPED.get(str(folder_or_id), Path(folder_or_id))
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
            return cls._from_hub(str(folder_or_id))
        named = json.loads(index.read_text(encoding="utf-8"))
        if named.get("_class_name") == "FlawsmithCompact":
            from flawsmith.diffusion import compact

            return compact.load(path)
        return cls._from_diffusers(path, named)

    @classmethod
    def _from_hub(cls, name: str) -> Backbone:
        from huggingface_hub import snapshot_download

        wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
        try:
            folder = snapshot_download(
                name, allow_patterns=wanted, ignore_patterns=["*fp16*", "*non_ema*", "safety_checker/*"]
            )
        except Exception as error:
            raise FlawsmithError(
                f"Backbone {name!r} is neither 'compact', nor a folder, nor on the hub ({type(error).__name__}): "
                "download it elsewhere and give the folder."
            ) from error
        return cls.from_pretrained(folder)

    @classmethod
    def _from_diffusers(cls, path: Path, named: dict[str, Any]) -> Backbone:
        import diffusers
        import transformers

        def load(*names: str) -> Any:
            for name in names:
                if not named.get(name) or not (path / name).is_dir():
                    continue
                library, kind = named[name]
                home: Any = {"diffusers": diffusers, "transformers": transformers}.get(library)
                if kind == "LDMBertModel":
                    from diffusers.pipelines import latent_diffusion

                    home = latent_diffusion
                if home is None or not hasattr(home, kind):
                    raise FlawsmithError(
                        f"{path.name}: part {name!r} is of class {library}.{kind}, which is not known here."
                    )
                return getattr(home, kind).from_pretrained(path / name)
            raise FlawsmithError(f"{path.name}: no part named {' or '.join(names)}.")

        return cls(
            load("unet"),
            load("scheduler"),
            vae=load("vae", "vqvae"),
            text_encoder=load("text_encoder", "bert"),
            tokenizer=load("tokenizer"),
            source=path.name,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder in diffusers format, weights as safetensors."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        if hasattr(self.text_encoder, "table"):
            from flawsmith.diffusion import compact

            compact.save(self, path)
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
