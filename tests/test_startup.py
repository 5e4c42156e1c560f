"""The command starts fast because it imports nothing heavy. (Its time is measured in benchmarks/.)"""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "transformers", "cv2", "scipy", "numpy", "pydantic")


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib, io\nfrom flawsmith.cli import main as cli\nsys.argv = ['flawsmith', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): cli.main()"
    )
    loaded = modules_after(code)
    assert "flawsmith.cli.main" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("module", ["flawsmith.generation.run", "flawsmith.report", "flawsmith.datasets.check"])
def test_the_classic_path_needs_no_torch(module: str) -> None:
    assert not modules_after(f"import {module}") & {"torch", "diffusers", "transformers"}


@pytest.mark.parametrize("name", ["copypaste", "cutpaste", "nsa", "perlin", "procedural"])
def test_a_classic_method_needs_no_torch(name: str) -> None:
    code = f"from flawsmith.methods import load; load({name!r})"
    assert not modules_after(code) & {"torch", "diffusers", "transformers"}


def test_module_runs_as_script() -> None:
    done = subprocess.run([sys.executable, "-m", "flawsmith", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("flawsmith ")


@pytest.mark.parametrize(("command", "resumes"), [("train", True), ("generate", True), ("merge", False)])
def test_a_stopped_command_promises_what_it_keeps(command: str, resumes: bool) -> None:
    code = "import sys; from flawsmith.cli import main as cli; sys.argv = ['flawsmith', *sys.argv[1:]]; cli._stopped()"
    done = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, check=False)
    assert done.returncode == 130 and ("again to resume" in done.stderr) == resumes


@pytest.mark.parametrize("own", [True, False])
def test_garbage_is_searched_for_again_after_imports(own: bool) -> None:
    """In a process of our own what was imported is left out of later searches; in another's nothing is changed."""
    code = (
        f"import gc\nfrom flawsmith import registry; registry.own_process = {own}\nbefore = gc.get_freeze_count()\n"
        "from flawsmith.methods import load; load('procedural')\n"
        f"assert gc.isenabled() and (gc.get_freeze_count() > before) is {own}"
    )
    modules_after(code)
