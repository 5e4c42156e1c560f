"""The user's way through the command line: check, generate, show; resume, kill, refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fakes
from flawsmith import datasets, images, report
from flawsmith.datasets.writer import Writer
from flawsmith.generation import loading

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def widget(tmp_path: Path) -> Path:
    return fakes.mvtec_tree(tmp_path / "data", good=4, defects={"crack": 6, "hole": 6}, size=(72, 96))


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def pictures(folder: Path) -> dict[str, bytes]:
    """All that must repeat byte for byte; generate.json names its own settings."""
    return {name: content for name, content in tree(folder).items() if name != "generate.json"}


def test_check_generate_show_and_read_back(run: Run, widget: Path, tmp_path: Path) -> None:
    code, out, _ = run("check", widget)
    assert code == 0 and "crack" in out
    made = tmp_path / "made"
    code, out, err = run("generate", "copypaste", "--normal", f"mvtec_ad:{widget}", "-n", "6", "--out", made)
    assert code == 0, err
    assert f"flawsmith show {made}" in out
    records = datasets.read("mvtec_ad", made)
    lines = [json.loads(line) for line in (made / "manifest.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["status"] == "kept"]
    assert len(lines) == 6 and len(kept) >= 5
    assert len([r for r in records if not r.is_good]) == len(kept)
    for line in kept:
        image, mask = images.read_image(made / line["image"]), images.read_mask(made / line["mask"])
        normal = images.read_image(
            widget.parent / line["normal"]["file"]
            if "widget" in line["normal"]["file"]
            else widget / line["normal"]["file"]
        )
        assert mask.any() and mask.sum() == line["scores"]["area"]
        assert (image[~mask] == normal[~mask]).all()
        assert (made / line["prompt"]).read_text().strip() == line["caption"] != ""
        assert line["reference"]["file"].startswith("test/")
    code, out, _ = run("show", made, "--page", tmp_path / "page.html", "-n", "4")
    assert code == 0
    assert images.read_image(tmp_path / "made-sheet.png").shape[1] > 400
    assert "data:image/jpeg;base64," in (tmp_path / "page.html").read_text()
    assert not (made / "made-sheet.png").exists()


def test_all_defects_of_the_painter_and_per_defect_count(run: Run, widget: Path, tmp_path: Path) -> None:
    code, _, err = run(
        "generate",
        "procedural",
        "--normal",
        widget,
        "-n",
        "2",
        "--per-defect",
        "--defect",
        "scratch",
        "--defect",
        "stain",
        "--out",
        tmp_path / "o",
    )
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "o" / "manifest.jsonl").read_text().splitlines()]
    assert [line["defect_type"] for line in lines] == ["scratch", "stain"] * 2


def test_same_seed_same_bytes_other_seed_other_pictures(run: Run, widget: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert (
            run("generate", "perlin", "--normal", widget, "-n", "3", "--seed", seed, "--out", tmp_path / name)[0] == 0
        )
    a, b, c = (pictures(tmp_path / name) for name in "abc")
    assert a == b
    assert a["test/perlin/000.png"] != c.get("test/perlin/000.png")


def test_a_longer_run_begins_with_the_shorter_one(run: Run, widget: Path, tmp_path: Path) -> None:
    command = ("generate", "cutpaste", "--normal", widget, "--out")
    assert run(*command, tmp_path / "short", "-n", "3")[0] == 0
    code, out, _ = run(*command, tmp_path / "short", "-n", "5")
    assert code == 0 and "3 were already there" in out
    assert run(*command, tmp_path / "long", "-n", "5")[0] == 0
    assert pictures(tmp_path / "short") == pictures(tmp_path / "long")


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
        (tmp_path / "broken" / third).write_bytes(b"half a picture")
    elif damage == "lost lines":
        manifest.write_bytes(b"".join(lines[:2]))
    else:
        manifest.write_bytes(b"".join(lines[:2]))
        fakes.write(tmp_path / "broken" / ".partial" / ".000.png.1.tmp", b"half")
    assert run(*command, tmp_path / "broken")[0] == 0
    assert tree(tmp_path / "whole") == tree(tmp_path / "broken")


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
    command = ("generate", "perlin", "--normal", widget, "-n", "150", "--out")
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
        images.read_image(path)  # no half picture anywhere
    assert run(*command, broken)[0] == 0
    assert run(*command, tmp_path / "whole")[0] == 0
    assert tree(broken) == tree(tmp_path / "whole")


@pytest.mark.skipif(os.name == "nt", reason="POSIX file size limit")
def test_a_full_disk_leaves_no_half_file(run: Run, widget: Path, tmp_path: Path) -> None:
    """A real failing write: the process may not make a file longer than the manifest gets after some pictures."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (25000, 25000));"
        "from flawsmith.cli import main as cli; sys.argv = ['flawsmith'] + sys.argv[1:]; cli.main()"
    )
    command = ["generate", "perlin", "--normal", str(widget), "-n", "40", "--out", str(tmp_path / "o")]
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


