"""check: every finding on a tree broken in exactly that way, silence on a sound one, one image at a time."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import fakes
from flawsmith import datasets
from flawsmith.datasets import check_images
from flawsmith.datasets.check import check
from flawsmith.datasets.check_files import Finding
from flawsmith.errors import FlawsmithError


@pytest.fixture
def widget(tmp_path):
    """A sound category: four references of each type, nothing to complain about."""
    return fakes.mvtec_tree(tmp_path, defects={"crack": 4, "hole": 4})


def found(folder, **options):
    """kind -> file of every finding."""
    findings = check(folder, **options).findings
    for finding in findings:
        assert finding.severity in ("error", "warning", "note") and finding.kind
        assert finding.reason and finding.fix
    return {finding.kind: (finding.severity, finding.file) for finding in findings}


def test_sound_data_has_rows_and_no_findings(widget):
    calls = []
    report = check(f"mvtec_ad:{widget}", progress=lambda what, done, total, facts: calls.append((done, total)))
    assert report.findings == []
    assert calls == [(done, 14) for done in range(1, 15)]
    good, crack, _ = report.rows
    assert (good["type"], good["images"], good["in train"], good["masks"]) == ("good", 6, 4, None)
    assert (crack["images"], crack["masks"], crack["captions"], crack["size"], crack["mode"]) == (
        4, 4, 4, "64 x 48", "RGB",
    )  # fmt: skip
    mask = datasets.read("mvtec_ad", widget, defect="crack")[0].load().mask
    assert 0.3 * 100 * mask.mean() < crack["area %"] < 3 * 100 * mask.mean()


def test_sound_folder_tree_has_no_findings(tmp_path):
    root = fakes.folder_tree(tmp_path, defects={"crack": 4}, captions=True, masks="{kind}/{stem}_mask.png")
    assert found(root) == {}


def test_damaged_images(widget):
    whole = (widget / "train/good/000.png").read_bytes()
    fakes.write(widget / "train/good/000.png", whole[: len(whole) // 2])
    fakes.write(widget / "train/good/001.png", b"")
    fakes.write(widget / "test/crack/000.png", "this is a text")
    fakes.write(widget / "ground_truth/hole/002_mask.png", whole[:60])
    errors = [finding for finding in check(widget).findings if finding.kind == "unreadable"]
    assert sorted(finding.file for finding in errors) == [
        "ground_truth/hole/002_mask.png",
        "test/crack/000.png",
        "train/good/000.png",
        "train/good/001.png",
    ]
    assert {finding.severity for finding in errors} == {"error"}
    assert all(finding.fix.startswith("Export it again") and str(widget) not in finding.reason for finding in errors)
    assert "0 bytes" in next(finding.reason for finding in errors if finding.file.endswith("001.png"))


def test_masks_that_do_not_fit(widget):
    truth = widget / "ground_truth"
    fakes.save(truth / "crack/000_mask.png", np.ones((20, 30), dtype=bool))
    fakes.save(truth / "crack/001_mask.png", np.zeros((48, 64), dtype=bool))
    fakes.save(truth / "crack/002_mask.png", np.ones((48, 64), dtype=bool))
    fakes.save(truth / "crack/003_mask.png", np.tile(np.arange(0, 256, 4, dtype=np.uint8) | 3, (48, 1)))
    (truth / "hole/000_mask.png").unlink()
    shutil.copy(truth / "hole/001_mask.png", truth / "hole/9_mask.png")
    assert found(widget) == {
        "mask-size": ("error", "ground_truth/crack/000_mask.png"),
        "mask-empty": ("error", "test/crack/001.png"),
        "mask-full": ("warning", "test/crack/002.png"),
        "mask-grey": ("warning", "ground_truth/crack/003_mask.png"),
        "image-without-mask": ("warning", "test/hole/000.png"),
        "mask-without-image": ("warning", "ground_truth/hole/9_mask.png"),
    }


def test_two_images_of_one_stem(widget):
    fakes.save(widget / "test/crack/001.jpg", fakes.photo(99))
    assert found(widget)["same-stem"] == ("warning", "test/crack/001.jpg")


def test_names_that_differ_only_in_case(widget):
    fakes.save(widget / "train/good/A.png", fakes.photo(98))
    fakes.save(widget / "train/good/a.png", fakes.photo(99))
    if len(list((widget / "train/good").iterdir())) < 6:
        pytest.skip("this file system does not tell capital letters apart")
    assert found(widget) == {"same-name": ("warning", "train/good/A.png")}


def test_captions(widget):
    fakes.write(widget / "prompt/crack/000.txt", b"\xff\xfe\x00")
    fakes.write(widget / "prompt/crack/001.txt", "\nsecond line")
    fakes.write(widget / "prompt/crack/77.txt", "of nothing")
    assert found(widget) == {
        "caption": ("warning", "prompt/crack/000.txt"),
        "caption-empty": ("note", "prompt/crack/001.txt"),
        "caption-without-image": ("warning", "prompt/crack/77.txt"),
        "caption-missing": ("note", "test/crack/000.png"),
    }


def test_stray_files(widget):
    fakes.write(widget / "test/crack/notes.docx", "x")
    fakes.write(widget / "test/README.md", "x")
    fakes.write(widget / "license.txt", "x")
    fakes.write(widget / "train/good/Thumbs.db", "x")
    fakes.save(widget / "preview.png", fakes.photo(90))
    fakes.save(widget / "train/crack/000.png", fakes.photo(91))
    assert found(widget) == {
        "not-a-image": ("note", "test/crack/notes.docx"),
        "unused-image": ("warning", "preview.png"),
        "defect-in-train": ("warning", "train/crack/000.png"),
    }


def test_links(widget):
    os.symlink(widget, widget / "test/crack/loop", target_is_directory=True)
    os.symlink("gone.png", widget / "test/crack/dead.png")
    assert found(widget) == {
        "loop": ("warning", "test/crack/loop"),
        "dead-link": ("warning", "test/crack/dead.png"),
    }


def test_copies(widget):
    def copy(source, target):
        shutil.copy(widget / source, widget / target)

    copy("train/good/000.png", "test/good/000.png")
    copy("train/good/001.png", "test/hole/001.png")
    copy("test/crack/001.png", "test/crack/002.png")
    assert found(widget) == {
        "copy-splits": ("error", "train/good/000.png"),
        "copy-labels": ("error", "train/good/001.png"),
        "copy": ("warning", "test/crack/001.png"),
    }


def test_near_copies(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"crack": 4}, size=(96, 128))
    again = (fakes.photo(0, (96, 128)) * 0.98).astype(np.uint8)
    fakes.save(folder / "train/good/003.png", again)
    assert found(folder) == {"lookalike": ("note", "train/good/000.png")}
    fakes.save(folder / "test/good/001.png", again)
    assert found(folder)["lookalike"] == ("warning", "train/good/000.png")
    fakes.write(folder / "origin.csv", "file,group\n" + "".join(
        f"{file},p\n" for file in ("train/good/000.png", "train/good/003.png", "test/good/001.png")
    ))  # fmt: skip
    assert "lookalike" not in found(folder)


def test_origin_csv(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, groups={"test/crack/000.png": "a", "test/crack/gone.png": "b"})
    kinds = found(folder)
    assert kinds["group-absent"] == ("warning", "origin.csv") and kinds["no-group"] == ("note", "origin.csv")
    assert found(tmp_path)["group-absent"] == ("warning", "widget/origin.csv")


def test_few_references_and_no_good_images(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, good=0, test_good=0, defects={"crack": 3})
    assert found(folder) == {"no-good": ("warning", "widget"), "few-references": ("note", "widget, crack")}
    groups = {f"test/crack/{index:03d}.png": f"part {index // 4}" for index in range(8)}
    fakes.mvtec_tree(tmp_path, category="gear", defects={"crack": 8}, groups=groups)
    reasons = [
        finding.reason for finding in check(tmp_path, category="gear").findings if finding.kind == "few-references"
    ]
    assert len(reasons) == 1 and "8 images of 2 parts" in reasons[0]


def test_generated_folders_may_repeat_photographs_and_have_no_good_ones(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, good=0, test_good=0, defects={"crack": 3}, size=(96, 128))
    again = (fakes.photo(1000, (96, 128)) * 0.98).astype(np.uint8)
    fakes.save(folder / "test/crack/001.png", again)
    fakes.save(folder / "test/crack/002.png", (again * 0.98).astype(np.uint8))
    assert "lookalike" in found(folder) and "no-good" in found(folder)
    fakes.write(tmp_path / "generate.json", "{}")
    fakes.write(folder / "manifest.jsonl", "{}")
    assert found(folder) == found(tmp_path) == {}


def test_sixteen_bits(widget):
    deep = fakes.photo(77)[..., 0].astype(np.uint16)
    fakes.save(widget / "train/good/000.png", deep << 8)
    report = check(widget)
    assert [(f.kind, f.severity) for f in report.findings] == [("16-bit", "note")]
    assert report.rows[0]["mode"] == "16-bit grey, RGB"
    cv2.imwrite(str(widget / "train/good/001.tif"), deep[::-1] << 4)
    (widget / "train/good/001.png").unlink()
    report = check(widget)
    assert [(f.kind, f.severity) for f in report.findings] == [("mixed-depth", "warning")]
    cv2.imwrite(str(widget / "train/good/002.png"), np.dstack([deep.T[:48, :48] << 8] * 3))
    assert check(widget).rows[0]["mode"] == "16-bit RGB, 16-bit grey, RGB"


def test_camera_rotation_and_sizes(widget):
    image = Image.open(widget / "test/crack/000.png")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(widget / "test/crack/000.png", exif=exif)
    kinds = found(widget)
    assert kinds["exif"] == ("note", "test/crack/000.png")
    assert kinds["mask-size"] == ("error", "ground_truth/crack/000_mask.png")  # drawn on the lying image
    assert kinds["mixed-sizes"] == ("note", "widget")


def test_very_large_images_are_noted_and_leave_no_memory_behind(widget, monkeypatch):
    monkeypatch.setattr(check_images, "LARGE", 3_000_000)
    monkeypatch.setattr("flawsmith.datasets.check.WORKERS", 1)
    for name in ("000", "001", "002"):
        fakes.save(widget / f"train/good/{name}.png", np.kron(fakes.photo(int(name)), np.ones((32, 32, 1), np.uint8)))
    tracemalloc.start()
    kinds = found(widget)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kinds["very-large"][0] == "note" and "mixed-sizes" in kinds
    assert peak < 4 * 3 * 48 * 64 * 32 * 32  # one image and what decoding it takes, never three


def test_given_records_are_looked_at_and_nothing_else(widget):
    fakes.save(widget / "preview.png", fakes.photo(90))
    records = datasets.read("mvtec_ad", widget, defect="crack")
    report = check(widget, records)
    assert [row["type"] for row in report.rows] == ["crack"]
    assert [finding.kind for finding in report.findings] == ["no-good"]


def test_many_findings_of_one_cause_are_grouped(widget):
    for index in range(4):
        (widget / f"ground_truth/crack/{index:03d}_mask.png").unlink()
        (widget / f"ground_truth/hole/{index:03d}_mask.png").unlink()
    fakes.write(widget / "train/good/000.png", b"")
    report = check(widget)
    assert report.findings[0].severity == "error" and report.count("warning") == 8
    short = report.grouped(limit=2)
    assert [finding.file for finding in short[1:4]] == ["test/crack/000.png", "test/crack/001.png", "test/crack"]
    assert short[3].reason.startswith("2 more") and len(short) == 7
    assert len(report.grouped(limit=3)) == 9  # "1 more" would save no line


def test_nothing_to_look_at_is_an_error(tmp_path):
    with pytest.raises(FlawsmithError, match="is empty"):
        check(tmp_path)
    assert Finding("note", "a", "b") == Finding("note", "a", "b", "", "")


@pytest.mark.parametrize("name", ["cookie", "mvtec_ad/transistor"])
def test_real_data_is_sound(shared_data, name):
    report = check(shared_data(name))
    assert [finding for finding in report.findings if finding.severity != "note"] == []
    assert [Path(licence).name.lower() for licence in report.licences] == ["license.txt"]


def test_real_groups_that_miss_a_repeated_part_are_found(shared_data):
    lookalikes = [f for f in check(shared_data("magnetic_tile")).findings if f.kind == "lookalike"]
    assert any("crack003" in finding.reason and "crack004" in finding.reason for finding in lookalikes)


def test_the_findings_for_programs_are_those_for_people(widget, tmp_path, run):
    (widget / "ground_truth" / "crack" / "001_mask.png").write_bytes(b"no image")
    code, out, _ = run("check", f"mvtec_ad:{widget}", "--json", tmp_path / "found.json")
    told = json.loads((tmp_path / "found.json").read_text())
    assert code == 2 and told["source"] == f"mvtec_ad:{widget}"
    assert told["rows"] == json.loads(json.dumps(check(f"mvtec_ad:{widget}").rows))
    (damaged,) = [one for one in told["findings"] if one["severity"] == "error"]
    assert damaged["file"].endswith("001_mask.png") and damaged["file"] in out and damaged["reason"] and damaged["fix"]
