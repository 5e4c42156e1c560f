"""Pretraining: every trained part gets a gradient, a resumed run equals an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import load_file  # noqa: E402

from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.compact.recipe import CompactConfig  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.training.losses import batch_loss, masked_loss, step_weight  # noqa: E402
from flawsmith.training.pretrain import _batches, pretrain  # noqa: E402
from flawsmith.training.pretrain_config import PretrainConfig, read_config  # noqa: E402
from flawsmith.training.shards import Windows  # noqa: E402


@pytest.fixture
def quick(recipe: CompactConfig) -> PretrainConfig:
    every = {"held_out_every": 6, "save_every": 3, "preview_every": 6}
    return PretrainConfig(steps=6, batch_size=4, warmup=2, held_out=16, recipe=recipe, learning_rate=2e-3, **every)


def test_batches_made_ahead_and_a_call_that_ends_in_time_change_nothing(
    shards: Path, text: Path, tmp_path: Path, quick: PretrainConfig
) -> None:
    pretrain(quick, [shards], tmp_path / "whole", text=text)
    for _ in range(2):  # no time at all: one step a call
        pretrain(quick, [shards], tmp_path / "hurried", text=text, minutes=0)
    assert json.loads((tmp_path / "hurried" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 2
    pretrain(quick, [shards], tmp_path / "hurried", text=text)
    handlers = [signal.getsignal(each) for each in signal.valid_signals()]
    pretrain(quick, [shards], tmp_path / "ahead", text=text, workers=2)
    assert [signal.getsignal(each) for each in signal.valid_signals()] == handlers  # the caller's are left alone
    whole, *others = ((tmp_path / k / "state.safetensors").read_bytes() for k in ("whole", "hurried", "ahead"))
    assert others == [whole, whole]


class Dying:
    """Windows whose batches end the process that asks for them."""

    def batch(self, *_: int) -> None:
        os._exit(1)


def test_a_process_that_the_system_ends_is_told_in_words(quick: PretrainConfig) -> None:
    with pytest.raises(FlawsmithError, match="give fewer --workers"):
        next(_batches(Dying(), quick, range(9), 1))


def test_masked_loss_by_hand() -> None:
    error = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    mask = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    assert masked_loss(error, mask, 0.0, 0.0, 1).item() == pytest.approx((4 + 16) / 2)
    assert masked_loss(error, mask, 0.1, 0.0, 1).item() == pytest.approx(10 + 0.1 * (1 + 9) / 4)
    # inside the mask only the two right pixels are neighbours: difference 2, squared 4, over an area of 2
    assert masked_loss(error, mask, 0.0, 0.5, 1).item() == pytest.approx(10 + 0.5 * 4 / 2)
    assert masked_loss(error, mask, 0.0, 0.0, 10).item() == pytest.approx(20 / 10)
    red = torch.tensor([3.0, 0.0, 0.0]).view(1, 3, 1, 1)  # mean square 3, without its grey part (2, -1, -1): 2
    assert masked_loss(red, torch.ones(1, 1, 1, 1), 0.0, 0.0, 1, colour=4.0).item() == pytest.approx(3 + 4 * 2)


def test_step_weight_by_hand() -> None:
    alphas = torch.tensor([0.99, 5 / 6, 0.5, 0.0])  # signal-to-noise 99, 5, 1, 0
    weight = step_weight(alphas, torch.arange(4), 5.0)
    assert torch.allclose(weight, torch.tensor([0.06, 1.0, 1.0, 1.0]), atol=1e-5)


def test_batches_are_a_function_of_the_step(shards: Path) -> None:
    one, two = Windows([shards]), Windows([shards])
    one.batch(4, 0, 1)
    a, b = one.batch(4, 0, 5), two.batch(4, 0, 5)
    assert a.captions == b.captions
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.mask, b.mask)
    assert not np.array_equal(a.image, two.batch(4, 0, 6).image)


def test_batches_keep_the_split_and_the_surroundings(shards: Path) -> None:
    windows = Windows([shards])
    for step in range(6):
        batch = windows.batch(8, 0, step)
        assert {windows.notes[row].split for row in batch.rows} == {"train"}
        outside = ~batch.mask[..., None] & np.ones(3, bool)
        assert np.array_equal(batch.image[outside], batch.clean[outside])
        assert batch.mask.any((1, 2)).all()


def test_every_trained_part_gets_a_gradient(shards: Path, text: Path, quick: PretrainConfig) -> None:
    backbone = Backbone.compact(quick.recipe, 0, text)
    windows = Windows([shards])
    for step in range(4):  # several, so that both null tokens and both conditions occur
        noise = torch.randn(8, 48, 8, 8, generator=torch.Generator().manual_seed(step))
        batch_loss(backbone, windows.batch(8, 0, step), torch.arange(8) * 120, noise, quick).mean().backward()
    for part, module in backbone.modules().items():
        missing = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        # a key bias shifts all logits of a query alike: softmax does not see it
        assert [n for n in missing if not n.endswith("key.bias")] == [], part


def test_resumed_equals_uninterrupted(shards: Path, text: Path, tmp_path: Path, quick: PretrainConfig) -> None:
    pretrain(quick, [shards], tmp_path / "whole", text=text)
    pretrain(quick, [shards], tmp_path / "parts", text=text, stop_after=3)
    pretrain(quick, [shards], tmp_path / "parts", text=text)
    whole, parts = ((tmp_path / k / "state.safetensors").read_bytes() for k in ("whole", "parts"))
    assert whole == parts
    lines = [json.loads(x) for x in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6]
    assert {"held_out/text", "held_out/text_wrong", "held_out/reference_wrong", "held_out/none"} <= lines[-1].keys()
    assert (tmp_path / "parts" / "previews" / "000006.png").exists()
    with pytest.raises(FlawsmithError, match="learning_rate"):
        pretrain(replace(quick, learning_rate=1.0), [shards], tmp_path / "parts", text=text)


@pytest.mark.gpu
def test_a_run_may_move_to_a_gpu_and_back(shards: Path, text: Path, tmp_path: Path, quick: PretrainConfig) -> None:
    config = replace(quick, bf16=False)
    pretrain(config, [shards], tmp_path / "cpu", text=text)
    pretrain(config, [shards], tmp_path / "moved", text=text, stop_after=3, device="cuda")
    pretrain(config, [shards], tmp_path / "moved", text=text, device="cpu")
    one, other = (load_file(str(tmp_path / name / "state.safetensors")) for name in ("cpu", "moved"))
    for key, value in ((key, value) for key, value in one.items() if key.startswith("ema|")):
        assert torch.allclose(value, other[key], atol=5e-3), key


def test_config_file(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"steps": 5, "mix": {"real": 0.5}, "recipe": {"channels": [16, 32]}}))
    config = read_config(path, seed=3)
    assert (config.steps, config.seed, config.mix.real, config.recipe.channels) == (5, 3, 0.5, (16, 32))
    for wrong, told in (
        ('{"stepz": 5}', "stepz"),
        ('{"mix": {"reel": 1}}', "reel"),
        ('{"recipe": {"chanels": 1}}', "chanels"),
        ('{"recipe": 1}', "known fields"),
        ("[1]", "known fields"),
        ("{", "known fields"),
    ):
        path.write_text(wrong)
        with pytest.raises(FlawsmithError, match=told):
            read_config(path)
    with pytest.raises(FlawsmithError, match="absent"):
        read_config(tmp_path / "absent.json")
    shipped = Path(__file__).parents[2] / "recipes" / "compact" / "pretrain.json"
    assert read_config(shipped).recipe == CompactConfig()
