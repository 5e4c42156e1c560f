"""A tiny CLIP of random weights with a tokenizer of single letters: the real classes, no download."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers


def write(folder: Path) -> Path:
    """The model in transformers format; images of 32 pixels, texts of up to 16 letters."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    words = {word: i for i, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig(
        vocab_size=len(words), max_position_embeddings=16, bos_token_id=52, eos_token_id=53, **sizes
    )
    vision = transformers.CLIPVisionConfig(image_size=32, patch_size=8, **sizes)
    config = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder
