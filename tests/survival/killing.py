"""Commands of flawsmith killed by the system (SIGKILL) at random, run again, and compared with undisturbed ones.

Every command is a fork of a process that has imported everything already, so that a kill falls into the work and costs
about a second. It dies after some seconds, or before one of its file operations: the clock seldom hits the moment
between a file that is written and its renaming. POSIX only.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes

OPERATIONS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"})
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# files that a run appends to or replaces; every other one has its last bytes as soon as it has its name
GROWING = frozenset({"manifest.jsonl", "metrics.jsonl", "runs.jsonl", "state.safetensors", "card.json"})
LINES = frozenset({"manifest.jsonl", "runs.jsonl"})
# subject -> files at which a run of it dies in turn, in the suite
QUICK = {
    "generate copypaste": ("generate.json", "writer.json", "good/00002.png", "crack/001.png", "hole/002_mask.png"),
    "evaluate": ("segmenter.safetensors", "results.json", "results.md"),
    "evaluate --compare": ("/data/widget", "hole/001_mask.png", ".safetensors", "results.csv"),
    "export": ("export.json", "origin.csv"),
}


@dataclass(frozen=True)
class Moment:
    """When a process dies: after some seconds, before its so-manieth file operation, or before a file gets its name."""

    seconds: float | None = None
    operation: int | None = None
    naming: str = ""


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: None where it was killed; operations: how many it did in its folder."""

    code: int | None
    seconds: float
    operations: int
    said: str


@dataclass(frozen=True)
class Subject:
    """A command that is killed: arguments of `flawsmith`, whose --out is `out` in the folder it runs in."""

    name: str
    arguments: Sequence[str]


@dataclass
class Counts:
    """What became of a subject's runs. `lost` are runs that could not be finished, with what they said."""

    runs: int = 0
    kills: int = 0
    files: int = 0
    differ: int = 0
    stray: int = 0
    half: int = 0
    lost: int = 0
    faults: list[str] = field(default_factory=list)


def warm_up() -> None:
    """Import what the commands need, with one thread: what a process with threads leaves to its fork is not sure."""
    os.environ["OMP_NUM_THREADS"] = "1"  # not torch's own call, which makes a pool that no fork can use
    import cv2

    cv2.setNumThreads(0)
    import peft  # noqa: F401
    import transformers  # noqa: F401
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel, UNet2DModel  # noqa: F401

    from flawsmith.cli import main as cli  # noqa: F401
    from flawsmith.comparison import run, tasks
    from flawsmith.datasets.exports import run as exports  # noqa: F401
    from flawsmith.evaluation import run as judging  # noqa: F401
    from flawsmith.methods.anomalycontrol import synthesizer  # noqa: F401
    from flawsmith.methods.anomalyxfusion import synthesizer as other  # noqa: F401
    from flawsmith.training import model_run  # noqa: F401

    assert run
    tasks.time = SimpleNamespace(perf_counter=lambda: 0.0)  # the one value of a result that no rerun repeats


def small_backbone(folder: Path) -> Path:
    """A compact backbone of 32 px with fresh weights: what is killed is the same code, in a hundredth of the time."""
    from flawsmith.diffusion.backbone import SHIPPED, Backbone
    from flawsmith.diffusion.compact.recipe import CompactConfig

    recipe = CompactConfig(size=32, channels=(16, 32), attention=(False, True), heads=2, groups=8, width=32)
    Backbone.compact(recipe, seed=0, text=SHIPPED["compact"] / "text").save_pretrained(folder)
    return folder


