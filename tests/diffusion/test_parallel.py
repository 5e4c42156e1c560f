"""Two processes that fit together: the steps of one process, killed and resumed to the same bytes, one that writes.

Run as a script it does the work in a process of its own, whose forks need no second start of torch.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
MOMENTS = [("os.rename", "state.safetensors", 1), ("open", "metrics.jsonl", 3)]  # at which the writing process dies


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has torch loaded")
@pytest.mark.parametrize(
    "method",
    ["inpaint", *(pytest.param(name, marks=pytest.mark.slow) for name in ("anomalycontrol", "anomalyxfusion"))],
)
def test_two_processes_fit_as_one_does_and_resume_to_the_same_bytes(method: str, folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, __file__, method, str(folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ended"] == [[0, 0], [-9, 2], [-9, 2], [0, 0]], done.stderr
    assert not told["differ"] and any(name.endswith("metrics.jsonl") for name in told["files"])
    assert len(told["one"]) == len(told["two"]) == 4
    for one, two in zip(told["one"], told["two"], strict=True):
        assert two == pytest.approx(one, rel=1e-4), "another loss curve than that of one process"
    assert told["writes"] == {"0": True, "1": False}
    assert "Another process of this fit has ended" in told["said"]
    assert told["scarce"] == [2, 2] and "cannot share batches of 1 windows" in told["said"]


def test_what_cannot_be_divided_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fakes
    from flawsmith.config import TrainConfig
    from flawsmith.errors import FlawsmithError
    from flawsmith.training import run as training

    data = fakes.mvtec_tree(tmp_path / "data", good=2, defects={"crack": 3}, size=(40, 50))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(FlawsmithError, match="FSDP and DeepSpeed divide weights that are trained"):
        training.train(TrainConfig(method="inpaint", data=str(data), out=tmp_path / "o", backbone=str(folder)))
    assert not (tmp_path / "o").exists()


def pair(port: int, moment: tuple[str, str, int] | None, writes: dict[str, bool], *arguments: Any) -> list[int]:
    """`train` in two forked processes that meet at a port; how they ended."""
    from test_kills import die_at, train

    from flawsmith.errors import FlawsmithError
    from flawsmith.training import trainer

    children = []
    for rank in (0, 1):
        child = os.fork()
        if child == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            trainer.SAVE_SECONDS = 0.0
            code = 1
            if moment and rank == 0:
                die_at(*moment)
            note_writing(Path(arguments[2]).parent / f"wrote-{rank}")
            try:
                train(*arguments)
                code = 0
            except FlawsmithError as error:
                sys.stderr.write(f"{error}\n")
                code = 2
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    for rank in "01":
        writes[rank] = writes.get(rank, False) or (Path(arguments[2]).parent / f"wrote-{rank}").exists()
    return codes


def note_writing(note: Path) -> None:
    """Leave a note when this process gives a file its name."""

    def watch(event: str, _: Any) -> None:
        if event == "os.rename":
            note.touch()

    sys.addaudithook(watch)


def curve(run: Path) -> list[list[float]]:
    """Of the method's own fit; `masks-1` is the mask model's, which no process shares."""
    (metrics,) = (path for path in run.rglob("metrics.jsonl") if path.parent.name != "masks-1")
    lines = metrics.read_text().splitlines()
    return [[line["step"], line["loss"], line["held_out"]] for line in map(json.loads, lines)]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def main(method: str, backbone: Path, root: Path) -> None:
    import cv2
    import torch
    from test_kills import train, tree

    import fakes

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    os.environ["FLAWSMITH_CACHE"] = str(root / "cache")
    data = fakes.mvtec_tree(root / "data", good=2, defects={"crack": 12}, size=(40, 50))
    # Roundings grow in a fast fit: at 0.05 AnomalyXFusion's two curves are 3 % apart after six steps.
    options = {"patience": 9, "learning_rate": 0.05 if method == "inpaint" else 0.002, "batch_size": 3}
    said = os.open(root / "said", os.O_WRONLY | os.O_CREAT)
    heard = os.dup(2)
    os.dup2(said, 2)
    train(method, backbone, data, root / "one", options)
    ended, writes = [], {}
    for out, moments in (("two", [None]), ("killed", [*MOMENTS, None])):
        ended += [pair(free_port(), one, writes, method, backbone, data, root / out, options) for one in moments]
    scarce = pair(free_port(), None, {}, method, backbone, data, root / "few", {**options, "batch_size": 1})
    os.dup2(heard, 2)
    one, other = tree(root / "two"), tree(root / "killed")
    differ = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    told = {"ended": ended, "scarce": scarce, "differ": differ, "files": list(one), "writes": writes}
    told |= {"one": curve(root / "one"), "two": curve(root / "two"), "said": (root / "said").read_text()}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
