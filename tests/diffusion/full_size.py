"""Stable Diffusion 1.5 inpainting at its full size with random weights: written, loaded, painted with by both papers.

    python tests/diffusion/full_size.py write FOLDER
    python tests/diffusion/full_size.py paint FOLDER anomalyxfusion|anomalycontrol

`write` makes the folder as a user would have it (fp16 safetensors, 2.1 GB), with thin CLIP and BLIP-2 folders beside
it. `paint` makes one image of 512 px in 2 steps with guidance on the CPU, checks it, and prints as JSON what it took:
the estimate behind `--memory`, without the GPU driver's share, beside the peaks of this process in GiB.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import thin
import torch

from flawsmith.diffusion.estimate import CONTEXT, Estimate, activations, coding_bytes, weight_bytes
from flawsmith.methods.anomalycontrol.synthesizer import AnomalyControl
from flawsmith.methods.anomalyxfusion.synthesizer import AnomalyXFusion
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.records import Request, Sample

STEPS, SIDE = 2, 512


def parts() -> dict[str, Any]:
    """Stable Diffusion 1.5 inpainting, by the configurations published with it, in half precision."""
    import transformers
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=64, in_channels=9, cross_attention_dim=768).half()
    vae = AutoencoderKL(
        sample_size=SIDE,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).half()
    clip = transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    words = {word: number for number, word in enumerate(thin.CLIP_WORDS)}
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    return {
        "unet": unet,
        "vae": vae,
        "text_encoder": transformers.CLIPTextModel(clip).half(),
        "tokenizer": transformers.CLIPTokenizer(vocab=words, merges=[], model_max_length=77),
        "scheduler": PNDMScheduler(skip_prk_steps=True, steps_offset=1, **betas),
    }


def write(folder: Path) -> None:
    thin.write("sd-inpainting", folder / "sd", parts())
    thin.clip(folder / "clip")
    thin.blip(folder / "blip")


def memory(name: str) -> float:
    """GiB of this process: "VmRSS" now, "VmHWM" at its peak since `forget`."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 2**20 if found else float("nan")


def forget() -> None:
    """Begin the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def sample(seed: int) -> Sample:
    image = np.random.default_rng(seed).integers(60, 200, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[180:340, 160:360] = True
    return Sample(image, mask, "part", "hole", "a hole")


def method(name: str, folder: Path) -> DiffusionSynthesizer:
    """As after a fit: the adapter is in the denoiser, the type is known."""
    plain = {"steps": STEPS, "min_visibility": 0, "min_share": 0}
    made: DiffusionSynthesizer
    if name == "anomalyxfusion":
        made = AnomalyXFusion(str(folder / "sd"), {"clip": str(folder / "clip")}, **plain)
        made.extend({"part/hole": [sample(1), sample(2)]})
    else:
        made = AnomalyControl(str(folder / "sd"), {"reader": str(folder / "blip")}, cache=False, **plain)
    made.card["learned"] = {"part/hole": {"support": {}}}
    return made


def estimate(made: DiffusionSynthesizer) -> Estimate:
    """What `--memory` counts with, for one window with guidance."""
    beside = [*made.backbone.modules().values(), *made.trainable().values(), *made.encoders().values()]
    held = max(2 * activations(made.backbone, 1, False), coding_bytes(made.backbone))
    return Estimate(sum(weight_bytes(module) for module in beside), 0, held, 1, False)


def paint(folder: Path, name: str) -> dict[str, Any]:
    imports, begun = memory("VmRSS"), time.process_time()
    made = method(name, folder)
    loaded, load_peak, load_seconds = memory("VmRSS"), memory("VmHWM"), time.process_time() - begun
    counted = estimate(made)
    normal = sample(3)
    asked = Request(
        Sample(normal.image, np.zeros_like(normal.mask), "part"), normal.mask, "hole", "a hole", sample(1), 7
    )
    forget()
    begun = time.process_time()
    (painted,) = made.generate([asked])
    assert np.array_equal(painted.image[~painted.mask], normal.image[~painted.mask])
    assert not (painted.mask & ~normal.mask).any() and np.isfinite(painted.image).all()
    change = np.abs(painted.image.astype(int) - normal.image)[normal.mask].mean()
    assert change > 1, f"nothing was painted ({change:.2f} grey levels)"
    return {
        "method": name,
        "million_parameters": round(sum(p.numel() for p in made.backbone.unet.parameters()) / 1e6),
        "window": made.backbone.size,
        "runtime": painted.info["runtime"],
        "after_imports": round(imports, 2),
        "loaded": round(loaded, 2),
        "peak_loading": round(load_peak, 2),
        "peak_painting": round(memory("VmHWM"), 2),
        "estimate": round((counted.total - CONTEXT) / 2**30, 2),
        "estimate_weights": round(counted.weights / 2**30, 2),
        "estimate_one_pass": round(counted.activations / 2**30, 2),
        "processor_seconds": {"loading": round(load_seconds), "painting": round(time.process_time() - begun)},
        "grey_levels_changed": round(float(change), 1),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["write"] and len(sys.argv) == 3:
        write(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["paint"] and len(sys.argv) == 4:
        print(json.dumps(paint(Path(sys.argv[2]), sys.argv[3])))
    else:
        sys.exit(__doc__)
