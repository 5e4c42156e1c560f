"""Names resolve, unknown ones say what is known, missing extras say what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flawsmith.errors import FlawsmithError
from flawsmith.methods import METHODS
from flawsmith.registry import resolve


def test_a_known_name_and_a_path_give_the_same_object() -> None:
    named = resolve("flawsmith.methods.classic.cutpaste:CutPaste", METHODS, "Method")
    assert resolve("cutpaste", METHODS, "Method") is named


def test_an_unknown_name_lists_and_guesses() -> None:
    with pytest.raises(FlawsmithError, match=r"known: .*nsa.*Did you mean 'perlin'"):
        resolve("perlim", METHODS, "Method")
    with pytest.raises(FlawsmithError, match="no_such_module"):
        resolve("no_such_module:Thing", METHODS, "Method")


@pytest.mark.parametrize(
    "command",
    [["generate", "inpaint", "--normal", ".", "--out", "x"], ["train", "inpaint", "--data", ".", "--out", "x"]],
)
def test_without_torch_the_command_says_what_to_install(command: list[str]) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from flawsmith.cli import main as cli;"
        "sys.argv = ['flawsmith', *sys.argv[1:]]; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'flawsmith[diffusion]'" in " ".join(done.stderr.split())
