"""Noise levels: the closed forms they promise, and what they are for, detail of low contrast."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flawsmith.diffusion import noise_levels
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.denoise import Conditioning, denoise, draw_noise, scheduler_for
from flawsmith.training.losses import stratified_steps

# the compact model's schedule: Stable Diffusion's betas, rescaled to end in pure noise
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
CONFIG = {**BETAS, "rescale_betas_zero_snr": True}


def schedule() -> Tensor:
    table: Tensor = scheduler_for(CONFIG, "ddim").alphas_cumprod
    return table


def test_log_sigma_is_noise_over_signal() -> None:
    table = torch.tensor([0.5, 0.2, 0.0])
    assert noise_levels.log_sigma(table).tolist() == pytest.approx([0.0, math.log(2.0), math.inf])


def test_training_steps_have_the_promised_shares() -> None:
    table = schedule()
    steps, levels = noise_levels.step_table(table), noise_levels.log_sigma(table)
    assert steps.shape == (1000,) and (steps.diff() >= 0).all() and steps[0] == 0 and steps[-1] == 999
    drawn, low, high = levels[steps], float(levels[0]), math.log(noise_levels.TOP)
    assert float((drawn > high).double().mean()) == pytest.approx(noise_levels.PURE, abs=0.01)
    for part in (0.25, 0.5, 0.75):  # even below the top: as many below any level as its place in log sigma says
        share = float((drawn <= low + part * (high - low)).double().mean())
        assert share == pytest.approx(part * (1 - noise_levels.PURE), abs=0.04)


@pytest.mark.parametrize("count", [2, 3, 8, 12, 25])
def test_sampling_steps_fall_evenly_in_log_sigma(count: int) -> None:
    table = schedule()
    steps = noise_levels.sampling_steps(table, count)
    assert steps[0] == 999 and len(steps) == count and (torch.tensor(steps).diff() < 0).all()
    if count > 2:
        assert steps[-1] == 0
        levels = noise_levels.log_sigma(table)[steps[1:]]
        even = torch.linspace(float(levels[0]), float(levels[-1]), count - 1, dtype=torch.float64)
        # the first steps of the schedule lie far apart, so there the nearest one may be off
        assert (levels - even).abs().max() < 0.2


def test_many_steps_are_never_taken_twice() -> None:
    steps = noise_levels.sampling_steps(schedule(), 400)
    assert len(set(steps)) == len(steps) <= 400 and steps == sorted(steps, reverse=True)


class GaussianDenoiser(nn.Module):
    """The exact answer for images whose pixels are independent with standard deviation `spread`."""

    def __init__(self, table: Tensor, spread: float) -> None:
        super().__init__()
        self.table, self.spread, self.scale = table, spread, nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor, encoder_hidden_states: Tensor, return_dict: bool) -> tuple[Tensor]:
        signal = self.table[t][:, None, None, None]
        alpha, noise = signal.sqrt(), 1 - signal
        clean = alpha * self.spread**2 / (signal * self.spread**2 + noise) * x
        eps = (x - alpha * clean) / noise.sqrt()
        return (alpha * eps - noise.sqrt() * clean,)


def test_eight_steps_keep_detail_of_low_contrast() -> None:
    """Contrast 0.08 (10 grey levels) comes out as it should, while even steps lose more than half of it."""
    table = schedule()
    given = Conditioning(torch.zeros(8, 1, 4))
    found = {}
    for name, steps in (("even in t", None), ("even in log sigma", noise_levels.sampling_steps(table, 8))):
        made = denoise(
            GaussianDenoiser(table, 0.08),
            scheduler_for(CONFIG, "dpm++"),
            lambda t: given,
            draw_noise(range(8), (3, 16, 16)),
            num_inference_steps=8,
            timesteps=steps,
            bf16=False,
        )
        found[name] = float(made.std())
    assert found["even in log sigma"] == pytest.approx(0.08, rel=0.15), found
    assert found["even in t"] < 0.04, found


@pytest.mark.parametrize(("eta", "steps"), [(0.5, 100), (1.0, 100), (1.0, 25), (1.0, 40), (1.0, 200)])
def test_fresh_noise_from_pure_noise_on_keeps_the_spread(eta: float, steps: int) -> None:
    """The papers' DDIM with eta 1, on a schedule that ends in pure noise."""
    table = schedule()
    given = Conditioning(torch.zeros(4, 1, 4))
    made = denoise(
        GaussianDenoiser(table, 0.5),
        scheduler_for(CONFIG, "ddim"),
        lambda t: given,
        draw_noise(range(4), (3, 16, 16)),
        num_inference_steps=steps,
        eta=eta,
        step_noise=lambda i: draw_noise(range(10 * i + 50, 10 * i + 54), (3, 16, 16)),
        bf16=False,
    )
    assert float(made.std()) == pytest.approx(0.5, rel=0.2)


def test_first_order_dpm_solver_is_ddim() -> None:
    """At DDIM's own even steps, on a schedule that does not end in pure noise, where both are defined."""
    given = Conditioning(torch.zeros(4, 1, 4))
    found = {}
    for name in ("ddim", "dpm++1"):
        sampler = scheduler_for(BETAS, name)
        sampler.set_timesteps(10)
        found[name] = denoise(
            GaussianDenoiser(sampler.alphas_cumprod, 0.3),
            scheduler_for(BETAS, name),
            lambda t: given,
            draw_noise(range(4), (3, 8, 8)),
            num_inference_steps=10,
            timesteps=None if name == "ddim" else sampler.timesteps.tolist(),
            bf16=False,
        )
    assert torch.allclose(found["ddim"], found["dpm++1"], atol=0.01)


def test_drawn_steps_follow_the_table() -> None:
    table = noise_levels.step_table(schedule())
    drawn = torch.cat([stratified_steps(16, torch.Generator().manual_seed(i), table) for i in range(200)])
    assert float((drawn > 800).double().mean()) == pytest.approx(float((table > 800).double().mean()), abs=0.02)
    assert torch.equal(
        stratified_steps(4, torch.Generator().manual_seed(1), torch.arange(1000)),
        stratified_steps(4, torch.Generator().manual_seed(1)),
    )


def test_pixels_are_sampled_by_noise_level_and_latents_as_published(tmp_path: Path) -> None:
    from flawsmith.diffusion.compact.recipe import CompactConfig

    backbone: Backbone = Backbone.compact(CompactConfig(size=32))
    assert backbone.timesteps(4) == noise_levels.sampling_steps(backbone.scheduler.alphas_cumprod, 4)
    assert backbone.timesteps(4, eta=0.5) is None and backbone.training_steps() is not None
    assert type(backbone.sampler("ddim")).__name__ == "DPMSolverMultistepScheduler"
    assert type(backbone.sampler("ddim", eta=0.5)).__name__ == "DDIMScheduler"
    backbone.codec = None  # as behind a VAE
    assert type(backbone.sampler("ddim")).__name__ == "DDIMScheduler"
    assert backbone.timesteps(4) is None and backbone.training_steps() is None
