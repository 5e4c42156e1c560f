"""`train` killed by the system where it hurts most and resumed: every file of the run is the uninterrupted run's.

Run as a script it does the work in a process of its own, whose forks need no second start of torch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
# (event, end of the path, how often it is let pass): each process of a run dies at one of them, in this order
FIT = [
    ("os.rename", "state.safetensors", 0),  # nothing saved yet
    ("open", "metrics.jsonl", 1),  # step 4 is done, its line is not; the best step is behind it
]
CARD = {
    "inpaint": 0,
    "anomalycontrol": 1,
}  # the weights are written, the card is not; a model begins with one
MASKS = {"anomalyxfusion": "shape", "inpaint": "whole"}  # and the kind of mask model beside it
MOMENTS = {
    **{method: [*FIT, ("os.rename", "card.json", passes)] for method, passes in CARD.items()},
    "anomalyxfusion": [*FIT, ("os.rename", "masks.safetensors", 0)],
}
MOMENTS["inpaint"].append(("os.rename", "masks.safetensors", 0))


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has torch loaded")
def test_killed_runs_of_every_learned_method_have_the_bytes_of_whole_ones(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [entry["method"] for entry in told] == list(MOMENTS)
    for entry in told:
        assert entry["deaths"] == len(MOMENTS[entry["method"]]) and not entry["differ"], entry
        assert ("masks.safetensors" in entry["files"]) == (entry["method"] in MASKS)
        assert any(name.endswith("metrics.jsonl") for name in entry["files"]), entry
        assert any("/previews/" in name for name in entry["files"])
    stopped = [learned["stopped"] for entry in told for learned in entry["learned"]]
    assert any(why != "all steps done" for why in stopped), (
        "no fit stopped early: best weights were not put to the test"
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def die_at(event: str, end: str, passes: int) -> None:
    """Have the system kill this process before it opens or renames to a path with this end for the so-manieth time."""

    def watch(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal passes
        if name == event and str(arguments[name == "os.rename"]).endswith(end):
            passes -= 1
            if passes < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def train(method: str, backbone: Path, data: Path, out: Path, options: dict[str, Any] | None = None) -> None:
    from flawsmith.config import TrainConfig
    from flawsmith.training import run as training

    fit = {"batch_size": 2, "evaluate_every": 2, "save_every": 3, "preview_every": 100, "patience": 1, "ema": 0.0}
    fit |= {
        "bf16": False,
        "warmup": 1,
        "learning_rate": 0.6 if method == "inpaint" else 0.3,
        "mask_steps": int(method in MASKS),
        "mask_model": MASKS.get(method, "shape"),
    }
    fit |= {"rank": 2} if method == "inpaint" else {"lora_rank": 2}
    fit |= options or {}
    source = f"mvtec_ad:{data}"
    training.train(TrainConfig(method=method, data=source, out=out, backbone=str(backbone), steps=8, options=fit))


def dies(moment: tuple[str, str, int], *arguments: Any) -> bool:
    """Whether `train` in a forked process dies at a moment."""
    from flawsmith.training import trainer

    child = os.fork()
    if child == 0:
        try:
            trainer.SAVE_SECONDS = 0.0  # when a state is saved must not matter
            die_at(*moment)
            train(*arguments)
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def main(backbone: Path, root: Path) -> None:
    import cv2
    import torch

    import fakes

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    os.environ["FLAWSMITH_CACHE"] = str(root / "cache")
    data = fakes.mvtec_tree(root / "data", good=2, defects={"crack": 12}, size=(40, 50))
    told = []
    for method, moments in MOMENTS.items():
        whole, killed = root / method / "whole", root / method / "killed"
        train(method, backbone, data, whole)  # not forked, so that the forks find everything imported
        deaths = 0
        for moment in moments:
            deaths += dies(moment, method, backbone, data, killed)
        train(method, backbone, data, killed)
        one, other = tree(whole), tree(killed)
        differ = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
        learned = list(json.loads(one["card.json"])["learned"].values())
        told.append({"method": method, "deaths": deaths, "differ": differ, "files": list(one), "learned": learned})
    print(json.dumps(told))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
