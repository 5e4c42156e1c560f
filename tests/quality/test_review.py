"""A person's keep and drop: what leaves the data set, what comes back, and what a resumed run makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flawsmith import datasets
from flawsmith.config import GenerateConfig
from flawsmith.datasets import review
from flawsmith.datasets.writer import read_manifest
from flawsmith.errors import FlawsmithError
from flawsmith.generation import run as generation
from written import tree

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def painted(widget: Path, tmp_path: Path) -> Path:
    out = tmp_path / "painted"
    generation.run(GenerateConfig(method="copypaste", normal=f"mvtec_ad:{widget}", out=out, n=4, defects=(1, 2)))
    return out


def names(out: Path) -> list[str]:
    return [record.name for record in datasets.read("mvtec_ad", out) if not record.is_good]


def test_a_dropped_image_leaves_the_data_set_and_comes_back_unchanged(run: Run, painted: Path, tmp_path: Path) -> None:
    before, images = tree(painted), names(painted)
    code, said, _ = run("review", painted)
    table = tmp_path / "painted-review.csv"
    assert code == 0 and table.name in said
    rows = table.read_text().splitlines()
    assert rows[0] == "index,image,defect_type,review,reason" and len(rows) == 1 + len(images)
    rows[2] = rows[2].replace(",keep,", ",drop,too pale")
    table.write_text("\n".join(rows))
    assert run("review", painted, "--csv", table)[0] == 0
    gone = rows[2].split(",")[1]
    assert names(painted) == [name for name in images if name != gone]
    (line,) = [one for one in read_manifest(painted) if one["status"] == "dropped"]
    assert line["image"] == gone and line["reason"] == "dropped in review (too pale)" and line["review"] == "drop"
    table.write_text("\n".join(rows).replace("drop,too pale", "keep,"))
    assert run("review", painted, "--csv", table)[0] == 0
    after = tree(painted)
    assert {k: v for k, v in after.items() if k != "manifest.jsonl"} == {
        k: v for k, v in before.items() if k != "manifest.jsonl"
    }
    assert [one["status"] for one in read_manifest(painted)] == ["kept"] * len(images)


def test_a_longer_run_leaves_verdicts_alone(widget: Path, painted: Path) -> None:
    dropped = names(painted)[1]
    review.apply(painted, {dropped: ("drop", "")})
    generation.run(GenerateConfig(method="copypaste", normal=f"mvtec_ad:{widget}", out=painted, n=6, defects=(1, 2)))
    assert dropped not in names(painted) and len(names(painted)) == 5


def test_what_a_kill_left_unmoved_is_moved_by_the_same_command(painted: Path) -> None:
    first = names(painted)[0]
    review.apply(painted, {first: ("drop", "")})
    (painted / "dropped" / first).replace(painted / first)  # as if the kill had come between
    review.apply(painted, {first: ("drop", "")})
    assert first not in names(painted)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,review\ntest/x/1.png,drop\n", "no image of"),
        ("image,review\ntest/x/1.png,maybe\n", "line 2"),
        ("file,verdict\na,b\n", "columns image and review"),
        ("", "columns image and review"),
    ],
)
def test_odd_tables_are_refused_and_move_nothing(
    run: Run, painted: Path, tmp_path: Path, text: str, words: str
) -> None:
    before = tree(painted)
    (tmp_path / "v.csv").write_text(text)
    code, _, error = run("review", painted, "--csv", tmp_path / "v.csv")
    assert code == 2 and words in error and tree(painted) == before


def test_a_folder_that_was_not_generated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FlawsmithError, match="not a generated folder"):
        review.template(tmp_path)
