"""check --fix: a copy that `check` finds nothing wrong with, every repair told, the source as it was."""

from __future__ import annotations

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

import fakes
import fakes_annotated as painted
import written
from flawsmith import datasets, images
from flawsmith.datasets import check_sets, exposures, leaks
from flawsmith.datasets.check import check


@pytest.fixture
def widget(tmp_path):
    return fakes.mvtec_tree(tmp_path / "data", defects={"crack": 6, "hole": 6})


def repairs(out):
    with open(out / "repairs.csv", encoding="utf-8") as file:
        return {row["file"]: row["repair"] for row in csv.DictReader(file)}


def origins(out):
    with open(out / "origin.csv", encoding="utf-8") as file:
        return {row["origin_file"]: out / row["file"] for row in csv.DictReader(file)}


def test_every_repair_and_nothing_else(widget, tmp_path, run):
    truth = {record.name: record.load().mask for record in datasets.read_source(widget)}
    masks = widget / "ground_truth"
    whole = (widget / "test/crack/000.png").read_bytes()
    fakes.write(widget / "test/crack/000.png", whole[: len(whole) // 2])
    fakes.write(masks / "crack/001_mask.png", b"no image")
    grey = np.where(truth["test/crack/002.png"], 255, np.random.default_rng(0).integers(0, 90, (48, 64)))
    fakes.save(masks / "crack/002_mask.png", grey.astype(np.uint8))
    double = np.kron(truth["test/crack/003.png"], np.ones((2, 2), dtype=bool))
    fakes.save(masks / "crack/003_mask.png", double)
    fakes.save(masks / "crack/004_mask.png", np.ones((20, 64), dtype=bool))  # of no image here
    fakes.save(masks / "hole/000_mask.png", ~truth["test/hole/000.png"])
    fakes.save(masks / "hole/001_mask.png", np.zeros((48, 64), dtype=bool))
    shutil.copy(widget / "test/hole/002.png", widget / "test/crack/009.png")
    shutil.copy(widget / "train/good/001.png", widget / "test/good/009.png")
    lying = Image.open(widget / "test/hole/003.png").transpose(Image.Transpose.ROTATE_90)
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(widget / "test/hole/003.png", exif=exif)
    turned = np.asarray(Image.fromarray(truth["test/hole/003.png"]).transpose(Image.Transpose.ROTATE_90))
    fakes.save(masks / "hole/003_mask.png", turned)
    before, out = written.tree(widget), tmp_path / "mended"
    code, shown, _ = run("check", widget, "--fix", out)
    assert code == 0 and written.tree(widget) == before
    told = repairs(out)
    assert {name: text for name, text in told.items() if not text.startswith("group")} == {
        "test/crack/000.png": "left out: it cannot be read",
        "ground_truth/crack/001_mask.png": "left out: it cannot be read",
        "test/crack/001.png": "left out: no mask of it can be used",
        "ground_truth/crack/002_mask.png": "grey levels made black and white",
        "ground_truth/crack/003_mask.png": "128 x 96 pixels scaled to 64 x 48",
        "ground_truth/crack/004_mask.png": "left out: its size and shape are not the image's",
        "test/crack/004.png": "left out: no mask of it can be used",
        "ground_truth/hole/000_mask.png": told["ground_truth/hole/000_mask.png"],
        "test/hole/001.png": "left out: its mask marks no pixel",
        "test/hole/002.png": "left out: the same image is filed as crack and hole",
        "test/crack/009.png": "left out: the same image is filed as crack and hole",
        "train/good/001.png": "left out: a copy of test/good/009.png",
        "ground_truth/hole/003_mask.png": "turned as its image is (EXIF orientation 6)",
        "test/hole/003.png": "turned upright (EXIF orientation 6)",
    }
    assert told["ground_truth/hole/000_mask.png"].startswith("black and white swapped: it covered 9")
    assert all(name in shown for name in list(told)[:3])
    assert [one for one in check(f"mvtec_ad:{out}").findings if one.severity != "note"] == []
    mended = {record.image: record for record in datasets.read_source(out)}
    places = origins(out)
    gone = {name for name, text in told.items() if text.startswith("left out")}
    assert set(places) == set(truth) - gone | {"test/good/009.png"} - {"test/crack/009.png"}
    for name, path in places.items():
        if name in truth:
            assert np.array_equal(mended[path].load().mask, truth[name]), name
    upright = images.read_image(places["test/hole/003.png"])
    assert upright.shape == (48, 64, 3)


def test_a_sound_set_is_copied_as_it_is_and_resumes(widget, tmp_path, run):
    out = tmp_path / "mended"
    assert run("check", widget, "--fix", out)[0] == 0
    first = written.tree(out)
    assert [text for text in repairs(out).values() if not text.startswith("group")] == []
    assert run("check", widget, "--fix", out)[0] == 0 and written.tree(out) == first
    assert len(datasets.read_source(out)) == len(datasets.read_source(widget))
    code, _, err = run("check", widget, "--fix", widget / "mended")
    assert code == 2 and "must stay as it is" in err and not (widget / "mended").exists()


def test_every_image_that_is_written_anew_is_told(widget, tmp_path, run):
    fakes.save(widget / "train/good/000.png", fakes.photo(1)[..., 0].astype(np.uint16) * 200)
    Image.open(widget / "train/good/001.png").convert("RGBA").save(widget / "train/good/001.png")
    Image.open(widget / "train/good/002.png").convert("CMYK").save(widget / "train/good/002.tif")
    Image.open(widget / "train/good/003.png").convert("P").save(widget / "train/good/003.png")
    (widget / "train/good/002.png").unlink()
    assert run("check", widget, "--fix", tmp_path / "mended")[0] == 0
    assert repairs(tmp_path / "mended") == {
        "train/good/000.png": "16-bit grey written as 8-bit RGB",
        "train/good/001.png": "RGBA written as 8-bit RGB",
        "train/good/002.tif": "CMYK written as 8-bit RGB",
        "train/good/003.png": "palette written as 8-bit RGB",
    }
    for record in datasets.read_source(tmp_path / "mended"):
        assert Image.open(record.image).mode == "RGB"


def test_a_generated_folder_is_repaired_by_generate(widget, tmp_path, run):
    made = tmp_path / "made"
    assert run("generate", "copypaste", "--normal", widget, "-n", 1, "--shots", 1, "--out", made)[0] == 0
    code, _, err = run("check", made, "--fix", tmp_path / "out")
    assert code == 2 and "`generate` command again repairs it" in err and not (tmp_path / "out").exists()


def test_nothing_left_is_an_error(tmp_path, run):
    folder = fakes.mvtec_tree(tmp_path / "data", good=1, test_good=0, defects={"hole": 1})
    fakes.write(folder / "train/good/000.png", b"")
    fakes.write(folder / "ground_truth/hole/000_mask.png", b"")
    code, _, err = run("check", folder, "--fix", tmp_path / "out")
    assert code == 2 and "no image is left" in err and not (tmp_path / "out").exists()


def test_annotated_sets_keep_labels_and_division(tmp_path, run):
    truth = painted.coco_tree(tmp_path / "set")
    path = tmp_path / "set/annotations.json"
    content = json.loads(path.read_text())
    thin = {**content["annotations"][0], "id": 9, "segmentation": [[30, 30, 30.2, 30, 30.2, 30.2]]}
    content["annotations"].append(thin)
    path.write_text(json.dumps(content))
    assert run("check", tmp_path / "set", "--fix", tmp_path / "out")[0] == 0
    assert repairs(tmp_path / "out") == {"annotations.json, annotations[3]": "left out: it marks no pixel"}
    for record in datasets.read("coco", tmp_path / "out"):
        labels, mask = truth[origins_of(tmp_path / "out", record)]
        assert set(record.labels) == labels and np.array_equal(record.load().mask, mask)
    assert not [one for one in check(tmp_path / "out").findings if one.severity != "note"]


def origins_of(out, record):
    with open(out / "origin.csv", encoding="utf-8") as file:
        rows = {row["file"]: row["origin_file"] for row in csv.DictReader(file)}
    return rows[record.name].rpartition("/")[2]


def exposed(tmp_path, told: bool):
    """Four spots on rough ground, each under three lights; one group for each where `told`."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "rough"
    rows = ["file,group"]
    for number in range(3):
        fakes.save(folder / f"train/good/{number:03d}.png", rng.integers(60, 190, (96, 96, 3)).astype(np.uint8))
    for spot in range(4):
        ground = cv2.resize(rng.normal(0, 40, (24, 24)).astype(np.float32), (96, 96), interpolation=cv2.INTER_CUBIC)
        mask = np.zeros((96, 96), dtype=np.uint8)
        cv2.circle(mask, (30 + 20 * (spot // 2), 40), 9, 1, -1)  # two and two at one place
        for light in range(3):
            shade = np.linspace(-70, 70, 96)[:, None] * (light - 1)
            grey = 120 + (0.5 + 0.4 * light) * (ground - 12 * mask) + shade + rng.normal(0, 3, (96, 96))
            name = f"{3 * spot + light:03d}"
            fakes.save(folder / f"test/spot/{name}.png", np.clip(grey, 0, 255).astype(np.uint8)[..., None].repeat(3, 2))
            fakes.save(folder / f"ground_truth/spot/{name}_mask.png", mask > 0)
            rows.append(f"test/spot/{name}.png,spot {spot}")
    if told:
        fakes.write(folder / "origin.csv", "\n".join(rows) + "\n")
    return folder


def test_one_defect_under_several_exposures_gets_one_group(tmp_path, run):
    folder = exposed(tmp_path, told=False)
    report = check(folder)
    found = [one for one in report.findings if one.kind == "exposures"]
    assert [one.file for one in found] == [f"test/spot/{3 * spot:03d}.png" for spot in range(4)]
    assert run("check", folder, "--groups", tmp_path / "groups.csv", "--fix", tmp_path / "out")[0] == 0
    with open(tmp_path / "groups.csv") as file:
        rows = list(csv.DictReader(file))
    groups = {row["file"]: row["group"] for row in rows}
    assert [groups[f"test/spot/{n:03d}.png"] for n in range(12)] == [
        f"test/spot/{n // 3 * 3:03d}.png" for n in range(12)
    ]
    assert {row["file"] for row in rows if row["suggested"]} == {f"test/spot/{n:03d}.png" for n in range(12)}
    assert len({record.group for record in datasets.read_source(tmp_path / "out") if not record.is_good}) == 4
    shutil.copy(tmp_path / "groups.csv", folder / "origin.csv")
    assert "exposures" not in {one.kind for one in check(folder).findings}
    code, _, err = run("check", folder, "--groups", tmp_path / "groups.csv")
    assert code == 2 and "is there already" in err


def test_told_groups_are_believed(tmp_path):
    assert "exposures" not in {one.kind for one in check(exposed(tmp_path, told=True)).findings}


def test_groups_of_overlapping_clusters_become_one(tmp_path):
    records = datasets.read_source(exposed(tmp_path, told=False))[3:9]
    a, b, c, d, e, _ = records
    named = exposures.suggest([[a, b], [c, d], [b, d]])
    assert {named.get((r.category, r.group), r.group) for r in (a, b, c, d)} == {a.group}
    assert (e.category, e.group) not in named
    assert exposures.suggest([]) == {} and leaks.same_parts([]) == []


def test_findings_of_whole_sets(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"crack": 20, "hole": 2}, size=(48, 64))
    for number in range(4):
        fakes.write(folder / f"prompt/crack/{number:03d}.txt", "The same words.")
    fakes.write(folder / "prompt/hole/000.txt", "The same words.")
    (folder / "prompt/hole/001.txt").unlink()
    dot = np.zeros((48, 64), dtype=bool)
    dot[20, 30:32] = True
    fakes.save(folder / "ground_truth/crack/005_mask.png", dot)
    fakes.write(folder / "LICENSE.txt", "free")
    fakes.write(tmp_path / "COPYING", "free")
    report = check(folder)
    kinds = {one.kind: one for one in report.findings}
    assert kinds["imbalance"].file == "widget, hole" and "20" in kinds["imbalance"].reason
    assert kinds["tiny"].file == "test/crack/005.png" and "2.0 pixels" in kinds["tiny"].reason
    assert kinds["caption-missing"].file == "test/hole/001.png" and "1 of 22" in kinds["caption-missing"].reason
    assert kinds["caption-copied"].severity == "warning" and "5 images of 2 types" in kinds["caption-copied"].reason
    assert report.licences == ["LICENSE.txt", "COPYING"] == report.as_dict()["licences"]
    shrunk = {one.kind: one for one in check(folder, window=32).findings}
    assert "0.5 pixels" in shrunk["tiny"].reason


def test_masks_on_the_background_are_told_where_images_show_an_object(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"hole": 6}, size=(120, 160))
    clean = check(folder)
    assert "mask-background" not in {one.kind for one in clean.findings}
    assert sum(fact.beside is False for _, fact in clean.pairs) >= 5  # the painted disc is seen as an object
    off = np.zeros((120, 160), dtype=bool)
    off[2:9, 2:9] = True
    fakes.save(folder / "ground_truth/hole/003_mask.png", off)
    found = [one for one in check(folder).findings if one.kind == "mask-background"]
    assert [(one.file, one.severity) for one in found] == [("test/hole/003.png", "warning")]
    none = [(record, fact) for record, fact in clean.pairs if fact.beside is None]
    assert list(check_sets.background(none)) == []


def test_a_mask_that_marks_the_rim_is_probably_inverted(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"hole": 4})
    mask = np.ones((48, 64), dtype=bool)
    mask[8:40, 10:50] = False  # 58 % are marked, and all of the rim
    fakes.save(folder / "ground_truth/hole/000_mask.png", mask)
    mask[:, 0] = mask[:, -1] = mask[0] = False
    fakes.save(folder / "ground_truth/hole/001_mask.png", mask)
    found = [one.file for one in check(folder).findings if one.kind == "mask-full"]
    assert found == ["test/hole/000.png"]