def small_extractor(folder: Path) -> Path:
    """A vision model of 64 px with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.MobileNetV2Config(depth_multiplier=0.1, image_size=64, num_labels=4, initializer_range=0.3)
    transformers.MobileNetV2ForImageClassification(config).save_pretrained(folder)
    return folder


def subjects(root: Path) -> dict[str, Subject]:
    """The commands that are killed, on a small painted data set; what they read is made in `root`."""
    data = fakes.mvtec_tree(root / "data", good=6, defects={"crack": 9, "hole": 9}, size=(48, 64), test_good=4)
    backbone, eyes = small_backbone(root / "backbone"), small_extractor(root / "mobilenet")
    normal = ("--normal", str(data), "--out", "out")
    fit = ("batch_size=2", "evaluate_every=2", "patience=2", "preview_every=100", "warmup=2", "save_every=3")
    train = ("--data", str(data), "--out", "out", "--backbone", str(backbone), "--shots", "4", "--steps", "6")
    judge = ("--real", str(data), "--out", "out", "--features", str(eyes), "--seeds", "0")
    net = ("segmentation.steps=2", "segmentation.batch_size=2", "segmentation.crop=32")
    made = run("generate", "copypaste", *normal, "-n", "6", "--gate", "off", home=root / "made") / "out"
    found = [
        Subject("generate copypaste", ["generate", "copypaste", *normal, "-n", "8", "--gate", "off", "--with-normals"]),
        Subject("generate perlin", ["generate", "perlin", *normal, "-n", "10", "--gate", "normal", "--defects", "1,2"]),
        Subject("generate inpaint", ["generate", "inpaint", *normal, "-n", "8", "--gate", "off", *sets("steps=2"),
                                     "--backbone", str(backbone), "--batch-size", "3"]),
        Subject("train inpaint", ["train", "inpaint", *train, *sets(*fit)]),
        Subject("train anomalyxfusion", ["train", "anomalyxfusion", *train, *sets(*fit, "mask_steps=2")]),
        Subject("train anomalycontrol", ["train", "anomalycontrol", *train, *sets(*fit)]),
        Subject("evaluate", ["evaluate", str(made), *judge, "--metrics", "kid,copies,segmentation", *sets(*net)]),
        Subject("evaluate --compare", ["evaluate", "--compare", *judge, "--arms", "real,copypaste", "--images", "2",
                                       "--jobs", "1", "--metrics", "kid,segmentation", *sets(*net)]),
        Subject("export", ["export", str(made), "--out", "out", "--format", "coco", "--format", "yolo"]),
    ]  # fmt: skip
    return {one.name: one for one in found}


def sets(*settings: str) -> list[str]:
    return [word for one in settings for word in ("--set", one)]


def run(*arguments: str, home: Path) -> Path:
    """A command that must succeed; returns the folder it ran in."""
    ended = attempt(arguments, home)
    assert ended.code == 0, ended.said
    return home


def attempt(
    arguments: Sequence[str], home: Path, moment: Moment | None = None, first: Callable[[], None] | None = None
) -> Ended:
    """Run a command in `home` in a process of its own, which does `first` before it, killed at a moment."""
    moment = moment or Moment()
    home.mkdir(parents=True, exist_ok=True)
    reader, writer = os.pipe()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _work(arguments, home, moment, writer, first)
    os.close(writer)
    status = None
    while status is None:
        ended, found = os.waitpid(child, os.WNOHANG)
        if ended:
            status = found
        elif moment.seconds is not None and time.monotonic() - begun > moment.seconds:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        else:
            time.sleep(0.002)
    seconds = time.monotonic() - begun
    with os.fdopen(reader) as told:
        operations = int(told.read() or 0)
    said = home.with_suffix(".said")
    code = None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Ended(code, seconds, operations, said.read_text(errors="replace") if said.is_file() else "")


def _work(arguments: Sequence[str], home: Path, moment: Moment, told: int, first: Callable[[], None] | None) -> None:
    """The fork: never returns."""
    code = 99
    try:
        said = os.open(home.with_suffix(".said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(home)
        counter = _count(home, moment)
        if first:
            first()
        code = flawsmith(*arguments)
        os.write(told, str(counter[0]).encode())
    finally:
        with contextlib.suppress(ValueError, OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def flawsmith(*arguments: str) -> int:
    """The console script's own function, in this process; its exit code."""
    from flawsmith.cli import main as cli
    from flawsmith.training import trainer

    trainer.SAVE_SECONDS = 0.1  # 20 in earnest: a tiny fit must have states to be killed between, too
    sys.argv = ["flawsmith", *arguments]
    try:
        cli.main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def _count(home: Path, moment: Moment) -> list[int]:
    """Count the file operations in a folder from now on, and have the system kill this process before the fatal one."""
    counter, start = [0], os.path.realpath(home) + os.sep

    def watch(event: str, given: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or not isinstance(given[0], (str, os.PathLike)):
            return
        if event == "open" and not (isinstance(given[2], int) and given[2] & WRITING):
            return
        path = os.path.abspath(os.fspath(given[event == "os.rename"]))
        if path.startswith(start):
            named = event == "os.rename" and moment.naming and path.endswith(moment.naming)
            if named or counter[0] == moment.operation:
                os.kill(os.getpid(), signal.SIGKILL)
            counter[0] += 1

    sys.addaudithook(watch)
    return counter


# -- judging ---------------------------------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def halves(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Files of a killed run that have their name but not their bytes. What is still being written has another name."""
    wrong = []
    for name, content in found.items():
        last = name.rpartition("/")[2]
        if name not in expected or (last in GROWING and last not in LINES):
            continue  # a stray file is judged at the end; a state is read by the next run
        good = expected[name].startswith(content) if last in LINES else content == expected[name]
        if not good:
            wrong.append(name)
    return wrong


def survive(
    subject: Subject, root: Path, kills: int, chain: int, rng: random.Random, tell: Callable[[str], None] = print
) -> Counts:
    """Kill runs of a subject, at most `chain` times each before it may finish, and compare every file."""
    whole = attempt(subject.arguments, root / "whole")
    whole = attempt(subject.arguments, root / "again")  # the first also read files
    assert whole.code == 0, f"{subject.name}: {whole.said}"
    expected, counts = tree(root / "whole"), Counts()
    if tree(root / "again") != expected:
        counts.faults.append("two whole runs differ")
        counts.differ += 1
    while counts.kills < kills:
        home = root / f"{counts.runs}"
        counts.runs += 1
        for _ in range(min(chain, kills - counts.kills)):
            by_clock = rng.random() < 0.5
            clock, place = rng.uniform(0, 0.95) * whole.seconds, rng.randrange(whole.operations)
            ended = attempt(subject.arguments, home, Moment(clock) if by_clock else Moment(operation=place))
            if ended.code is not None:
                break  # a resumed run has less to do, and may end before its moment
            counts.kills += 1
            wrong = halves(tree(home), expected)
            counts.half += len(wrong)
            counts.faults += [f"half: {name}" for name in wrong]
        ended = attempt(subject.arguments, home)
        found = tree(home)
        counts.files += len(expected)
        if ended.code != 0:
            counts.lost += 1
            counts.faults.append(f"not finished ({ended.code}): {ended.said[-500:]}")
            continue
        differ = [name for name in expected if found.get(name) != expected[name]]
        stray = sorted(found.keys() - expected.keys())
        counts.differ, counts.stray = counts.differ + len(differ), counts.stray + len(stray)
        counts.faults += [*(f"differs: {name}" for name in differ), *(f"stray: {name}" for name in stray)]
        tell(f"{subject.name}, run {counts.runs}: {counts.kills} kills, {len(counts.faults)} faults")
    return counts


def main(root: Path) -> dict[str, list[str]]:
    """One run of every subject of QUICK, killed before files get their names; its faults."""
    chosen, told = subjects(root), {}
    for name, files in QUICK.items():
        arguments, home = chosen[name].arguments, root / name.replace(" ", "-")
        whole = attempt(arguments, home / "whole")
        assert whole.code == 0, whole.said
        expected = tree(home / "whole")
        faults = told[name] = []
        for file in files:
            if attempt(arguments, home / "killed", Moment(naming=file)).code is not None:
                faults.append(f"not killed at {file}")
            faults += halves(tree(home / "killed"), expected)
        ended = attempt(arguments, home / "killed")
        found = tree(home / "killed")
        faults += [] if ended.code == 0 else [ended.said]
        faults += [one for one in {**expected, **found} if expected.get(one) != found.get(one)]
    return told


if __name__ == "__main__":
    os.environ["FLAWSMITH_CACHE"] = str(Path(sys.argv[1]) / "cache")
    warm_up()
    print(json.dumps(main(Path(sys.argv[1]))))
