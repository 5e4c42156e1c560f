"""Speed and memory of the big backbones: full-size architectures with random weights, on whose values neither depends.

    python benchmarks/backbones.py [--kinds sd15-inpainting sd2 ldm] [--out FILE]   # on a GPU
    python benchmarks/backbones.py --tiny --device cpu   # the same code, in seconds

Per backbone, memory preset and batch: seconds per image from photograph to pasted image, training samples per
second of a LoRA adapter, and the GPU's peak memory beside the estimate. The papers' own sampling settings are timed in
the same run.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flawsmith.diffusion.adapters import add_adapter
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.memory import batch_that_fits
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.records import Request, Sample
from flawsmith.training.settings import FitConfig
from flawsmith.training.steps import Steps
from flawsmith.training.trainer import Trainer
from flawsmith.training.windows import FewShotWindows

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
STABLE: dict[str, Any] = {
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": (CROSS, CROSS, CROSS, PLAIN),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
# sizes of stable-diffusion-v1-5-inpainting, stable-diffusion-2-base and ldm-text2im-large-256, from their configs
KINDS: dict[str, dict[str, Any]] = {
    "sd15-inpainting": {
        "unet": {**STABLE, "sample_size": 64, "in_channels": 9, "cross_attention_dim": 768, "attention_head_dim": 8},
        "vae": {**VAE, "sample_size": 512},
        "clip": CLIP_L,
    },
    "sd2": {
        "unet": {
            **STABLE,
            "sample_size": 64,
            "in_channels": 4,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
        "vae": {**VAE, "sample_size": 768},
        "clip": CLIP_H,
    },
    "ldm": {
        "unet": {
            **STABLE,
            "sample_size": 32,
            "in_channels": 4,
            "cross_attention_dim": 1280,
            "attention_head_dim": 8,
        },
        "vae": {**VAE, "sample_size": 256},
        "bert": {"d_model": 1280, "encoder_layers": 32, "encoder_ffn_dim": 5120, "encoder_attention_heads": 8},
    },
}
TINY_UNET = {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "sample_size": 8, "norm_num_groups": 8}
TINY_VAE = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 64}
SAMPLING = {
    "fast": {"sampling": "fast"},
    "fast, no guidance": {"sampling": "fast", "guidance_scale": 1.0},
    # the papers' own, each on the whole image in its code; here on a window of the same size
    "AnomalyControl, paper": {
        "sampler": "ddim",
        "steps": 50,
        "guidance_scale": 7.0,
        "start": "normal",
        "strength": 0.7,
    },
    "AnomalyXFusion, paper": {"sampler": "ddim", "steps": 200, "eta": 1.0, "guidance_scale": 1.0},
}


class Letters:
    """Stands for a tokenizer: a letter is a token."""

    model_max_length = 77

    def __call__(self, words: list[str], **_: Any) -> Any:
        ids = torch.zeros(len(words), 77, dtype=torch.long)
        for row, text in enumerate(words):
            codes = [1 + ord(c) % 500 for c in text[:77]]
            ids[row, : len(codes)] = torch.tensor(codes, dtype=torch.long)
        return argparse.Namespace(input_ids=ids)


def build(kind: str, tiny: bool, device: str) -> Backbone:
    """A backbone of the real classes with random weights, made on `device`."""
    import transformers
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    sizes = KINDS[kind]
    unet, vae = dict(sizes["unet"]), dict(sizes["vae"])
    width = unet["cross_attention_dim"]
    if tiny:
        width = 32
        unet |= {**TINY_UNET, "cross_attention_dim": width, "attention_head_dim": 4}
        vae |= TINY_VAE
    text: nn.Module
    with torch.device(device):
        if "bert" in sizes:
            from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

            own = {"d_model": width, "encoder_layers": 1, "encoder_ffn_dim": 64, "encoder_attention_heads": 2}
            text = LDMBertModel(LDMBertConfig(max_position_embeddings=77, **(own if tiny else sizes["bert"])))
        else:
            own = {"hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
            text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**(own if tiny else sizes["clip"])))
        made = UNet2DConditionModel(**unet), AutoencoderKL(**vae)
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
    scheduler = DDIMScheduler(**betas)
    return Backbone(
        made[0], scheduler, vae=made[1], text_encoder=text, tokenizer=Letters(), source=kind
    ).freeze()  # fmt: skip


def requests(count: int, size: int) -> list[Request]:
    """Photographs of the window's size with a mask in the middle."""
    made = []
    for seed in range(count):
        image = np.random.default_rng(seed).integers(60, 200, (size, size, 3), dtype=np.uint8)
        mask = np.zeros((size, size), bool)
        mask[size // 3 : 2 * size // 3, size // 3 : 2 * size // 3] = True
        made.append(Request(Sample(image, np.zeros_like(mask), "part"), mask, "hole", "a hole", None, seed))
    return made


def measured(work: Any, repeats: int, cuda: bool) -> dict[str, float | None]:
    """Seconds of `work()`, the fastest of `repeats` after one to warm up, and the GPU's peak in GiB."""
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats + 1):
        if cuda:
            torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_reserved() / 2**30 if cuda else None
    return {"seconds": min(seconds[1:]), "peak_gib": peak}


