"""What does a cheaper sampling change? The same requests painted with other options, against the first ones.

Photographs, masks, words and seeds are those of `control.py`. For each set of options: processor seconds, the mean
absolute difference inside the mask to the images of the first set, and to the photograph (how strong the defect is);
grey levels.

Example: python benchmarks/samplings.py --data data --options '{"guidance_floor": 0}' '{}' '{"guidance_scale": 1}'
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from control import Model, draw, photographs, says

from flawsmith.methods.mask_choice import FAMILY
from flawsmith.records import Request, Sample

KINDS = ("scratch", "hole", "crack", "stain", "spots", "chip")


def asked(data: Path | None, count: int) -> list[Request]:
    """Requests on other photographs each, kinds in turn, every second one told to be dark."""
    requests = []
    for number, scene in enumerate(photographs(data, 0)[:count]):
        kind = KINDS[number % len(KINDS)]
        mask = draw(FAMILY[kind], scene, np.random.default_rng([number, 77]))
        words = says(kind, "dark" if number % 2 else "", number)
        requests.append(Request(scene.sample(), mask, kind, words, None, number))
    return requests


def apart(requests: list[Request], first: list[Sample], second: list[Sample]) -> float:
    """Mean absolute difference inside the masks, grey levels."""
    pairs = zip(requests, first, second, strict=True)
    return float(np.mean([np.abs(a.image.astype(float) - b.image)[r.mask].mean() for r, a, b in pairs]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="compact", help="compact, a folder in diffusers format, or a hub id")
    parser.add_argument("--data", type=Path, help="folder of data sets whose good photographs join the textures")
    parser.add_argument("--options", nargs="+", required=True, help="JSON: options of `inpaint`, one set each")
    parser.add_argument("-n", type=int, default=24)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, requests = Model("inpaint", args.backbone, {}), asked(args.data, args.n)
    photos, first = [r.normal for r in requests], []
    print("| options | processor s | to the first | to the photograph |\n|---|---|---|---|")
    for options in args.options:
        began = time.process_time()
        made = model.method.generate(requests, **json.loads(options))
        spent, first = time.process_time() - began, first or made
        print(f"| {options} | {spent:.1f} | {apart(requests, first, made):.2f} | {apart(requests, photos, made):.1f} |")


if __name__ == "__main__":
    main()
