"""The denoiser in training: its form and its weights by hand, drafts, and what leaves the pooled context out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from holes import windows  # noqa: E402

import fakes  # noqa: E402
from flawsmith.diffusion import tensors  # noqa: E402
from flawsmith.diffusion.backbone import Backbone, PixelCodec  # noqa: E402
from flawsmith.diffusion.batch import Batch  # noqa: E402
from flawsmith.diffusion.compact.clean import FLOOR, CleanUNet  # noqa: E402
from flawsmith.diffusion.compact.recipe import CompactConfig  # noqa: E402
from flawsmith.training.losses import batch_loss  # noqa: E402
from flawsmith.training.pretrain import pretrain  # noqa: E402
from flawsmith.training.pretrain_config import PretrainConfig  # noqa: E402
from flawsmith.training.shards import Mix, Windows  # noqa: E402


@pytest.fixture(scope="module")
def clean(recipe: CompactConfig) -> CompactConfig:
    return replace(recipe, denoiser="clean")


@pytest.fixture(scope="module")
def tiny_clean(clean: CompactConfig, text: Path) -> Backbone:
    return Backbone.compact(clean, seed=1, text=text).freeze()


def test_plain_cells_hold_their_pixels_apart() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    codec = PixelCodec(2, plain=True)
    latents = codec.encode(tensors.from_images(image))
    assert latents.shape == (2, 12, 8, 12)
    assert np.array_equal(tensors.to_images(codec.decode(latents)), image)
    assert torch.allclose(codec.rotation @ codec.rotation.T, torch.eye(12), atol=1e-6)  # white noise stays white
    one = torch.zeros(1, 3, 4, 4)
    one[..., 1, 2] = 0.5  # a grey pixel is brightness alone, in the channel of its place
    assert codec.encode(one).abs().amax((0, 2, 3)).tolist() == pytest.approx([0, 0, 0.5 * 3**0.5] + 9 * [0], abs=1e-6)


def _still(tiny_clean: Backbone, level: float = 0.0) -> CleanUNet:
    """A denoiser whose network says `level` everywhere; its spreads are .2, .1 and .05."""
    unet = Backbone.compact(CompactConfig(**tiny_clean.info["recipe"])).unet.eval()
    unet.spread.copy_(torch.tensor([0.2, 0.1, 0.05]))
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.constant_(unet.conv_out.bias, level)
    return unet


def _answer(unet: CleanUNet, noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """v under a hole over everything, continued by mid grey and without a draft."""
    given = torch.cat([torch.ones(len(t), 16, 8, 8), torch.zeros(len(t), 96, 8, 8)], 1)
    with torch.no_grad():
        return unet(torch.cat([noisy, given], 1), t, torch.zeros(len(t), 1, 32)).sample


@pytest.mark.parametrize("step", [0, 30, 200, 998])
def test_the_denoiser_is_a_small_skip_and_the_network_in_units_of_the_spread(tiny_clean: Backbone, step: int) -> None:
    """D = g^2 / (sigma^2 + g^2) r + s F in units of the clean image; alpha x - sigma v is the image v stands for."""
    noisy, t = torch.randn(4, 48, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((4,), step)
    signal = float(tiny_clean.scheduler.alphas_cumprod[step])
    s = torch.tensor([0.2, 0.1, 0.05]).repeat_interleave(16)[None, :, None, None]
    skip = (s / 4) ** 2 / ((1 - signal) / signal + (s / 4) ** 2)
    for level in (0.0, 0.7):
        clean = signal**0.5 * noisy - (1 - signal) ** 0.5 * _answer(_still(tiny_clean, level), noisy, t)
        assert torch.allclose(clean, skip * noisy / signal**0.5 + s * level, atol=2e-5)


def test_its_input_has_unit_spread_at_every_level(tiny_clean: Backbone) -> None:
    unet, seen = _still(tiny_clean), []
    unet.conv_in.register_forward_pre_hook(lambda module, given: seen.append(given[0][:, :48]))
    spread = unet.spread.repeat_interleave(16)[None, :, None, None]
    clean = spread * torch.randn(400, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(400, 48, 8, 8, generator=torch.Generator().manual_seed(1))
    for step in (0, 200, 999):
        t = torch.full((400,), step)
        _answer(unet, tiny_clean.scheduler.add_noise(clean, noise, t), t)
        assert torch.allclose(seen.pop().std((0, 2, 3)), torch.ones(48), atol=0.05)


def test_errors_are_weighed_as_edm_weighs_them(tiny_clean: Backbone) -> None:
    """An error of x0 by s counts as s / c_out, c_out from Karras et al. 2022, table 1, but not more than 1 / FLOOR."""
    still, loud = _still(tiny_clean), _still(tiny_clean, 1.0)
    noisy = torch.randn(1, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    s, found = torch.tensor([0.2, 0.1, 0.05]).double().repeat_interleave(16), []
    for step in (0, 30, 200, 700, 999):
        t = torch.tensor([step])
        signal = tiny_clean.scheduler.alphas_cumprod[step].double()
        sigma2 = (1 - signal) / signal.clamp_min(1e-9)
        wanted = torch.minimum(((sigma2 + s**2) / sigma2).sqrt(), torch.tensor(1 / FLOOR, dtype=torch.float64))
        error = still.whitened(_answer(loud, noisy, t) - _answer(still, noisy, t), t)
        assert torch.allclose(error.abs().mean((0, 2, 3)).double(), wanted, rtol=1e-3)
        found.append(float(wanted[0]))
    assert found[0] == pytest.approx(1 / FLOOR) and found[-1] == pytest.approx(1, abs=1e-3)


def test_a_draft_is_what_it_adds_to_the_smooth_continuation(tiny_clean: Backbone) -> None:
    image, mask = windows(3)
    draft = 0.5 * torch.ones(3, 32, 32)
    extra = tiny_clean.inpaint_input(image, mask, [draft, None, None])
    assert extra is not None and extra.shape[1] == 16 + 48 + 48
    filled, added = tiny_clean.decode(extra[:, 16:64]), tiny_clean.decode(extra[:, 64:])
    assert torch.allclose(added[0], (draft - filled[0]) * mask[0], atol=1e-5)
    assert not added[1:].any()
    assert torch.equal(tiny_clean.inpaint_input(image, mask), tiny_clean.inpaint_input(image, mask, [None] * 3))


def test_pretraining_leaves_the_pooled_context_out_at_two_of_five_steps(tiny_clean: Backbone) -> None:
    unet = Backbone.compact(CompactConfig(**tiny_clean.info["recipe"]), 3).unet
    noisy = torch.randn(1, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    for step in range(500, 505):
        t = torch.tensor([step])
        told, trained = _answer(unet.eval(), noisy, t), _answer(unet.train(), noisy, t)
        assert torch.equal(told, trained) == (step % 5 >= 2)


def test_outside_the_hole_v_is_known(tiny_clean: Backbone) -> None:
    image, mask = windows(4)
    latents = tiny_clean.encode(image)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    for step in (0, 300, 999):
        t = torch.full((4,), step)
        noisy, v = (f(latents, noise, t) for f in (tiny_clean.scheduler.add_noise, tiny_clean.scheduler.get_velocity))
        with torch.no_grad():
            extra = tiny_clean.inpaint_input(image, mask)
            guess = tiny_clean.unet(torch.cat([noisy, extra], 1), t, tiny_clean.context(["crack"] * 4)).sample
        error = tiny_clean.decode(guess - v)
        assert (error * (1 - mask)).abs().max() < 1e-3
        assert (error * mask).abs().max() > 0.1


def test_the_loss_is_the_weighed_error_inside_the_mask(tiny_clean: Backbone) -> None:
    images = np.stack([fakes.photo(seed, (32, 32)) for seed in range(3)])
    masks = np.zeros((3, 32, 32), bool)
    masks[:, 5:14, 6:20] = True
    batch = Batch(images, images, masks, ["red spot", "", "a hole"], [None] * 3, words=["red spot", "thin", "a hole"])
    noise, t = torch.randn(3, 48, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([20, 450, 980])
    plain = PretrainConfig(outside=0.0, edges=0.0, colour=0.0, align=0.0, min_area=1, bf16=False)
    said: list[Any] = []
    hook = tiny_clean.unet.register_forward_hook(lambda module, given, out: said.append(out[0].detach()))
    with torch.no_grad():
        found = batch_loss(tiny_clean, batch, t, noise, plain)
    hook.remove()
    image, mask = tensors.from_images(images), torch.from_numpy(masks).float()[:, None]
    signal = tiny_clean.scheduler.alphas_cumprod[t][:, None, None, None]
    error = said[0] - (signal.sqrt() * noise - (1 - signal).sqrt() * tiny_clean.encode(image))
    square = tiny_clean.decode(tiny_clean.unet.whitened(error, t)).square() * mask
    assert torch.allclose(found, square.mean(1).sum((1, 2)) / mask.sum((1, 2, 3)), rtol=1e-3)


def test_pretraining_takes_it_up_and_says_what_each_way_moves(
    clean: CompactConfig, shards: Path, text: Path, tmp_path: Path
) -> None:
    recipe = replace(clean, size=16)
    every = {"held_out_every": 4, "save_every": 2, "preview_every": 4, "held_out": 16}
    mix = Mix(draft=0.7, carried=0.3, near=0.5, native=0.5)
    config = PretrainConfig(steps=4, batch_size=4, warmup=1, recipe=recipe, mix=mix, **every)
    pretrain(config, [shards], tmp_path / "whole", text=text)
    pretrain(config, [shards], tmp_path / "parts", text=text, stop_after=2)
    pretrain(config, [shards], tmp_path / "parts", text=text)
    whole, parts = ((tmp_path / k / "state.safetensors").read_bytes() for k in ("whole", "parts"))
    assert whole == parts
    line = (tmp_path / "whole" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    assert all(f"moves/{way}" in line for way in ("attention", "pooled", "reference", "draft", "all"))
    loaded = Backbone.from_pretrained(tmp_path / "whole" / "backbone")
    assert isinstance(loaded.unet, CleanUNet) and loaded.takes_drafts and loaded.size == 16
    assert not torch.allclose(loaded.unet.spread, torch.full((3,), clean.spread))  # measured on the windows
    assert len(Windows([shards], mix, 16)) == 40
