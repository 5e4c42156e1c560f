"""The mixture over defect types: shares at every prefix, runs that grow, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fakes
from flawsmith import config as configs
from flawsmith.config import GenerateConfig
from flawsmith.datasets.writer import read_manifest
from flawsmith.errors import FlawsmithError
from flawsmith.generation import run as generation
from flawsmith.generation.turns import Turns

Run = Callable[..., tuple[int, str, str]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=7))
def test_every_prefix_holds_each_share_to_within_one(weights: list[int]) -> None:
    turns, total = Turns(weights), sum(weights)
    had = [0] * len(weights)
    for n in range(2 * total + 1):
        assert [turns.count(kind, n) for kind in range(len(weights))] == had
        assert all(abs(h - n * w / total) < 1 for h, w in zip(had, weights, strict=True))
        kind, turn = turns.at(n)
        assert turn == had[kind] and turns.index(kind, turn) == n
        had[kind] += 1


def test_equal_weights_take_turns_and_fractions_are_shares() -> None:
    assert Turns([1, 1, 1]).order == Turns([2.5, 2.5, 2.5]).order == [0, 1, 2]
    assert Turns([0.75, 0.25]).order == Turns([3, 1]).order == Turns([600, 200]).order
    odd = Turns([1e9, 1])
    assert odd.count(1, 10_010) == 10  # the finest share is a thousandth of the others'


def plan(data: Path, out: Path, **more: Any) -> list[tuple[str, str, int]]:
    settings = configs.load(
        GenerateConfig, {"method": "copypaste", "normal": f"mvtec_ad:{data}", "out": out, "shots": 2, **more}
    )
    made, _, _ = generation.prepare(settings)
    return [(job.defect_type, job.normal.name, job.seed) for job in made.jobs]


def test_a_run_has_its_shares_and_a_longer_one_begins_with_it(tmp_path: Path) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", defects={"crack": 4, "hole": 4, "stain": 4})
    long = plan(data, tmp_path / "o", n=40, mix={"crack": 3, "hole": 1})
    assert Counter(kind for kind, *_ in long) == {"crack": 30, "hole": 10}
    assert plan(data, tmp_path / "o", n=7, mix={"crack": 3, "hole": 1}) == long[:7]
    assert plan(data, tmp_path / "o", n=9, mix={"crack": 5, "hole": 0}) == plan(
        data, tmp_path / "o", n=9, defect=("crack",)
    )
    equal = plan(data, tmp_path / "o", n=9, mix={"crack": 1, "hole": 1, "stain": 1})
    assert equal == plan(data, tmp_path / "o", n=9)
    cracks = [normal for kind, normal, _ in long if kind == "crack"]
    assert set(cracks[:4]) == set(cracks[4:8]) and len(set(cracks[:4])) == 4  # every photograph before one comes again


def test_files_follow_the_mixture_and_a_resumed_run_ends_the_same(run: Run, tmp_path: Path) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", defects={"crack": 4, "hole": 4})
    command = ["generate", "copypaste", "--normal", data, "--mix", "hole=3, crack=1", "--gate", "off", "--seed", 3]
    assert run(*command, "-n", 8, "--out", tmp_path / "whole")[0] == 0
    for n in (3, 8):
        assert run(*command, "-n", n, "--out", tmp_path / "parts")[0] == 0
    whole, parts = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("whole", "parts")
    )
    assert whole == parts
    lines = read_manifest(tmp_path / "whole")
    assert Counter(line["defect_type"] for line in lines) == {"hole": 6, "crack": 2}
    assert all(line["image"].split("/")[1] == line["defect_type"] for line in lines if line["status"] == "kept")
    code, _, err = run(*command[:5], "hole=1,crack=1", *command[6:], "-n", 8, "--out", tmp_path / "whole")
    assert code == 2 and "mix" in err


def test_identity_names_the_mixture_only_where_used(tmp_path: Path) -> None:
    plain = GenerateConfig(method="nsa", normal="x", out=tmp_path)
    assert "mix" not in plain.identity()
    assert plain.model_copy(update={"mix": {"a": 2.0}}).identity()["mix"] == {"a": 2.0}


@pytest.mark.parametrize(
    ("mix", "more", "said"),
    [
        ("crak=3,hole=1", (), "crack"),
        ("crack=-1,hole=1", (), "greater than or equal to 0"),
        ("crack=0,hole=0", (), "at least one weight"),
        ("crack=3,hole", (), "crack=3,hole=1"),
        ("crack=3,crack=1", (), "each type once"),
        ("crack=nan", (), "finite"),
        ("crack=3,hole=1", ("--per-defect",), "--per-defect"),
        ("crack=3,hole=1", ("--defect", "crack"), "--defect"),
    ],
)
def test_a_mixture_that_means_nothing_is_refused(
    run: Run, tmp_path: Path, mix: str, more: tuple[str, ...], said: str
) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", defects={"crack": 4, "hole": 4})
    code, _, err = run("generate", "copypaste", "--normal", data, "--out", tmp_path / "o", "--mix", mix, *more)
    assert code == 2 and said in " ".join(err.split()), err
    assert not (tmp_path / "o").exists()


def test_several_categories_share_alike(tmp_path: Path) -> None:
    for name in ("bolt", "nut"):
        fakes.mvtec_tree(tmp_path / "data", category=name, defects={"crack": 4, "hole": 4})
    made, _, _ = generation.prepare(
        GenerateConfig(
            method="copypaste", normal=f"mvtec_ad:{tmp_path / 'data'}", out=tmp_path / "o", n=32,
            mix={"crack": 3, "hole": 1},
        )
    )  # fmt: skip
    found = Counter((job.normal.category, job.defect_type) for job in made.jobs)
    assert found == {("bolt", "crack"): 12, ("bolt", "hole"): 4, ("nut", "crack"): 12, ("nut", "hole"): 4}


def test_the_reading_side_of_python_knows_it(tmp_path: Path) -> None:
    with pytest.raises(FlawsmithError, match="mix"):
        configs.load(GenerateConfig, {"method": "nsa", "normal": "x", "out": tmp_path, "mix": {"a": "many"}})
