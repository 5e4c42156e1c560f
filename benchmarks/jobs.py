"""`--jobs`: how much sooner worker processes are done, what each of them costs, and that a killed one costs no byte.

For each method one process and `--jobs` processes alternate, `--rounds` times. Wall seconds run from the configuration
to the last file, the start of the workers included; "seconds an image" leaves out what comes before the second image.
Processor seconds are of this process and of its workers. On a busy machine only they tell something: the writing
process's own seconds an image say how many workers it can serve, and the workers' seconds beside those of one process
say what working apart costs. Every pair of data sets is compared byte by byte.

`--kills K` also kills K workers, at moments drawn at random, and compares what is written with an undisturbed run.

Example: python benchmarks/jobs.py --normal mvtec_ad:DIR -n 400 --jobs 2
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import resource
import signal
import statistics
import tempfile
import threading
import time
from pathlib import Path

from flawsmith.config import GenerateConfig
from flawsmith.generation import run as generation


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def spent(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def measured(config: GenerateConfig) -> tuple[float, float, float, float]:
    """Wall seconds; wall seconds an image without the start; processor seconds of this process and of its workers."""
    marks: list[float] = []

    def listen(what: str, done: int, total: int, facts: object) -> None:
        if what not in ("starting", "checking photographs"):
            marks.append(time.perf_counter())

    begun = time.perf_counter(), spent(resource.RUSAGE_SELF), spent(resource.RUSAGE_CHILDREN)
    generation.run(config, listen)
    own, workers = spent(resource.RUSAGE_SELF) - begun[1], spent(resource.RUSAGE_CHILDREN) - begun[2]
    return time.perf_counter() - begun[0], (marks[-1] - marks[0]) / (len(marks) - 1), own, workers


def killed(config: GenerateConfig, kills: int, seed: int) -> int:
    """Run, and every few images kill a worker a moment later; how many were killed."""
    rng, dead, timers = random.Random(seed), [0], []

    def kill() -> None:
        alive = multiprocessing.active_children()
        if alive and dead[0] < kills:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(alive).pid or 0, signal.SIGKILL)
                dead[0] += 1

    def listen(what: str, done: int, total: int, facts: object) -> None:
        if what not in ("starting", "checking photographs") and rng.random() < 0.15:
            timers.append(threading.Timer(rng.uniform(0, 0.05), kill))
            timers[-1].start()

    generation.run(config, listen)
    for timer in timers:
        timer.join()
    return dead[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normal", required=True, help="READER:DIR with defects")
    parser.add_argument("--methods", default="copypaste,procedural,cutpaste,perlin,nsa")
    parser.add_argument("--gate", default="normal", help="off, normal or strict")
    parser.add_argument("-n", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=0, help="also kill so many workers, with the first method")
    args = parser.parse_args()
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    print(f"{os.cpu_count()} hardware threads, {load}; {args.n} images, gate {args.gate}\n")
    asked = {"normal": args.normal, "n": args.n, "gate": args.gate}
    names = args.methods.split(",")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print("| method | jobs | wall s | ms an image | times as many | writer, processor s | workers, processor s |")
        print("|---|---|---|---|---|---|---|")
        for method in names:
            generation.run(GenerateConfig(method=method, out=root / f"{method}-warm", **{**asked, "n": 2}))
            found: dict[int, list[tuple[float, float, float, float]]] = {1: [], args.jobs: []}
            for turn in range(args.rounds):
                outs = {jobs: root / f"{method}-{turn}-{jobs}" for jobs in found}
                for jobs, out in outs.items():
                    found[jobs].append(measured(GenerateConfig(method=method, out=out, jobs=jobs, **asked)))
                assert tree(outs[1]) == tree(outs[args.jobs]), f"{method}: {args.jobs} jobs wrote other bytes"
            rate = {jobs: statistics.median(row[1] for row in rows) for jobs, rows in found.items()}
            for jobs, rows in found.items():
                wall, _, own, workers = (statistics.median(column) for column in zip(*rows, strict=True))
                times = f"{rate[1] / rate[jobs]:.2f}"
                row = (
                    f"| {method} | {jobs} | {wall:.1f} | {rate[jobs] * 1e3:.1f} | {times} | {own:.2f} | {workers:.2f} |"
                )
                print(row, flush=True)
        if args.kills:
            total = turn = 0
            while total < args.kills:
                config = {"method": names[0], "out": root / f"killed-{turn}", "jobs": args.jobs, **asked}
                total += killed(GenerateConfig(**config), args.kills - total, turn)
                assert tree(root / f"killed-{turn}") == tree(root / f"{names[0]}-0-1"), f"run {turn} wrote other bytes"
                turn += 1
            print(f"\n{total} workers killed in {turn} runs of {names[0]}: every byte as in an undisturbed run.")


if __name__ == "__main__":
    main()
