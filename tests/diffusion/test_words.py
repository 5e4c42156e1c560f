"""Word pieces and the shipped table: unseen wordings must land near what they mean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from flawsmith.diffusion.compact import SHIPPED  # noqa: E402
from flawsmith.diffusion.compact.words import WordPiece, WordTable, cosine  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402

EXAM = Path(__file__).parents[2] / "recipes" / "compact" / "paraphrases.json"


@pytest.fixture(scope="module")
def shipped() -> tuple[WordTable, WordPiece]:
    folder = SHIPPED["compact"] / "text"
    return WordTable.from_file(folder / "words.safetensors"), WordPiece.from_file(folder / "vocab.txt")


def test_pieces() -> None:
    tokenizer = WordPiece(["[PAD]", "[UNK]", "scratch", "##es", "thin", ",", "e"])
    assert tokenizer.pieces("Thin, scratches É") == [4, 5, 2, 3, 6]
    assert tokenizer.pieces("zzz") == [1]
    ids, valid = tokenizer(["", "thin scratch"], 4)
    assert ids.shape == (2, 4)
    assert valid.sum(1).tolist() == [0, 2]
    with pytest.raises(FlawsmithError, match="doubles"):
        WordPiece(["a", "a"])


def test_table_round_trip(tmp_path: Path) -> None:
    table = WordTable(torch.randn(5, 8), torch.rand(5))
    table.save(tmp_path / "t.safetensors")
    again = WordTable.from_file(tmp_path / "t.safetensors")
    assert (again.vectors - table.vectors).abs().max() < 0.03
    again.save(tmp_path / "u.safetensors")
    assert torch.allclose(WordTable.from_file(tmp_path / "u.safetensors").vectors, again.vectors, atol=2e-3)


def test_paraphrases_beat_mismatches(shipped: tuple[WordTable, WordPiece]) -> None:
    pairs = json.loads(EXAM.read_text(encoding="utf-8"))["pairs"]
    assert len(pairs) >= 60
    left, right = zip(*pairs, strict=True)
    similarity = cosine(*shipped, left, right)
    matched = np.diag(similarity)
    others = similarity[~np.eye(len(pairs), dtype=bool)].reshape(len(pairs), -1)
    assert (similarity.argmax(1) == np.arange(len(pairs))).mean() > 0.55  # chance is 1 in 74
    assert (matched[:, None] > others).mean() > 0.92
    assert matched.mean() - others.mean() > 0.4


def test_named_examples(shipped: tuple[WordTable, WordPiece]) -> None:
    near = cosine(*shipped, ["hairline fracture", "rust"], ["thin crack", "brown stain", "missing screw", "blue label"])
    assert near[0].argmax() == 0
    assert near[1].argmax() == 1


def test_the_shipped_table_is_small() -> None:
    files = [SHIPPED["compact"] / "text" / name for name in ("words.safetensors", "vocab.txt")]
    assert sum(path.stat().st_size for path in files) < 8e6
