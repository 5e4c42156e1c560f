"""The blocks of docs/handoff.md are run as written, each where its tool is installed."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

import fakes
from interop import declare_operators

PAGE = (Path(__file__).resolve().parents[2] / "docs/handoff.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
TOOL = re.compile(r"^(?:import|from) (\w+)", re.MULTILINE)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page's commands have been run."""
    import sys

    from flawsmith.cli import main as cli

    folder = tmp_path_factory.mktemp("handoff")
    fakes.mvtec_tree(folder / "data", category="widget", good=6, defects={"crack": 8, "hole": 8}, size=(72, 96))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in "".join(COMMANDS).replace("\\\n", " ").strip().splitlines():
            words = shlex.split(line)
            if "generate" in words:
                words += ["--gate", "off"]  # a gate that knows six tiny painted defects refuses every other
            patch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as stopped:
                cli.main()
            assert not stopped.value.code, line
    assert len(list((folder / "painted/test").rglob("*.png"))) == 6
    return folder


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: TOOL.findall(block)[0])
def test_blocks_run_as_written(sets: Path, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = TOOL.findall(block)[0]
    found = find_spec(tool)
    if found is None or found.origin is None:  # a folder of tests called like the tool is none
        why = ": it needs a torchvision that fits torch" if tool == "anomalib" else ""
        pytest.skip(f"{tool} is not installed{why}")
    if tool == "anomalib":
        declare_operators()
    monkeypatch.chdir(sets)
    exec(compile(block, "docs/handoff.md", "exec"), {})


def test_the_page_names_every_format() -> None:
    from flawsmith.datasets.exports import FORMATS

    assert all(f"`{name}`" in PAGE for name in set(FORMATS) - {"labelme"})
