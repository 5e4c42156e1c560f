"""The one sampling loop: latents in, latents out, whatever the backbone and whatever conditions it.

Conditioning is a function of the step, guidance a batch of two, noise belongs to the request and not to the
batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flawsmith.diffusion import noise_levels
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.records import Progress

__all__ = [
    "SCHEDULERS",
    "Condition",
    "Conditioning",
    "autocast",
    "denoise",
    "draw_noise",
    "has_bf16",
    "predict",
    "scheduler_for",
]

# name -> diffusers' class, and what is set on top; "dpm++1" is DDIM without fresh noise (Lu et al. 2022, section 4.1),
# in a class that takes steps at any distance
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"}),
    "dpm++1": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "final_sigmas_type": "zero", "solver_order": 1},
    ),
}


@dataclass
class Conditioning:
    """What the denoiser attends to. `semantic` and `weight` belong to the adapter's second cross-attention."""

    context: Tensor  # (B, L, D)
    semantic: Tensor | None = None  # (B, N, D)
    weight: float = 1.0  # the adapter's lambda

    @staticmethod
    def join(first: Conditioning, second: Conditioning) -> Conditioning:
        """Both along the batch, for guidance; they must agree in length and in what they hold. The second's weight
        counts.
        """
        if first.context.shape != second.context.shape or (first.semantic is None) != (second.semantic is None):
            raise FlawsmithError(
                f"Guidance needs two conditions of one shape, got contexts {tuple(first.context.shape)} and "
                f"{tuple(second.context.shape)}: build the unconditional one with the same tokens, nulled."
            )
        semantic = None
        if first.semantic is not None and second.semantic is not None:
            semantic = torch.cat([first.semantic, second.semantic])
        return Conditioning(torch.cat([first.context, second.context]), semantic, second.weight)


Condition = Callable[[Tensor], Conditioning]  # t (B,) long -> Conditioning


def scheduler_for(config: Any, name: str = "ddim") -> Any:
    """A sampling scheduler with the betas and the prediction type of a training scheduler's config.

    Never with DDIM's clipping of the clean image, its class's default: latents know no [-1, 1].
    """
    import diffusers

    if name not in SCHEDULERS:
        raise unknown("Sampler", name, SCHEDULERS)
    kind, extra = SCHEDULERS[name]
    kept = {k: v for k, v in dict(config).items() if not k.startswith("_")}
    return getattr(diffusers, kind).from_config({**kept, "timestep_spacing": "trailing", **extra})


