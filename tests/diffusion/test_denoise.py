"""The sampling loop against DDIM written out in ten lines: guidance, fresh noise, a start, what is known, and seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import thin  # noqa: E402
from by_hand import drawn  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from flawsmith.diffusion.attention import attach  # noqa: E402
from flawsmith.diffusion.denoise import Conditioning, denoise, draw_noise, predict, scheduler_for  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).float()


class Line(nn.Module):
    """A denoiser that is a formula of all it is given, and in which every place counts for every other."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.6))
        self.calls: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor, encoder_hidden_states: Tensor, return_dict: bool) -> tuple[Tensor]:
        self.calls.append((x, t))
        said = encoder_hidden_states.mean((1, 2))[:, None, None, None]
        mean = x[:, :2].mean((2, 3), keepdim=True)
        return (self.scale * x[:, :2] + 0.4 * mean + 0.2 * said + 0.1 * x[:, 2:].sum(1, keepdim=True),)


def words(t: Tensor, shift: float = 0.0) -> Conditioning:
    """Says its step, and which row asks."""
    rows = torch.arange(len(t)) + t / 500 + shift
    return Conditioning(rows[:, None, None].expand(-1, 3, 4))


def ddim(
    noise: Tensor,
    count: int,
    said: Callable[[Tensor, int], Tensor],
    fresh: Callable[[int], Tensor] | None = None,
    eta: float = 0.0,
    start: Tensor | None = None,
    skip: int = 0,
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Song et al. 2021, equation 12, for a prediction `said(x, t)` of the noise; steps counted back from the last."""
    steps = [round(1000 - i * 1000 / count) - 1 for i in range(count)][skip:]
    x = noise if start is None else ALPHAS[steps[0]].sqrt() * start + (1 - ALPHAS[steps[0]]).sqrt() * noise
    for i, t in enumerate(steps):
        a, before = ALPHAS[t], ALPHAS[t - 1000 // count] if t >= 1000 // count else torch.tensor(1.0)
        e = said(x, t)
        sigma = eta * ((1 - before) / (1 - a) * (1 - a / before)).sqrt()
        x = before.sqrt() * (x - (1 - a).sqrt() * e) / a.sqrt() + (1 - before - sigma**2).clamp_min(0).sqrt() * e
        x = x + sigma * fresh(i) if fresh else x
        if known is not None:  # at the level of the next step, and as it is at the end
            level = ALPHAS[steps[i + 1]] if i + 1 < len(steps) else torch.tensor(1.0)
            kept = level.sqrt() * known[0] + (1 - level).sqrt() * noise
            x = torch.where(known[1] > 0, x, kept)
    return x


def answer(line: Line, given: Callable[[Tensor], Conditioning], extra: Tensor | None = None) -> Any:
    def said(x: Tensor, t: int) -> Tensor:
        context = given(torch.full((len(x),), t)).context
        out = (
            line.scale.detach() * x
            + 0.4 * x.mean((2, 3), keepdim=True)
            + 0.2 * context.mean((1, 2))[:, None, None, None]
        )
        return out if extra is None else out + 0.1 * extra.sum(1, keepdim=True)

    return said


NOISE, EXTRA, START = drawn(3, 2, 4, 4), drawn(3, 2, 4, 4, seed=2), drawn(3, 2, 4, 4, seed=3)


def made(line: Line, count: int = 10, **options: Any) -> Tensor:
    return denoise(line, scheduler_for(BETAS), words, NOISE, num_inference_steps=count, bf16=False, **options)


def same(found: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_without_options_it_is_ddim_with_the_condition_of_each_step() -> None:
    line = Line()
    found = made(line)
    assert same(found, ddim(NOISE, 10, answer(line, words))) and found.abs().max() > 1.5  # nothing is clipped
    assert [call[1].tolist() for call in line.calls] == [[t] * 3 for t in range(999, 0, -100)]


def test_channels_of_an_inpainting_backbone_come_behind_the_noisy_ones_at_every_step() -> None:
    line = Line()
    assert same(made(line, extra=EXTRA), ddim(NOISE, 10, answer(line, words, EXTRA)))
    assert all(torch.equal(x[:, 2:], EXTRA) for x, _ in line.calls)


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_guidance_goes_from_the_unconditional_answer_past_the_conditional_one(scale: float) -> None:
    """e = e_u + s (e_c - e_u), both at the step's own conditions."""
    line = Line()

    def nothing(t: Tensor) -> Conditioning:
        return words(t, -2.0)

    with_, without = answer(line, words, EXTRA), answer(line, nothing, EXTRA)

    def said(x: Tensor, t: int) -> Tensor:
        return without(x, t) + scale * (with_(x, t) - without(x, t))

    found = made(line, extra=EXTRA, unconditional=nothing, guidance_scale=scale)
    assert same(found, ddim(NOISE, 10, said))
    assert len(line.calls) == 10 and all(len(x) == 6 for x, _ in line.calls)  # one batch of two
    plain = made(line, extra=EXTRA, unconditional=nothing, guidance_scale=1.0)
    assert same(plain, ddim(NOISE, 10, with_)) and len(line.calls[-1][0]) == 3


def test_below_the_floor_of_noise_over_signal_a_step_is_not_guided_and_costs_half() -> None:
    line, floor = Line(), 0.9

    def nothing(t: Tensor) -> Conditioning:
        return words(t, -2.0)

    with_, without = answer(line, words), answer(line, nothing)
    levels = ((1 - ALPHAS) / ALPHAS).sqrt()

    def said(x: Tensor, t: int) -> Tensor:
        return without(x, t) + 3.0 * (with_(x, t) - without(x, t)) if levels[t] > floor else with_(x, t)

    found = made(line, unconditional=nothing, guidance_scale=3.0, guidance_floor=floor)
    assert same(found, ddim(NOISE, 10, said))
    rows = [6 if levels[t] > floor else 3 for t in range(999, 0, -100)]
    assert [len(x) for x, _ in line.calls] == rows and {3, 6} == set(rows)


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_fresh_noise_enters_with_ddims_sigma_and_is_each_steps_own(eta: float) -> None:
    line = Line()

    def fresh(i: int) -> Tensor:
        return drawn(3, 2, 4, 4, seed=50 + i)

    found = made(line, eta=eta, step_noise=fresh)
    assert same(found, ddim(NOISE, 10, answer(line, words), fresh, eta))
    assert not same(found, made(line))


@pytest.mark.parametrize(("strength", "taken"), [(0.5, 5), (0.7, 7), (0.01, 1), (1.0, 10)])
def test_a_start_is_noised_to_the_first_step_that_is_taken(strength: float, taken: int) -> None:
    line = Line()
    found = made(line, start=START, strength=strength)
    assert len(line.calls) == taken
    start = None if taken == 10 else START  # at strength 1 nothing of it is left
    assert same(found, ddim(NOISE, 10, answer(line, words), start=start, skip=10 - taken))


def test_what_is_known_is_put_back_at_the_next_steps_noise_level() -> None:
    line, mask = Line(), (drawn(3, 1, 4, 4, seed=4) > 0).float()
    found = made(line, known=START, mask=mask)
    assert same(found, ddim(NOISE, 10, answer(line, words), known=(START, mask.expand_as(START))))
    assert torch.equal(found * (1 - mask), START * (1 - mask))


def test_named_steps_are_taken_as_they_are() -> None:
    line, steps = Line(), [999, 700, 300, 50, 0]
    denoise(line, scheduler_for(BETAS, "dpm++"), words, NOISE, timesteps=steps, bf16=False)
    assert [int(t[0]) for _, t in line.calls] == steps
    line = Line()
    scheduler = scheduler_for(BETAS, "dpm++")
    denoise(line, scheduler, words, NOISE, timesteps=steps, bf16=False, start=START, strength=0.6)
    x, t = line.calls[0]
    assert int(t[0]) == 300 and len(line.calls) == 3
    assert same(x, ALPHAS[300].sqrt() * START + (1 - ALPHAS[300]).sqrt() * NOISE)


def test_progress_counts_the_steps_that_are_taken() -> None:
    told: list[tuple[int, int]] = []
    made(Line(), 4, start=START, strength=0.5, progress=lambda what, i, n, facts: told.append((i, n)))
    assert told == [(1, 2), (2, 2)]


def test_samplers_keep_betas_and_prediction_and_never_clip() -> None:
    config = {**BETAS, "prediction_type": "v_prediction", "clip_sample": True, "_class_name": "PNDMScheduler"}
    for name in ("ddim", "dpm++", "dpm++1"):
        scheduler = scheduler_for(config, name)
        assert torch.allclose(scheduler.alphas_cumprod, ALPHAS, rtol=1e-3)
        assert scheduler.config.prediction_type == "v_prediction"
        assert scheduler.config.timestep_spacing == "trailing"
        assert name != "ddim" or scheduler.config.clip_sample is False  # the others cannot
    assert scheduler_for(config, "dpm++1").config.solver_order == 1


def test_noise_is_each_seeds_own_and_standard_normal() -> None:
    found = draw_noise([4, 2**63 + 4, 5], (2, 60, 60))
    alone = torch.randn(2, 60, 60, generator=torch.Generator().manual_seed(4))
    assert torch.equal(found[0], alone) and torch.equal(found[1], alone)  # seeds are taken modulo 2^63
    assert not torch.equal(found[2], alone)
    assert abs(float(found.mean())) < 0.05 and float(found.std()) == pytest.approx(1, abs=0.05)


# -- one prediction --------------------------------------------------------------------------------------------------


def test_conditions_are_joined_in_order_and_the_seconds_weight_counts() -> None:
    first, second = (Conditioning(drawn(2, 3, 4, seed=s), drawn(2, 5, 4, seed=s + 5), s / 4) for s in (1, 2))
    both = Conditioning.join(first, second)
    assert torch.equal(both.context, torch.cat([first.context, second.context])) and both.weight == 0.5
    assert torch.equal(both.semantic, torch.cat([first.semantic, second.semantic]))
    assert Conditioning.join(Conditioning(first.context), Conditioning(second.context)).semantic is None
    for other in (Conditioning(drawn(2, 4, 4), second.semantic), Conditioning(second.context)):
        with pytest.raises(FlawsmithError, match="one shape"):
            Conditioning.join(first, other)


def test_lambda_reaches_every_layer_and_the_tokens_their_branch() -> None:
    """Z is linear in lambda in the last layer: what it adds there doubles with it."""
    unet = thin.parts("sd-inpainting")["unet"]
    attach(unet)
    last = unet.get_submodule("up_blocks.1.attentions.1.transformer_blocks.0.attn2")
    outs: list[tuple[Tensor, Tensor]] = []
    hook = last.register_forward_hook(lambda m, a, k, out: outs.append((a[0], out)), with_kwargs=True)
    x, extra, t = drawn(2, 4, 16, 16), drawn(2, 5, 16, 16, seed=2), torch.tensor([10, 800])
    context, semantic = drawn(2, 7, 24, seed=3), drawn(2, 4, 24, seed=4)
    with torch.no_grad():
        for weight in (0.5, 2.0):
            predict(unet, x, t, Conditioning(context, semantic, weight), extra)
            assert {p.weight for p in unet.attn_processors.values() if hasattr(p, "weight")} == {weight}
        hook.remove()
        hidden = outs[1][0]
        parts = []
        for weight in (0.0, 1.0, 2.0):
            last.processor.weight = weight
            parts.append(last(hidden, encoder_hidden_states=(context, semantic)))
    assert torch.allclose(outs[1][1], parts[2], atol=1e-5)
    assert torch.allclose(parts[2] - parts[0], 2 * (parts[1] - parts[0]), atol=1e-5)
    assert (parts[1] - parts[0]).abs().max() > 1e-3


def test_a_denoiser_in_half_precision_answers_in_float32() -> None:
    unet = thin.parts("sd")["unet"]
    x, t, given = drawn(2, 4, 16, 16), torch.tensor([10, 800]), Conditioning(drawn(2, 7, 24, seed=3))
    with torch.no_grad():
        exact = predict(unet, x, t, given)
        half = predict(unet.to(torch.bfloat16), x, t, given)
    assert half.dtype == torch.float32 and 0 < (half - exact).abs().max() < 0.1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"guidance_scale": 2.0}, "no unconditional"),
        ({"eta": 0.5}, "step_noise"),
        ({"known": START}, "both"),
        ({"mask": START}, "both"),
    ],
)
def test_what_belongs_together_is_asked_for(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(FlawsmithError, match=reason):
        made(Line(), **options)
