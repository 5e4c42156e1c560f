"""How fast the compact backbone samples, beside what the same processor reaches in one large convolution.

Everything is a median within one run: seconds per image (window 128 px, guidance, batch 8), peak memory, the
arithmetic per window as torch counts it, and the share of the convolution ceiling that the denoiser reaches.

Example: python benchmarks/speed.py --threads 2
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.denoise import Conditioning, autocast, denoise, draw_noise, predict


def median(action: Callable[[], object], rounds: int) -> float:
    """Seconds of one call, the median of `rounds` after one that warms up."""
    times = []
    for number in range(rounds + 1):
        begun = time.perf_counter()
        action()
        if number:
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def ceiling(rounds: int) -> float:
    """GFLOP/s of the best of a few large bf16 convolutions in the layout that sampling uses."""
    best = 0.0
    for channels, side in ((128, 32), (192, 32), (256, 32), (256, 64)):
        conv = nn.Conv2d(channels, channels, 3, padding=1).bfloat16().to(memory_format=torch.channels_last)
        x = torch.randn(16, channels, side, side).bfloat16().to(memory_format=torch.channels_last)
        work = 2 * 9 * channels * channels * side * side * 16
        with torch.no_grad():
            best = max(best, work / median(lambda c=conv, x=x: c(x), rounds) / 1e9)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 10])
    parser.add_argument("--guidance-scale", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    backbone = Backbone.from_pretrained(args.backbone).freeze()
    side = backbone.size // backbone.factor
    image = torch.zeros(args.batch, 3, backbone.size, backbone.size)
    mask = torch.zeros(args.batch, 1, backbone.size, backbone.size)
    mask[:, :, 40:80, 40:80] = 1
    extra = backbone.inpaint_input(image, mask)
    noise = draw_noise(range(args.batch), (backbone.latent_channels, side, side))
    found: dict[str, float] = {"conv_ceiling_gflops": ceiling(args.rounds)}
    with torch.no_grad():
        words, null = (
            Conditioning(backbone.context(["long thin rusty scratch"] * args.batch)),
            backbone.null(args.batch),
        )
        both = Conditioning.join(null, words)
        twice = noise.repeat(2, 1, 1, 1)
        more = None if extra is None else extra.repeat(2, 1, 1, 1)
        t = torch.full((2 * args.batch,), 500)
        with FlopCounterMode(display=False) as counter:
            predict(backbone.unet, twice, t, both, more)
        work = counter.get_total_flops()

        def forward() -> None:
            with autocast("cpu"):
                predict(backbone.unet, twice, t, both, more)

        seconds = median(forward, args.rounds)
        found["gflop_per_window"] = work / 2 / args.batch / 1e9
        found["forward_seconds"] = seconds
        found["forward_gflops"] = work / seconds / 1e9
        found["share_of_ceiling"] = found["forward_gflops"] / found["conv_ceiling_gflops"]
        for steps in args.steps:

            def sample(steps: int = steps) -> None:
                given = Conditioning(backbone.context(["long thin rusty scratch"] * args.batch))
                denoise(
                    backbone.unet,
                    backbone.sampler("dpm++"),
                    lambda t: given,
                    noise,
                    extra=extra,
                    unconditional=lambda t: null,
                    guidance_scale=args.guidance_scale,
                    timesteps=backbone.timesteps(steps),
                )

            found[f"seconds_per_image_{steps}_steps"] = median(sample, max(3, args.rounds // 2)) / args.batch
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({key: round(value, 3) for key, value in found.items()}, indent=1))


if __name__ == "__main__":
    main()
