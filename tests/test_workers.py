"""`--jobs`: worker processes give the bytes of one, whatever becomes of them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flawsmith import images, registry
from flawsmith.config import GenerateConfig
from flawsmith.datasets.writer import read_manifest
from flawsmith.errors import FlawsmithError
from flawsmith.generation import executors
from flawsmith.generation import run as generation
from flawsmith.generation.blocks import Blocks
from written import Run, tree

POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


def asked(source: Path, out: Path, **more: object) -> GenerateConfig:
    return GenerateConfig(**{"method": "perlin", "normal": f"mvtec_ad:{source}", "out": out, "n": 12, **more})


def test_two_processes_write_the_bytes_of_one(run: Run, widget: Path, tmp_path: Path) -> None:
    command = ("generate", "perlin", "--normal", widget, "-n", "6", "--gate", "normal", "--defects", "1,2")
    code, said, _ = run(*command, "--jobs", "1", "--out", tmp_path / "one")
    assert code == 0 and not said.startswith("0 images")
    assert run(*command, "--jobs", "2", "--out", tmp_path / "two")[0] == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert not multiprocessing.active_children()


def test_what_repeats_another_image_is_found_whoever_painted_it(tmp_path: Path) -> None:
    """One photograph, one mask, one method that can do three things: of six images some must repeat another's."""
    photo = np.random.default_rng(0).integers(130, 150, (160, 200, 3), dtype=np.uint8)
    images.write_image(tmp_path / "single" / "0.png", photo)
    mask = np.zeros((160, 200), bool)
    mask[60:100, 80:120] = True
    images.write_image(tmp_path / "mask.png", images.mask_image(mask))
    more = {"normal": f"folder:{tmp_path / 'single'}", "mask": str(tmp_path / "mask.png"), "gate": "normal", "n": 6}
    more |= {"method": "odd_method:Grief", "options": {"bad": 2**62}, "max_redraws": 3}
    for jobs in (1, 2):
        generation.run(asked(tmp_path, tmp_path / str(jobs), **more, jobs=jobs))
    lines = read_manifest(tmp_path / "1")
    assert [line["status"] for line in lines].count("kept") == 3
    assert {entry["check"] for line in lines for entry in line["refused"]} == {"duplicate"}
    assert any(line["redraws"] and line["status"] == "kept" for line in lines)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
    generation.run(asked(tmp_path, tmp_path / "parts", **{**more, "n": 2}))
    generation.run(asked(tmp_path, tmp_path / "parts", **more))
    assert tree(tmp_path / "1") == tree(tmp_path / "parts")


