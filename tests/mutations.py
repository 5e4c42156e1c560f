"""Do the tests notice? Faults of one line, each put into a copy of the source and judged by the tests that guard it.

    python tests/mutations.py                  all of them, a few minutes
    python tests/mutations.py --only film      those whose name, file or test holds this
    python tests/mutations.py --list           nothing is run; every old text is looked for
    python tests/mutations.py --table FILE     also write the results as Markdown, when all were judged
    python tests/mutations.py --log FILE       keep every judgement; the same command goes on where it was stopped

A judgement in the log counts as long as the file with its fault and the file of its test are what they were. Faults
that docs/mutations.md does not list yet come first.

The tree itself is never edited. It stops when an old text is not in its file exactly once, or when a guarding test
fails or is skipped without a fault; it ends with exit code 1 when a fault survives. Needs `fork`: Linux or macOS.
The faults stand in `faults.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from faults import MUTATIONS

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "src" / "flawsmith"
TABLE = TESTS.parent / "docs" / "mutations.md"  # of the last run of all
LIMIT = 300  # seconds of one judgement; a fault that makes a test hang is killed
SURVIVED, KILLED, HANGS = 0, 1, -signal.SIGALRM


@dataclass(frozen=True)
class Mutation:
    file: str
    guard: str
    fault: str
    old: str
    new: str

    def text(self) -> str:
        """The whole file with the fault in it. Exits when the old text is not there exactly once."""
        source = (PACKAGE / self.file).read_text(encoding="utf-8")
        if source.count(self.old) != 1:
            sys.exit(f"{self.file} holds {self.old!r} {source.count(self.old)} times, not once: mend {self.fault!r}.")
        changed = source.replace(self.old, self.new)
        compile(changed, self.file, "exec")
        return changed

    def sha(self) -> str:
        """What a judgement is about: the file with the fault in it, and the guarding test with its file."""
        test = (TESTS / self.guard.partition("::")[0]).read_text(encoding="utf-8")
        return hashlib.sha256("\0".join((self.file, self.text(), self.guard, test)).encode()).hexdigest()


def judge(copy: Path, guards: list[str]) -> tuple[int, str]:
    """pytest's exit code (or minus a signal) and output for the guards, on the package in `copy`.

    In a fork of this process, which has torch loaded already: starting anew would cost most of the time.
    """
    log = copy.parent / "log"
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 70
        try:
            signal.alarm(LIMIT * len(guards))
            with log.open("w") as out:
                os.dup2(out.fileno(), 1), os.dup2(out.fileno(), 2)
            import pytest

            sys.path.insert(0, str(copy))
            os.environ["PYTHONPATH"] = str(copy)
            quiet = ["-x", "-q", "-rs", "--tb=short", "-p", "no:cacheprovider", f"--basetemp={copy.parent / 'tmp'}"]
            code = int(pytest.main([*quiet, *(str(TESTS / guard) for guard in guards)]))
            assert Path(sys.modules["flawsmith"].__file__ or "").is_relative_to(copy)
            sys.stdout.flush()
        except BaseException:
            code = 70
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), log.read_text()


def tried(guards: list[str], mutation: Mutation | None = None) -> tuple[int, str]:
    """The judgement on a fresh copy of the package, with a fault or without."""
    with tempfile.TemporaryDirectory(prefix="flawsmith-mutation-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder).resolve() / "src"
        shutil.copytree(PACKAGE, copy / "flawsmith", ignore=shutil.ignore_patterns("weights", "__pycache__"))
        (copy / "flawsmith" / "weights").symlink_to(PACKAGE / "weights")
        if mutation:
            (copy / "flawsmith" / mutation.file).write_text(mutation.text(), encoding="utf-8")
        return judge(copy, guards)


def warm() -> None:
    """Load what every guard would load, except flawsmith itself."""
    import cv2  # noqa: F401
    import diffusers
    import hypothesis  # noqa: F401
    import peft  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import transformers
    import typer  # noqa: F401

    sys.dont_write_bytecode = True
    for name in ("UNet2DConditionModel", "UNet2DModel", "AutoencoderKL", "DDIMScheduler", "PNDMScheduler"):
        getattr(diffusers, name)
    for name in ("CLIPModel", "CLIPTextModel", "CLIPTokenizer", "BertTokenizer"):
        getattr(transformers, name)


def listed(results: list[tuple[Mutation, str]]) -> str:
    """A heading for each file, a line for each guarding test, and below it its faults with their results."""
    lines: list[str] = []
    file = guard = ""
    for mutation, result in results:
        if mutation.file != file:
            lines += ["", f"### {mutation.file}"]
        if mutation.guard != guard or mutation.file != file:
            lines += ["", f"`{mutation.guard.partition('::test_')[2]}`", ""]
        lines.append(f"- {mutation.fault}: {result}")
        file, guard = mutation.file, mutation.guard
    return "\n".join(lines[1:]) + "\n"


def recalled(log: Path | None) -> dict[str, str]:
    """The judgements of a log, by Mutation.sha; a line that a kill cut short is none."""
    found: dict[str, str] = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log and log.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found[entry["sha"]] = entry["result"]
    return found


def judged(chosen: list[Mutation], log: Path | None) -> list[tuple[Mutation, str]]:
    """Every mutation with its result, those new to docs/mutations.md first; each is kept in the log at once."""
    known, table = recalled(log), TABLE.read_text(encoding="utf-8")
    results = {m: known[m.sha()] for m in chosen if m.sha() in known}
    rest = sorted((m for m in chosen if m not in results), key=lambda m: f"- {m.fault}: " in table)
    if rest:
        code, said = tried(list(dict.fromkeys(m.guard for m in rest)))
        if code != SURVIVED or "SKIPPED" in said:
            sys.exit(f"{said}\nThe guarding tests must pass without a fault, none of them skipped.")
    began = time.monotonic()
    for done, mutation in enumerate(rest, start=1):
        sha = mutation.sha()
        code, said = tried([mutation.guard], mutation)
        if code not in (SURVIVED, KILLED, HANGS):
            sys.exit(f"{said}\nThe tests could not be run (exit code {code}) with {mutation.fault!r}.")
        result = results[mutation] = {SURVIVED: "SURVIVED", HANGS: "killed (hangs)"}.get(code, "killed")
        if log:
            with log.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"sha": sha, "result": result, "fault": mutation.fault}) + "\n")
        left = (time.monotonic() - began) / done * (len(rest) - done) / 60
        print(f"{done}/{len(rest)}  {result:9} {mutation.fault}  ({left:.1f} min left)", flush=True)
    return [(m, results[m]) for m in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults of one line, and whether the tests notice.")
    parser.add_argument("--only", default="", metavar="PATTERN", help="in the fault's name, file or guarding test")
    parser.add_argument("--list", action="store_true", help="check and name the mutations, run nothing")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the results as Markdown")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep every judgement there, and go on from it")
    given = parser.parse_args()
    every = [
        (file, guard, row) for file, guards in MUTATIONS.items() for guard, found in guards.items() for row in found
    ]
    chosen = [Mutation(file, guard, *row) for file, guard, row in every]
    chosen = [m for m in chosen if given.only.lower() in f"{m.fault} {m.file} {m.guard}".lower()]
    for mutation in chosen:
        mutation.text()
        if given.list:
            print(f"{mutation.file}: {mutation.fault} ({mutation.guard})")
    if given.list or not chosen:
        sys.exit(None if chosen else f"No mutation holds {given.only!r}.")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warm()
    rows = judged(chosen, given.log)
    survivors = [m.fault for m, result in rows if result == "SURVIVED"]
    if given.table:
        given.table.write_text(listed(rows), encoding="utf-8")
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed" + "".join(f"\nSURVIVED: {s}" for s in survivors))
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
