"""The backbone's promises: exact codec, batch-invariant sampling, save = load, conditions that can be absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from flawsmith.diffusion import tensors  # noqa: E402
from flawsmith.diffusion.backbone import Backbone, PixelCodec  # noqa: E402
from flawsmith.diffusion.compact.recipe import CompactConfig  # noqa: E402
from flawsmith.diffusion.compact.unet import FLOOR, ResidualUNet  # noqa: E402
from flawsmith.diffusion.denoise import Conditioning, denoise, draw_noise, scheduler_for  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402


def windows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    image = tensors.from_images(rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
    mask = torch.zeros(count, 1, 32, 32)
    for i in range(count):
        mask[i, :, 3 + i : 12 + i, 5:20] = 1
    return image, mask


def sample(backbone: Backbone, rows: slice, **options: object) -> torch.Tensor:
    image, mask = (x[rows] for x in windows(4))
    seeds = [11, 12, 13, 14][rows]
    words = ["red spot", "", "blue scratches on metal", "thin"][rows]
    context = backbone.context(words, [(image[0], mask[0]) if i % 2 else None for i in range(len(words))])
    null = backbone.null(len(words))
    return denoise(
        backbone.unet,
        backbone.sampler("dpm++"),
        lambda t: Conditioning(context),
        draw_noise(seeds, (48, 8, 8)),
        extra=backbone.inpaint_input(image, mask),
        unconditional=lambda t: null,
        guidance_scale=1.5,
        num_inference_steps=3,
        **options,
    )


def test_codec_is_exact() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    codec = PixelCodec(4)
    latents = codec.encode(tensors.from_images(image))
    assert latents.shape == (2, 48, 4, 6)
    assert np.array_equal(tensors.to_images(codec.decode(latents)), image)
    assert torch.allclose(codec.rotation @ codec.rotation.T, torch.eye(3), atol=1e-6)  # white noise stays white
    flat = codec.encode(torch.full((1, 3, 4, 4), 0.5))
    assert torch.allclose(flat[0, :16], torch.tensor(0.5 * 3**0.5), atol=1e-6)  # grey is brightness alone
    assert flat[0, 16:].abs().max() < 1e-6


def test_every_grey_level_survives_the_conversion() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    assert np.array_equal(tensors.to_images(tensors.from_images(ramp)), ramp)


def _still(tiny: Backbone, level: float = 0.0) -> ResidualUNet:
    """A denoiser whose network says `level` everywhere; its spreads are .2, .1 and .05."""
    unet = Backbone.compact(CompactConfig(**tiny.info["recipe"])).unet.eval()
    unet.spread.copy_(torch.tensor([0.2, 0.1, 0.05]))
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.constant_(unet.conv_out.bias, level)
    return unet


def _answer(unet: ResidualUNet, noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """v under a hole over everything, continued by mid grey and without a draft."""
    given = torch.cat([torch.ones(len(t), 16, 8, 8), torch.zeros(len(t), 96, 8, 8)], 1)
    with torch.no_grad():
        return unet(torch.cat([noisy, given], 1), t, torch.zeros(len(t), 1, 32)).sample


@pytest.mark.parametrize("step", [0, 30, 200, 998])
def test_the_denoiser_is_a_small_skip_and_the_network_in_units_of_the_spread(tiny: Backbone, step: int) -> None:
    """D = g^2 / (sigma^2 + g^2) r + s F in units of the clean image; alpha x - sigma v is the image v stands for."""
    noisy, t = torch.randn(4, 48, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((4,), step)
    signal = float(tiny.scheduler.alphas_cumprod[step])
    s = torch.tensor([0.2, 0.1, 0.05]).repeat_interleave(16)[None, :, None, None]
    skip = (s / 4) ** 2 / ((1 - signal) / signal + (s / 4) ** 2)
    for level in (0.0, 0.7):
        clean = signal**0.5 * noisy - (1 - signal) ** 0.5 * _answer(_still(tiny, level), noisy, t)
        assert torch.allclose(clean, skip * noisy / signal**0.5 + s * level, atol=2e-5)


def test_its_input_has_unit_spread_at_every_level(tiny: Backbone) -> None:
    unet, seen = _still(tiny), []
    unet.conv_in.register_forward_pre_hook(lambda module, given: seen.append(given[0][:, :48]))
    spread = unet.spread.repeat_interleave(16)[None, :, None, None]
    clean = spread * torch.randn(400, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(400, 48, 8, 8, generator=torch.Generator().manual_seed(1))
    for step in (0, 200, 999):
        t = torch.full((400,), step)
        _answer(unet, tiny.scheduler.add_noise(clean, noise, t), t)
        assert torch.allclose(seen.pop().std((0, 2, 3)), torch.ones(48), atol=0.05)


def test_errors_are_weighed_as_edm_weighs_them(tiny: Backbone) -> None:
    """An error of x0 by s counts as s / c_out, c_out from Karras et al. 2022, table 1, but not more than 1 / FLOOR."""
    still, loud = _still(tiny), _still(tiny, 1.0)
    noisy = torch.randn(1, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    s, found = torch.tensor([0.2, 0.1, 0.05]).double().repeat_interleave(16), []
    for step in (0, 30, 200, 700, 999):
        t = torch.tensor([step])
        signal = tiny.scheduler.alphas_cumprod[step].double()
        sigma2 = (1 - signal) / signal.clamp_min(1e-9)
        wanted = torch.minimum(((sigma2 + s**2) / sigma2).sqrt(), torch.tensor(1 / FLOOR, dtype=torch.float64))
        error = still.whitened(_answer(loud, noisy, t) - _answer(still, noisy, t), t)
        assert torch.allclose(error.abs().mean((0, 2, 3)).double(), wanted, rtol=1e-3)
        found.append(float(wanted[0]))
    assert found[0] == pytest.approx(1 / FLOOR) and found[-1] == pytest.approx(1, abs=1e-3)


def test_a_draft_is_what_it_adds_to_the_smooth_continuation(tiny: Backbone) -> None:
    image, mask = windows(3)
    draft = 0.5 * torch.ones(3, 32, 32)
    extra = tiny.inpaint_input(image, mask, [draft, None, None])
    assert extra is not None and extra.shape[1] == 16 + 48 + 48
    filled, added = tiny.decode(extra[:, 16:64]), tiny.decode(extra[:, 64:])
    assert torch.allclose(added[0], (draft - filled[0]) * mask[0], atol=1e-5)
    assert not added[1:].any()
    assert torch.equal(tiny.inpaint_input(image, mask), tiny.inpaint_input(image, mask, [None] * 3))


def test_pretraining_leaves_the_pooled_context_out_at_two_of_five_steps(tiny: Backbone) -> None:
    unet = Backbone.compact(CompactConfig(**tiny.info["recipe"]), 3).unet
    noisy = torch.randn(1, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    for step in range(500, 505):
        t = torch.tensor([step])
        told, trained = _answer(unet.eval(), noisy, t), _answer(unet.train(), noisy, t)
        assert torch.equal(told, trained) == (step % 5 >= 2)


def test_outside_the_hole_v_is_known(tiny: Backbone) -> None:
    image, mask = windows(4)
    latents = tiny.encode(image)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    for step in (0, 300, 999):
        t = torch.full((4,), step)
        noisy, v = (f(latents, noise, t) for f in (tiny.scheduler.add_noise, tiny.scheduler.get_velocity))
        with torch.no_grad():
            extra = tiny.inpaint_input(image, mask)
            guess = tiny.unet(torch.cat([noisy, extra], 1), t, tiny.context(["crack"] * 4)).sample
        error = tiny.decode(guess - v)
        assert (error * (1 - mask)).abs().max() < 1e-3
        assert (error * mask).abs().max() > 0.1


def test_the_fill_keeps_what_is_known_and_continues_it() -> None:
    image, mask = windows(4)
    filled = tensors.smooth_fill(image * (1 - mask), mask)
    assert torch.allclose(filled * (1 - mask), image * (1 - mask), atol=1e-5)
    even = torch.full((1, 3, 24, 24), 0.3)  # 24 halves only three times
    hole = torch.zeros(1, 1, 24, 24)
    hole[..., 3:20, 5:19] = 1
    assert torch.allclose(tensors.smooth_fill(even * (1 - hole), hole), even, atol=1e-5)
    everything = torch.ones(1, 1, 24, 24)
    assert tensors.smooth_fill(even * 0, everything).abs().max() == 0


def test_a_one_pixel_mask_survives_pooling() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 37, 22] = 1
    assert tensors.pool_mask(mask, 4).sum() == 1


def test_kind_and_sizes(tiny: Backbone) -> None:
    assert tiny.input_kind == "inpaint"
    assert (tiny.size, tiny.factor, tiny.latent_channels, tiny.mask_channels) == (32, 4, 48, 16)
    image, mask = windows(2)
    extra = tiny.inpaint_input(image, mask)
    assert extra is not None
    assert extra.shape == (2, 112, 8, 8)
    other = torch.where(mask > 0, -image, image)
    again = tiny.inpaint_input(other, mask)
    assert again is not None
    assert torch.equal(again, extra)  # nothing of the hidden image leaks into the context
    assert torch.allclose(tiny.decode(extra[:, 16:64]) * (1 - mask), image * (1 - mask), atol=1e-5)


@pytest.mark.parametrize("bf16", [True, False])
def test_sampling_does_not_depend_on_the_batch(tiny: Backbone, bf16: bool) -> None:
    together = sample(tiny, slice(0, 4), bf16=bf16)
    # the reference of odd rows depends on the row, so compare pairs with pairs
    apart = torch.cat([sample_pair(tiny, 0, bf16), sample_pair(tiny, 2, bf16)])
    assert (together - apart).abs().max() < 2 / 255 / 2


def sample_pair(backbone: Backbone, start: int, bf16: bool) -> torch.Tensor:
    image, mask = windows(4)
    words = ["red spot", "", "blue scratches on metal", "thin"]
    context = backbone.context(words, [(image[0], mask[0]) if i % 2 else None for i in range(4)])[start : start + 2]
    null = backbone.null(2)
    rows = slice(start, start + 2)
    return denoise(
        backbone.unet,
        backbone.sampler("dpm++"),
        lambda t: Conditioning(context),
        draw_noise([11, 12, 13, 14], (48, 8, 8))[rows],
        extra=backbone.inpaint_input(image[rows], mask[rows]),
        unconditional=lambda t: null,
        guidance_scale=1.5,
        num_inference_steps=3,
        bf16=bf16,
    )


def test_same_seed_same_noise_alone_and_together() -> None:
    assert torch.equal(draw_noise([5, 6], (3, 4, 4))[1:], draw_noise([6], (3, 4, 4)))


def test_save_and_load(tiny: Backbone, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "one")
    once = Backbone.from_pretrained(tmp_path / "one")
    once.save_pretrained(tmp_path / "two")
    twice = Backbone.from_pretrained(tmp_path / "two")
    assert torch.equal(sample(once, slice(0, 2)), sample(twice, slice(0, 2)))  # fp16 on disk is a fixed point
    assert (sample(once, slice(0, 2)) - sample(tiny, slice(0, 2))).abs().max() < 0.1
    files = sorted(p.name for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert not [f for f in files if f.endswith((".bin", ".pt", ".pkl"))]


def test_absent_conditions(tiny: Backbone) -> None:
    image, mask = windows(1)
    null = tiny.null(1).context
    assert torch.equal(null, tiny.context([""], [None]))
    assert not torch.equal(null, tiny.context(["red spot"], [None]))
    assert not torch.equal(null, tiny.context([""], [(image[0], mask[0])]))
    # the text tokens do not depend on the reference
    length = tiny.encode_text([""]).shape[1]
    assert torch.equal(null[:, :length], tiny.context([""], [(image[0], mask[0])])[:, :length])


def test_reader_maps_and_guidance(tiny: Backbone) -> None:
    image, mask = windows(2)
    text, keep = tiny.text_tokens(["red spot", ""])
    visual = tiny.reference(image, mask)
    assert visual.shape == (2, 65, 32)
    states, maps = tiny.reader.features(visual, text, keep)
    assert states.shape == (2, 4, 32)
    assert [m.shape for m in maps] == [(2, 2, 4, 65)]
    assert torch.allclose(maps[0].sum(-1), torch.ones(2, 2, 4))
    e_g = torch.zeros(1, 65, 32, requires_grad=True)
    tiny.reader.features(visual, text, keep, e_g)[1][0][..., 1:9].sum().backward()
    assert e_g.grad is not None
    assert e_g.grad.abs().sum() > 0


def test_known_region_is_kept(tiny: Backbone) -> None:
    image, mask = windows(2)
    known, cells = tiny.encode(image), tensors.pool_mask(mask, 8)
    null = tiny.null(2)
    made = denoise(
        tiny.unet,
        tiny.sampler("ddim"),
        lambda t: null,
        draw_noise([1, 2], (48, 8, 8)),
        extra=tiny.inpaint_input(image, mask),
        num_inference_steps=3,
        known=known,
        mask=cells,
    )
    assert torch.equal(made * (1 - cells), known * (1 - cells))
    assert not torch.equal(made, known)


def test_refusals(tiny: Backbone, tmp_path: Path) -> None:
    null = tiny.null(1)
    noise = draw_noise([1], (48, 8, 8))
    with pytest.raises(FlawsmithError, match="no unconditional"):
        denoise(tiny.unet, tiny.sampler(), lambda t: null, noise, guidance_scale=2.0)
    with pytest.raises(FlawsmithError, match="known: ddim, dpm"):
        scheduler_for(tiny.scheduler.config, "euler")
    with pytest.raises(FlawsmithError, match=r"model_index\.json"):
        Backbone.from_pretrained(tmp_path)


def test_a_stable_diffusion_folder_loads(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=9,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=24,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        norm_num_groups=8,
    )
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8, **kinds)
    made = Backbone(unet, DDIMScheduler(prediction_type="epsilon"), vae=vae)
    image, mask = windows(1)
    assert (made.input_kind, made.factor, made.size) == ("inpaint", 2, 16)
    extra = made.freeze().inpaint_input(image, mask)
    assert extra is not None
    assert extra.shape == (1, 5, 16, 16)
    assert set(extra[:, 0].unique().tolist()) == {0.0, 1.0}
    made.save_pretrained(tmp_path / "folder")
    (tmp_path / "folder" / "model_index.json").read_text()
    with pytest.raises(FlawsmithError, match="text_encoder"):
        Backbone.from_pretrained(tmp_path / "folder")
