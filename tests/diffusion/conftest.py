"""A compact backbone at tiny size: the real classes, a word table of a dozen pieces, built once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import thin  # noqa: E402

import fakes  # noqa: E402
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.compact.recipe import CompactConfig  # noqa: E402
from flawsmith.diffusion.compact.words import WordPiece, WordTable  # noqa: E402
from flawsmith.training.shards import Note, TrainingWindow, write_shards  # noqa: E402

TINY = CompactConfig(
    size=32,
    channels=(16, 32),
    attention=(False, True),
    heads=2,
    groups=8,
    width=32,
    text_layers=1,
    reference_width=32,
    reference_base=16,
    queries=4,
)
PIECES = ["[PAD]", "[UNK]", "a", "red", "blue", "scratch", "##es", "spot", "on", "metal", "thin", "no", "defect", ","]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recipe() -> CompactConfig:
    return TINY


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    WordPiece(PIECES).save(folder / "vocab.txt")
    vectors = torch.nn.functional.normalize(
        torch.randn(len(PIECES), 16, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    WordTable(vectors, torch.linspace(0.1, 0.9, len(PIECES))).save(folder / "words.safetensors")
    return folder


@pytest.fixture(scope="session")
def tiny(text: Path) -> Backbone:
    return Backbone.compact(TINY, seed=1, text=text).freeze()


@pytest.fixture(scope="session")
def folder(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` on disk; not to be written to."""
    path = tmp_path_factory.mktemp("backbone") / "tiny"
    tiny.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one category with two types of defect; not to be written to."""
    path = tmp_path_factory.mktemp("data")
    fakes.mvtec_tree(path, "widget", good=3, defects={"crack": 6, "hole": 6}, size=(60, 80))
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where features of references are kept, of this test alone."""
    monkeypatch.setenv("FLAWSMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty windows: red or blue spots on grey noise, and a few clean ones."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(40):
        clean = rng.integers(90, 150, (32, 32, 3), dtype=np.uint8)
        mask = np.zeros((32, 32), bool)
        if i % 8:
            top, left = rng.integers(4, 20, 2)
            mask[top : top + 8, left : left + 8] = True
        colour = ("red", "blue")[i % 2]
        image = clean.copy()
        image[mask] = {"red": (200, 20, 20), "blue": (20, 20, 200)}[colour]
        note = Note(
            f"{colour} spot on metal",
            "spot" if i % 8 else "",
            colour,
            "procedural",
            str(i),
            "val" if i % 5 == 0 else "train",
        )
        made.append(TrainingWindow(image, clean, mask, note))
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, made, per_shard=15)
    return folder


@pytest.fixture(scope="session")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BLIP-2's image-text model, thin, on disk as a user would have it."""
    pytest.importorskip("transformers")
    return thin.blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return thin.clip(tmp_path_factory.mktemp("clip"))
