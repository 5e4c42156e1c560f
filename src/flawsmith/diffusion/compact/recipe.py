"""The shipped backbone: a 7 M parameter inpainting denoiser on pixel-unshuffled 128 px windows, with words
and references.

Sizes were chosen by measurement (recipes/compact/README.md): cross-attention only at 8 x 8, where it is cheap
on a CPU.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as settings
from safetensors.torch import save_file
from torch import nn

from flawsmith import config as configs
from flawsmith import inputs
from flawsmith.diffusion import tensor_files
from flawsmith.diffusion.compact import SHIPPED
from flawsmith.diffusion.compact.reference import ReferenceEncoder, ReferenceReader
from flawsmith.diffusion.compact.words import TextEncoder, WordPiece, WordTable

__all__ = ["CompactConfig", "load", "parts", "save"]


Size = Annotated[int, Field(ge=1, le=2048)]  # a stranger's folder may ask for more than any memory holds
Few = Annotated[int, Field(ge=1, le=64)]


@settings(frozen=True, config=ConfigDict(allow_inf_nan=False, extra="forbid"))
class CompactConfig:
    """Sizes of the compact recipe; the defaults are the shipped model's."""

    size: Size = 128  # window side in pixels
    denoiser: Literal["wiener", "clean"] = "wiener"  # clean: the next one, in training (recipes/compact/README.md)
    factor: Few = 4  # pixel-unshuffle factor: latents are 3 * f * f channels at size / f
    channels: Annotated[tuple[Size, ...], Field(min_length=1, max_length=8)] = (64, 96, 160)
    attention: tuple[bool, ...] = (False, False, True)  # cross-attention per level; the middle block always has it
    layers: Few = 1
    heads: Few = 4
    groups: Few = 16
    width: Size = 192  # context width D
    text_layers: Few = 2
    reference_width: Size = 128
    reference_base: Size = 48
    queries: Size = 8
    spread: configs.Rate = 0.35  # of pixels in [-1, 1], until the real spectrum is measured on training windows


def scheduler(prediction: str = "v_prediction") -> Any:
    """The training noise schedule: SD's betas, rescaled to zero terminal SNR so that sampling may start from
    pure noise.

    Reference: Lin et al. 2023, "Common diffusion noise schedules and sample steps are flawed".
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def _unet(config: CompactConfig) -> Any:
    from diffusers.models.attention_processor import AttnProcessor

    from flawsmith.diffusion.compact.clean import CleanUNet
    from flawsmith.diffusion.compact.unet import PreconditionedUNet

    clean = config.denoiser == "clean"
    latent = 3 * config.factor**2
    kind = CleanUNet if clean else PreconditionedUNet
    unet = kind(
        sample_size=config.size // config.factor,
        in_channels=(3 if clean else 2) * latent + config.factor**2,
        out_channels=latent,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention)),
        cross_attention_dim=config.width,
        attention_head_dim=config.heads,  # diffusers' historical name: it is the number of heads
        norm_num_groups=config.groups,
        # words and references also steer every layer through the time embedding, pooled: with cross-attention at
        # 8 x 8 alone, colours were learned slowly and references not at all
        addition_embed_type="text",
        addition_embed_type_num_heads=config.heads,
        resnet_time_scale_shift="scale_shift",
    )
    # plain attention: at 64 positions torch's fused kernel is slower on a CPU, backwards eight times so
    unet.set_attn_processor(AttnProcessor())
    return unet


def parts(config: CompactConfig | None = None, seed: int = 0, text: Path | None = None) -> dict[str, Any]:
    """The fresh, untrained parts of a compact backbone: the arguments of `Backbone`. `text` is the folder with
    vocab.txt and words.safetensors (default: the shipped one).
    """
    config = config or CompactConfig()
    folder = text or SHIPPED["compact"] / "text"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        noise = scheduler()
        unet = _unet(config).precondition(noise.alphas_cumprod, config.spread)
        encoder = TextEncoder(
            WordTable.from_file(folder / "words.safetensors"), config.width, config.text_layers, config.heads
        )
        reference = ReferenceEncoder(config.reference_width, config.reference_base, encoder.table.width)
        reader = ReferenceReader(
            config.width,
            config.reference_width,
            config.queries,
            heads=config.heads,
            visual_width=config.reference_width,
        )
    return dict(
        unet=unet,
        scheduler=noise,
        text_encoder=encoder,
        tokenizer=WordPiece.from_file(folder / "vocab.txt"),
        reference=reference,
        reader=reader,
        source="compact",
        info={"recipe": asdict(config)},
    )


def _write(module: nn.Module, path: Path, half: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        k: (v.half() if half and v.is_floating_point() else v).contiguous().cpu()
        for k, v in module.state_dict().items()
    }
    save_file(tensors, str(path), metadata={"format": "pt"})


def save(backbone: Any, path: Path, half: bool = True) -> None:
    """Write the folder: unet/, scheduler/, text/, reference/, model_index.json. fp16 on disk halves it
    without visible effect.
    """
    encoder, tokenizer = backbone.text_encoder, backbone.tokenizer
    assert isinstance(encoder, TextEncoder)
    assert backbone.reference is not None and backbone.reader is not None
    backbone.scheduler.save_pretrained(path / "scheduler")
    backbone.unet.save_config(path / "unet")
    _write(backbone.unet, path / "unet" / "diffusion_pytorch_model.safetensors", half)
    (path / "text").mkdir(parents=True, exist_ok=True)
    tokenizer.save(path / "text" / "vocab.txt")
    encoder.table.save(path / "text" / "words.safetensors")
    _write(encoder, path / "text" / "encoder.safetensors", half)
    _write(backbone.reference, path / "reference" / "encoder.safetensors", half)
    _write(backbone.reader, path / "reference" / "reader.safetensors", half)
    index = {"_class_name": "FlawsmithCompact", "info": backbone.info}
    (path / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    """The parts of a folder written by `save`; weights become float32."""
    index = inputs.parse_json((path / "model_index.json").read_text(encoding="utf-8"))
    try:
        sizes = CompactConfig(**index["info"]["recipe"])
    except ValidationError as error:
        raise configs.refused(error, "Size") from None
    made = parts(sizes, text=path / "text")
    files = {
        "unet": "unet/diffusion_pytorch_model.safetensors",
        "text_encoder": "text/encoder.safetensors",
        "reference": "reference/encoder.safetensors",
        "reader": "reference/reader.safetensors",
    }
    for name, file in files.items():
        stored = {k: v.float() for k, v in tensor_files.read(path / file)[0].items()}
        made[name].load_state_dict(stored)
    return {**made, "info": index["info"]}
