"""Bad input at the command line: one clear line that names it, before the first image, and nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fakes
from flawsmith import images
from written import Run


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


@pytest.mark.parametrize("last", [True, False], ids=["photograph", "mask"])
def test_what_the_last_image_needs_is_refused_before_the_first(run: Run, tmp_path: Path, last: bool) -> None:
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
    assert "1 images of defects have no mask" in err and "crack/004.png" in err
    assert "widget/hole has too few images" in err and "--shots" in err
