"""What a backbone makes of images and masks behind a VAE: latents, the inpainting channels, and the way back."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import thin  # noqa: E402
from by_hand import drawn, pooled  # noqa: E402

from flawsmith.diffusion.backbone import Backbone  # noqa: E402


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    with torch.no_grad():
        yield


def test_latents_are_the_vaes_mean_at_unit_scale_and_back() -> None:
    backbone, image = thin.backbone("sd"), drawn(2, 3, 32, 32).clamp(-1, 1)
    scale = backbone.vae.config.scaling_factor
    assert scale == pytest.approx(0.18215)
    latents = backbone.encode(image)
    mean, _ = backbone.vae.quant_conv(backbone.vae.encoder(image)).chunk(2, 1)
    assert torch.allclose(latents, scale * mean, atol=1e-5)
    back = backbone.vae.decoder(backbone.vae.post_quant_conv(mean))
    assert torch.allclose(backbone.decode(latents), back, atol=1e-4)


def test_an_inpainting_denoiser_is_given_the_pooled_mask_and_the_image_with_a_grey_hole() -> None:
    backbone, image = thin.backbone("sd-inpainting"), drawn(2, 3, 32, 32).clamp(-1, 1)
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, 0, 9, 31], mask[1, :, 4:13, 6:20] = 1, 1
    extra = backbone.inpaint_input(image, mask)
    assert torch.equal(extra[:, :1], pooled(mask, 16))
    assert torch.allclose(extra[:, 1:], backbone.encode(torch.where(mask > 0, 0.0, image)), atol=1e-5)
    assert thin.backbone("sd").inpaint_input(image, mask) is None


def test_a_pixel_backbone_is_given_every_pixel_of_the_mask(tiny: Backbone) -> None:
    mask = (drawn(1, 1, 32, 32) > 0.5).float()
    cells = tiny.inpaint_input(drawn(1, 3, 32, 32), mask)[:, :16]
    for channel in range(16):
        assert torch.equal(cells[:, channel], mask[:, 0, channel // 4 :: 4, channel % 4 :: 4])
