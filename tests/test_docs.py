"""What the README and the documentation name exists: options, pages, choices. Commands run in test_docs_run.py."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from flawsmith import methods
from flawsmith.cli import main as cli
from flawsmith.datasets import DATASETS
from flawsmith.masks import MASKS
from test_docs_run import commands

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted((REPOSITORY / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_every_command_in_the_docs_is_one(page: Path) -> None:
    """Its options exist and take what is given, as they stand: `test_docs_run.py` runs them with other names."""
    from typer.main import get_command

    whole = get_command(cli.app)
    for line in commands(page.read_text(encoding="utf-8")):
        if not line.startswith("flawsmith "):
            continue
        words = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
        found = whole.commands[words[0]]
        found.make_context(words[0], words[1:])  # raises for an unknown option or a value of another kind


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/python.md"])
def test_python_blocks_run_as_written(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})
    assert list(tmp_path.rglob("*_mask.png"))


def test_every_method_has_a_page_and_a_row() -> None:
    for name in methods.METHODS:
        assert (REPOSITORY / "docs" / "methods" / f"{name}.md").is_file(), name
        assert f"| `{name}` |" in README


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("check", set(DATASETS)),
        ("train", {"inpaint", "anomalycontrol", "anomalyxfusion"}),
        ("generate", {*MASKS, *methods.METHODS} - {"anomalyxfusion"}),  # that one paints nothing untrained
    ],
)
def test_help_names_every_choice(run: Callable[..., tuple[int, str, str]], command: str, names: set[str]) -> None:
    code, shown, _ = run(command, "--help")
    assert code == 0 and names <= set(re.findall(r"[\w-]+", shown))


@pytest.mark.parametrize("target", re.findall(r"\]\(([\w/.-]+)\)", README))
def test_pages_named_in_the_readme_exist(target: str) -> None:
    assert (REPOSITORY / target).exists()