def draw_noise(seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Standard normal noise (B, *shape), each row from its own seed, drawn on the CPU so that every machine
    gets the same.
    """
    rows = [torch.randn(*shape, generator=torch.Generator().manual_seed(int(seed) & (2**63 - 1))) for seed in seeds]
    return torch.stack(rows).to(device)


def has_bf16(device: torch.device | str) -> bool:
    """Whether a device computes faster in bf16 than in fp32: GPUs and CPUs with bf16 instructions."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind != "cpu" or bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def autocast(device: torch.device | str, enabled: bool = True) -> torch.autocast:
    """bf16 autocast where it is faster than fp32."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled and has_bf16(device))


def _cast(states: Any, dtype: torch.dtype) -> Any:
    return tuple(s.to(dtype) for s in states) if isinstance(states, tuple) else states.to(dtype)


def predict(unet: nn.Module, noisy: Tensor, t: Tensor, given: Conditioning, extra: Tensor | None = None) -> Tensor:
    """The denoiser's raw output (B, C, h, w), float32. `extra` (B, m + C, h, w) is mask and context of
    inpainting backbones.
    """
    states: Any = given.context
    if given.semantic is not None:
        states = (given.context, given.semantic)
        for processor in getattr(unet, "attn_processors", {}).values():
            if hasattr(processor, "weight") and isinstance(processor.weight, float):
                processor.weight = given.weight
    x = noisy if extra is None else torch.cat([noisy, extra], 1)
    dtype = next(unet.parameters()).dtype
    if dtype != torch.float32:  # a denoiser kept in half precision runs in it, and everything around it in float32
        x, states = x.to(dtype), _cast(states, dtype)
        with torch.autocast(x.device.type, enabled=False):
            return unet(x, t, encoder_hidden_states=states, return_dict=False)[0].float()
    return unet(x, t, encoder_hidden_states=states, return_dict=False)[0].float()


def _noised(scheduler: Any, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
    """Latents (B, C, h, w) at the noise level of one step."""
    return scheduler.add_noise(clean, noise, step.expand(len(noise)))


def _beginning(
    scheduler: Any,
    noise: Tensor,
    num_inference_steps: int,
    timesteps: Sequence[int] | None,
    start: Tensor | None,
    strength: float,
) -> tuple[Tensor, Tensor]:
    """The steps that are taken, (n,) descending, and the latents (B, C, h, w) at the first of them."""
    # on the CPU: a step's number is looked up in tables there
    if timesteps is None:
        scheduler.set_timesteps(num_inference_steps)
    else:
        scheduler.set_timesteps(timesteps=list(timesteps))
    steps = scheduler.timesteps
    if start is None or strength >= 1:
        return steps, noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
    steps = steps[len(steps) - max(1, round(len(steps) * strength)) :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(len(scheduler.timesteps) - len(steps))
    return steps, _noised(scheduler, start, noise, steps[0])


def _guided(
    unet: nn.Module,
    noisy: Tensor,
    t: Tensor,
    condition: Condition,
    unconditional: Condition | None,
    guidance_scale: float,
    extra: Tensor | None,
) -> Tensor:
    """The denoiser's answer (B, C, h, w) to the condition; with guidance, from the unconditional one and past it."""
    given = condition(t)
    if guidance_scale == 1.0 or unconditional is None:
        return predict(unet, noisy, t, given, extra)
    both = Conditioning.join(unconditional(t), given)
    twice = None if extra is None else extra.repeat(2, 1, 1, 1)
    without, with_ = predict(unet, noisy.repeat(2, 1, 1, 1), t.repeat(2), both, twice).chunk(2)
    return without + guidance_scale * (with_ - without)


@torch.no_grad()
def denoise(
    unet: nn.Module,
    scheduler: Any,
    condition: Condition,
    noise: Tensor,
    *,
    extra: Tensor | None = None,
    unconditional: Condition | None = None,
    guidance_scale: float = 1.0,
    guidance_floor: float = 0.0,
    num_inference_steps: int = 8,
    timesteps: Sequence[int] | None = None,
    eta: float = 0.0,
    step_noise: Callable[[int], Tensor] | None = None,
    start: Tensor | None = None,
    strength: float = 1.0,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    bf16: bool = True,
    progress: Progress | None = None,
) -> Tensor:
    """Noise (B, C, h, w) to latents (B, C, h, w).

    guidance_floor: noise over signal up to which steps are taken without guidance, in half the time (Kynkaanniemi et
    al. 2024: at low noise it changes nothing, as everything that it could decide has been decided).
    extra: (B, m + C, h, w) for inpainting backbones. timesteps: the steps themselves, descending, in place of
    `num_inference_steps` of the scheduler's own; see Backbone.timesteps. start, strength: begin from `start` noised
    to that share of the steps instead of from pure noise. known, mask: for 4-channel backbones, keep `known` where
    mask (B, 1, h, w) is 0 at every step. step_noise(i) gives the noise of step i for eta > 0. progress is told
    after each step.
    """
    if guidance_scale != 1.0 and unconditional is None:
        raise FlawsmithError(
            f"guidance_scale is {guidance_scale:g} but there is no unconditional condition: pass one or use 1."
        )
    if eta > 0 and step_noise is None:
        raise FlawsmithError("eta above 0 needs step_noise, so that each request draws its own noise.")
    if (known is None) != (mask is None):
        raise FlawsmithError("Known-region blending needs both the known latents and the mask.")
    steps, x = _beginning(scheduler, noise, num_inference_steps, timesteps, start, strength)
    takes_eta = "DDIM" in type(scheduler).__name__
    sigma = noise_levels.log_sigma(scheduler.alphas_cumprod).exp()
    with autocast(noise.device, bf16):
        for i, step in enumerate(steps):
            scale = guidance_scale if guidance_floor == 0 or sigma[step] > guidance_floor else 1.0
            t = step.to(noise.device).expand(len(noise)).long()
            seen = scheduler.scale_model_input(x, step)
            out = _guided(unet, seen, t, condition, unconditional, scale, extra)
            options: dict[str, Any] = {}
            if takes_eta and eta > 0 and step_noise is not None:
                # at 1 the class takes the root of a rounding error where the schedule ends in pure noise: not a number
                options = {"eta": min(eta, 1 - 1e-4), "variance_noise": step_noise(i)}
            x = scheduler.step(out, step, x, return_dict=False, **options)[0]
            if known is not None and mask is not None:
                kept = known if i + 1 == len(steps) else _noised(scheduler, known, noise, steps[i + 1])
                x = mask * x + (1 - mask) * kept
            if progress is not None:
                progress("", i + 1, len(steps), {})
    return x
