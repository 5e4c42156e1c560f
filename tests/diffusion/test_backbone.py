"""The backbone's promises: exact codec, batch-invariant sampling, save = load, conditions that can be absent."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from holes import windows  # noqa: E402

from flawsmith.diffusion import tensors  # noqa: E402
from flawsmith.diffusion.backbone import Backbone, PixelCodec  # noqa: E402
from flawsmith.diffusion.compact.recipe import CompactConfig  # noqa: E402
from flawsmith.diffusion.compact.unet import wave_bands  # noqa: E402
from flawsmith.diffusion.denoise import Conditioning, denoise, draw_noise, scheduler_for  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402


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
    assert torch.allclose(codec.rotation @ codec.rotation.T, torch.eye(48), atol=1e-6)  # white noise stays white
    flat = codec.encode(torch.full((1, 3, 4, 4), 0.5))
    assert flat[0, 0].item() == pytest.approx(0.5 * 48**0.5)  # a flat grey cell lives in one channel
    assert flat[0, 1:].abs().max() < 1e-6


def test_every_grey_level_survives_the_conversion() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    assert np.array_equal(tensors.to_images(tensors.from_images(ramp)), ramp)


def test_preconditioning_is_the_best_linear_guess(tiny: Backbone) -> None:
    """Under a hole over everything, with the assumed spectrum, the skip leaves of v what the scale says."""
    unet = Backbone.compact(dataclasses.replace(CompactConfig(**tiny.info["recipe"]), spread=0.2)).unet
    clean = 0.2 * torch.randn(400, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(400, 48, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    for step in (0, 200, 999):
        t = torch.full((400,), step)
        noisy, v = (f(clean, noise, t) for f in (tiny.scheduler.add_noise, tiny.scheduler.get_velocity))
        with torch.no_grad():
            given = torch.cat([torch.ones(400, 16, 8, 8), torch.zeros(400, 48, 8, 8)], 1)
            guess = unet(torch.cat([noisy, given], 1), t, torch.zeros(400, 1, 32)).sample
        alpha = unet.signal[step]
        left = (0.2**2 / (alpha * 0.2**2 + 1 - alpha)).sqrt()
        assert (v - guess).std().item() == pytest.approx(left.item(), rel=0.01)


@pytest.mark.parametrize("size", [16, 64, 128])
def test_bands_share_out_every_wave(size: int) -> None:
    bands = wave_bands(size)
    assert bands.shape == (4, size, size) and bands.min() >= 0
    assert torch.allclose(bands.sum(0), torch.ones(size, size), atol=1e-6)
    assert bands[0, 0, 0] == 1 and bands[3, -1, -1] == 1  # the level is the coarsest, a chessboard the finest


def test_gates_decide_how_much_of_the_filter_is_taken(tiny: Backbone) -> None:
    """Closed: the image is the smooth fill; wide open: twice the filter's guess beyond it; each at its own place."""
    unet = Backbone.compact(dataclasses.replace(CompactConfig(**tiny.info["recipe"]), spread=0.2), 3).unet
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    image, mask = windows(4)
    extra, latents = tiny.inpaint_input(image, mask), tiny.encode(image)
    assert extra is not None
    filled = unet.planes(extra[:, 16:])
    t = torch.full((4,), 300)
    noisy = tiny.scheduler.add_noise(latents, torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)), t)
    alpha, sigma = unet.signal[300].sqrt(), (1 - unet.signal[300]).sqrt()

    def beyond(level: float) -> torch.Tensor:
        """What the prediction says the image is, minus the fill."""
        torch.nn.init.constant_(unet.gates.bias, level)
        with torch.no_grad():
            v = unet(torch.cat([noisy, extra], 1), t, torch.zeros(4, 1, 32)).sample
        return unet.planes(alpha * noisy - sigma * v) - filled

    assert beyond(-60.0).abs().max() < 1e-4
    once, twice = beyond(0.0), beyond(60.0)
    assert once.abs().max() > 0.1 and torch.allclose(twice, 2 * once, atol=1e-3)
    assert (once * (1 - mask)).abs().max() < 1e-4
    with torch.no_grad():
        unet.gates.bias[:4] = -60.0  # brightness closed, colour open
    with torch.no_grad():
        v = unet(torch.cat([noisy, extra], 1), t, torch.zeros(4, 1, 32)).sample
    closed = unet.planes(alpha * noisy - sigma * v) - filled
    assert closed[:, 0].abs().max() < 1e-4 and torch.allclose(closed[:, 1:], twice[:, 1:], atol=1e-3)


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


def test_planes_and_waves_are_rotations_of_the_image(tiny: Backbone) -> None:
    unet, latents = tiny.unet, torch.randn(2, 48, 8, 8, generator=torch.Generator().manual_seed(3))
    planes = unet.planes(latents)
    assert torch.allclose(unet.latents(planes), latents, atol=1e-5)
    assert unet.waves(planes).square().sum().item() == pytest.approx(latents.square().sum().item(), rel=1e-5)
    grey = tensors.from_images(np.full((1, 32, 32, 3), 204, np.uint8))  # 0.6 in [-1, 1]
    assert torch.allclose(unet.planes(tiny.encode(grey))[0, 0], torch.full((32, 32), 0.6 * 3**0.5), atol=1e-5)
    waves = unet.waves(unet.planes(tiny.encode(grey)))
    assert waves[0, 0, 0, 0].item() == pytest.approx(0.6 * 3**0.5 * 32, rel=1e-5)  # all in the coarsest wave
    waves[0, 0, 0, 0] = 0
    assert waves.abs().max() < 1e-4


def test_power_of_every_channel_in_closed_form(tiny: Backbone) -> None:
    unet = Backbone.compact(CompactConfig(**tiny.info["recipe"])).unet
    generator = torch.Generator().manual_seed(5)
    unet.spectrum.copy_(torch.rand(unet.spectrum.shape, generator=generator))
    waves = unet.spectrum * torch.randn(4000, *unet.spectrum.shape, generator=generator)
    drawn = unet.latents(unet.pixels(waves))
    assert torch.allclose(drawn.square().mean((0, 2, 3)), unet.power(), rtol=0.03)


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
    assert extra.shape == (2, 64, 8, 8)
    other = torch.where(mask > 0, -image, image)
    again = tiny.inpaint_input(other, mask)
    assert again is not None
    assert torch.equal(again, extra)  # nothing of the hidden image leaks into the context
    assert torch.allclose(tiny.decode(extra[:, 16:]) * (1 - mask), image * (1 - mask), atol=1e-5)


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