def painting(backbone: Backbone, memory: int | None, batch: int, repeats: int, names: list[str]) -> list[dict]:
    """One row per way of sampling at one batch."""
    rows = []
    made = DiffusionSynthesizer(backbone, device=backbone.device.type, memory=memory)
    allowed = made.batch
    made.batch = batch
    asked = requests(batch, backbone.size)
    for name in names:
        found = measured(lambda n=name: made.generate(asked, **SAMPLING[n]), repeats, backbone.device.type == "cuda")
        rows.append(
            {
                "backbone": backbone.source,
                "work": f"painting: {name}",
                "memory": memory,
                "batch": batch,
                "preset_batch": allowed,
                "seconds_per_image": found["seconds"] / batch,
                "images_per_second": batch / found["seconds"],
                "peak_gib": found["peak_gib"],
            }
        )
    return rows


def training(backbone: Backbone, memory: int | None, batch: int, repeats: int) -> list[dict]:
    """Steps of a LoRA adapter of rank 16, with new windows each time and with latents that are kept."""
    config = FitConfig(batch_size=batch, views=1)
    backbone.place(backbone.device.type, memory)
    parameters = add_adapter(backbone, "bench", config.rank, config.seed)
    size = backbone.size
    real = [Sample(r.normal.image, r.mask, "part", "hole") for r in requests(3, size)]
    windows = FewShotWindows(real, (), (), size, config)
    batches = [windows.batch(n, batch) for n in range(2)]  # the data's own time is not the denoiser's
    rows = []
    rows_at_once = batch_that_fits(backbone, batch, parameters)
    with tempfile.TemporaryDirectory() as out:
        for name, views in (("new windows", 0), ("kept latents", 1)):
            trainer = Trainer(parameters, Path(out), learning_rate=1e-4)
            fit = FitConfig(batch_size=batch, views=views)
            steps = Steps(backbone, lambda n: batches[n % 2], batches[0], fit)
            steps.rows = rows_at_once
            found = measured(lambda s=steps, t=trainer: t.step(s(0), 1e-4), repeats, backbone.device.type == "cuda")
            rows.append(
                {
                    "backbone": backbone.source,
                    "work": f"training: {name}",
                    "memory": memory,
                    "batch": batch,
                    "preset_batch": rows_at_once,
                    "steps_per_second": 1 / found["seconds"],
                    "samples_per_second": batch / found["seconds"],
                    "peak_gib": found["peak_gib"],
                }
            )
    backbone.unet.delete_adapters("bench")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--memory", nargs="+", type=int, default=[0, 8, 12, 16, 24], help="0 = no preset")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the same classes, a thousand times smaller")
    parser.add_argument("--out", type=Path, help="JSON with every row")
    args = parser.parse_args()
    if args.device == "cpu" and not args.tiny:
        parser.error("on a CPU one image takes minutes: add --tiny, or use --device cuda")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("this torch sees no GPU: use --tiny --device cpu")
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    torch.manual_seed(0)
    rows: list[dict] = []
    for kind in args.kinds:
        backbone = build(kind, args.tiny, args.device)
        for memory in (m or None for m in args.memory):
            for batch in args.batches:
                full = batch == max(args.batches) and memory is None
                names = list(SAMPLING) if full else ["fast"]  # the papers' own are slow: once per backbone
                try:
                    found = painting(backbone, memory, batch, args.repeats, names)
                    found += training(backbone, memory, batch, args.repeats)
                except torch.OutOfMemoryError:
                    found = [{"backbone": kind, "work": "out of memory", "memory": memory, "batch": batch}]
                rows += found
                for row in found:
                    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}))
    if args.out:
        device = torch.cuda.get_device_name(0) if args.device == "cuda" else "CPU"
        about = {"device": device, "torch": torch.__version__, "tiny": args.tiny, "rows": rows}
        args.out.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    for row in rows:  # at the same batch and preset
        if row["work"].endswith("paper"):
            alike = [r for r in rows if all(r[k] == row[k] for k in ("backbone", "memory", "batch"))]
            for other in (r for r in alike if "fast" in r["work"]):
                gain = other["images_per_second"] / row["images_per_second"]
                print(f"{row['backbone']}: {other['work']} makes {gain:.1f} times as many as {row['work']}")


if __name__ == "__main__":
    main()