@POSIX
def test_a_killed_worker_costs_only_its_unfinished_images(
    widget: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generation.run(asked(widget, tmp_path / "whole", n=20))
    killed = []

    def kill(what: str, done: int, total: int, facts: object) -> None:
        if done in (3, 11) and what not in ("starting", "checking photographs"):
            worker = multiprocessing.active_children()[0]
            os.kill(worker.pid or 0, signal.SIGKILL)
            killed.append(worker.pid)

    with caplog.at_level(logging.WARNING, "flawsmith"):
        generation.run(asked(widget, tmp_path / "broken", n=20, jobs=2), kill)
    assert len(killed) == 2 and caplog.text.count("signal 9") >= 1
    assert tree(tmp_path / "whole") == tree(tmp_path / "broken")


@POSIX
def test_images_that_no_worker_survives_end_the_run_with_what_was_made(widget: Path, tmp_path: Path) -> None:
    options = {"how": "exit", "note": str(tmp_path / "ended")}
    with pytest.raises(FlawsmithError, match=r"signal 9.*fewer --jobs"):
        generation.run(asked(widget, tmp_path / "o", method="odd_method:Grief", options=options, jobs=2))
    made = read_manifest(tmp_path / "o")
    assert len(made) < 12 and all(line["seed"] % 7 for line in made)
    assert not multiprocessing.active_children()
    generation.run(asked(widget, tmp_path / "o", method="odd_method:Grief", options=options))  # one process survives
    assert len(read_manifest(tmp_path / "o")) == 12


@POSIX
def test_a_worker_that_ends_of_itself_is_replaced(widget: Path, tmp_path: Path) -> None:
    options = {"how": "once", "note": str(tmp_path / "ended")}
    generation.run(asked(widget, tmp_path / "one", method="odd_method:Grief", options=options))
    assert not (tmp_path / "ended").exists()
    generation.run(asked(widget, tmp_path / "two", method="odd_method:Grief", options=options, jobs=2))
    assert (tmp_path / "ended").exists()
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_an_error_in_a_worker_is_the_error_of_the_run(widget: Path, tmp_path: Path) -> None:
    said, written = [], []
    for jobs in (1, 2):
        with pytest.raises(FlawsmithError, match="No grief for seed") as caught:
            generation.run(asked(widget, tmp_path / str(jobs), method="odd_method:Grief", jobs=jobs))
        said.append(str(caught.value))
        written.append(tree(tmp_path / str(jobs)))
    assert said[0] == said[1] and written[0] == written[1] and "manifest.jsonl" in written[0]


@pytest.mark.parametrize("how, words", [("odd", "an odd grief"), ("strange", "StrangeError: 3 times a strange grief")])
def test_an_error_that_cannot_be_sent_or_put_together_is_told_all_the_same(
    widget: Path, tmp_path: Path, how: str, words: str
) -> None:
    with pytest.raises(RuntimeError, match=words):
        generation.run(asked(widget, tmp_path / "o", method="odd_method:Grief", options={"how": how}, jobs=2))
    assert not multiprocessing.active_children()


@POSIX
def test_ctrl_c_ends_the_workers_and_the_run_resumes(run: Run, widget: Path, tmp_path: Path) -> None:
    command = ["generate", "perlin", "--normal", str(widget), "--gate", "normal", "-n", "80", "--jobs", "2", "--out"]
    broken, manifest = tmp_path / "broken", tmp_path / "broken" / "manifest.jsonl"

    def heed() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.setsid()  # a group of its own, which Ctrl-C reaches as a terminal would

    process = subprocess.Popen(
        [sys.executable, "-m", "flawsmith", *command, str(broken)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed,
    )
    while process.poll() is None and (not manifest.is_file() or manifest.read_bytes().count(b"\n") < 5):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and b"resume" in err and b"Traceback" not in err
    with pytest.raises(ProcessLookupError):  # nobody of the group is left, Python's own helper last
        for _ in range(500):
            os.killpg(process.pid, 0)
            time.sleep(0.01)
    assert manifest.read_bytes().count(b"\n") < 80, "the run ended before the signal; make it longer"
    assert run(*command, broken)[0] == 0
    assert run(*command[:-3], "--out", tmp_path / "whole")[0] == 0
    assert tree(broken) == tree(tmp_path / "whole")


def test_jobs_are_refused_where_each_would_load_a_network(run: Run, widget: Path, tmp_path: Path) -> None:
    command = ("generate", "perlin", "--normal", widget, "--features", "x", "--jobs", "2", "--out", tmp_path / "o")
    code, _, error = run(*command)
    assert code == 2 and "without a neural network" in error and not (tmp_path / "o").exists()
    code, _, error = run("generate", "perlin", "--normal", widget, "--jobs", "0", "--out", tmp_path / "o")
    assert code == 2 and "jobs=0" in error


def test_processes_are_many_only_for_many_images_and_by_command(
    widget: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = asked(widget, tmp_path / "o", n=100_000)
    made, method, loader = generation.prepare(config)
    blocks = Blocks(made, loader, method, None)
    monkeypatch.setattr(registry, "own_process", False)
    assert executors.jobs(blocks, 100_000) == 1  # a script's own process starts none unasked
    monkeypatch.setattr(registry, "own_process", True)
    monkeypatch.setattr(executors, "_cores", lambda: 6)
    monkeypatch.setattr(executors, "_free_memory", lambda: 8 << 30)
    assert [executors.jobs(blocks, left) for left in (1, 199, 200, 100_000)] == [1, 1, 2, 6]
    monkeypatch.setattr(executors, "_free_memory", lambda: 2 << 30)
    assert executors.jobs(blocks, 100_000) == 4
    loader.config = config.model_copy(update={"jobs": 3})
    assert executors.jobs(blocks, 1) == 3


def test_the_plan_names_the_processes(run: Run, widget: Path, tmp_path: Path) -> None:
    code, out, _ = run("generate", "perlin", "--normal", widget, "--jobs", "3", "--dry-run", "--out", tmp_path / "o")
    assert code == 0 and "Painted by 3 worker processes." in out
    assert not (tmp_path / "o").exists()
