"""Runs that end otherwise than by a kill: a disk that is full, a folder that becomes read-only, no memory left.

Every command is a fork, as in `killing`. File systems of a few hundred kB are mounted in a name space of this process
alone, so that a write fails as it does on a real disk; that needs Linux, and root or user name spaces.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from killing import Moment, Subject, attempt, halves, subjects, tree, warm_up

NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
READ_ONLY, REMOUNT, RECURSIVE, PRIVATE = 1, 32, 16384, 1 << 18
# in the suite: command -> how full the disk gets, as a share of what the run needs
QUICK = {"generate copypaste": (0.5,), "evaluate": (0.9,), "export": (0.5,)}
LOCKED = ("generate copypaste",)  # in the suite: commands whose folder becomes read-only
HEADROOM = 8  # MB of address space that a run has left in the suite: its weights take more


def libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def mount(kind: str, target: Path | str, flags: int, options: str = "") -> None:
    done = libc().mount(kind.encode(), str(target).encode(), kind.encode(), flags, options.encode())
    if done:
        raise OSError(ctypes.get_errno(), f"mount of {target}: {os.strerror(ctypes.get_errno())}")


def own_mounts() -> str:
    """Give this process mounts of its own; why not, or ""."""
    uid = os.getuid()
    if libc().unshare(NEW_MOUNTS | (NEW_USER if uid else 0)):
        return f"no name space of its own: {os.strerror(ctypes.get_errno())}"
    try:
        if uid:
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        mount("none", "/", RECURSIVE | PRIVATE)
    except OSError as error:
        return str(error)
    return ""


def need(folder: Path) -> int:
    """Bytes of a file system that holds a tree: files take whole pages."""
    return sum(-(-len(content) // 4096) * 4096 for content in tree(folder).values())


def finished(subject: Subject, home: Path, expected: dict[str, bytes]) -> list[str]:
    """Run a command to its end; what is wrong with the files then."""
    ended = attempt(subject.arguments, home)
    found = {name: content for name, content in tree(home).items() if name in expected or name.startswith("out/")}
    wrong = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    return wrong if ended.code == 0 else [f"not finished ({ended.code}): {ended.said[-400:]}"]


def refusal(said: str, code: int | None, *words: str) -> list[str]:
    """What is wrong with how a command ended: it must say its reason, and be no fault of its own."""
    bad = code != 2 or "Traceback" in said or "fault of flawsmith" in said or not all(word in said for word in words)
    return [f"ended with {code}: {said[-400:]}"] if bad else []


def disk_full(subject: Subject, home: Path, expected: dict[str, bytes], size: int) -> list[str]:
    """A run on a file system that is too small, then, with room, again: its faults."""
    out = home / "out"
    out.mkdir(parents=True)
    mount("tmpfs", out, 0, f"size={size}")
    try:
        ended = attempt(subject.arguments, home)
        faults = refusal(ended.said, ended.code, "cannot be written", "free some space")
        faults += [f"half: {name}" for name in halves(tree(home), expected)]
        mount("tmpfs", out, REMOUNT, "size=1g")
        return faults + finished(subject, home, expected)
    finally:
        libc().umount2(str(out).encode(), 2)


def read_only(subject: Subject, home: Path, expected: dict[str, bytes], operation: int) -> list[str]:
    """A run that is killed, goes on where nothing can be written, then where it can: its faults."""
    out = home / "out"
    out.mkdir(parents=True)
    mount("tmpfs", out, 0)
    try:
        attempt(subject.arguments, home, Moment(operation=operation))
        before = tree(out)
        mount("tmpfs", out, REMOUNT | READ_ONLY)
        ended = attempt(subject.arguments, home)
        faults = refusal(ended.said, ended.code, "cannot be written", "Read-only")
        faults += [] if tree(out) == before else ["something was written"]
        mount("tmpfs", out, REMOUNT)
        return faults + finished(subject, home, expected)
    finally:
        libc().umount2(str(out).encode(), 2)


def no_memory(subject: Subject, home: Path, expected: dict[str, bytes], megabytes: int) -> tuple[bool, list[str]]:
    """A run that may take only so much more address space than this process has: whether it ended, and its faults."""

    def limit() -> None:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + (megabytes << 20), resource.RLIM_INFINITY))

    ended = attempt(subject.arguments, home, first=limit)
    if ended.code == 0:
        return False, [name for name in expected if tree(home).get(name) != expected[name]]
    faults = refusal(ended.said, ended.code, "memory") + [f"half: {name}" for name in halves(tree(home), expected)]
    return True, faults + finished(subject, home, expected)


def main(root: Path) -> dict[str, Any]:
    """The scenarios of the suite, each with its faults; why mounts are left out, where they are."""
    told: dict[str, Any] = {"mounts": own_mounts()}
    chosen = subjects(root)
    starved = chosen["generate inpaint"]
    whole = attempt(starved.arguments, root / "starved")
    died, told["no memory: generate inpaint"] = no_memory(starved, root / "hungry", tree(root / "starved"), HEADROOM)
    assert whole.code == 0 and died, whole.said
    for name, shares in QUICK.items():
        home = root / name.replace(" ", "-")
        whole = attempt(chosen[name].arguments, home / "whole")
        assert whole.code == 0, whole.said
        expected = tree(home / "whole")
        if told["mounts"]:
            continue
        for share in shares:
            size = int(share * need(home / "whole"))
            told[f"disk full at {share:.0%}: {name}"] = disk_full(chosen[name], home / f"{share}", expected, size)
        if name in LOCKED:
            told[f"read-only: {name}"] = read_only(chosen[name], home / "locked", expected, whole.operations // 2)
    return told


if __name__ == "__main__":
    os.environ["FLAWSMITH_CACHE"] = str(Path(sys.argv[1]) / "cache")
    warm_up()
    print(json.dumps(main(Path(sys.argv[1]))))
