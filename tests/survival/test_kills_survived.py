"""Commands killed with SIGKILL and run again have the bytes of undisturbed ones; `benchmarks/survival.py` does more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import killing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has torch loaded")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What became of every subject, in one process that has everything imported."""
    root, here = tmp_path_factory.mktemp("kills"), Path(killing.__file__)
    path = os.pathsep.join([str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(here), str(root)],
        capture_output=True, text=True, check=False, timeout=600, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", killing.QUICK)
def test_a_killed_command_run_again_has_the_bytes_of_a_whole_one(told: dict[str, list[str]], name: str) -> None:
    assert told[name] == []
