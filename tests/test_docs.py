"""The commands shown in the README are run as written, on a small data set painted for the purpose."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import fakes
from flawsmith import methods
from flawsmith.datasets import DATASETS
from flawsmith.masks import MASKS

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)


def test_the_readme_shows_commands() -> None:
    assert len(BLOCKS) >= 2 and all("flawsmith " in block for block in BLOCKS)


def test_readme_blocks_run_as_written(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        fakes.save(tmp_path / "photos" / f"part {number}.jpg", fakes.photo(number, (72, 96)))
    fakes.mvtec_tree(tmp_path / "data", category="widget", good=3, defects={"crack": 6, "hole": 6}, size=(72, 96))
    for line in "".join(BLOCKS).strip().splitlines():
        words = shlex.split(line.split("  #")[0])
        assert words[0] == "flawsmith"
        code, _, err = run(*words[1:])
        assert code == 0, (line, err)
    assert (tmp_path / "painted.html").is_file()
    assert len(list((tmp_path / "copied" / "test" / "crack").glob("*.png"))) >= 10


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


@pytest.mark.parametrize("target", re.findall(r"`(docs/[\w/.-]+?)`", README))
def test_pages_named_in_the_readme_exist(target: str) -> None:
    assert (REPOSITORY / target).exists()
