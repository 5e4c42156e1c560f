"""The commands shown in the README are run as written, on a small data set painted for the purpose."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import fakes
from flawsmith import methods
from flawsmith.cli import main as cli
from flawsmith.datasets import DATASETS
from flawsmith.masks import MASKS

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)


# what a test adds to a command of the README so that it takes a second: few steps, small batches
CHEAP = {
    "train": ("--steps", "1", "--set", "batch_size=1", "--set", "patience=0", "--set", "mask_steps=0"),
    "evaluate": ("--set", "segmentation.steps=4", "--seeds", "0"),
    "--compare": ("--images", "3", "--jobs", "1", "--set", "segmentation.looks=0"),
}


def test_the_readme_shows_commands() -> None:
    assert len(BLOCKS) >= 2 and all("flawsmith " in block for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: " ".join(block.split()[:2]))
def test_readme_blocks_run_as_written(
    block: str, run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        fakes.save(tmp_path / "photos" / f"part {number}.jpg", fakes.photo(number, (72, 96)))
    fakes.mvtec_tree(tmp_path / "data", category="widget", good=3, defects={"crack": 6, "hole": 6}, size=(72, 96))
    if "train" in block or "evaluate" in block:
        pytest.importorskip("diffusers")
    if "WEIGHTS" in block:
        from diffusion import thin

        thin.write("sd-inpainting", tmp_path / "weights")
        thin.clip(tmp_path / "clip")
        block = block.replace("WEIGHTS", "weights").replace("CLIP", "clip").replace("--device cuda", "--device cpu")
    if " copied " in block and "generate copypaste" not in block:
        assert run("generate", "copypaste", "--normal", "mvtec_ad:data/widget", "-n", 4, "--out", "copied")[0] == 0
    for line in block.strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "flawsmith"
        cheap = [more for word in words for more in CHEAP.get(word, ())]
        code, _, err = run(*words[1:], *cheap)
        assert code == 0, (line, err)
        if "--out" in words:
            out = tmp_path / words[words.index("--out") + 1]
            if words[1] == "report":
                assert out.is_file()
                continue
            kept = len(list((out / "test").rglob("*.png")))
            wanted = int(words[words.index("-n") + 1]) if "-n" in words else 0
            assert out.is_dir() and (kept >= 0.75 * wanted or "train" in block)  # two steps learn no visible defect


def commands(page: Path) -> list[str]:
    """The flawsmith commands in a page's blocks, each on one line, without what stands behind a #."""
    fenced = re.findall(r"```(\w*)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    blocks = [block for language, block in fenced if language in ("", "bash")]
    lines = re.sub(r"\\\n\s*", " ", "\n".join(blocks)).splitlines()
    return [line for line in lines if line.startswith("flawsmith ")]


@pytest.mark.parametrize("page", sorted((REPOSITORY / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_every_command_in_the_docs_is_one(page: Path) -> None:
    """Its options exist and take what is given; nothing is run, since the data of most is the reader's."""
    from typer.main import get_command

    whole = get_command(cli.app)
    for line in commands(page):
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
