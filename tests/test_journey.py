"""The user's way through the command line: check, generate, show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import fakes
from flawsmith import datasets, demo, images, report
from flawsmith.masks import large
from written import Run, painted, tree


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
    code, out, _ = run("show", made, "-n", "4")
    assert code == 0
    assert images.read_image(tmp_path / "made-sheet.png").shape[1] > 400
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


def test_same_seed_same_bytes_other_seed_other_images(run: Run, widget: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert (
            run("generate", "perlin", "--normal", widget, "-n", "3", "--seed", seed, "--out", tmp_path / name)[0] == 0
        )
    a, b, c = (painted(tmp_path / name) for name in "abc")
    assert a == b
    assert a["test/perlin/000.png"] != c.get("test/perlin/000.png")


def test_a_large_photograph_is_handled_in_parts(
    run: Run, widget: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks are drawn in a tile, references cropped: the promises stay, at every place."""
    monkeypatch.setattr(large, "LARGE", 1000)
    monkeypatch.setattr(large, "TILE", 32)
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
    assert code == 0 and "4 images of widget/crack, widget/hole" in out and "4 real defects may be seen" in out
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


def test_demo_makes_its_sheet_and_page(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = find_spec("diffusers") is not None
    options = ["--out", tmp_path / "demo", "-n", "11"]
    monkeypatch.setattr(demo, "FIT_STEPS", 1)
    monkeypatch.setattr(demo, "LEARNED", 2)
    code, _, err = run("demo", *options)
    assert code == 0, err
    assert images.read_image(tmp_path / "demo" / "contact-sheet.png").shape[0] > 800
    page = (tmp_path / "demo" / "report.html").read_text()
    assert len(page) > 100_000 and all((f"<b>{name} (" in page) == learned for name in ("inpaint", "anomalyxfusion"))
    before = tree(tmp_path / "demo")
    assert run("demo", *options)[0] == 0
    assert tree(tmp_path / "demo") == before
