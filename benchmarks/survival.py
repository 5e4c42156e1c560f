"""Kill commands at random moments, run them again, and compare every file with an undisturbed run.

Each kill ends a process of its own (SIGKILL), at a random moment or before a random one of its file operations. A run
is killed up to `--chain` times before it may finish. Half files are looked for after every kill; other bytes, missing
and stray files after the run. Small painted images and a denoiser of 32 px: the code is that of large runs, and a kill
costs a second. A fit writes its state every 0.1 s, not every 20, for the same reason.

A stopped benchmark goes on where it was: finished parts stand in --work, the table is written to --table. POSIX only.

Example: nice -n 19 python benchmarks/survival.py --kills 200 --table survival.md
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "survival")]

import killing  # noqa: E402

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
COLUMNS = ("command", "runs", "kills", "lost runs", "files compared", "other bytes", "stray files", "half files")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in all, divided over the commands")
    parser.add_argument("--chain", type=int, default=4, help="kills of one run before it may finish, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", default=",".join(SHARES), help="some of the commands, with commas")
    parser.add_argument("--work", type=Path, default=Path("survival-work"), help="what is finished; removed at the end")
    parser.add_argument("--table", type=Path, help="also write the table here")
    args = parser.parse_args()
    names = args.only.split(",")
    if unknown := [name for name in names if name not in SHARES]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(SHARES)}")
    args.work.mkdir(parents=True, exist_ok=True)
    found = kills(args, names)
    table = rows(found)
    print(table)
    for name, one in found.items():
        for fault in one["faults"]:
            print(f"{name}: {fault}", file=sys.stderr)
    if args.table:
        args.table.write_text(table + "\n", encoding="utf-8")
    shutil.rmtree(args.work)
    sys.exit(any(one["faults"] for one in found.values()))


def kills(args: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """What became of every command's runs; those that an earlier call finished are read from --work."""
    ledger = args.work / f"kills-{args.kills}-{args.chain}-{args.seed}.json"
    found: dict[str, Any] = json.loads(ledger.read_text()) if ledger.is_file() else {}
    os.environ["FLAWSMITH_CACHE"] = str(args.work.resolve() / "cache")
    killing.warm_up()
    root = args.work.resolve() / "files"
    shutil.rmtree(root, ignore_errors=True)
    chosen = killing.subjects(root)
    for name in (name for name in names if name not in found):
        wanted = max(1, round(args.kills * SHARES[name] / sum(SHARES[one] for one in names)))
        begun, rng = time.monotonic(), random.Random(f"{args.seed} {name}")
        counts = killing.survive(
            chosen[name], root / name.replace(" ", "-"), wanted, args.chain, rng,
            lambda text: print(text, file=sys.stderr, flush=True),
        )  # fmt: skip
        found[name] = {**vars(counts), "seconds": round(time.monotonic() - begun)}
        partial = ledger.with_suffix(".tmp")
        partial.write_text(json.dumps(found))
        partial.replace(ledger)
        shutil.rmtree(root / name.replace(" ", "-"))
    return {name: found[name] for name in names}


def rows(found: dict[str, Any]) -> str:
    """The table, with a row of sums."""
    keys = ("runs", "kills", "lost", "files", "differ", "stray", "half")
    lines = [[name, *(one[key] for key in keys)] for name, one in found.items()]
    lines.append(["all", *(sum(one[key] for one in found.values()) for key in keys)])
    text = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    return "\n".join([*text, *("| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in line) + " |"
                               for line in lines)])  # fmt: skip


if __name__ == "__main__":
    main()
