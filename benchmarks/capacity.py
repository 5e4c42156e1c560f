"""How long, how much money, and what is the narrowest place: a small simulation of runs of 1e4, 1e6 and 1e8 images.

It follows 20,000 images through what `generate` does: worker after worker takes the next image as soon as it is free
and no image is more than WINDOW per worker ahead of the one to be written; each takes as many attempts as chance gives
it (geometric, so that some images hold the others up); one process writes them in order. The rate of the second half
is taken for the whole run. Several runs (one for each GPU, each with a seed and a folder of its own) share one store.

Constants marked "measured" come from the commands in docs/capacity.md, on one core of a Xeon with two hardware threads
beside other work, so they are upper bounds. Those marked "assumed" are not ours: change them on the command line.

Example: python benchmarks/capacity.py --gpu-seconds 1.0
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass

import numpy as np

FOLLOWED = 20_000
WINDOW = 4  # generation/workers.py


@dataclass(frozen=True)
class Kind:
    """What an image costs. Seconds of one core, but `model` of whatever the model runs on."""

    name: str
    model: float  # of an attempt
    around: float  # of an attempt: photograph, mask, pasting, judging
    encode: float  # of an image
    kept: float  # share of the attempts that are good
    kilobytes: float  # of an image and its mask


@dataclass(frozen=True)
class Place:
    """Where: `runs` of `workers` each; the money an hour of all of it costs."""

    name: str
    runs: int
    workers: int
    gpu: bool
    price: float


def rate(kind: Kind, place: Place, write: float, seed: int = 0) -> tuple[float, float]:
    """Images a second of one run, and the share of the time that its writing process is busy."""
    attempts = np.random.default_rng(seed).geometric(kind.kept, FOLLOWED)
    making = attempts * (kind.model + kind.around) + kind.encode
    if place.gpu:  # decoding, judging and encoding go on beside the model
        making = np.maximum(attempts * kind.model, attempts * kind.around + kind.encode)
    free, window = [0.0] * place.workers, WINDOW * place.workers
    written = np.zeros(FOLLOWED + 1)
    for number in range(FOLLOWED):
        begun = max(heapq.heappop(free), written[max(0, number - window)])
        heapq.heappush(free, begun + making[number])
        written[number + 1] = max(begun + making[number], written[number]) + write
    half = FOLLOWED // 2
    speed = half / (written[-1] - written[half])
    return speed, speed * write


def words(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-ms", type=float, default=1.3, help="measured: files and manifest line of an image")
    parser.add_argument("--gpu-seconds", type=float, default=1.0, help="assumed: an SD 1.5 image of 512 px, 30 steps")
    parser.add_argument("--gpu-price", type=float, default=2.0, help="assumed: a GPU's hour")
    parser.add_argument("--core-price", type=float, default=0.04, help="assumed: a core's hour")
    parser.add_argument("--store-mb", type=float, default=500, help="assumed: MB a second that the store takes")
    parser.add_argument("--store-files", type=float, default=3000, help="assumed: files a second that the store takes")
    args = parser.parse_args()
    classic = Kind("perlin, gate", 0.0, 0.036, 0.009, 0.74, 93)
    copied = Kind("copypaste, gate", 0.0, 0.028, 0.009, 0.48, 88)
    compact = Kind("compact, gate", 0.13, 0.03, 0.009, 0.9, 93)
    big = Kind("SD 1.5, gate", args.gpu_seconds, 0.06, 0.03, 0.8, 450)
    cores = args.core_price
    rows = [
        (classic, Place("4 cores, --jobs 4", 1, 4, False, 4 * cores)),
        (classic, Place("64 cores, --jobs 64", 1, 64, False, 64 * cores)),
        (copied, Place("64 cores, --jobs 64", 1, 64, False, 64 * cores)),
        (classic, Place("16 x 64 cores, 16 runs", 16, 64, False, 16 * 64 * cores)),
        (compact, Place("1 core", 1, 1, False, cores)),
        (big, Place("1 GPU", 1, 1, True, args.gpu_price)),
        (big, Place("64 GPUs, 64 runs", 64, 1, True, 64 * args.gpu_price)),
    ]
    print(
        "| images | where | images a second | 1e4 | 1e6 | 1e8 | money for 1e6 | GB for 1e6 | writer busy | narrowest |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for kind, place in rows:
        speed, busy = rate(kind, place, args.write_ms / 1e3)
        made = speed * place.runs
        by_bytes, by_files = args.store_mb * 1e3 / kind.kilobytes, args.store_files / 3
        total = min(made, by_bytes, by_files)
        narrow = "writer" if busy > 0.9 else "model" if kind.model else "painting"
        if total < made:
            narrow = "store: files" if by_files < by_bytes else "store: bytes"
        hours = {n: n / total / 3600 for n in (1e4, 1e6, 1e8)}
        cells = [kind.name, place.name, f"{total:,.1f}", *(words(hours[n]) for n in hours)]
        cells += [f"{hours[1e6] * place.price:,.0f}", f"{kind.kilobytes:,.0f}", f"{busy:.0%}", narrow]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
