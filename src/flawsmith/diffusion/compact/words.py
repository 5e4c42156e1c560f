"""Words to vectors without a language model: WordPiece pieces and a static table of their meanings.

The table was distilled once from all-MiniLM-L6-v2 (Apache-2.0) by `recipes/compact/distill_words.py`. An
unseen word falls into known pieces, so it still means something. A small trained transformer (`TextEncoder`)
lets the pieces of one sentence see each other.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from flawsmith.diffusion import tensor_files
from flawsmith.errors import FlawsmithError

__all__ = ["MAX_PIECES", "TextEncoder", "WordPiece", "WordTable", "cosine"]

MAX_PIECES = 31  # with the sentence token 32 context tokens; public defect captions have 4 to 24 words


class WordPiece:
    """Greedy longest-match word pieces over a lower-case BERT vocabulary, in plain Python.

    Reference: Devlin et al. 2019, uncased tokenisation (lower case, accents stripped, punctuation split off).
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = list(vocabulary)
        self.ids = {piece: index for index, piece in enumerate(self.vocabulary)}
        if len(self.ids) != len(self.vocabulary):
            raise FlawsmithError(
                f"The vocabulary has {len(self.vocabulary)} lines, {len(self.ids)} of them different: remove doubles."
            )
        self.unknown = self.ids.get("[UNK]", 0)

    @classmethod
    def from_file(cls, path: Path | str) -> WordPiece:
        return cls(Path(path).read_text(encoding="utf-8").splitlines())

    def save(self, path: Path | str) -> None:
        Path(path).write_text("\n".join(self.vocabulary) + "\n", encoding="utf-8")

    def pieces(self, sentence: str) -> list[int]:
        """Ids of a sentence's pieces, without special marks. An empty sentence gives an empty list."""
        text = unicodedata.normalize("NFD", sentence.lower())
        text = "".join(c for c in text if unicodedata.category(c) != "Mn")
        words = "".join(c if c.isalnum() else (" " if c.isspace() else f" {c} ") for c in text).split()
        return [index for word in words for index in self._split(word)]

    def _split(self, word: str) -> list[int]:
        found: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                index = self.ids.get(("##" if start else "") + word[start:end])
                if index is not None:
                    found.append(index)
                    start = end
                    break
            else:
                return [self.unknown]
        return found

    def __call__(self, sentences: Sequence[str], length: int = MAX_PIECES) -> tuple[Tensor, Tensor]:
        """Ids (B, L) long padded to `length` = L, and their validity (B, L) bool.

        The length is fixed, so that a sentence's tokens do not depend on the others in its batch.
        """
        rows = [self.pieces(sentence)[:length] for sentence in sentences]
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        valid = torch.zeros(len(rows), length, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            valid[i, : len(row)] = True
        return ids, valid


class WordTable(nn.Module):
    """Frozen vector and weight for every word piece; stored as int8 rows with one scale each.

    `vectors` (V, E) float32, `weight` (V,) float32 in (0, 1]: how much a piece says about the sentence ("the"
    little, "rust" much).
    """

    def __init__(self, vectors: Tensor, weight: Tensor) -> None:
        super().__init__()
        if vectors.ndim != 2 or weight.shape != vectors.shape[:1]:
            raise FlawsmithError(
                f"Word table wants (V, E) and (V,), got {tuple(vectors.shape)} and {tuple(weight.shape)}."
            )
        # not in the state dict: the table is stored once, as int8, and never trained
        self.register_buffer("vectors", vectors.float(), persistent=False)
        self.register_buffer("weight", weight.float(), persistent=False)
        self.vectors: Tensor
        self.weight: Tensor

    @property
    def width(self) -> int:
        return self.vectors.shape[1]

    @classmethod
    def from_file(cls, path: Path | str) -> WordTable:
        stored, _ = tensor_files.read(Path(path))
        return cls(stored["vectors"].float() * stored["scale"].float()[:, None], stored["weight"].float())

    def save(self, path: Path | str) -> None:
        scale = self.vectors.abs().amax(1).clamp_min(1e-6) / 127
        scale = scale.half()
        rows = (self.vectors / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        save_file({"vectors": rows, "scale": scale, "weight": self.weight.half()}, str(path))

    def forward(self, ids: Tensor) -> Tensor:
        return self.vectors[ids]  # (B, L) -> (B, L, E)

    def pool(self, ids: Tensor, valid: Tensor) -> Tensor:
        """One unit vector per sentence (B, E): the weighted mean of its pieces; zeros for an empty sentence."""
        w = self.weight[ids] * valid
        mean = (self.vectors[ids] * w[..., None]).sum(1) / w.sum(1, keepdim=True).clamp_min(1e-6)
        return nn.functional.normalize(mean, dim=-1, eps=1e-6)


class TextEncoder(nn.Module):
    """Sentences to context tokens: static piece vectors, positions, and a small transformer over one
    sentence.

    Output (B, 1 + L, D): first the pooled sentence token, then the pieces; zeros after the last piece, which
    a cross-attention without bias reads as "nothing more to say". An empty caption is the learned null token
    alone.
    """

    def __init__(
        self, table: WordTable, width: int = 192, layers: int = 2, heads: int = 4, pieces: int = MAX_PIECES
    ) -> None:
        super().__init__()
        self.table = table
        self.width, self.length = width, pieces
        self.project = nn.Linear(table.width, width)
        self.pooled = nn.Linear(table.width, width)
        self.position = nn.Parameter(torch.randn(pieces + 1, width) * 0.02)
        self.null = nn.Parameter(torch.randn(width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    @property
    def config(self) -> dict[str, int]:
        return {
            "width": self.width,
            "layers": len(self.blocks.layers),
            "heads": self.blocks.layers[0].self_attn.num_heads,
            "pieces": self.length,
        }

    def forward(self, ids: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """ids, valid (B, L) -> tokens (B, 1 + L, D) and which of them to attend to (B, 1 + L) bool."""
        scale = self.table.width**0.5  # unit vectors would be 1/sqrt(E) per entry: too small next to the positions
        words = self.project(self.table(ids) * scale)  # (B, L, D)
        empty = ~valid.any(1)  # (B,)
        first = self.pooled(self.table.pool(ids, valid) * scale)
        first = torch.where(empty[:, None], self.null.expand_as(first).to(first.dtype), first)
        x = torch.cat([first[:, None], words], 1) + self.position[: words.shape[1] + 1]
        keep = torch.cat([torch.ones_like(valid[:, :1]), valid], 1)
        x = self.norm(self.blocks(x, src_key_padding_mask=~keep))
        return x * keep[..., None], keep


def cosine(table: WordTable, tokenizer: WordPiece, left: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """Similarities of every left to every right phrase (N, M), each in [-1, 1]."""
    a, b = (table.pool(*tokenizer(list(side), 64)) for side in (left, right))
    return (a @ b.T).cpu().numpy()
