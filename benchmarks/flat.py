"""Is the cost of an image the same however many there are? Memory, seconds per image, how soon a resumed run starts.

One process paints `perlin` on eight photographs of 32 px, without a gate, since that is quick: what is measured is
what surrounds the painting (plan, manifest, files), not the painting. Peak memory is of a process of its own for each
length, the file cache left out. Milliseconds per image are processor time of the first and of the last thousand. The
resumed run finds all images of the longest one and is asked for one more; its seconds run from the call until the
end, interpreter and imports left out. With `--gate` every image is judged and compared with those before.

Example: python benchmarks/flat.py --lengths 1000,10000,50000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDE, FEW = 32, 1000


def photographs(root: Path) -> Path:
    from flawsmith import images

    rng = np.random.default_rng(0)
    for number in range(8):
        images.write_image(root / f"{number}.png", rng.integers(100, 160, (SIDE, SIDE, 3), dtype=np.uint8))
    return root


def child(data: Path, out: Path, n: int, gate: str) -> None:
    """Make `n` images and print what it took."""
    from flawsmith.config import GenerateConfig
    from flawsmith.generation import run as generation

    begun = time.perf_counter(), time.process_time()
    marks: dict[int, float] = {}
    started = [0]

    def listen(what: str, done: int, total: int, facts: object) -> None:
        if what in ("starting", "resuming"):
            started[0] = done
        elif what == "perlin" and done - started[0] in (1, FEW, n - FEW, n - started[0]):
            marks[done - started[0]] = time.process_time()

    config = {"method": "perlin", "normal": f"folder:{data}", "out": out, "n": n, "gate": gate}
    generation.run(GenerateConfig(**config, mask="blob", max_redraws=0), listen)
    seconds = time.perf_counter() - begun[0], time.process_time() - begun[1]
    unit = 1 if sys.platform == "darwin" else 1024
    found = {
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6,
        "wall s": seconds[0],
        "processor s": seconds[1],
    }
    if n - started[0] >= 2 * FEW:
        found["first ms"] = (marks[FEW] - marks[1]) / (FEW - 1) * 1e3
        found["last ms"] = (marks[n] - marks[n - FEW]) / FEW * 1e3
    print(json.dumps(found))


def measured(data: Path, out: Path, n: int, gate: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(data), str(out), str(n), gate]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="1000,10000,50000", help="images of each run")
    parser.add_argument("--gate", default="off", help="off, normal or strict")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        data, out, n, gate = args.child
        child(Path(data), Path(out), int(n), gate)
        return
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    print(f"{os.cpu_count()} hardware threads, {load}; {SIDE} px, gate {args.gate}\n")
    lengths = [int(text) for text in args.lengths.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        data = photographs(Path(folder) / "photographs")
        print("| images | peak MB | ms an image, first 1,000 | last 1,000 | manifest bytes an image |")
        print("|---|---|---|---|---|")
        for n in lengths:
            out = Path(folder) / str(n)
            found = measured(data, out, n, args.gate)
            first, last = (f"{found[key]:.2f}" if key in found else "" for key in ("first ms", "last ms"))
            size = (out / "manifest.jsonl").stat().st_size / n
            print(f"| {n:,} | {found['peak MB']:.1f} | {first} | {last} | {size:.0f} |", flush=True)
        more = measured(data, out, lengths[-1] + 1, args.gate)
        print(f"\nResumed after {lengths[-1]:,}, one more image: {more['wall s']:.2f} s wall, ", end="")
        print(f"{more['processor s']:.2f} s processor, peak {more['peak MB']:.1f} MB")


if __name__ == "__main__":
    main()