def damaged(tmp_path: Path, name: str) -> Path:
    root = fakes.mvtec_tree(tmp_path / "data", good=2, defects={"crack": 4}, size=(40, 40))
    target = root / "train" / "good" / "000.png"
    if name == "truncated":
        content = target.read_bytes()
        for path in (root / "train" / "good").glob("*.png"):
            path.write_bytes(content[: len(content) // 2])
    elif name == "zero-byte":
        for path in (root / "train" / "good").glob("*.png"):
            path.write_bytes(b"")
    elif name == "mask of another size":
        for path in (root / "ground_truth" / "crack").glob("*.png"):
            fakes.save(path, np.ones((9, 9), bool))
    return root


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("truncated", ("train/good", "cannot be read", "Export it again")),
        ("zero-byte", ("train/good", "0 bytes", "Export it again")),
        ("mask of another size", ("_mask.png", "9 x 9", "40 x 40")),
    ],
)
def test_damaged_files_are_named(run: Run, tmp_path: Path, name: str, says: tuple[str, ...]) -> None:
    root = damaged(tmp_path, name)
    code, _, err = run("generate", "copypaste", "--normal", root, "-n", "2", "--out", tmp_path / "o")
    assert code == 2 and "Traceback" not in err
    for text in says:
        assert text in err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "copypast", "--normal", "DATA", "--out", "OUT"], "Did you mean 'copypaste'"),
        (["generate", "perlin", "--normal", "MISSING", "--out", "OUT"], "MISSING"),
        (["generate", "perlin", "--normal", "EMPTY", "--out", "OUT"], "EMPTY"),
        (["generate", "perlin", "--normal", "DATA", "--category", "gadget", "--out", "OUT"], "gadget"),
        (["generate", "copypaste", "--normal", "DATA", "--defect", "crak", "--out", "OUT"], "Did you mean 'crack'"),
        (["generate", "perlin", "--normal", "DATA", "--set", "blurr=1", "--out", "OUT"], "blurr"),
        (["generate", "perlin", "--normal", "DATA", "--set", "mask.sise=1", "--out", "OUT"], "Did you mean 'size'"),
        (["generate", "perlin", "--normal", "DATA", "--set", "min_visibility=-4", "--out", "OUT"], "min_visibility"),
        (["generate", "perlin", "--normal", "DATA", "--mask", "blubb", "--out", "OUT"], "blubb"),
        (["generate", "perlin", "--normal", "DATA", "-n", "0", "--out", "OUT"], "n=0"),
        (["generate", "perlin", "--normal", "DATA", "--seed", "-1", "--out", "OUT"], "seed=-1"),
        (["generate", "perlin", "--normal", "DATA"], "out is missing"),
        (["generate", "perlin", "--out", "OUT"], "normal is missing"),
        (["generate", "perlin", "--normal", "DATA", "--config", "MISSING.yaml", "--out", "OUT"], "MISSING.yaml"),
        (["generate", "copypaste", "--normal", "PHOTOS", "--out", "OUT"], "needs real defects"),
        (["generate", "copypaste", "--normal", "PHOTOS", "--reference", "PHOTO", "--out", "OUT"], "--reference-mask"),
        (
            ["generate", "perlin", "--normal", "DATA", "--reference-mask", "PHOTO", "--out", "OUT"],
            "without --reference",
        ),
        (["generate", "perlin", "--normal", "DATA", "--roi", "PHOTO", "--out", "OUT"], "30 x 20"),
        (["generate", "perlin", "--normal", "DATA", "--defect", "../up", "--out", "OUT"], "cannot name a folder"),
        (["generate", "perlin", "--normal", "DATA", "--out", "PHOTO"], "is a file"),
        (["generate", "perlin", "--normal", "DATA", "--out", "PHOTO/under"], "PHOTO"),
        (["generate", "perlin", "--normal", "DATA", "--out", "DATA/gen"], "lies inside the data set"),
        (["generate", "procedural", "--normal", "DATA", "--defect", "blubb", "--out", "OUT"], "'blubb' is not known"),
        (["generate", "perlin", "--normal", "DATA", "--set", "mask.size=[0.5,0.1]", "--out", "OUT"], "low then high"),
        (["check", "MISSING"], "MISSING"),
        (["show", "MISSING"], "no manifest.jsonl"),
    ],
    ids=lambda value: " ".join(value[1:6]) if isinstance(value, list) else None,
)
def test_bad_input_gets_one_clear_line(run: Run, tmp_path: Path, arguments: list[str], says: str) -> None:
    names = {
        "DATA": fakes.mvtec_tree(tmp_path / "data", good=2, defects={"crack": 4}, size=(40, 40)),
        "PHOTOS": fakes.save(tmp_path / "photos" / "a.png", fakes.photo(1)).parent,
        "PHOTO": fakes.save(tmp_path / "PHOTO", fakes.photo(1, (20, 30)), format="PNG"),
        "OUT": tmp_path / "o",
        "EMPTY": tmp_path / "EMPTY",
        "PHOTO/under": tmp_path / "PHOTO" / "under",
        "DATA/gen": tmp_path / "data" / "widget" / "gen",
    }
    names["EMPTY"].mkdir()
    code, _, err = run(*[names.get(a, tmp_path / a if a.startswith("MISSING") else a) for a in arguments])
    assert code == 2, err
    assert says in err
    assert "Traceback" not in err and "fault of flawsmith" not in err
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder even root cannot write to")
def test_a_read_only_folder_is_named(run: Run, widget: Path) -> None:
    code, _, err = run("generate", "perlin", "--normal", widget, "-n", "1", "--out", "/proc/flawsmith-out")
    assert code == 2 and "/proc/flawsmith-out" in err and "choose another --out" in err


