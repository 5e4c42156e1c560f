"""Runs stopped, grown, repeated: a resumed run equals an uninterrupted one, and nothing is taken back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fakes
from flawsmith import images
from flawsmith.datasets import writer
from flawsmith.datasets.writer import Writer
from written import Run, painted, tree


def test_a_longer_run_begins_with_the_shorter_one(run: Run, widget: Path, tmp_path: Path) -> None:
    command = ("generate", "cutpaste", "--normal", widget, "--out")
    assert run(*command, tmp_path / "short", "-n", "3")[0] == 0
    code, out, _ = run(*command, tmp_path / "short", "-n", "5")
    assert code == 0 and "3 were already there" in out
    assert run(*command, tmp_path / "long", "-n", "5")[0] == 0
    assert painted(tmp_path / "short") == painted(tmp_path / "long")


@pytest.mark.parametrize("damage", ["half line", "lost file", "damaged file", "lost lines", "orphan"])
def test_resume_equals_uninterrupted(run: Run, widget: Path, tmp_path: Path, damage: str) -> None:
    command = ("generate", "copypaste", "--normal", widget, "-n", "6", "--out")
    assert run(*command, tmp_path / "whole")[0] == 0
    assert run(*command, tmp_path / "broken")[0] == 0
    manifest = tmp_path / "broken" / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    third = json.loads(lines[2])["image"]
    if damage == "half line":
        manifest.write_bytes(b"".join(lines[:3]) + lines[3][: len(lines[3]) // 2])
    elif damage == "lost file":
        (tmp_path / "broken" / third).unlink()
    elif damage == "damaged file":
        (tmp_path / "broken" / third).write_bytes(b"half an image")
    elif damage == "lost lines":
        manifest.write_bytes(b"".join(lines[:2]))
    else:
        manifest.write_bytes(b"".join(lines[:2]))
        fakes.write(tmp_path / "broken" / ".partial" / ".000.png.1.tmp", b"half")
    assert run(*command, tmp_path / "broken")[0] == 0
    assert tree(tmp_path / "whole") == tree(tmp_path / "broken")


@pytest.mark.parametrize("damage", ["another size", "lost mask", "empty prompt", "link out"])
def test_old_lines_count_by_the_sizes_of_their_files(
    run: Run, widget: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Of lines before the last RECENT ones no file is read; what is missing or cut is still seen."""
    monkeypatch.setattr(writer, "RECENT", 2)
    command = ("generate", "perlin", "--normal", widget, "-n", "6", "--out")
    assert run(*command, tmp_path / "whole")[0] == 0
    assert run(*command, tmp_path / "broken")[0] == 0
    line = json.loads((tmp_path / "broken" / "manifest.jsonl").read_bytes().splitlines()[1])
    image, mask, prompt = (tmp_path / "broken" / line[key] for key in ("image", "mask", "prompt"))
    if damage == "another size":
        image.write_bytes(image.read_bytes()[:-1])
    elif damage == "lost mask":
        mask.unlink()
    elif damage == "empty prompt":
        prompt.write_bytes(b"")
    else:
        fakes.write(tmp_path / "elsewhere.png", "not ours")
        image.unlink()
        image.symlink_to(tmp_path / "elsewhere.png")
        code, _, error = run(*command, tmp_path / "broken")
        assert code == 2 and "leaves its folder" in error
        assert (tmp_path / "elsewhere.png").read_text() == "not ours"
        return
    code, said, _ = run(*command, tmp_path / "broken")
    assert code == 0 and "(1 were already there)" in said
    assert tree(tmp_path / "whole") == tree(tmp_path / "broken")


