"""Files of strangers, damaged at random by a seed, handed to every command that reads them, each in a fork.

A case is well when the command ends with 0, or with 2 and words of its own; never with a traceback or a fault of its
own, by a signal, or after a minute; never with a file written outside its --out or somebody's code run.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import damage
from killing import Moment, attempt, run, sets, small_backbone, small_extractor, tree, warm_up

import fakes

SLOWEST = 60  # seconds of processor time; on a busy machine those of a clock say nothing
STUCK = 900.0  # seconds of a clock
SAYS = ("flawsmith: ", "Error: ", "error ")  # a refusal, click's, a finding of `check`
MASK_OF = ("mask", "roi", "heat")
SHEET = "home/set-review.csv"  # what `review` writes, beside the folder that it must leave as it is
SPY = "from pathlib import Path\nPath({spied!r}).write_text('imported')\nclass Thing:\n    pass\n"


@dataclass(frozen=True)
class Target:
    """Files of a folder that are damaged in one way, and the commands that read them; `out` is what may be written."""

    name: str
    folder: Path
    files: Sequence[str]
    way: str
    commands: Sequence[Sequence[str]]


NORMAL = ("--normal", "data/widget", "--out", "out")
NO_GATE = ("--gate", "off")
PASTE = ("generate", "copypaste", *NORMAL, *NO_GATE, "-n", "4")
GATED = ("generate", "perlin", *NORMAL, "--gate", "normal", "--defects", "2", "-n", "4")
ONE = ("generate", "perlin", *NORMAL, *NO_GATE, "-n", "1")
PLAIN = ("generate", "perlin", "--normal", "photographs", "--out", "out", *NO_GATE, "-n", "1")
SET = ("generate", "perlin", *NORMAL, "--config")
USE = ("generate", "run", *NORMAL, *NO_GATE, "-n", "1", *sets("steps=1"))
MASKS = ("generate", "copypaste", *NORMAL, *NO_GATE, "-n", "1", "--mask", "learned", *sets("mask.run=run"))
INPAINT = ("generate", "inpaint", *NORMAL, *NO_GATE, "-n", "1", "--backbone", "./backbone", *sets("steps=1"))
LOOK = ("evaluate", "data/widget", "--real", "data/widget", "--features", "eyes", "--metrics", "kid", "--out", "out")
JUDGE = ("evaluate", "set", "--real", "data/widget", "--features", "eyes", "--metrics", "kid,copies", "--out", "out")
COMPARE = ("evaluate", "--compare", "--real", "data/widget", "--features", "eyes", "--metrics", "segmentation",
           "--out", "out", "--arms", "real,copypaste", "--images", "2", "--seeds", "0", "--jobs", "1",
           *sets("segmentation.steps=1", "segmentation.batch_size=2", "segmentation.crop=32"))  # fmt: skip
FIT = ("--data", "data/widget", "--backbone", "backbone", "--shots", "3", "--steps", "3",
       *sets("batch_size=1", "save_every=1", "evaluate_every=1", "preview_every=100", "bf16=false"))  # fmt: skip
LEARN = {
    "inpaint": ("train", "inpaint", *FIT, *sets("mask_steps=1"), "--out"),
    "anomalyxfusion": ("train", "anomalyxfusion", *FIT, "--out"),
    "anomalycontrol": ("train", "anomalycontrol", *FIT, "--out"),
}
READ = (  # who reads a generated folder
    ("show", "set", "--sheet", "out/sheet.png"),
    ("report", "set", "--out", "out"),
    ("export", "set", "--format", "coco", "--out", "out"),
    ("check", "set"),
    ("review", "set"),
    JUDGE,
)


def strangers(made: Path) -> None:
    """Everything that is read, whole."""
    data = fakes.mvtec_tree(made / "data", good=4, defects={"crack": 6, "hole": 6}, size=(48, 64), test_good=3)
    groups = {f"test/crack/{number:03d}.png": f"part {number // 2}" for number in range(6)}
    fakes.write(data / "origin.csv", "file,group\n" + "".join(f"{name},{group}\n" for name, group in groups.items()))
    fakes.write(made / "seen.txt", "widget/part 2\n0123456789abcdef\n")
    settings = {"n": 2, "seed": 3, "gate": "off", "mask": "blob", "mask_options": {"size": [0.01, 0.05]}}
    fakes.write(made / "config.json", json.dumps(settings))
    fakes.write(made / "config.yaml", "n: 2\nseed: 3\noptions: {beta: [0.2, 0.5]}\nmask: blob\ngate: 'off'\n")
    fakes.save(made / "mask.png", fakes.defect_mask("hole", 1))
    for number, suffix in enumerate((".png", ".jpg", ".tif", ".bmp", ".webp")):
        fakes.save(made / "photographs" / f"a{suffix}", fakes.photo(number))
    small_backbone(made / "backbone")
    small_extractor(made / "eyes")


def folder(root: Path, name: str, own: Sequence[str], *makes: Sequence[str]) -> Path:
    """A folder with its `own` copy of some things and links to the others, and what commands make in it."""
    home = root / name
    home.mkdir()
    for one in (root / "made").iterdir():
        if one.name not in own:
            (home / one.name).symlink_to(one)
        else:
            (shutil.copytree if one.is_dir() else shutil.copy)(one, home / one.name)
    for arguments in makes:
        run(*arguments, home=home)
    return home


def targets(root: Path, methods: Sequence[str] = tuple(LEARN)) -> list[Target]:
    """Every kind of file that a stranger may hand in, with the runs of some learned methods; made in `root`."""
    strangers(root / "made")
    into = tuple("set" if word == "out" else word for word in PASTE)
    painted, watched = folder(root, "painted", (), PASTE), folder(root, "watched", (), GATED)
    judged, compared = folder(root, "judged", (), into, JUDGE), folder(root, "compared", (), COMPARE)
    given, plain = folder(root, "given", (), into), folder(root, "plain", ("data", "photographs", "mask.png"))
    whole = folder(root, "whole", ("backbone", "eyes", "seen.txt", "config.yaml", "config.json"))
    learned = {name: folder(root, f"learned {name}", (), (*LEARN[name], "run")) for name in methods}
    stopped = {name: folder(root, f"stopped {name}", ()) for name in methods}
    for name in methods:
        shutil.copytree(learned[name] / "run/train", stopped[name] / "out/train")
    data, shown = "data/widget", ("check", "data/widget")
    again = (*LEARN["inpaint"], "out")
    found = [
        Target("manifest, resumed", painted, ["out/manifest.jsonl"], "lines", [PASTE]),
        Target("manifest with a gate, resumed", watched, ["out/manifest.jsonl"], "lines", [GATED]),
        Target("manifest, read", given, ["set/manifest.jsonl"], "lines", READ),
        Target("generate.json, resumed", painted, ["out/generate.json"], "json", [PASTE]),
        Target("generate.json, read", given, ["set/generate.json"], "json", READ),
        Target("generated images, resumed", painted, ["out/*/*/*.png"], "bytes", [PASTE]),
        Target("generated images, read", given, ["set/*/*/*.png"], "bytes", READ),
        Target("results.json", judged, ["out/results.json"], "json", [("report", "out", "--out", "page")]),
        Target("ledger", judged, ["out/runs.jsonl"], "lines", [JUDGE]),
        Target("ledger of a comparison", compared, ["out/runs.jsonl"], "lines", [COMPARE]),
        Target("counts of a comparison", compared, ["out/counts/*"], "tensors", [COMPARE]),
        Target("images", plain, ["photographs/*"], "bytes", [("check", "photographs"), PLAIN]),
        Target("images of a data set", plain, [f"{data}/t*/*/*", f"{data}/g*/*/*"], "bytes", [shown, ONE, PASTE]),
        Target("mask image", plain, ["mask.png"], "bytes", [(*ONE, f"--{use}", "mask.png") for use in MASK_OF]),
        Target("origin.csv", plain, [f"{data}/origin.csv"], "text", [shown, PASTE]),
        Target("captions", plain, [f"{data}/prompt/*/*"], "text", [shown, PASTE]),
        Target("list of seen images", whole, ["seen.txt"], "text", [(*LOOK, "--seen", "seen.txt")]),
        Target("configuration, YAML", whole, ["config.yaml"], "yaml", [(*SET, "config.yaml")]),
        Target("configuration, JSON", whole, ["config.json"], "json", [(*SET, "config.json")]),
        Target("backbone, settings", whole, ["backbone/*.json", "backbone/*/*.json"], "json", [INPAINT]),
        Target("backbone, weights", whole, ["backbone/*/*.safetensors"], "tensors", [INPAINT]),
        Target("backbone, words", whole, ["backbone/text/vocab.txt"], "text", [INPAINT]),
        Target("vision model, settings", whole, ["eyes/*.json"], "json", [LOOK]),
        Target("vision model, weights", whole, ["eyes/*.safetensors"], "tensors", [LOOK]),
        Target("masks of a run", learned["inpaint"], ["run/masks.safetensors"], "tensors", [MASKS]),
        Target("card, trained on", learned["inpaint"], ["run/card.json"], "json", [(*LEARN["inpaint"], "run")]),
        Target("metrics of a fit", stopped["inpaint"], ["out/train/*/metrics.jsonl"], "lines", [again]),
        Target("fit.json", stopped["inpaint"], ["out/train/*/fit.json"], "json", [again]),
    ]
    weights, show = ["run/*.safetensors", "run/adapters/*/*"], ("show", "run")
    for name in methods:
        found += [
            Target(f"card of {name}", learned[name], ["run/card.json"], "json", [USE, USE, show]),
            Target(f"weights of {name}", learned[name], weights, "tensors", [USE, USE, show]),
            Target(
                f"state of {name}", stopped[name], ["out/train/*/state.safetensors"], "tensors", [(*LEARN[name], "out")]
            ),
        ]
    return found


def case(target: Target, root: Path, seed: str, spied: Path) -> tuple[int | None, list[str]]:
    """Damage a file and run a command: its exit code, and what is wrong with that."""
    rng = random.Random(seed)
    home = root / "case" / "home"
    shutil.rmtree(root / "case", ignore_errors=True)
    shutil.copytree(target.folder, home, symlinks=True)
    file = rng.choice(sorted(one for pattern in target.files for one in home.glob(pattern)))
    content = file.read_bytes()
    file.write_bytes(damage.WAYS[target.way](rng, content))
    command = rng.choice(list(target.commands))
    out = command[command.index("--out") + 1] if "--out" in command else "out"
    before = _beside(root / "case", out)
    ended = attempt(command, home, Moment(seconds=STUCK), _limit)
    faults = []
    if ended.code not in (0, 2):
        faults.append(f"ended with {ended.code} after {ended.seconds:.0f} s")
    if "Traceback" in ended.said or "fault of flawsmith" in ended.said:
        faults.append("a fault of its own")
    if ended.code == 2 and not any(line.startswith(SAYS) for line in ended.said.splitlines()):
        faults.append("says nothing")
    if _beside(root / "case", out) != before:
        faults.append("wrote outside")
    if spied.exists() or list((root / "case").rglob("SPIED")):
        faults.append("ran somebody's code")
        spied.unlink(missing_ok=True)
    place = f"{target.name} ({seed}): {file.relative_to(home)}, {' '.join(command)}"
    return ended.code, [f"{fault}: {place}: {ended.said[-600:]}" for fault in faults]


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SLOWEST, SLOWEST))


def _beside(folder: Path, out: str) -> dict[str, bytes]:
    """All files but those that may be written, and what the command said."""
    written = (f"home/{out}", "home.said", SHEET)
    return {name: content for name, content in tree(folder).items() if not name.startswith(written)}


def watch_imports(root: Path) -> Path:
    """Make a module `spying` importable, which leaves a file behind; returns the file."""
    spied = root / "spied"
    fakes.write(root / "spy" / "spying.py", SPY.format(spied=str(spied)))
    sys.path.insert(0, str(root / "spy"))
    return spied


def fuzz(target: Target, root: Path, cases: int, seed: int, spied: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """So many cases of a target: how many were refused, how many accepted, and the faults."""
    codes, faults = [], []
    for number in range(cases):
        code, wrong = case(target, root, f"{seed} {target.name} {number}", spied)
        codes.append(code)
        faults += wrong
        for fault in wrong:
            tell(fault)
    return {"cases": cases, "refused": codes.count(2), "accepted": codes.count(0), "faults": faults}


def main(root: Path, cases: int, seed: int) -> dict[str, Any]:
    """The cases of the suite, with the one learned method that is quick to fit."""
    spied, chosen = watch_imports(root), targets(root, ("inpaint",))
    return {one.name: fuzz(one, root, cases, seed, spied, lambda text: None) for one in chosen}


if __name__ == "__main__":
    os.environ["FLAWSMITH_CACHE"] = str(Path(sys.argv[1]) / "cache")
    warm_up()
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
