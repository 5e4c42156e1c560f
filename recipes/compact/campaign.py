"""The whole campaign for the next denoiser, in calls of some minutes that resume: windows, then both stages.

    python recipes/compact/campaign.py DATA OUT --device cuda --minutes 9

DATA holds ball_screw, cookie and road_potholes (data_card.md; 63 MiB). The first call makes the windows with all cores;
each call goes on where the last one ended, until it says "finished". OUT/next/backbone are the weights.
Meant for a GPU: --workers processes put batches together, since one makes some 200 windows a second and a GPU reads
3,000. A rehearsal on a CPU: --procedural 60 --crops 1 --steps 6 --batch 4 --device cpu --minutes 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
STAGES = ("gpu-64", "gpu-128")  # configs, in order; each starts from the one before


def ended(folder: Path, steps: int) -> bool:
    """Whether a stage's last step is in its log."""
    log = folder / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return bool(lines) and json.loads(lines[-1])["step"] >= steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="about how long this call may take")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--start-from", type=Path, help="weights that the first stage starts with")
    parser.add_argument("--procedural", type=int, default=24_000)
    parser.add_argument("--crops", type=int, default=8)
    parser.add_argument("--steps", type=int, help="of each stage, in place of its config's")
    parser.add_argument("--batch", type=int, help="windows a step, in place of the configs'")
    args = parser.parse_args()
    begun = time.monotonic()
    run = [sys.executable]
    windows = args.out / "windows"
    made = [HERE / "make_windows.py", args.data, windows, "--jobs", args.workers]
    subprocess.run([*run, *map(str, [*made, "--procedural", args.procedural, "--crops", args.crops])], check=True)
    start = args.start_from
    for name in STAGES:
        given = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
        given |= {key: value for key, value in (("steps", args.steps), ("batch_size", args.batch)) if value}
        folder = args.out / ("next" if name == STAGES[-1] else name)
        left = args.minutes - (time.monotonic() - begun) / 60
        if not ended(folder, given["steps"]) and left > 0:
            folder.mkdir(parents=True, exist_ok=True)
            config = args.out / f"{name}.json"
            config.write_text(json.dumps(given, indent=2) + "\n", encoding="utf-8")
            call = [HERE / "pretrain.py", windows, folder, "--config", config, "--device", args.device]
            call += ["--workers", args.workers, "--minutes", round(left, 2)]
            call += ["--start-from", start] if start else []
            subprocess.run([*run, *map(str, call)], check=True)
        if not ended(folder, given["steps"]):
            print(f"{name} goes on with the next call")
            return
        start = folder / "backbone"
    print("finished")


if __name__ == "__main__":
    main()