def test_a_prompt_that_a_person_corrected_stays(run: Run, widget: Path, tmp_path: Path) -> None:
    command = ("generate", "perlin", "--normal", widget, "-n", "3", "--out", tmp_path / "o")
    assert run(*command)[0] == 0
    line = json.loads((tmp_path / "o" / "manifest.jsonl").read_bytes().splitlines()[0])
    (tmp_path / "o" / line["prompt"]).write_text("a better word\n")
    code, said, _ = run(*command)
    assert code == 0 and "(3 were already there)" in said
    assert (tmp_path / "o" / line["prompt"]).read_text() == "a better word\n"


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    def heed() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a suite started in the background ignores it, and so would this

    return subprocess.Popen(
        [sys.executable, "-m", "flawsmith", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed if os.name != "nt" else None,
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_run_leaves_whole_files_and_resumes(run: Run, widget: Path, tmp_path: Path, how: int) -> None:
    command = ("generate", "perlin", "--normal", widget, "--gate", "normal", "-n", "150", "--out")
    broken, manifest = tmp_path / "broken", tmp_path / "broken" / "manifest.jsonl"
    process = start(*command, broken)
    while process.poll() is None and (not manifest.is_file() or manifest.read_bytes().count(b"\n") < 5):
        time.sleep(0.005)
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    done = manifest.read_bytes().count(b"\n")
    assert done < 150, "the run ended before the signal; make it longer"
    if how == signal.SIGINT:
        assert process.returncode == 130 and b"resume" in err
    for path in (broken / "test").rglob("*.png"):
        images.read_image(path)  # no half image anywhere
    assert run(*command, broken)[0] == 0
    assert run(*command, tmp_path / "whole")[0] == 0
    assert tree(broken) == tree(tmp_path / "whole")


@pytest.mark.skipif(os.name == "nt", reason="POSIX file size limit")
def test_a_full_disk_leaves_no_half_file(run: Run, widget: Path, tmp_path: Path) -> None:
    """A real failing write: the process may not make a file longer than the manifest gets after some images."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (25000, 25000));"
        "from flawsmith.cli import main as cli; sys.argv = ['flawsmith'] + sys.argv[1:]; cli.main()"
    )
    gated = ["--gate", "normal"]
    command = ["generate", "perlin", "--normal", str(widget), *gated, "-n", "40", "--out", str(tmp_path / "o")]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr and "Traceback" not in done.stderr
    for path in (tmp_path / "o" / "test").rglob("*.png"):
        images.read_image(path)
    assert run(*command)[0] == 0
    assert run(*command[:-1], str(tmp_path / "whole"))[0] == 0
    assert tree(tmp_path / "o") == tree(tmp_path / "whole")


def test_an_output_folder_of_another_run_is_refused(run: Run, widget: Path, tmp_path: Path) -> None:
    command = ("generate", "perlin", "--normal", widget, "-n", "2", "--out", tmp_path / "o")
    assert run(*command)[0] == 0
    before = tree(tmp_path / "o")
    code, _, err = run(*command, "--seed", "5")
    assert code == 2 and "seed was 0, now it is 5" in err
    code, _, err = run(*command, "--set", "min_visibility=3")
    assert code == 2 and "min_visibility" in err
    assert tree(tmp_path / "o") == before
    fakes.write(tmp_path / "mine" / "notes.txt", "precious")
    code, _, err = run(*command[:-1], tmp_path / "mine")
    assert code == 2 and "not empty" in err
    assert tree(tmp_path / "mine") == {"notes.txt": b"precious"}


def test_resume_from_another_folder_with_other_spellings(
    run: Run, widget: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((72, 96), bool)
    mask[30:44, 40:60] = True
    roi = fakes.save(tmp_path / "roi.png", mask)
    image, where = fakes.with_defect(fakes.photo(9, (72, 96)), "hole", 9)
    reference, where_file = fakes.save(tmp_path / "r.png", image), fakes.save(tmp_path / "r_mask.png", where)

    def command(root: Path, n: int) -> tuple[str | Path, ...]:
        return (
            *("generate", "copypaste", "--normal", root / "data" / "widget", "--roi", root / "roi.png", "-n", str(n)),
            *("--reference", root / "r.png", "--reference-mask", root / "r_mask.png", "--out", root / "o"),
        )

    assert roi.is_file() and reference.is_file() and where_file.is_file()
    assert run(*command(tmp_path, 2))[0] == 0
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*command(Path("."), 4))
    assert code == 0 and "2 were already there" in out, err
    monkeypatch.setenv("HOME", str(tmp_path))
    code, out, err = run(*command(Path("~"), 4))
    assert code == 0 and "4 were already there" in out, err
    assert not (tmp_path / "~").exists()
    fakes.save(roi, ~mask)
    code, _, err = run(*command(Path("."), 4))
    assert code == 2 and "roi was" in err


def test_two_runs_at_once_on_one_folder(run: Run, widget: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    command = ("generate", "perlin", "--normal", widget, "-n", "2", "--out", tmp_path / "o")
    assert run(*command)[0] == 0
    before = tree(tmp_path / "o")
    with Writer(tmp_path / "o", json.loads((tmp_path / "o" / "generate.json").read_text())):
        code, _, err = run(*command, "-n", "9")
        assert code == 2 and "Another flawsmith is writing" in err
    assert tree(tmp_path / "o") == before


def test_a_shorter_run_takes_nothing_back(run: Run, widget: Path, tmp_path: Path) -> None:
    command = ("generate", "perlin", "--normal", widget, "--with-normals", "--out", tmp_path / "o", "-n")
    assert run(*command, "6")[0] == 0
    before = tree(tmp_path / "o")
    code, out, _ = run(*command, "2")
    assert code == 0 and "2 images" in out
    assert tree(tmp_path / "o") == before


def test_copied_normals_keep_their_names_in_a_longer_run(run: Run, widget: Path, tmp_path: Path) -> None:
    command = ("generate", "perlin", "--normal", widget, "--with-normals", "-n")
    assert run(*command, "1", "--out", tmp_path / "grown")[0] == 0
    assert run(*command, "8", "--out", tmp_path / "grown")[0] == 0
    assert run(*command, "8", "--out", tmp_path / "whole")[0] == 0
    assert tree(tmp_path / "grown") == tree(tmp_path / "whole")
    copied = {p.read_bytes() for p in (tmp_path / "grown" / "train" / "good").iterdir()}
    assert copied == {p.read_bytes() for p in (widget / "train" / "good").iterdir()}
