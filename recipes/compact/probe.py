"""Look at a compact backbone: the grid of its cells, how much of the mask changes, whether colour words steer.

    python recipes/compact/probe.py BACKBONE WINDOWS OUT.png [--count 32]

Prints one JSON line; OUT.png shows hole | real | caption | four prompts, on held-out windows.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flawsmith import images
from flawsmith.diffusion import tensors
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.denoise import Conditioning, denoise, draw_noise
from flawsmith.training.shards import Mix, Windows

PROMPTS = ("red stain", "blue stain", "black scratch", "white scratch")


def grid_ratio(shown: np.ndarray, masks: np.ndarray, factor: int) -> float:
    """Mean step between neighbours across the codec's cell borders over the mean step within cells, inside the masks.

    1 means no grid. images (B, S, S, 3) uint8, masks (B, S, S) bool.
    """
    sums = np.zeros((2, 2))
    for axis in (1, 2):
        step = np.abs(np.diff(shown.astype(np.float32), axis=axis)).mean(-1)
        both = np.take(masks, range(1, masks.shape[axis]), axis) & np.take(masks, range(masks.shape[axis] - 1), axis)
        border = (np.arange(step.shape[axis]) % factor) == factor - 1
        shape = [1, -1, 1] if axis == 1 else [1, 1, -1]
        for k, chosen in enumerate((border, ~border)):
            inside = both & chosen.reshape(shape)
            sums[k] += step[inside].sum(), inside.sum()
    return float((sums[0, 0] / sums[0, 1]) / (sums[1, 0] / sums[1, 1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbone")
    parser.add_argument("windows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=2.0)
    args = parser.parse_args()
    backbone = Backbone.from_pretrained(args.backbone)
    folders = [args.windows / name for name in ("real", "procedural") if (args.windows / name).is_dir()]
    windows = Windows(folders, Mix(normal=0.0, real=0.3))
    batch = windows.batch(args.count, 5, 0, split="val", augment=False)
    clean, mask = tensors.from_images(batch.clean), tensors.from_masks(batch.mask)
    null, extra = backbone.null(args.count), backbone.inpaint_input(clean, mask)
    noise = draw_noise(range(args.count), (backbone.latent_channels, *[backbone.size // backbone.factor] * 2))

    def paint(words: list[str], references: list[Any] | None = None) -> np.ndarray:
        with torch.no_grad():
            given = Conditioning(backbone.context(words, references))
        parts = []
        for start in range(0, args.count, 8):
            rows = slice(start, start + 8)
            parts.append(
                denoise(
                    backbone.unet,
                    backbone.sampler("dpm++"),
                    lambda t, rows=rows: Conditioning(given.context[rows]),
                    noise[rows],
                    extra=None if extra is None else extra[rows],
                    unconditional=lambda t, rows=rows: Conditioning(null.context[rows]),
                    guidance_scale=args.guidance,
                    timesteps=backbone.timesteps(args.steps),
                )
            )
        return tensors.to_images(mask * backbone.decode(torch.cat(parts)) + (1 - mask) * clean)

    from_caption = paint(batch.captions)
    from_prompt = [paint([prompt] * args.count) for prompt in PROMPTS]
    references = [
        None if r is None else (tensors.from_images([r[0]])[0], tensors.from_masks([r[1]])[0]) for r in batch.references
    ]
    from_reference = paint([""] * args.count, references)
    nothing = paint(["no defect"] * args.count)

    def means(shown: np.ndarray) -> np.ndarray:
        return np.stack([p[m].mean(0) for p, m in zip(shown.astype(float), batch.mask, strict=True)])  # (B, 3)

    red, blue, black, white = (means(p) for p in from_prompt)
    warm = (red[:, 0] - red[:, 2]) - (blue[:, 0] - blue[:, 2])
    light = white.mean(1) - black.mean(1)
    true, said = means(batch.image), means(from_caption)
    drawn = [i for i, row in enumerate(batch.rows) if windows.notes[row].source == "procedural"]
    moved = [
        float((np.abs(from_caption[i].astype(int) - batch.clean[i]).max(-1)[batch.mask[i]] > 8).mean()) for i in drawn
    ]
    figures = {
        "grid": round(grid_ratio(from_caption, batch.mask, backbone.factor), 3),
        "grid_real": round(grid_ratio(batch.image, batch.mask, backbone.factor), 3),
        "red_over_blue": round(float((warm > 0).mean()), 3),
        "white_over_black": round(float((light > 0).mean()), 3),
        "red_blue_levels": round(float(warm.mean()), 1),
        "white_black_levels": round(float(light.mean()), 1),
        "colour_error": round(float(np.abs(true - said).mean()), 1),
        "colour_error_no_defect": round(float(np.abs(true - means(nothing)).mean()), 1),
        "colour_error_reference": round(float(np.abs(true - means(from_reference)).mean()), 1),
        "changed_share_of_mask": round(float(np.mean(moved)), 3) if moved else None,
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    shown = np.stack(
        [r[0] if r is not None else np.zeros_like(p) for r, p in zip(batch.references, batch.image, strict=True)]
    )
    hole = tensors.to_images(clean * (1 - mask))
    columns = [hole, batch.image, from_caption, shown, from_reference, nothing, *from_prompt]
    images.write_image(args.out, np.concatenate([np.concatenate(list(c[:16]), 0) for c in columns], 1))


if __name__ == "__main__":
    main()