def test_an_oversized_photograph_is_refused_by_name(
    run: Run, widget: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    code, _, err = run("generate", "perlin", "--normal", widget, "-n", "1", "--out", tmp_path / "o")
    assert code == 2 and "cut it into tiles" in err and "train/good" in err


def test_a_large_photograph_is_handled_in_parts(
    run: Run, widget: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks are drawn in a tile, references cropped: the promises stay, at every place."""
    monkeypatch.setattr(loading, "LARGE", 1000)
    monkeypatch.setattr(loading, "TILE", 32)
    for method in ("perlin", "copypaste"):  # the defects are discs and lines of 60 to 100 pixels
        made = tmp_path / method
        code, _, err = run("generate", method, "--normal", widget, "-n", "6", "--out", made)
        assert code == 0, err
        lines = [json.loads(line) for line in (made / "manifest.jsonl").read_text().splitlines()]
        for line in (line for line in lines if line["status"] == "kept"):
            image, mask = images.read_image(made / line["image"]), images.read_mask(made / line["mask"])
            normal = images.read_image(widget / line["normal"]["file"])
            assert image.shape == normal.shape == (72, 96, 3)
            assert (image[~mask] == normal[~mask]).all() and mask.any()
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            if method == "copypaste":  # of its own size, whatever was cropped
                assert mask.sum() < 500
            else:
                assert rows[-1] - rows[0] < 32 and columns[-1] - columns[0] < 32


def test_spaces_and_letters_beyond_ascii(run: Run, tmp_path: Path) -> None:
    photos = tmp_path / "Fotos für Prüfung"
    for number in range(2):
        fakes.save(photos / f"Teil grün {number}.PNG", fakes.photo(number), format="PNG")
    out = tmp_path / "größer als sonst"
    code, _, err = run("generate", "procedural", "--normal", f"folder:{photos}", "-n", "3", "--out", out)
    assert code == 0, err
    assert run("show", out)[0] == 0


@pytest.mark.parametrize("last", [True, False], ids=["photograph", "mask"])
def test_what_the_last_picture_needs_is_refused_before_the_first(run: Run, tmp_path: Path, last: bool) -> None:
    root = fakes.mvtec_tree(tmp_path / "data", good=6, defects={"crack": 9}, size=(40, 40))
    if last:
        target = root / "train" / "good" / "005.png"
        target.write_bytes(target.read_bytes()[:300])
    else:
        target = fakes.save(root / "ground_truth" / "crack" / "002_mask.png", np.zeros((40, 40), bool))
    code, _, err = run("generate", "copypaste", "--normal", root, "-n", "6", "--out", tmp_path / "o")
    assert code == 2 and target.name in err, err
    assert not (tmp_path / "o").exists()


def test_defects_left_out_are_named(run: Run, tmp_path: Path) -> None:
    root = fakes.mvtec_tree(tmp_path / "data", good=2, defects={"crack": 6, "hole": 2}, size=(40, 40))
    (root / "ground_truth" / "crack" / "004_mask.png").unlink()
    code, _, err = run("generate", "copypaste", "--normal", root, "-n", "1", "--out", tmp_path / "o")
    assert code == 0
    assert "1 pictures of defects have no mask" in err and "crack/004.png" in err
    assert "widget/hole has too few pictures" in err and "--shots" in err


def test_resume_from_another_folder_with_other_spellings(
    run: Run, widget: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((72, 96), bool)
    mask[30:44, 40:60] = True
    roi = fakes.save(tmp_path / "roi.png", mask)
    picture, where = fakes.with_defect(fakes.photo(9, (72, 96)), "hole", 9)
    reference, where_file = fakes.save(tmp_path / "r.png", picture), fakes.save(tmp_path / "r_mask.png", where)

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
    assert code == 0 and "2 pictures" in out
    assert tree(tmp_path / "o") == before


def test_copied_normals_keep_their_names_in_a_longer_run(run: Run, widget: Path, tmp_path: Path) -> None:
    command = ("generate", "perlin", "--normal", widget, "--with-normals", "-n")
    assert run(*command, "1", "--out", tmp_path / "grown")[0] == 0
    assert run(*command, "8", "--out", tmp_path / "grown")[0] == 0
    assert run(*command, "8", "--out", tmp_path / "whole")[0] == 0
    assert tree(tmp_path / "grown") == tree(tmp_path / "whole")
    copied = {p.read_bytes() for p in (tmp_path / "grown" / "train" / "good").iterdir()}
    assert copied == {p.read_bytes() for p in (widget / "train" / "good").iterdir()}


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_closed_pipe_ends_quietly(widget: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen(
        [sys.executable, "-m", "flawsmith", "check", str(widget)], stdout=write, stderr=subprocess.PIPE
    ) as process:
        os.close(write)
        _, err = process.communicate(timeout=60)
    assert b"Traceback" not in err and b"fault of flawsmith" not in err and b"ignored" not in err, err
    assert process.returncode in (1, 141)


@pytest.mark.skipif(os.name == "nt", reason="POSIX terminals")
@pytest.mark.parametrize("plain", [True, False])
def test_no_colour_where_it_is_not_wanted(plain: bool) -> None:
    terminal, end = os.openpty()
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "flawsmith", "show", "nowhere"],
        stdout=end,
        stderr=end,
        env=environment | ({"NO_COLOR": "1"} if plain else {}),
    ) as process:
        process.wait(timeout=60)
    os.close(end)
    said = os.read(terminal, 10_000)
    os.close(terminal)
    assert process.returncode == 2 and b"nowhere is not a generated folder" in said
    assert (b"\x1b[31m" in said) != plain


def test_own_mask_roi_and_reference(run: Run, widget: Path, tmp_path: Path) -> None:
    mask = np.zeros((72, 96), bool)
    mask[30:44, 40:60] = True
    own = fakes.save(tmp_path / "mask.png", mask)
    assert run("generate", "perlin", "--normal", widget, "-n", "2", "--mask", own, "--out", tmp_path / "m")[0] == 0
    for path in (tmp_path / "m" / "ground_truth").rglob("*.png"):
        assert not (images.read_mask(path) & ~mask).any()
    code, _, err = run("generate", "cutpaste", "--normal", widget, "-n", "3", "--roi", own, "--out", tmp_path / "r")
    assert code == 0, err
    for path in (tmp_path / "r" / "ground_truth").rglob("*.png"):
        assert not (images.read_mask(path) & ~mask).any()
    defect, where = fakes.with_defect(fakes.photo(9, (72, 96)), "hole", 9)
    reference = fakes.save(tmp_path / "reference.png", defect)
    code, _, err = run(
        "generate",
        "copypaste",
        "--normal",
        widget,
        "--reference",
        reference,
        "--reference-mask",
        fakes.save(tmp_path / "reference_mask.png", where),
        "--defect",
        "pit",
        "-n",
        "2",
        "--out",
        tmp_path / "p",
    )
    assert code == 0, err
    assert (tmp_path / "p" / "test" / "pit").is_dir()


def test_dry_run_writes_nothing(run: Run, widget: Path, tmp_path: Path) -> None:
    code, out, _ = run("generate", "copypaste", "--normal", widget, "-n", "4", "--dry-run", "--out", tmp_path / "o")
    assert code == 0 and "4 pictures of widget/crack, widget/hole" in out and "4 real defects may be seen" in out
    assert not (tmp_path / "o").exists()


def test_a_configuration_file_says_the_same_as_options(run: Run, widget: Path, tmp_path: Path) -> None:
    file = fakes.write(
        tmp_path / "run.yaml", f"normal: '{widget}'\nn: 2\nseed: 3\nmask_options: {{size: [0.01, 0.02]}}\n"
    )
    assert run("generate", "perlin", "--config", file, "--out", tmp_path / "a")[0] == 0
    options = ("--normal", widget, "-n", "2", "--seed", "3", "--set", "mask.size=[0.01, 0.02]")
    assert run("generate", "perlin", *options, "--out", tmp_path / "b")[0] == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_several_categories_get_a_folder_each(run: Run, tmp_path: Path) -> None:
    for category in ("bolt", "nut"):
        fakes.mvtec_tree(tmp_path / "data", category=category, good=2, defects={"crack": 3}, size=(48, 48))
    code, _, err = run("generate", "copypaste", "--normal", tmp_path / "data", "-n", "4", "--out", tmp_path / "o")
    assert code == 0, err
    assert (tmp_path / "o" / "bolt" / "test" / "crack").is_dir() and (tmp_path / "o" / "nut" / "test").is_dir()
    assert {r.category for r in datasets.read("mvtec_ad", tmp_path / "o")} == {"bolt", "nut"}


def test_doctor_names_what_it_finds(run: Run) -> None:
    code, out, _ = run("doctor")
    assert code in (0, 2)
    for name in ("Python", "core", "torch", "disk"):
        assert name in out


def test_a_sheet_shows_what_nobody_chose() -> None:
    def line(kind: str, index: int, status: str = "kept") -> dict[str, object]:
        return {"category": "c", "defect_type": kind, "status": status, "index": index}

    lines = [line(kind, 3 * turn + place) for turn in range(50) for place, kind in enumerate("abc")]
    assert len(report.spread(lines, 12)) == 12
    assert [row["defect_type"] for row in report.spread(lines, 7)] == ["a", "a", "a", "b", "b", "c", "c"]
    assert {row["defect_type"] for row in report.spread(lines, 2)} == {"a", "c"}
    assert report.spread([line("a", 0, "rejected")], 5) == []
    few = [line("a", 0), line("b", 1)]
    assert report.spread(few, 12) == few


def test_demo_makes_its_sheet_and_page(run: Run, tmp_path: Path) -> None:
    code, _, err = run("demo", "--out", tmp_path / "demo", "-n", "11")
    assert code == 0, err
    assert images.read_image(tmp_path / "demo" / "contact-sheet.png").shape[0] > 1000
    assert (tmp_path / "demo" / "index.html").stat().st_size > 100_000
    before = tree(tmp_path / "demo")
    assert run("demo", "--out", tmp_path / "demo", "-n", "11")[0] == 0
    assert tree(tmp_path / "demo") == before
