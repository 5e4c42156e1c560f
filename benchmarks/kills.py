"""Kill `train` at random moments, resume it, and compare the run with one that was left in peace.

Every attempt is a process of its own that the system ends (SIGKILL) after a random share of the time an uninterrupted
run takes; it is forked after the imports, so that the kills fall into the work. A run is killed `--chain` times, then
let finish; every file of it must have the bytes of the uninterrupted run, and there must be no other file. POSIX only.

Example: nice -n 19 python benchmarks/kills.py --kills 40

Found on two quiet threads with --kills 40 --steps 8 (inpaint's row in a run of its own, --methods inpaint --kills 14):

| method | runs | kills | files compared | files that differ | stray files |
|---|---|---|---|---|---|
| inpaint | 5 | 14 | 30 | 0 | 0 |
| anomalycontrol | 7 | 13 | 42 | 0 | 0 |
| anomalyxfusion | 7 | 13 | 77 | 0 | 0 |
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

METHODS = ("inpaint", "anomalyxfusion", "anomalycontrol")


def painted(root: Path) -> Path:
    """Washers with painted scratches, in MVTec layout at 256 px."""
    from flawsmith import demo
    from flawsmith.config import GenerateConfig
    from flawsmith.generation import run as generation

    demo.product_photos(root / "data", count=8)
    out = root / "few" / "washer"
    normal = f"mvtec_ad:{root / 'data' / 'washer'}"
    generation.run(
        GenerateConfig(method="procedural", normal=normal, out=out, defect=("scratch",), n=6, with_normals=True)
    )
    return out


def small(folder: Path) -> Path:
    """A compact backbone of 32 px with fresh weights: what is killed is the same code, in a hundredth of the time."""
    from flawsmith.diffusion.backbone import SHIPPED
    from flawsmith.diffusion.compact import recipe as compact

    recipe = compact.CompactConfig(size=32, channels=(16, 32), attention=(False, True), heads=2, groups=8, width=32)
    compact.build(recipe, 0, SHIPPED["compact"] / "text").save_pretrained(folder)
    return folder


def fit(method: str, data: Path, out: Path, args: argparse.Namespace) -> None:
    from flawsmith.config import TrainConfig
    from flawsmith.training import run as training
    from flawsmith.training import trainer

    trainer.SAVE_SECONDS = args.save_seconds
    options: dict[str, Any] = {"batch_size": 2, "evaluate_every": 2, "patience": 2, "preview_every": 100, "warmup": 2}
    options |= {"save_every": 1000, "mask_steps": 2 * (method == "anomalyxfusion"), "learning_rate": 0.01}
    given = {"backbone": str(args.backbone), "shots": 5, "steps": args.steps, "options": options}
    training.train(TrainConfig(method=method, data=f"mvtec_ad:{data}", out=out, **given))


def attempt(method: str, data: Path, out: Path, args: argparse.Namespace, after: float | None) -> tuple[bool, float]:
    """`fit` in a process of its own, killed after so many seconds; whether it was, and how long it lived."""
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            fit(method, data, out, args)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
    status: int | None = None
    while status is None:
        ended, found = os.waitpid(child, os.WNOHANG)
        if ended:
            status = found
        elif after is not None and time.monotonic() - begun > after:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        time.sleep(0.005)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"{method}: training {out} failed")
    return os.WIFSIGNALED(status), time.monotonic() - begun


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="in all, over the methods")
    parser.add_argument("--chain", type=int, default=4, help="kills of one run before it may finish")
    parser.add_argument("--steps", type=int, default=12, help="optimiser steps of a fit, at most")
    parser.add_argument("--save-seconds", type=float, default=0.2, help="between two states; 20 in earnest")
    parser.add_argument("--data", type=Path, help="a category in MVTec layout; default: painted washers")
    parser.add_argument("--backbone", help="as of train; default: one of 32 px, with fresh weights")
    parser.add_argument("--methods", default=",".join(METHODS), help="some of them, with commas")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    # before the forks: what a process with threads leaves to its child cannot be relied on
    import cv2
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    import peft  # noqa: F401
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel, UNet2DModel  # noqa: F401

    from flawsmith.methods.anomalycontrol import synthesizer  # noqa: F401
    from flawsmith.methods.anomalyxfusion import synthesizer as other  # noqa: F401
    from flawsmith.training import model_run  # noqa: F401

    methods = args.methods.split(",")
    rng = random.Random(args.seed)
    print("| method | runs | kills | files compared | files that differ | stray files | time beyond whole runs |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["FLAWSMITH_CACHE"] = str(root / "cache")
        data = args.data or painted(root)
        args.backbone = args.backbone or small(root / "small")
        for number, method in enumerate(methods):
            wanted = args.kills // len(methods) + (number < args.kills % len(methods))
            whole = root / method / "whole"
            attempt(method, data, whole, args, None)
            _, seconds = attempt(method, data, root / method / "again", args, None)  # the first also read files
            expected = tree(whole)
            runs = kills = compared = differing = stray = 0
            spent = 0.0
            while kills < wanted:
                out = root / method / str(runs)
                runs += 1
                killed = True
                for _ in range(min(args.chain, wanted - kills)):
                    killed, lived = attempt(method, data, out, args, rng.uniform(0, 0.9) * seconds)
                    kills, spent = kills + killed, spent + lived
                    if not killed:
                        break
                if killed:
                    spent += attempt(method, data, out, args, None)[1]
                found = tree(out)
                compared += len(expected)
                differing += sum(found.get(name) != content for name, content in expected.items())
                stray += len(found.keys() - expected.keys())
                counts = f"{kills} kills, {compared} files, {differing} differ, {stray} stray"
                print(f"{method}, run {runs}: {counts}", file=sys.stderr, flush=True)
            beyond = f"{spent / (runs * seconds) - 1:.0%}"
            print(f"| {method} | {runs} | {kills} | {compared} | {differing} | {stray} | {beyond} |", flush=True)


if __name__ == "__main__":
    main()
