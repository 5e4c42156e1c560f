"""Files and requests of strangers, damaged at random; FLAWSMITH_FUZZ=10 makes that many cases of each kind of file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import asking
import pytest

CASES = int(os.environ.get("FLAWSMITH_FUZZ", "1"))


def quiet(text: str) -> None:
    """The faults stand in what is returned."""


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has torch loaded")
def test_damaged_files_of_every_kind_are_refused_in_words_or_used_rightly(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    here = Path(__file__).with_name("fuzzing.py")
    path = os.pathsep.join([str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(here), str(tmp_path), str(CASES), "7"],
        capture_output=True, text=True, check=False, timeout=900, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) == 31 and sum(one["cases"] for one in told.values()) == 31 * CASES
    assert sum(one["refused"] for one in told.values()) > 10  # the damage is noticed
    assert [fault for one in told.values() for fault in one["faults"]] == []


def test_no_damaged_request_breaks_the_studio_or_its_worker(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    told = asking.ask(tmp_path, 40 * CASES, 7, quiet)
    assert told["faults"] == [] and min(told["refused"], told["accepted"]) >= 5, told


def test_a_studio_starts_on_damaged_files_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    told = asking.restart(tmp_path, 15 * CASES, 7, quiet)
    assert told["faults"] == [] and told["accepted"] >= 3, told
