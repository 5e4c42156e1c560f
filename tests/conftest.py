"""Fixtures every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from flawsmith.cli import main as cli

sys.path.insert(0, str(Path(__file__).parent))  # `import fakes` from every test folder
pytest.register_assert_rewrite("contract", "api_page", "studio_page")
settings.register_profile("flawsmith", deadline=None)  # speed is no test's matter, least of all on a busy machine
settings.load_profile("flawsmith")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`run("generate", ...)` -> (exit code, stdout, stderr), through the console script's own function."""

    def call(*arguments: object) -> tuple[int, str, str]:
        if arguments[:1] == ("generate",) and "--gate" not in arguments:
            arguments = (*arguments, "--gate", "off")  # the fakes are crude; what is about the gate names it
        monkeypatch.setattr(sys, "argv", ["flawsmith", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, " ".join(err.split())

    return call


@pytest.fixture
def one_thread() -> None:
    """torch counts with one thread, whose rounding does not depend on the machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def widget(tmp_path: Path) -> Path:
    """A category with two types of defect, to be painted on and written to."""
    import fakes

    return fakes.mvtec_tree(tmp_path / "data", good=4, defects={"crack": 6, "hole": 6}, size=(72, 96))


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data("cookie")`: a real data set's folder, or a visible skip where it is absent.

    Looked for in the folder FLAWSMITH_DATA names, else in ../shared/data beside the repository.
    """
    given = os.environ.get("FLAWSMITH_DATA")
    base = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"

    def find(name: str) -> Path:
        folder = base / name
        if not folder.is_dir():
            pytest.skip(f"real data {name!r} is absent: set FLAWSMITH_DATA to the folder that holds it")
        return folder

    return find
