"""Extractors from real, tiny transformers models of several families: shapes, names, hashes, feature distances."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import fakes  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.evaluation import features  # noqa: E402
from flawsmith.evaluation.metrics import diversity  # noqa: E402

IMAGES = [fakes.photo(seed, size) for seed, size in enumerate([(48, 64), (64, 48), (90, 90)])]
TOKENS = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}


def tiny(kind: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    if kind == "mobilenet":
        config = transformers.MobileNetV2Config(
            depth_multiplier=0.1, image_size=64, num_labels=4, initializer_range=0.3
        )
        return transformers.MobileNetV2ForImageClassification(config)
    if kind == "resnet":
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        return transformers.ResNetModel(config)
    if kind == "vit":
        return transformers.ViTForImageClassification(transformers.ViTConfig(image_size=32, patch_size=8, **TOKENS))
    if kind == "dinov2":
        return transformers.Dinov2Model(transformers.Dinov2Config(image_size=28, patch_size=14, **TOKENS))
    vision = transformers.CLIPVisionConfig(image_size=32, patch_size=8, **TOKENS)
    text = transformers.CLIPTextConfig(vocab_size=30, max_position_embeddings=8, **TOKENS)
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("models")

    def make(kind: str) -> Path:
        path = root / f"{kind}_tiny"
        if not path.is_dir():
            tiny(kind).save_pretrained(path)
        return path

    return make


@pytest.mark.parametrize("kind", ["mobilenet", "resnet", "vit", "dinov2", "clip"])
def test_every_family_gives_features_and_maps(folder, kind: str) -> None:
    extractor = features.load(folder(kind))
    found = extractor(IMAGES, maps=True)
    assert extractor.name == f"{kind}-tiny" and not extractor.smoke
    assert found.pooled.shape[0] == 3 and found.pooled.dtype == np.float32 and np.isfinite(found.pooled).all()
    assert (found.logits is not None) == (kind in ("mobilenet", "vit"))
    assert found.maps is not None and found.maps.dtype == np.float16
    assert (found.maps.astype(float) ** 2).sum(axis=1) == pytest.approx(np.ones(3), abs=0.01)
    assert len(found[:2]) == 2 and found[:2].maps.shape[0] == 2


@pytest.mark.parametrize("kind", ["mobilenet", "dinov2"])
def test_batches_do_not_matter(folder, kind: str) -> None:
    extractor = features.load(folder(kind))
    whole, single = extractor(IMAGES, maps=True), extractor(IMAGES, maps=True, batch_size=1)
    assert whole.pooled == pytest.approx(single.pooled, abs=1e-5)
    assert diversity.distances(whole.maps, single.maps).diagonal() == pytest.approx(np.zeros(3), abs=1e-5)


def test_pooled_features_are_the_model_s_own(folder) -> None:
    extractor = features.load(folder("clip"))
    batch = extractor._batch(IMAGES)
    own = transformers.CLIPModel.from_pretrained(folder("clip")).eval().vision_model(pixel_values=batch)
    assert extractor(IMAGES).pooled == pytest.approx(own.pooler_output.detach().numpy(), abs=1e-5)
    assert extractor.preprocessing.mean[0] == pytest.approx(0.4815, abs=1e-3)


def test_feature_distance_by_hand() -> None:
    # Two levels; at every position unit vectors that are equal, opposite or at a right angle.
    first = [torch.tensor([[[[3.0, 0.0]], [[0.0, 2.0]]]]), torch.tensor([[[[1.0]], [[0.0]]]])]
    second = [torch.tensor([[[[-1.0, 0.0]], [[0.0, 5.0]]]]), torch.tensor([[[[0.0]], [[7.0]]]])]
    rows = [features._unit(levels).numpy() for levels in (first, second)]
    expected = ((4 + 0) / 2 + 2) / 2  # mean over two positions, then over two levels
    assert diversity.distances(*rows)[0, 0] == pytest.approx(expected)


def test_copies_are_at_distance_zero(folder) -> None:
    found = features.load(folder("mobilenet"))([IMAGES[0], IMAGES[1], IMAGES[0].copy()], maps=True)
    among = diversity.distances(found.maps)
    assert among[0, 2] == 0 and among[0, 1] > 0.01


def test_fingerprint_tells_weights_and_preprocessing(folder, tmp_path: Path) -> None:
    first = features.load(folder("mobilenet"))
    assert first.hash == features.load(folder("mobilenet")).hash and len(first.hash) == 16
    smaller = features.load(folder("mobilenet"), size=32)
    assert smaller.hash != first.hash and smaller.name == "mobilenet-tiny@32"
    other = tiny("mobilenet")
    with torch.no_grad():
        other.classifier.bias[0] += 1e-3
    other.save_pretrained(tmp_path / "mobilenet_tiny")
    assert features.load(tmp_path / "mobilenet_tiny").hash != first.hash
    (tmp_path / "mobilenet_tiny/preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_mean": [0.1, 0.2, 0.3],
                "image_std": [1, 1, 1],
                "size": {"shortest_edge": 96},
                "do_center_crop": True,
                "crop_size": {"height": 80, "width": 80},
            }
        )
    )
    stated = features.load(tmp_path / "mobilenet_tiny")
    assert stated.preprocessing == features.Preprocessing(80, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert stated.describe()["hash"] == stated.hash


def test_preprocessing_is_what_the_model_was_trained_with(folder) -> None:
    assert features.load(folder("mobilenet")).preprocessing == features.Preprocessing(64, (0.5,) * 3, (0.5,) * 3)
    batch = features.load(folder("mobilenet"))._batch(
        [np.zeros((64, 64, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8)]
    )
    assert batch.shape == (2, 3, 64, 64) and batch[0].max() == -1 and batch[1].min() == pytest.approx(1, abs=1e-5)


def test_resizing_is_antialiased(folder) -> None:
    board = np.indices((256, 256)).sum(0) % 2 * 255
    grey = features.load(folder("mobilenet"))._batch([np.repeat(board[..., None], 3, 2).astype(np.uint8)])
    assert grey[..., 4:-4, 4:-4].abs().max() < 0.02


def test_refusals(folder, tmp_path: Path) -> None:
    with pytest.raises(FlawsmithError, match="cannot be loaded"):
        features.load(tmp_path)
    with pytest.raises(FlawsmithError, match="at least one"):
        features.load(folder("mobilenet"))([])
    with pytest.raises(FlawsmithError, match="uint8"):
        features.load(folder("mobilenet"))([np.zeros((8, 8, 3), np.float32)])
    config = transformers.BertConfig(vocab_size=30, **TOKENS)
    transformers.BertModel(config).save_pretrained(tmp_path / "words")
    with pytest.raises(FlawsmithError, match="does not read images"):
        features.load(tmp_path / "words")


def test_a_compact_backbone_is_marked_smoke(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from flawsmith.diffusion.backbone import Backbone
    from flawsmith.diffusion.compact.recipe import CompactConfig
    from flawsmith.diffusion.compact.words import WordPiece, WordTable

    text = tmp_path / "text"
    text.mkdir()
    WordPiece(["[PAD]", "[UNK]", "scratch"]).save(text / "vocab.txt")
    WordTable(torch.eye(3, 4), torch.full((3,), 0.5)).save(text / "words.safetensors")
    config = CompactConfig(
        size=32, channels=(16, 32), attention=(False, True), heads=2, groups=8, width=32, reference_width=32
    )
    Backbone.compact(config, text=text).save_pretrained(tmp_path / "backbone")
    extractor = features.load(tmp_path / "backbone")
    found = extractor(IMAGES, maps=True)
    assert extractor.smoke and extractor.name == "compact-smoke"
    assert found.pooled.shape == (3, 32) and found.maps.shape == (3, 64 * 32) and found.logits is None
