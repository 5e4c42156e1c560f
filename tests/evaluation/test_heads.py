"""Heads on a pretrained encoder: families serve or are refused by name, arms are paired, measures do their part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.optim.optimizer import register_optimizer_step_post_hook  # noqa: E402

import fakes  # noqa: E402
from flawsmith import datasets  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.evaluation.detectors import (  # noqa: E402
    encoder,
    expected,
    exporting,
    heads,
    pyramid,
    segmentation,
    views,
)
from flawsmith.evaluation.detectors.segmentation import SegmentationConfig  # noqa: E402
from flawsmith.records import Sample  # noqa: E402

TOKENS = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}


def tiny(kind: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    if kind == "mobilenet":
        config = transformers.MobileNetV2Config(depth_multiplier=0.1, image_size=64, initializer_range=0.3)
        return transformers.MobileNetV2ForImageClassification(config)
    if kind == "resnet":
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 160], "depths": [1, 1], "layer_type": "basic"}
        return transformers.ResNetModel(transformers.ResNetConfig(**sizes))
    if kind == "segformer":
        sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "num_attention_heads": [1, 1, 2, 2]}
        return transformers.SegformerModel(transformers.SegformerConfig(**sizes, decoder_hidden_size=8))
    if kind == "vit":
        return transformers.ViTForImageClassification(transformers.ViTConfig(image_size=32, patch_size=8, **TOKENS))
    return transformers.Dinov2Model(transformers.Dinov2Config(image_size=28, patch_size=14, **TOKENS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("encoders")

    def make(kind: str) -> str:
        path = root / f"{kind}_tiny"
        if not path.is_dir():
            tiny(kind).save_pretrained(path)
        return str(path)

    return make


@pytest.fixture
def config(folder) -> SegmentationConfig:
    settings = {"steps": 40, "batch_size": 4, "crop": 64, "heads": 2, "views": 4, "learning_rate": 1e-2, "looks": 1}
    return SegmentationConfig(encoder=folder("mobilenet"), scale=1.0, seed=3, **settings)


pytestmark = pytest.mark.usefixtures("one_thread")


def defect(kind: str, seed: int) -> Sample:
    return Sample(*fakes.with_defect(fakes.photo(seed, (64, 80)), kind, seed), "widget", kind)


def good(seed: int) -> Sample:
    return Sample(fakes.photo(seed, (64, 80)), np.zeros((64, 80), bool), "widget")


REAL = [defect(kind, seed) for seed, kind in enumerate(["hole", "hole", "crack", "crack"])]
MADE = [defect("hole", 30), defect("crack", 31)]
NORMALS = [good(seed) for seed in range(20, 24)]


def weights(trained: segmentation.Trained) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trained.model.heads.parameters()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", ["mobilenet", "resnet", "segformer", "vit", "dinov2"])
def test_every_family_gives_maps_at_strides_that_a_head_reads(folder, kind: str) -> None:
    model = encoder.Encoder(folder(kind))
    with torch.no_grad():
        maps = model(torch.zeros(2, 3, 96, 160))
        logits = pyramid.Segmenter(model, heads=1)(torch.zeros(2, 3, 96, 160))
    assert model.name == f"{kind}-tiny" and len(model.hash) == 16
    assert [one.shape[1] for one in maps] == model.widths and max(model.widths) <= encoder.CHANNELS
    strides = [96 // one.shape[2] for one in maps]
    assert strides == sorted(strides) and set(strides) <= set(encoder.STRIDES)
    assert all((one.shape[2] * s, one.shape[3] * s) == (96, 160) for one, s in zip(maps, strides, strict=True))
    assert logits.shape == (2, 1, 96, 160)


def test_a_map_lies_over_the_image_it_is_of(folder) -> None:
    for kind in ("mobilenet", "resnet", "vit", "dinov2"):
        model = encoder.Encoder(folder(kind))
        image = np.full((128, 192, 3), 90, np.uint8)
        spoilt = image.copy()
        spoilt[32:64, 128:160] = 220
        change = (model.seen(image)[0] - model.seen(spoilt)[0]).abs().sum((0, 1))
        row, column = np.unravel_index(int(change.argmax()), change.shape)
        stride = 128 // change.shape[0]
        assert 24 <= row * stride < 72 and 120 <= column * stride < 168, kind


def test_what_does_not_serve_is_refused_by_name_with_a_remedy(folder, tmp_path: Path) -> None:
    text = tmp_path / "words"
    transformers.BertModel(transformers.BertConfig(vocab_size=30, **TOKENS)).save_pretrained(text)
    for source in (str(text), str(tmp_path / "nowhere"), "compact"):
        with pytest.raises(FlawsmithError, match=source.rsplit("/", 1)[-1]):
            heads.settings_of({"encoder": source}, "compact", "cpu")
    with pytest.raises(FlawsmithError, match="light-unet"):
        encoder.Encoder("compact")
    with pytest.raises(FlawsmithError, match="name one"):
        heads.settings_of({"encoder": folder("resnet"), "network": "unet"}, "compact", "cpu")


def test_features_that_serve_are_the_default_and_the_small_network_needs_nothing(folder, tmp_path: Path) -> None:
    chosen = heads.settings_of({"steps": 7}, folder("resnet"), "cpu")
    assert (chosen.encoder, chosen.steps, chosen.crop) == (folder("resnet"), 7, heads.DEFAULTS["crop"])
    assert chosen.name == "pyramid-resnet-tiny"
    for changes, features in (({}, "compact"), ({"network": "light-unet"}, folder("resnet")), ({}, str(tmp_path))):
        small = heads.settings_of(changes, features, "cpu")
        assert small.encoder == "" and small.name == "light-unet" and small.steps == SegmentationConfig().steps


def test_learns_a_tiny_set_and_comes_back_from_disk(config: SegmentationConfig, tmp_path: Path) -> None:
    trained = heads.train(REAL, [], NORMALS, replace(config, steps=120), [*REAL, *NORMALS])
    assert trained.selected == "val-selected" and list(trained.validation) == [120]
    assert trained.validation[120] > 0.5
    exporting.save_segmenter(trained, tmp_path)
    back = exporting.load_segmenter(tmp_path)
    for sample in (REAL[0], good(40)):
        first, second = segmentation.predict(trained, sample)[0], segmentation.predict(back, sample)[0]
        assert first.shape == (64, 80) and np.array_equal(first, second)


def test_same_seed_same_weights_and_the_encoder_is_left_alone(config: SegmentationConfig) -> None:
    quick = replace(config, steps=3)
    first, second = (heads.train(REAL, MADE, NORMALS, quick) for _ in range(2))
    assert equal(weights(first), weights(second)) and first.selected == "last"
    assert not equal(weights(first), weights(heads.train(REAL, MADE, NORMALS, replace(quick, seed=4))))
    fresh = encoder.Encoder(config.encoder).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in first.model.encoder.state_dict().items())
    tuned = heads.train(REAL, MADE, NORMALS, replace(quick, encoder_rate=0.1)).model.encoder.state_dict()
    assert not all(torch.equal(value, fresh[name]) for name, value in tuned.items())


def test_arms_begin_alike_and_draw_the_same_normal_images(config: SegmentationConfig) -> None:
    pools = [{"hole": [["r0"], ["r1"]]}, {"hole": [["g0"], ["g1"], ["g2"]]}]
    sides = [
        [{kind: [[_item(name) for name in one] for one in members] for kind, members in pool.items()} for pool in arm]
        for arm in ([pools[0], {}], pools)
    ]
    normals = [[_item("n0")], [_item("n1")]]
    plans = [views.plan_of(arm, normals, config, np.random.default_rng(0)) for arm in sides]
    flat = [[(item.name, square) for step in plan for item, square in step] for plan in plans]
    assert {name for name, _ in flat[1]} == {"n0", "n1", "r0", "r1", "g0", "g1", "g2"}
    assert all(a == b for a, b in zip(*flat, strict=True) if "n" in (a[0][0], b[0][0]))
    assert all(a[1] == b[1] for a, b in zip(*flat, strict=True))  # and the same squares
    first, second = (
        heads.train(REAL, made, NORMALS, replace(config, steps=1, learning_rate=1e-12)) for made in ([], MADE)
    )
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(weights(first), weights(second), strict=True))
    alone = heads.train(REAL, MADE, NORMALS, replace(config, steps=1, learning_rate=1e-12, paired=False))
    assert not torch.allclose(weights(first)[0], weights(alone)[0], atol=1e-3)


class _Named(views.View):
    name = ""


def _item(name: str) -> views.View:
    item = _Named((), np.empty((0, 0, 3), np.uint8), torch.zeros(96, 96, dtype=torch.bool), np.array([[40, 40]]))
    object.__setattr__(item, "name", name)
    return item


def test_every_image_is_drawn_equally_often(config: SegmentationConfig) -> None:
    pool = {"hole": [[_item(f"g{n}")] for n in range(10)]}
    plan = views.plan_of([{}, pool], [[_item("n")]], replace(config, steps=100, normals=0.0), np.random.default_rng(1))
    names = [item.name for step in plan for item, _ in step]
    assert {names.count(f"g{n}") for n in range(10)} == {40}


def test_an_average_of_heads_and_of_mirror_images_is_what_it_says(config: SegmentationConfig) -> None:
    trained = heads.train(REAL, [], NORMALS, replace(config, steps=2))
    x = torch.rand(1, 3, 64, 96) * 2 - 1
    with torch.no_grad():
        maps = trained.model.standardised(trained.model.encoder(x))
        mean = (trained.model.heads[0](maps) + trained.model.heads[1](maps)) / 2
        assert torch.allclose(trained.model(x), mean, atol=1e-5)
        trained.model.flips = True
        assert torch.allclose(trained.model(x), trained.model(x.flip(3)).flip(3), atol=1e-5)


def test_small_groups_are_seen_in_more_views(config: SegmentationConfig) -> None:
    assert [views.number(count, replace(config, views=200)) for count in (0, 10, 24, 79, 300)] == [8, 8, 8, 3, 1]
    model = encoder.Encoder(config.encoder)
    item = segmentation.shrink(REAL[0], config)
    seen = views.views([item], replace(config, views=3), model)[0]
    assert len(seen) == 3 and all(one.mask.shape[0] % 32 == 0 == one.mask.shape[1] % 32 for one in seen)
    cut, mask = seen[0].cut((0, 0, 2))
    assert torch.equal(mask[0, :64, :64].bool(), torch.from_numpy(item.mask[:64, :64]))
    assert [one.shape[1] for one in cut] == [64 // (seen[0].mask.shape[0] // one.shape[1]) for one in seen[0].maps]


def test_time_is_told_in_seconds(config: SegmentationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only steps of training move, half a second each, the seconds told are half of the steps."""
    taken: list[object] = []
    monkeypatch.setattr(expected, "time", SimpleNamespace(perf_counter=lambda: len(taken) / 2))
    records = datasets.read("mvtec_ad", fakes.mvtec_tree(tmp_path, good=2, defects={"hole": 2}, size=(64, 80)))
    sides = [r for r in records if not r.is_good], [r for r in records if r.is_good]
    counting = register_optimizer_step_post_hook(lambda *_: taken.append(None))
    try:
        told = [expected.seconds(replace(config, steps=n), (2, 2, 2), 4, *sides) for n in (1, 4000)]
    finally:
        counting.remove()
    assert told == [0.5, 2000.0]
