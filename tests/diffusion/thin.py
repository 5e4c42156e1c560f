"""Folders in diffusers format as GPU users have them: the real classes, thin, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from flawsmith.diffusion.backbone import Backbone

KINDS = ("sd-inpainting", "sd", "ldm")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CLIP_WORDS = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{c}</w>" for c in LETTERS)]
BLIP_WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "this", "is", "an", "image", "with", "holes", "a", "crack", ","),
]
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "*", "a", "photo", "of", "hole", "crack", "an", "anomaly"]


def parts(kind: str) -> dict[str, Any]:
    """The parts of a tiny Stable Diffusion (9 channels inpaint, 4 blend) or LDM backbone; windows of 32 px."""
    import transformers
    from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel

    torch.manual_seed(KINDS.index(kind))
    width = 16 if kind == "ldm" else 24
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=9 if kind == "sd-inpainting" else 4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    text: Any
    if kind == "ldm":
        from diffusers.pipelines.latent_diffusion import LDMBertModel
        from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig

        bert = LDMBertConfig(
            vocab_size=len(BERT_WORDS), max_position_embeddings=77, encoder_layers=1, encoder_ffn_dim=32,
            encoder_attention_heads=2, head_dim=8, d_model=16,
        )  # fmt: skip
        text = LDMBertModel(bert)
        tokenizer: Any = transformers.BertTokenizer(vocab={w: i for i, w in enumerate(BERT_WORDS)}, model_max_length=77)
        scheduler: Any = DDIMScheduler(**betas)
    else:
        clip = transformers.CLIPTextConfig(
            vocab_size=len(CLIP_WORDS), hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
        text = transformers.CLIPTextModel(clip)
        tokenizer = transformers.CLIPTokenizer(
            vocab={w: i for i, w in enumerate(CLIP_WORDS)}, merges=[], model_max_length=77
        )
        scheduler = PNDMScheduler(skip_prk_steps=True, steps_offset=1, **betas)
    for module in (unet, vae, text):
        module.eval()
    return {"unet": unet, "vae": vae, "text_encoder": text, "tokenizer": tokenizer, "scheduler": scheduler}


def write(kind: str, folder: Path, made: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Write a pipeline's folder as diffusers does; `options` (variant, max_shard_size) go to its weights."""
    made = made or parts(kind)
    names = {"vae": "vqvae", "text_encoder": "bert"} if kind == "ldm" else {}
    index: dict[str, Any] = {"_class_name": "LDMTextToImagePipeline" if kind == "ldm" else "StableDiffusionPipeline"}
    for name, part in made.items():
        theirs = names.get(name, name)
        part.save_pretrained(folder / theirs, **(options if isinstance(part, torch.nn.Module) else {}))
        library = type(part).__module__.split(".")[0]
        index[theirs] = ["latent_diffusion" if theirs == "bert" else library, type(part).__name__]
    if kind != "ldm":
        index["safety_checker"] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    return made


def backbone(kind: str) -> Backbone:
    return Backbone(**parts(kind), source=kind).freeze()


def clip(folder: Path) -> Path:
    """A CLIP model with both towers."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    CLIPTokenizer(vocab={w: i for i, w in enumerate(CLIP_WORDS)}, merges=[]).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(CLIP_WORDS), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**small, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(folder)
    return folder


def blip(folder: Path) -> Path:
    """BLIP-2's image-text model: 6 layers, a 4 x 4 grid."""
    import transformers

    torch.manual_seed(0)
    common = {"num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.Blip2Config(
        vision_config={"hidden_size": 16, "num_hidden_layers": 2, "image_size": 56, "initializer_range": 0.2, **common},
        qformer_config={
            "vocab_size": len(BLIP_WORDS),
            "hidden_size": 24,
            "num_hidden_layers": 4,
            "initializer_range": 0.3,
            "use_qformer_text_input": True,
            **common,
        },
        text_config={"model_type": "opt", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
                     "ffn_dim": 8, "vocab_size": 8, "word_embed_proj_dim": 8},
        num_query_tokens=6,
        image_text_hidden_size=8,
    )  # fmt: skip
    model = transformers.Blip2ForImageTextRetrieval(config).eval()
    with torch.no_grad():
        model.query_tokens.normal_()
        model.vision_model.embeddings.position_embedding.normal_()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(BLIP_WORDS) + "\n")
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder
