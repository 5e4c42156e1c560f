"""Runs that end otherwise than by a kill: what is said, that nothing is lost, and that the same command completes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import small_backbone

import fakes
from flawsmith.config import GenerateConfig
from flawsmith.datasets.lock import HOLDER, PARTIAL, Lock
from flawsmith.errors import FlawsmithError, out_of_memory
from flawsmith.generation import run as generation
from written import Run, tree

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="forks, and mounts of its own")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of the scenarios of `deaths`, in one process that has everything imported."""
    pytest.importorskip("diffusers")
    root, here = tmp_path_factory.mktemp("deaths"), Path(__file__).with_name("deaths.py")
    path = os.pathsep.join([str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(here), str(root)],
        capture_output=True, text=True, check=False, timeout=600, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@LINUX
def test_a_full_or_read_only_disk_is_named_and_a_rerun_completes(told: dict[str, Any]) -> None:
    if told["mounts"]:
        pytest.skip(told["mounts"])
    found = {name: faults for name, faults in told.items() if name.startswith(("disk full", "read-only"))}
    assert len(found) == 4 and not any(found.values()), found


@LINUX
def test_want_of_memory_is_named_and_a_rerun_completes(told: dict[str, Any]) -> None:
    found = {name: faults for name, faults in told.items() if name.startswith("no memory")}
    assert len(found) == 1 and not any(found.values()), found


def test_want_of_memory_is_known_in_every_librarys_words() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60)
    assert out_of_memory(refused.value)
    with pytest.raises(MemoryError) as short:
        np.empty(1 << 58)
    assert out_of_memory(short.value) and out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    outer = FlawsmithError("the part is damaged")
    outer.__cause__ = refused.value
    assert out_of_memory(outer)
    assert not out_of_memory(FlawsmithError("no")) and not out_of_memory(RuntimeError("shapes differ"))


def test_a_command_that_lacks_memory_says_so(run: Run, widget: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any) -> None:
        np.empty(1 << 58)

    monkeypatch.setattr(generation, "_copy_normals", greedy)
    code, _, err = run("generate", "perlin", "--normal", widget, "-n", "1", "--out", widget.parent / "o")
    assert code == 2 and "not enough memory" in err and "the same command resumes" in err


# -- two at once -----------------------------------------------------------------------------------------------------

TWO = {
    "generate": ["generate", "perlin", "--normal", "DATA", "-n", "2"],
    "train": ["train", "inpaint", "--data", "DATA", "--shots", "2", "--steps", "1"],
    "evaluate": ["evaluate", "MADE", "--real", "DATA", "--metrics", "copies"],
    "compare": ["evaluate", "--compare", "--real", "DATA", "--arms", "real"],
    "export": ["export", "MADE", "--format", "coco"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data/widget` and `made`, painted on it."""
    root = tmp_path_factory.mktemp("two")
    data = fakes.mvtec_tree(root / "data", good=4, defects={"crack": 6, "hole": 6}, size=(48, 64), test_good=3)
    generation.run(GenerateConfig(method="copypaste", normal=f"mvtec_ad:{data}", out=root / "made", n=4))
    return root


@pytest.mark.parametrize("name", TWO)
def test_the_second_of_two_is_told_who_holds_the_folder(run: Run, made: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("fcntl")
    if name in ("train", "evaluate", "compare"):
        pytest.importorskip("torch")
    given = {"DATA": str(made / "data/widget"), "MADE": str(made / "made")}
    arguments = [given.get(one, one) for one in TWO[name]]
    with Lock(tmp_path / "o"):
        note = json.loads((tmp_path / "o" / PARTIAL / HOLDER).read_text())
        before = tree(tmp_path / "o")
        code, _, err = run(*arguments, "--out", tmp_path / "o")
        assert code == 2 and "Another flawsmith is writing" in err, err
        assert f"(process {os.getpid()} on {note['host']}, since {note['since']})" in err
        assert tree(tmp_path / "o") == before
    assert not (tmp_path / "o").exists()


def test_a_lock_ends_with_its_process_and_a_damaged_note_is_no_obstacle(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    code = "import os, sys; from flawsmith.datasets.lock import Lock; Lock(sys.argv[1]); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "o")], check=False).returncode == 9
    assert (tmp_path / "o" / PARTIAL / HOLDER).is_file()
    fakes.write(tmp_path / "o" / PARTIAL / ".x.png.77.tmp", b"half")
    held = Lock(tmp_path / "o")
    assert sorted(path.name for path in (tmp_path / "o" / PARTIAL).iterdir()) == [HOLDER]
    for text in (b"", b"[]", b'{"pid": "x"}', b"\xff"):
        (tmp_path / "o" / PARTIAL / HOLDER).write_bytes(text)
        with pytest.raises(FlawsmithError, match=r"is writing to \S+: wait for it"):
            Lock(tmp_path / "o")
    held.close()
    assert not (tmp_path / "o").exists()


# -- images and clocks that change -----------------------------------------------------------------------------------


@pytest.fixture
def config(widget: Path, tmp_path: Path) -> GenerateConfig:
    return GenerateConfig(method="cutpaste", normal=f"mvtec_ad:{widget}", out=tmp_path / "o", n=12, gate="off")


def after(images: int, do: Callable[[], Any]) -> Callable[..., None]:
    """Progress that does something once so many images are made."""

    def progress(what: str, done: int, total: int, facts: Any) -> None:
        if what == "cutpaste" and done == images:
            do()

    return progress


@pytest.fixture
def whole(config: GenerateConfig, tmp_path: Path) -> dict[str, bytes]:
    other = config.model_copy(update={"out": tmp_path / "whole"})
    generation.run(other)
    return tree(tmp_path / "whole")


def good(widget: Path) -> Iterator[Path]:
    return iter(sorted((widget / "train/good").iterdir()))


@pytest.mark.parametrize("made", [3, 6])  # of four photographs: before and after each has been painted on
@pytest.mark.parametrize("how", ["gone", "changed"])
def test_a_source_image_that_goes_or_changes_mid_run_stops_it_and_put_back_it_resumes(
    config: GenerateConfig, widget: Path, whole: dict[str, bytes], how: str, made: int
) -> None:
    kept = {path: path.read_bytes() for path in good(widget)}

    def damage() -> None:
        for number, path in enumerate(kept):
            if how == "gone":
                path.unlink()
            else:
                fakes.save(path, fakes.photo(70 + number, (72, 96)))

    with pytest.raises(FlawsmithError, match="does not exist" if how == "gone" else "has changed since") as refused:
        generation.run(config, after(made, damage))
    assert any(str(path) in str(refused.value) for path in kept)
    found = tree(config.out)
    assert found["manifest.jsonl"].count(b"\n") == made
    assert not [name for name, content in found.items() if content != whole[name] and name != "manifest.jsonl"]
    for path, content in kept.items():
        path.write_bytes(content)
    generation.run(config)
    assert tree(config.out) == whole


@pytest.mark.parametrize(
    ("suffix", "says"), [(".png", "some of the data set were added, removed or changed"), (".bmp", "has changed since")]
)
def test_a_source_image_that_changed_between_two_runs_is_refused_and_a_touched_one_is_not(
    config: GenerateConfig, tmp_path: Path, suffix: str, says: str
) -> None:
    """A BMP has the same size whatever it shows."""
    data = fakes.mvtec_tree(tmp_path / "other", good=3, defects={"crack": 3}, size=(72, 96), suffix=suffix)
    config = config.model_copy(update={"normal": f"mvtec_ad:{data}"})
    generation.run(config.model_copy(update={"out": tmp_path / "whole"}))

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generation.run(config, after(5, stop))
    first = next(good(data))
    content = first.read_bytes()
    fakes.save(first, fakes.photo(99, (72, 96)))
    with pytest.raises(FlawsmithError, match=says):
        generation.run(config)
    first.write_bytes(content)
    os.utime(first, (1, 1))
    generation.run(config)
    assert tree(config.out) == tree(tmp_path / "whole")


def test_good_photographs_that_changed_are_no_longer_the_stopped_fit(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from flawsmith.config import TrainConfig
    from flawsmith.training import run as training

    data = fakes.mvtec_tree(tmp_path, good=2, defects={"crack": 3}, size=(40, 50))
    options = {"batch_size": 1, "save_every": 1, "preview_every": 100, "evaluate_every": 1, "bf16": False}
    backbone = str(small_backbone(tmp_path / "backbone"))
    asked = TrainConfig(
        method="inpaint", data=f"mvtec_ad:{data}", out=tmp_path / "run", steps=3, options=options, backbone=backbone
    )

    def stop(what: str, done: int, total: int, facts: Any) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(asked, stop)
    fakes.save(next(good(data)), fakes.photo(99, (40, 50)))
    with pytest.raises(FlawsmithError, match="a stopped fit of other types, images or settings"):
        training.train(asked)


def test_the_clock_may_jump(
    config: GenerateConfig, widget: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times of files lie in the future, and the clock jumps a year to and fro at every look: the same bytes."""
    jumps = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 1.8e9 + 3.2e7 * (-1) ** next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))

    def turn() -> None:
        for number, path in enumerate([*widget.rglob("*"), *config.out.rglob("*")]):
            os.utime(path, (4e9 - number, 4e9 - number))

    generation.run(config, after(4, turn))
    turn()
    generation.run(config)
    assert tree(config.out) == whole
