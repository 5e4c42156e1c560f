"""What the denoiser is trained on, computed a second time: targets, weights, steps, and the loss of whole batches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import thin  # noqa: E402
from by_hand import drawn, linear, pooled  # noqa: E402

import fakes  # noqa: E402
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.batch import Batch  # noqa: E402
from flawsmith.diffusion.denoise import Conditioning, scheduler_for  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.training.losses import batch_loss, masked_loss, prediction_target, step_weight, stratified_steps  # noqa: E402
from flawsmith.training.pretrain_config import PretrainConfig  # noqa: E402
from flawsmith.training.settings import FitConfig  # noqa: E402


def by_pixel(error: Any, mask: Any, outside: float, edges: float, least: float, colour: float, norm: str) -> float:
    """The loss of one sample (C, h, w), (h, w), pixel by pixel."""
    height, width = mask.shape
    area = height * width if norm == "all" else max(least, mask.sum())

    def square(values: Any) -> float:
        grey = values - values.mean()
        return float((values**2).mean() + colour * (grey**2).mean())

    total = 0.0
    for i in range(height):
        for j in range(width):
            inside = bool(mask[i, j])
            total += square(error[:, i, j]) / area if inside else outside * square(error[:, i, j]) / (height * width)
            for below, right in ((1, 0), (0, 1)):
                if i + below < height and j + right < width and inside and mask[i + below, j + right]:
                    step = error[:, i + below, j + right] - error[:, i, j]
                    total += edges * float((step**2).mean()) / area
    return total


@pytest.mark.parametrize("norm", ["area", "all"])
@pytest.mark.parametrize("least", [1.0, 30.0])
def test_the_loss_is_the_mean_square_inside_the_mask_and_a_little_of_the_rest(norm: Any, least: float) -> None:
    error, mask = drawn(2, 3, 5, 7), (drawn(2, 1, 5, 7, seed=2) > 0.2).float()
    found = masked_loss(error, mask, 0.05, 0.25, least, 4.0, norm)
    for row in range(2):
        wanted = by_pixel(error[row].numpy(), mask[row, 0].numpy(), 0.05, 0.25, least, 4.0, norm)
        assert float(found[row]) == pytest.approx(wanted, rel=1e-4)


def test_the_papers_loss_is_the_mean_over_all_of_the_masked_square() -> None:
    """L = mean((M (eps_theta - eps))^2)."""
    error, mask = drawn(2, 4, 6, 6), (drawn(2, 1, 6, 6, seed=2) > 0.5).float()
    found = masked_loss(error, mask, 0.0, 0.0, 1, norm="all")
    assert torch.allclose(found, ((mask * error) ** 2).flatten(1).mean(1), atol=1e-6)


@pytest.mark.parametrize("cap", [0.5, 5.0, 10.0])
def test_an_error_of_the_clean_image_counts_no_more_than_at_the_cap(cap: float) -> None:
    alphas = torch.tensor([0.999, 0.95, 0.7, 0.4, 0.1, 1e-3])
    ratio = alphas / (1 - alphas)
    t = torch.tensor([5, 0, 3, 1, 2, 4])
    noise, velocity = (step_weight(alphas, t, cap, kind) for kind in ("epsilon", "v_prediction"))
    for row, step in enumerate(t):
        snr = float(ratio[step])
        assert float(noise[row]) == pytest.approx(min(1.0, cap / snr), rel=1e-3)
        assert float(velocity[row]) == pytest.approx(min(1.0, (1 + cap) / (1 + snr)), rel=1e-3)
    assert step_weight(alphas, t, 0.0).tolist() == [1.0] * 6


def test_targets_are_the_noise_or_its_velocity() -> None:
    latents, noise, t = drawn(3, 2, 4, 4), drawn(3, 2, 4, 4, seed=2), torch.tensor([3, 400, 999])
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    for kind in ("epsilon", "v_prediction"):
        scheduler = scheduler_for({**config, "prediction_type": kind})
        alpha = scheduler.alphas_cumprod[t][:, None, None, None]
        wanted = noise if kind == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        assert torch.allclose(prediction_target(scheduler, latents, noise, t), wanted, atol=1e-5)
    with pytest.raises(FlawsmithError, match="sample"):
        prediction_target(scheduler_for({**config, "prediction_type": "sample"}), latents, noise, t)


@pytest.mark.parametrize("count", [1, 4, 7, 16])
def test_every_part_of_the_schedule_gives_one_step(count: int) -> None:
    """Part p reaches from p / count of the steps to (p + 1) / count, and over many batches each is filled evenly."""
    rows = torch.stack([stratified_steps(count, torch.Generator().manual_seed(s)) for s in range(300)])
    for row in rows:
        for part, t in enumerate(sorted(row.tolist())):
            assert math.floor(1000 * part / count) <= t < 1000 * (part + 1) / count
    assert rows.min() >= 0 and rows.max() <= 999
    assert abs(float(rows.float().mean()) - 499.5) < 60 / count**0.5  # 3 to 4 standard errors
    if count > 1:
        assert len({tuple(row.argsort().tolist()) for row in rows}) > 1  # in no fixed order
    table = torch.arange(1000) // 2
    drawn_ = stratified_steps(count, torch.Generator().manual_seed(0), table)
    assert torch.equal(drawn_, rows[0] // 2)


# -- whole batches ---------------------------------------------------------------------------------------------------

CONFIG = FitConfig(outside=0.0, edges=0.0, colour=0.0, snr_cap=0.0, min_area=1, bf16=False)


def batch() -> Batch:
    images = np.stack([fakes.photo(seed, (32, 32)) for seed in range(3)])
    masks = np.zeros((3, 32, 32), bool)
    masks[0, 5:14, 6:20], masks[1, 17, 3], masks[2, 2:30, 9:11] = True, True, True
    return Batch(images, images, masks, ["red spot", "", "a hole"], [None] * 3, words=["red spot", "thin", "a hole"])


class Call:
    """What the denoiser was given and what it said, once."""

    def __init__(self, backbone: Backbone) -> None:
        def keep(module: torch.nn.Module, given: Any, named: Any, out: Any) -> None:
            self.x, self.t, self.out = given[0], given[1], out[0].detach()

        self.hook = backbone.unet.register_forward_hook(keep, with_kwargs=True)


@pytest.mark.parametrize("norm", ["area", "all"])
@pytest.mark.parametrize("kind", ["sd", "sd-inpainting", "compact"])
def test_the_batch_loss_is_that_of_the_denoisers_error(tiny: Backbone, kind: str, norm: Any) -> None:
    """Noisy latents and target from their closed forms; judged in pixels, or in cells under the max-pooled mask."""
    backbone = tiny if kind == "compact" else thin.backbone(kind)
    given, t, side = batch(), torch.tensor([20, 450, 980]), backbone.size // backbone.factor
    noise = drawn(3, backbone.latent_channels, side, side)
    call = Call(backbone)
    with torch.no_grad():
        found = batch_loss(backbone, given, t, noise, CONFIG, None, norm)
        call.hook.remove()
        image = torch.from_numpy(given.image).permute(0, 3, 1, 2) / 127.5 - 1
        mask = torch.from_numpy(given.mask).float()[:, None]
        latents = backbone.encode(image)
        alpha = backbone.scheduler.alphas_cumprod[t][:, None, None, None]
        parts = [alpha.sqrt() * latents + (1 - alpha).sqrt() * noise]
        if kind != "sd":
            parts.append(backbone.inpaint_input(image, mask))
        assert torch.allclose(call.x, torch.cat(parts, 1), atol=1e-4) and torch.equal(call.t, t)
        wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents if kind == "compact" else noise
        error = call.out - wanted
        if kind == "compact":
            error, cells = backbone.decode(error), mask
        else:
            cells = pooled(mask, side)
        assert cells[1].sum() == 1
        square = (cells * error.square()).mean(1).sum((1, 2))
        area = cells.sum((1, 2, 3)) if norm == "area" else cells[0].numel()
        assert torch.allclose(found, square / area, rtol=1e-3)
        capped = batch_loss(backbone, given, t, noise, replace(CONFIG, snr_cap=2.0), None, norm)
        prediction = "v_prediction" if kind == "compact" else "epsilon"
        weight = step_weight(backbone.scheduler.alphas_cumprod, t, 2.0, prediction)
        assert weight[0] < 0.9 and torch.allclose(capped, found * weight, rtol=1e-4)


def test_the_smallest_area_behind_a_vae_is_in_cells() -> None:
    backbone = thin.backbone("sd")
    given, t, noise = batch(), torch.tensor([20, 450, 980]), drawn(3, 4, 16, 16)
    with torch.no_grad():
        free, bound = (
            batch_loss(backbone, given, t, noise, replace(CONFIG, min_area=area)) for area in (1, 4 * 60)
        )  # 60 cells of 2 x 2 pixels
    cells = pooled(torch.from_numpy(given.mask).float()[:, None], 16).sum((1, 2, 3))
    assert cells[1] == 1 and torch.allclose(bound, free * cells / cells.clamp_min(60), rtol=1e-4)


def test_edges_colour_and_the_rest_of_the_window_are_terms_of_the_pixel_loss(tiny: Backbone) -> None:
    given, t, noise = batch(), torch.tensor([20, 450, 980]), drawn(3, 48, 8, 8)
    config = replace(CONFIG, outside=0.3, edges=0.25, colour=4.0, min_area=64)
    call = Call(tiny)
    with torch.no_grad():
        found = batch_loss(tiny, given, t, noise, config)
        call.hook.remove()
        image = torch.from_numpy(given.image).permute(0, 3, 1, 2) / 127.5 - 1
        target = prediction_target(tiny.scheduler, tiny.encode(image), noise, t)
        error = tiny.decode(call.out - target).numpy()
    for row in range(3):
        wanted = by_pixel(error[row], given.mask[row], 0.3, 0.25, 64, 4.0, "area")
        assert float(found[row]) == pytest.approx(wanted, rel=1e-3)


def test_a_methods_own_condition_is_asked_for_the_batch_and_its_steps(tiny: Backbone) -> None:
    given, t, noise = batch(), torch.tensor([20, 450, 980]), drawn(3, 48, 8, 8)
    asked = []

    def condition(of: Batch, steps: torch.Tensor) -> Conditioning:
        asked.append((of, steps.tolist()))
        return Conditioning(tiny.context(of.captions, [None] * 3))

    with torch.no_grad():
        own = batch_loss(tiny, given, t, noise, CONFIG, condition)
        assert torch.allclose(own, batch_loss(tiny, given, t, noise, CONFIG), rtol=1e-5)
    assert asked == [(given, [20, 450, 980])]


def test_alignment_is_one_minus_the_cosine_of_reading_and_words(tiny: Backbone) -> None:
    given, t, noise = batch(), torch.tensor([20, 450, 980]), drawn(3, 48, 8, 8)
    given.references = [(given.image[1], given.mask[0]), None, (given.image[0], given.mask[2])]
    with torch.no_grad():
        none, some = (
            batch_loss(tiny, given, t, noise, PretrainConfig(align=share, bf16=False)) for share in (0.0, 0.5)
        )
        cosines = []
        for row in (0, 2):
            shown, where = given.references[row]
            image = torch.from_numpy(shown).permute(2, 0, 1)[None] / 127.5 - 1
            first = tiny.reference(image, torch.from_numpy(where).float()[None, None])[0, 0]
            said = linear(tiny.reference.say, first)
            wanted = tiny.text_encoder.table.pool(*tiny.tokenizer([given.words[row]]))[0]
            cosines.append(float(said @ wanted / said.norm() / wanted.norm()))
    assert torch.allclose(some - none, torch.full((3,), 0.5 * (1 - sum(cosines) / 2)), atol=1e-3)
