"""The denoiser by torch and by OpenVINO, in turn within one process, and how far their images are apart.

Seconds are medians over `--rounds` rounds, each of which runs every kind once; on a busy machine the processor's
seconds say more than the clock's. One pass is of `--batch` windows with guidance. Images are painted once by torch and
once by OpenVINO from the same noise; differences are in grey levels inside the masks.

Example: python benchmarks/runtimes.py --threads 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from flawsmith.diffusion import tensors
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.compiled import Compiled, described
from flawsmith.diffusion.denoise import Conditioning, autocast, denoise, draw_noise, predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--default-only", action="store_true", help="leave float32 out: of a large denoiser it is slow")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    backbone = Backbone.from_pretrained(args.backbone).freeze()
    other = Compiled(backbone.unet)
    side = backbone.size // backbone.factor
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(0, 0.1, (args.batch, 3, backbone.size, backbone.size))).float()
    mask = torch.zeros(args.batch, 1, backbone.size, backbone.size)
    mask[:, :, backbone.size // 3 : backbone.size // 2, backbone.size // 4 : backbone.size // 2] = 1
    extra = backbone.inpaint_input(image, mask)
    noise = draw_noise(range(args.batch), (backbone.latent_channels, side, side))
    words = Conditioning(backbone.context(["long thin rusty scratch"] * args.batch))
    null = backbone.null(args.batch)
    more = None if extra is None else extra.repeat(2, 1, 1, 1)
    asked = (noise.repeat(2, 1, 1, 1), torch.full((2 * args.batch,), 500), Conditioning.join(null, words), more)

    def once(unet: torch.nn.Module, half: bool) -> Callable[[], object]:
        def work() -> object:
            with torch.no_grad(), autocast("cpu", half):
                return predict(unet, *asked)

        return work

    def painted(unet: torch.nn.Module) -> np.ndarray:
        """(B, S, S, 3) grey levels: what `inpaint` samples, before it is pasted back."""
        with torch.no_grad():
            latents = denoise(
                unet,
                backbone.sampler("dpm++"),
                lambda t: words,
                noise,
                extra=extra,
                unconditional=lambda t: null,
                guidance_scale=1.5,
                num_inference_steps=args.steps,
                timesteps=backbone.timesteps(args.steps),
            )
            return tensors.to_images(backbone.decode(latents)).astype(int)

    kinds = {
        "torch, default": once(backbone.unet, True),
        "openvino": once(other, True),
        "torch, float32": once(backbone.unet, False),
        "openvino, float32": once(other, False),
    }
    if args.default_only:
        kinds = {name: work for name, work in kinds.items() if "float32" not in name}
    begun = time.process_time()
    kinds["openvino"]()
    found: dict[str, object] = {"processor_seconds_of_the_first_pass": round(time.process_time() - begun, 2)}
    found["runtimes"] = [described(backbone, None), described(backbone, other)]
    clock: dict[str, list[float]] = {name: [] for name in kinds}
    processor: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(args.rounds + 1):
        for name, work in kinds.items():
            wall, used = time.perf_counter(), time.process_time()
            work()
            if turn:  # the first warms up
                clock[name].append(time.perf_counter() - wall)
                processor[name].append(time.process_time() - used)
    for name in kinds:
        pairs = [a / b for a, b in zip(processor["torch, default"], processor[name], strict=True)]
        found[name] = {
            "clock_ms": round(1000 * statistics.median(clock[name])),
            "processor_ms": round(1000 * statistics.median(processor[name])),
            "times_as_fast_as_torch_default": round(statistics.median(pairs), 2),
        }
    one, two = painted(backbone.unet), painted(other)
    inside = np.abs(one - two)[mask[:, 0].numpy() > 0]
    found["grey_levels_apart"] = {"mean": round(float(inside.mean()), 3), "most": int(inside.max())}
    found["load"] = [round(value, 1) for value in os.getloadavg()]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
