"""The fitting loop without a model: killed at every file operation, it ends as if it had not been.

Run as a script it does the killing in a process of its own: a process that forks with every library loaded, and their
threads, may crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from flawsmith import images  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.training import trainer  # noqa: E402
from flawsmith.training.tuning import Schedule, tune  # noqa: E402


@dataclass(frozen=True)
class Settings:
    steps: int = 40
    learning_rate: float = 0.5
    weight_decay: float = 0.0
    ema: float = 0.5
    beta2: float = 0.99
    schedule: Schedule = "linear"
    warmup: int = 1
    patience: int = 3
    evaluate_every: int = 3
    save_every: int = 4
    preview_every: int = 5


def fit(out: Path, stop: int | None = None, stop_early: bool = True, settings: Settings = Settings()) -> dict[str, Any]:
    """Walk from 0 towards 10 while the held-out loss wants 3: it falls, then rises. `stop` interrupts after a step."""
    place = torch.nn.Parameter(torch.zeros(2))

    def progress(what: str, done: int, total: int, line: Any) -> None:
        if line["step"] == stop:
            raise KeyboardInterrupt

    result = tune(
        {"place": place},
        lambda step: [lambda: (place - 10 - torch.tensor([0.1, -0.2]) * (step % 3)).square().sum()],
        out,
        settings,
        held_out=lambda: float((place - 3).square().mean()),
        stop_early=stop_early,
        preview=lambda step: images.write_bytes(out / "previews" / f"{step}.txt", str(place.tolist()).encode()),
        progress=progress,
    )
    return {**result, "place": place.tolist()}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stop_early", [True, False])
@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_a_fit_stopped_after_any_step_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_early: bool, seconds: float
) -> None:
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 1e9)
    whole = fit(tmp_path / "whole", stop_early=stop_early)
    if stop_early:  # at step 15
        assert whole["steps"] == 6 and whole["stopped"].startswith("no better for 3")
        assert all(abs(value - 3) < 1.5 for value in whole["place"])
    else:
        assert whole["steps"] == 40 and all(value > 8 for value in whole["place"])
    monkeypatch.setattr(trainer, "SAVE_SECONDS", seconds)
    for stop in (1, 4, 7, 8, 9, 13, 15):  # of those with early stopping four lie behind the best step
        out = tmp_path / str(stop)
        for again in (stop, stop + 7):
            with contextlib.suppress(KeyboardInterrupt):
                fit(out, again, stop_early)
        assert fit(out, stop_early=stop_early) == whole, stop
        assert tree(out) == tree(tmp_path / "whole"), stop


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has torch loaded")
def test_a_fit_killed_at_any_file_operation_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["whole"]["steps"] == 2 and told["whole"]["stopped"].startswith("no better")
    assert told["differ"] == []
    *deaths, last = told["ended"]
    assert len(deaths) > 12 and set(deaths) == {-signal.SIGKILL} and last == 0


def main(root: Path) -> None:
    trainer.SAVE_SECONDS = 0.0
    settings = Settings(steps=9, patience=1, learning_rate=1.5, evaluate_every=2)
    whole = fit(root / "whole", settings=settings)
    ended: list[int] = []
    differ = []
    while not ended or ended[-1] == -signal.SIGKILL:
        out = root / str(len(ended))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                die_at(len(ended) + 1, out)
                fit(out, settings=settings)
                code = 0
            finally:
                os._exit(code)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        images.clear_partial(out)
        if fit(out, settings=settings) != whole or tree(out) != tree(root / "whole"):
            differ.append(out.name)
    print(json.dumps({"whole": whole, "ended": ended, "differ": differ}))


def die_at(number: int, folder: Path) -> None:
    """Have the system kill this process at its so-manieth opening, renaming or removing of a file in the folder."""
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(str(folder)):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def test_a_damaged_state_and_a_half_line_of_metrics(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, 10)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "lo')
    fit(tmp_path / "whole")
    assert fit(tmp_path) == fit(tmp_path / "whole")
    assert (tmp_path / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    (tmp_path / trainer.STATE).write_bytes(b"no state")
    with pytest.raises(FlawsmithError, match="remove it"):
        fit(tmp_path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
