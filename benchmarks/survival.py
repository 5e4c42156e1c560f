"""Everything that may go wrong with a run, at random: kills, full disks, want of memory, damaged files and requests.

kills: each ends a process of its own (SIGKILL), at a random moment or before a random one of its file operations. A run
is killed up to `--chain` times before it may finish. Half files are looked for after every kill; other bytes, missing
and stray files after the run. Small painted images and a denoiser of 32 px: the code is that of large runs, and a kill
costs a second. A fit writes its state every 0.1 s, not every 20, for the same reason.
deaths: file systems that are too small or become read-only, and address space that ends, at several sizes.
fuzz: `--cases` damaged files of each kind for the commands that read them, and as many requests to the studio, ten
times over; what is wrong is named with its seed.

A stopped benchmark goes on where it was: finished parts stand in --work. POSIX only, deaths on disks Linux only.

Example: nice -n 19 python benchmarks/survival.py --kills 200 --cases 27 --table survival.md
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "survival")]

import asking  # noqa: E402
import deaths  # noqa: E402
import fuzzing  # noqa: E402
import killing  # noqa: E402

PARTS = ("kills", "deaths", "fuzz")
# command -> its share of the kills: cheap commands and those with many files take more
SHARES = {
    "generate copypaste": 5,
    "generate perlin": 5,
    "generate inpaint": 4,
    "train inpaint": 3,
    "train anomalyxfusion": 2,
    "train anomalycontrol": 2,
    "evaluate": 3,
    "evaluate --compare": 4,
    "export": 2,
}
KILLED = ("runs", "kills", "lost", "files", "differ", "stray", "half")
SIZES = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)  # of a disk, as shares of what a run needs
HEADROOM = (1, 4, 8, 16, 32, 64, 128)  # MB that a process may take beyond what it has
Found = dict[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of kills, deaths and fuzz, with commas")
    parser.add_argument("--kills", type=int, default=200, help="in all, divided over the commands")
    parser.add_argument("--chain", type=int, default=4, help="kills of one run before it may finish, at most")
    parser.add_argument("--cases", type=int, default=27, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the damage")
    parser.add_argument("--only", nargs="+", default=[], help="some of the commands or kinds of files")
    parser.add_argument("--work", type=Path, default=Path("survival-work"), help="what is finished; removed at the end")
    parser.add_argument("--table", type=Path, help="also write the tables here")
    args = parser.parse_args()
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ["FLAWSMITH_CACHE"] = str(args.work / "cache")
    killing.warm_up()
    made = {"kills": kills, "deaths": died, "fuzz": fuzz}
    text, faults = [], []
    for part in args.parts.split(","):
        if part not in made:
            parser.error(f"unknown part {part}; known: {', '.join(PARTS)}")
        root = args.work / part
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        found = made[part](args, root, Ledger(args.work / f"{part}.json", args))
        keys = [key for key in next(iter(found.values())) if key != "faults"]
        text.append(table(found, part, keys))
        faults += [f"{name}: {fault}" for name, one in found.items() for fault in one["faults"]]
    print("\n\n".join(text))
    print("\n".join(faults), file=sys.stderr)
    if args.table:
        args.table.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    shutil.rmtree(args.work)
    sys.exit(bool(faults))


class Ledger:
    """What is finished, by name; that of other settings is begun anew."""

    def __init__(self, path: Path, args: argparse.Namespace) -> None:
        self.path, self.settings = path, [args.kills, args.chain, args.cases, args.seed]
        held = json.loads(path.read_text()) if path.is_file() else {}
        self.found: Found = held["found"] if held.get("settings") == self.settings else {}

    def add(self, name: str, one: dict[str, Any]) -> None:
        self.found[name] = one
        partial = self.path.with_suffix(".tmp")
        partial.write_text(json.dumps({"settings": self.settings, "found": self.found}))
        partial.replace(self.path)


def asked(args: argparse.Namespace, names: Any) -> list[str]:
    return [name for name in names if not args.only or name in args.only]


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def kills(args: argparse.Namespace, root: Path, ledger: Ledger) -> Found:
    """What became of every command's killed runs."""
    chosen, names = killing.subjects(root), asked(args, SHARES)
    for name in (name for name in names if name not in ledger.found):
        wanted = max(1, round(args.kills * SHARES[name] / sum(SHARES[one] for one in names)))
        rng = random.Random(f"{args.seed} {name}")
        counts = vars(killing.survive(chosen[name], root / name.replace(" ", "-"), wanted, args.chain, rng, tell))
        ledger.add(name, {**{key: counts[key] for key in KILLED}, "faults": counts["faults"]})
        shutil.rmtree(root / name.replace(" ", "-"))
    return {name: ledger.found[name] for name in names}


def died(args: argparse.Namespace, root: Path, ledger: Ledger) -> Found:
    """Full and read-only disks and want of memory, for every command."""
    if why := deaths.own_mounts():
        sys.exit(f"No file systems can be mounted here: {why}")
    chosen, names = killing.subjects(root), asked(args, SHARES)
    for name in (name for name in names if name not in ledger.found):
        subject, home = chosen[name], root / name.replace(" ", "-")
        whole = killing.attempt(subject.arguments, home / "whole")
        assert whole.code == 0, whole.said
        expected, needed, faults = killing.tree(home / "whole"), deaths.need(home / "whole"), []
        for share in SIZES:
            faults += deaths.disk_full(subject, home / f"full {share}", expected, int(share * needed))
        for part in (1, 2, 3):
            faults += deaths.read_only(subject, home / f"locked {part}", expected, part * whole.operations // 4)
        ended = 0
        for megabytes in HEADROOM:
            short, wrong = deaths.no_memory(subject, home / f"hungry {megabytes}", expected, megabytes)
            ended, faults = ended + short, faults + wrong
        ledger.add(name, {"full disks": len(SIZES), "read-only disks": 3, "ended for want of memory": ended,
                          "faults found": len(faults), "faults": faults})  # fmt: skip
        tell(f"{name}: {ended} ended for want of memory, {len(faults)} faults")
        shutil.rmtree(home)
    return {name: ledger.found[name] for name in names}


def fuzz(args: argparse.Namespace, root: Path, ledger: Ledger) -> Found:
    """What became of damaged files of every kind, and of requests to the studio."""
    targets = {one.name: one for one in fuzzing.targets(root)}
    spied = fuzzing.watch_imports(root)
    names = asked(args, [*targets, "studio requests", "studio files"])
    for name in (name for name in names if name not in ledger.found):
        if name in targets:
            found = fuzzing.fuzz(targets[name], root, args.cases, args.seed, spied, tell)
        else:
            made = asking.ask if name == "studio requests" else asking.restart
            found = made(root / name, 10 * args.cases, args.seed, tell)
        ledger.add(name, {**{key: found[key] for key in ("cases", "refused", "accepted")},
                          "faults found": len(found["faults"]), "faults": found["faults"]})  # fmt: skip
        tell(f"{name}: {ledger.found[name]}"[:150])
    return {name: ledger.found[name] for name in names}


def table(found: Found, what: str, keys: list[str]) -> str:
    """A row for each name, and one of sums."""
    rows = [[name, *(one[key] for key in keys)] for name, one in found.items()]
    rows.append(["all", *(sum(one[key] for one in found.values()) for key in keys)])
    head = ["| " + " | ".join([what, *keys]) + " |", "|---" * (len(keys) + 1) + "|"]
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in cells)])


if __name__ == "__main__":
    main()
