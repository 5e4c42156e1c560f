"""How much of the wall time of a learned method's generation is the model, with and without overlapping.

Counted from the first block to the last file. The model is `Painting._sampled`: encoding, denoising and
decoding of windows. Without overlapping (`Here`) decoding of photographs, masks, pasting, gate, PNG and files stand
beside it; with it (`Threads`) they run while it paints. Both write the same bytes, which is checked. On a machine whose
only core is busy nothing can overlap; the processor seconds (OMP_NUM_THREADS=1, so that a thread's are all of the
model's) then say what a quiet one would do.

Example: python benchmarks/overlap.py --normal mvtec_ad:DIR -n 48 --rounds 3
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from flawsmith.config import GenerateConfig
from flawsmith.generation import executors, here
from flawsmith.generation import run as generation
from flawsmith.generation.blocks import Blocks


def measured(config: GenerateConfig, overlapping: bool) -> tuple[float, float, float, float]:
    """Wall seconds of the run and of the model in it; processor seconds of the run, and of the model's own thread."""
    from flawsmith.methods.diffusion.painting import Painting

    inside = [0.0, 0.0]
    whole, part = Painting._sampled, Painting._sample

    def round_timed(*args):  # one at a time
        begun = time.perf_counter()
        try:
            return whole(*args)
        finally:
            inside[0] += time.perf_counter() - begun

    def part_timed(*args):  # in threads of their own, one with OMP_NUM_THREADS=1
        begun = time.thread_time()
        try:
            return part(*args)
        finally:
            inside[1] += time.thread_time() - begun

    begun = [0.0, 0.0]

    def choose(made: Blocks, left: int) -> executors.Executor:
        begun[:] = time.perf_counter(), time.process_time()
        return here.Threads(made, here.OVERLAPPING) if overlapping else here.Here(made)

    before = executors.choose
    executors.choose, Painting._sampled, Painting._sample = choose, round_timed, part_timed
    try:
        generation.run(config)
    finally:
        executors.choose, Painting._sampled, Painting._sample = before, whole, part
    return time.perf_counter() - begun[0], inside[0], time.process_time() - begun[1], inside[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normal", required=True, help="READER:DIR with good photographs")
    parser.add_argument("--method", default="inpaint")
    parser.add_argument("--prompt", default="a long thin dark scratch")
    parser.add_argument("--gate", default="normal")
    parser.add_argument("-n", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    print(f"{os.cpu_count()} hardware threads, {load}; {args.method}, gate {args.gate}, {args.n} images")
    asked = {"method": args.method, "normal": args.normal, "prompt": args.prompt, "gate": args.gate, "seed": 1}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        measured(GenerateConfig(**asked, out=root / "warm", n=8), False)  # imports, file cache
        found: dict[bool, list[tuple[float, float, float, float]]] = {False: [], True: []}
        for turn in range(args.rounds):
            for overlapping in (False, True):
                out = root / f"{turn}-{overlapping}"
                found[overlapping].append(measured(GenerateConfig(**asked, out=out, n=args.n), overlapping))
            written = [
                {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
                for out in (root / f"{turn}-False", root / f"{turn}-True")
            ]
            assert written[0] == written[1], "overlapping changed the bytes"
    print("| | wall s | model s | share | processor s | model's thread | share |\n|---|---|---|---|---|---|---|")
    for overlapping, name in ((False, "one after the other"), (True, "overlapped")):
        wall, model, spent, own = (statistics.median(column) for column in zip(*found[overlapping], strict=True))
        share = statistics.median(row[1] / row[0] for row in found[overlapping])
        print(f"| {name} | {wall:.1f} | {model:.1f} | {share:.0%} | {spent:.1f} | {own:.1f} | {own / spent:.0%} |")


if __name__ == "__main__":
    main()
