"""Speed and memory of the main job. Run: `python benchmarks/generate.py` (or `make bench`).

Prints the start-up time of `flawsmith --help`, images per second through the whole `generate` path at 256 px (from
the configuration to the last file, planning and checks included), and the peak memory on a 12,000 x 9,000 photograph
against the bar of four times its raw pixels plus 300 MB. `--data DIR` measures the speed on a data set of your own.
Every figure is the median of `--rounds` runs; the load average is printed because other work makes all of them worse.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

METHODS = ("copypaste", "procedural", "cutpaste", "perlin", "nsa")
BARRED = ("copypaste", "procedural")  # the bar of 20 images per second is for these
HEIGHT, WIDTH = 9_000, 12_000

PEAK = """
import resource, sys
from pathlib import Path
from flawsmith import generation
from flawsmith.config import GenerateConfig
generation.run(GenerateConfig(method=sys.argv[1], normal=sys.argv[2], out=Path(sys.argv[3]), n=2))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6)
"""


def few_defects(root: Path) -> Path:
    """A data set of rendered washers with painted scratches and chips, in MVTec layout at 256 px."""
    from flawsmith import demo
    from flawsmith.config import GenerateConfig
    from flawsmith.generation import run as generation

    demo.product_photos(root / "data", count=24)
    out = root / "few" / "washer"
    config = GenerateConfig(
        method="procedural",
        normal=f"mvtec_ad:{root / 'data' / 'washer'}",
        out=out,
        defect=("scratch", "chip"),
        n=30,
        with_normals=True,
    )
    generation.run(config)
    return out


def pictures_per_second(method: str, normal: str, out: Path, n: int) -> float:
    from flawsmith.config import GenerateConfig
    from flawsmith.generation import run as generation

    started = time.perf_counter()
    summary = generation.run(GenerateConfig(method=method, normal=normal, out=out, n=n))
    return summary.kept / (time.perf_counter() - started)


def large_photos(root: Path) -> Path:
    """One grained plate of 12,000 x 9,000 pixels and three defects on it, in MVTec layout."""
    from flawsmith import images

    rng = np.random.default_rng(0)
    tile = rng.integers(110, 150, (HEIGHT // 10, WIDTH // 10, 3), dtype=np.uint8)
    plate = np.tile(tile, (10, 10, 1))
    folder = root / "plate"
    images.write_image(folder / "train" / "good" / "plate.png", plate)
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[4_400:4_600, 5_800:6_300] = True
    plate[mask] //= 3
    for number in range(3):
        images.write_image(folder / "test" / "pit" / f"{number:03d}.png", plate)
        images.write_image(folder / "ground_truth" / "pit" / f"{number:03d}_mask.png", mask)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100, help="images per run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", help="READER:DIR to measure the speed on, with defects; default: rendered washers")
    parser.add_argument("--skip-large", action="store_true", help="leave out the memory on a large photograph")
    args = parser.parse_args()
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    print(f"{os.cpu_count()} cores, {load}")
    help_seconds = []
    for _ in range(7):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "flawsmith", "--help"], check=True, capture_output=True)
        help_seconds.append(time.perf_counter() - started)
    print(f"flawsmith --help: median {statistics.median(help_seconds):.2f} s (bar 0.4)")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        normal = args.data or f"mvtec_ad:{few_defects(root)}"
        for method in METHODS:
            pictures_per_second(method, normal, root / f"{method}-warm", 2)  # imports and file cache
            speeds = [
                pictures_per_second(method, normal, root / f"{method}-{turn}", args.n) for turn in range(args.rounds)
            ]
            bar = " (bar 20)" if method in BARRED else ""
            print(f"{method}: median {statistics.median(speeds):.1f} images/s{bar}, from {min(speeds):.1f}")
        if args.skip_large:
            return
        large = large_photos(root)
        raw = HEIGHT * WIDTH * 3 / 1e6
        for method in METHODS:
            command = [sys.executable, "-c", PEAK, method, f"mvtec_ad:{large}", str(root / f"large-{method}")]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peak = float(done.stdout.strip().splitlines()[-1])
            print(f"{method}, {WIDTH:,} x {HEIGHT:,}: peak {peak:.0f} MB (bar {4 * raw + 300:.0f})")


if __name__ == "__main__":
    main()
