"""What is heard of a long command where there is no terminal: lines at fixed times, with what is left to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import fakes
from flawsmith.cli import terminal

Run = Callable[..., tuple[int, str, str]]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_say_what_how_far_and_how_long() -> None:
    clock = Clock()
    bar = terminal.Lines(clock)
    clock.now += 15
    assert bar.line() == "preparing, 15 s"
    task = bar.add_task("widget/crack", total=None)
    clock.now += 2
    assert bar.line() == "widget/crack: 2 s"
    bar.update(task, completed=101, total=500)  # a resumed fit: the first hundred cost nothing
    clock.now += 20
    bar.update(task, completed=201, total=500, description="widget/crack, loss 0.1250")
    assert bar.line() == "widget/crack, loss 0.1250: 201/500, 60 s left"
    clock.now += 20  # nothing new: still there, and slower than it seemed
    assert bar.line() == "widget/crack, loss 0.1250: 201/500, 2 min left"
    other = bar.add_task("networks", total=9)
    bar.update(other, completed=0, total=9)
    assert bar.line() == "networks: 0/9"
    bar.update(task, completed=500, total=500)
    bar.update(other, completed=1, total=9)
    clock.now += 60
    assert bar.line() == "widget/crack, loss 0.1250: 500/500, 0 s left; networks: 1/9, 8 min left"
    bar.reset(task, total=4, description="images")
    bar.update(task, completed=0, total=4)
    assert bar.line() == "images: 0/4"
    assert [terminal.duration(s) for s in (0.4, 89, 95, 5_300, 7_500)] == [
        "0 s",
        "89 s",
        "2 min",
        "88 min",
        "2 h 05 min",
    ]


def test_a_fit_says_once_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    forecast = terminal.Forecast("anomalyxfusion", clock)
    clock.now += 30  # what comes before the first step is not counted
    for step in range(1, 12):
        forecast("7 types", step, 600)
        clock.now += 0.6
    assert capsys.readouterr().err == (
        "anomalyxfusion, 7 types, at most 600 steps: about 6 min on this machine (0.6 s per step)\n"
    )
    for step in range(101, 140):  # resumed, and quick: twenty steps are waited for
        forecast("masks", step, 300)
        clock.now += 0.01
    assert capsys.readouterr().err == (
        "anomalyxfusion, masks, at most 200 more steps: about 2 s on this machine (0.01 s per step)\n"
    )


def test_a_silent_step_is_heard_of_and_the_end_is_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "EVERY", 0.02)
    with terminal.progress() as bar:
        task = bar.add_task("features", total=3)
        bar.update(task, completed=1, total=3)
        limit = time.monotonic() + 20
        heard = ""
        while heard.count("features: 1/3") < 3 and time.monotonic() < limit:
            time.sleep(0.02)
            heard += capsys.readouterr().err
    assert heard.count("features: 1/3") >= 3
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr() == ("", "")


def test_generate_and_evaluate_are_heard_of(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", good=4, defects={"crack": 6})
    made = tmp_path / "made"
    code, _, err = run("generate", "perlin", "--normal", data, "-n", 2, "--out", tmp_path / "quick")
    assert code == 0 and "perlin" not in err  # nothing where all is done within the first seconds
    monkeypatch.setattr(terminal, "EVERY", 0.002)
    code, _, err = run("generate", "perlin", "--normal", data, "-n", 30, "--out", made)
    assert code == 0 and "/30" in err and " left" in err
    pytest.importorskip("torch")
    code, _, err = run("evaluate", made, "--real", data, "--metrics", "copies", "--out", tmp_path / "results")
    assert code == 0 and "images" in err
