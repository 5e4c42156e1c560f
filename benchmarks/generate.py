"""Speed and memory of the main job. Run: `python benchmarks/generate.py` (or `make bench`).

Prints pictures per second through the whole `generate` path at 256 px, the start-up time of `flawsmith --help`, and the
peak memory on a 12,000 x 9,000 photograph against the bar of four times its raw pixels plus 300 MB.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PEAK = """
import resource, sys
from pathlib import Path
from flawsmith import generation
from flawsmith.config import GenerateConfig
generation.run(GenerateConfig(method=sys.argv[1], normal=sys.argv[2], out=Path(sys.argv[3]), n=2))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def few_defects(root: Path) -> Path:
    """A data set of rendered washers with painted scratches and chips, in MVTec layout at 256 px."""
    from flawsmith import demo, generation
    from flawsmith.config import GenerateConfig

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


def pictures_per_second(method: str, normal: Path, out: Path, n: int) -> float:
    from flawsmith import generation
    from flawsmith.config import GenerateConfig

    started = time.perf_counter()
    summary = generation.run(GenerateConfig(method=method, normal=f"mvtec_ad:{normal}", out=out, n=n))
    return summary.kept / (time.perf_counter() - started)


def large_photo(root: Path) -> Path:
    from flawsmith import images

    rng = np.random.default_rng(0)
    tile = rng.integers(90, 160, (900, 1200, 3), dtype=np.uint8)
    images.write_image(root / "large" / "good" / "plate.png", np.tile(tile, (10, 10, 1)))
    return root / "large"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="pictures per run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-large", action="store_true")
    args = parser.parse_args()
    help_seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "flawsmith", "--help"], check=True, capture_output=True)
        help_seconds.append(time.perf_counter() - started)
    print(f"flawsmith --help: median {statistics.median(help_seconds):.2f} s (bar 0.4)")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        few = few_defects(root)
        for method in ("procedural", "copypaste", "cutpaste", "perlin", "nsa"):
            speeds = [
                pictures_per_second(method, few, root / f"{method}-{turn}", args.n) for turn in range(args.rounds)
            ]
            print(f"{method}: median {statistics.median(speeds):.1f} pictures/s at 256 px, one process (bar 20)")
        if args.skip_large:
            return
        large = large_photo(root)
        raw = 12_000 * 9_000 * 3 / 2**20
        for method in ("procedural", "cutpaste"):
            done = subprocess.run(
                [sys.executable, "-c", PEAK, method, f"folder:{large}", str(root / f"large-{method}")],
                check=True,
                capture_output=True,
                text=True,
            )
            peak = float(done.stdout.strip().splitlines()[-1])
            print(f"{method}, 12,000 x 9,000: peak {peak:.0f} MiB (bar {4 * raw + 300:.0f}), {peak / raw:.2f} x raw")
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
