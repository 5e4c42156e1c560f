"""`--jobs`: how much sooner worker processes are done, what each of them costs, and that a killed one costs no byte.

For each method one process and `--jobs` processes alternate, `--rounds` times. Wall seconds run from the configuration
to the last file, the start of the workers included; what is told of an image leaves out the first WARM of them.
Processor time is of this process and of all below it. On a busy machine only it tells something: the writing process's
own milliseconds say how many workers it can serve, and the workers' beside those of one process what working apart
costs. Every pair of data sets is compared byte by byte.

`--kills K` also kills K workers, at moments drawn at random, and compares what is written with an undisturbed run.
`--ray` also paints with as many Ray actors on this machine, Ray started before; with `--kills` it is they that die.

Example: python benchmarks/jobs.py --normal mvtec_ad:DIR -n 400 --jobs 2
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from flawsmith.config import GenerateConfig
from flawsmith.generation import actors
from flawsmith.generation import run as generation

WARM = 20  # images in which workers start


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def measured(config: GenerateConfig) -> tuple[float, float, float, float]:
    """Wall seconds of all; from the first image to the last: wall seconds an image, and processor milliseconds an image
    of this process and of every process below it, Ray's own included. The first WARM are left out.
    """
    marks: list[tuple[float, float, dict[int, float]]] = []

    def listen(what: str, done: int, total: int, facts: object) -> None:
        if what not in ("starting", "checking photographs") and done in (WARM, total):
            marks.append((time.perf_counter(), time.process_time(), below()))

    begun = time.perf_counter()
    generation.run(config, listen)
    first, last = marks
    workers = sum(last[2].values()) - sum(first[2].get(pid, 0.0) for pid in last[2])
    wall, own, workers = (value / (config.n - WARM) for value in (last[0] - first[0], last[1] - first[1], workers))
    return time.perf_counter() - begun, wall, own * 1e3, workers * 1e3


def below() -> dict[int, float]:
    """Processor seconds of the processes below this one."""
    found = {}
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            found[one.pid] = times.user + times.system
    return found


def makers() -> list[Any]:
    """The processes of Ray's actors: Ray names them after what they are."""
    return [one for one in psutil.Process().children(recursive=True) if one.name().startswith("ray::Maker")]


def killed(config: GenerateConfig, kills: int, seed: int) -> int:
    """Run, and every few images kill a worker a moment later; how many were killed."""
    rng, dead, timers = random.Random(seed), [0], []

    def kill() -> None:
        alive: list[Any] = makers() if config.ray else multiprocessing.active_children()
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
    parser.add_argument("--ray", action="store_true", help="also with Ray actors on this machine")
    args = parser.parse_args()
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    print(f"{os.cpu_count()} hardware threads, {load}; {args.n} images, gate {args.gate}\n")
    asked = {"normal": args.normal, "n": args.n, "gate": args.gate}
    names = args.methods.split(",")
    ways: dict[str, dict[str, Any]] = {"1": {"jobs": 1}, str(args.jobs): {"jobs": args.jobs}}
    if args.ray:
        import ray

        ways[f"{args.jobs} Ray actors"] = {"ray": "local", "actors": args.jobs}
        actors.connect(ray, GenerateConfig(method="", normal="", out=".", ray="local", actors=args.jobs))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print("| method | jobs | wall s | ms an image | times as many | writer, processor ms an image | workers |")
        print("|---|---|---|---|---|---|---|")
        for method in names:
            generation.run(GenerateConfig(method=method, out=root / f"{method}-warm", **{**asked, "n": 2}))
            found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in ways}
            for turn in range(args.rounds):
                outs = {name: root / f"{method}-{turn}-{name}" for name in ways}
                for name, out in outs.items():
                    found[name].append(measured(GenerateConfig(method=method, out=out, **ways[name], **asked)))
                    assert tree(out) == tree(outs["1"]), f"{method}: {name} wrote other bytes"
            rate = {name: statistics.median(row[1] for row in rows) for name, rows in found.items()}
            for name, rows in found.items():
                wall, _, own, workers = (statistics.median(column) for column in zip(*rows, strict=True))
                times = f"{rate['1'] / rate[name]:.2f}"
                row = (
                    f"| {method} | {name} | {wall:.1f} | {rate[name] * 1e3:.1f} | {times} | {own:.1f} | {workers:.1f} |"
                )
                print(row, flush=True)
        if args.kills:
            total = turn = 0
            while total < args.kills:
                config = {"method": names[0], "out": root / f"killed-{turn}", **list(ways.values())[-1], **asked}
                total += killed(GenerateConfig(**config), args.kills - total, turn)
                assert tree(root / f"killed-{turn}") == tree(root / f"{names[0]}-0-1"), f"run {turn} wrote other bytes"
                turn += 1
            print(f"\n{total} workers killed in {turn} runs of {names[0]}: every byte as in an undisturbed run.")


if __name__ == "__main__":
    main()
