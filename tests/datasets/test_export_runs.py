"""Exports: parts stay on one side, nothing leaks, what would mislead is refused, and a stopped one goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import grouped
import numpy as np
import pytest
from grouped import GROUPS
from hypothesis import given, settings
from hypothesis import strategies as st

import fakes
import fakes_annotated as painted
from flawsmith import datasets, images
from flawsmith.datasets.check import check
from flawsmith.datasets.exports import dividing
from flawsmith.datasets.exports.run import export
from flawsmith.errors import FlawsmithError
from flawsmith.records import Record
from written import origins


@pytest.fixture
def widget(tmp_path: Path) -> Path:
    return grouped.tree(tmp_path / "data")


def test_parts_stay_together_and_every_type_trains(widget, tmp_path):
    records = datasets.read("mvtec_ad", widget)
    for seed in range(5):
        chosen = dividing.by_part(records, 0.2, 0.3, seed)
        sides: dict[str, set[str]] = {}
        for record in records:
            sides.setdefault(record.group, set()).add(chosen[record.image])
        assert all(len(side) == 1 for side in sides.values())
        count = Counter((record.defect_type, chosen[record.image]) for record in records)
        assert all(count[kind, "train"] for kind in ("good", "crack", "hole"))
        assert count["crack", "test"] == 2 and count["hole", "test"] == 1 and count["good", "test"] == 2


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["good", "hole", "crack"])), min_size=1, max_size=20),
    st.floats(0, 0.5),
    st.floats(0, 0.49),
)
@settings(max_examples=100, deadline=None)
def test_any_shares_leave_a_part_of_every_type_to_train(drawn, val, test):
    records = [
        Record(Path(f"/nowhere/{number}.png"), "widget", kind, group=str(group), root=Path("/nowhere"))
        for number, (group, kind) in enumerate(drawn)
    ]
    chosen = dividing.by_part(records, val, test)
    for kind in {record.defect_type for record in records}:
        assert "train" in {chosen[record.image] for record in records if record.defect_type == kind}
    for group in {record.group for record in records}:
        assert len({chosen[record.image] for record in records if record.group == group}) == 1


def test_shares_are_kept_on_many_single_images(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, good=20, test_good=0, defects={"hole": 20}, size=(16, 16))
    chosen = dividing.by_part(datasets.read("mvtec_ad", folder), 0.1, 0.2)
    assert Counter(chosen.values()) == {"train": 28, "val": 4, "test": 8}


def test_own_division_is_kept_where_there_is_one(tmp_path):
    painted.voc_tree(tmp_path / "set")
    fakes.write(tmp_path / "set/ImageSets/Main/train.txt", "good\nhole\n")
    fakes.write(tmp_path / "set/ImageSets/Main/val.txt", "both\n")
    export(tmp_path / "set", tmp_path / "out", ["coco"])
    splits = {row["origin_file"]: row["split"] for row in origins(tmp_path / "out").values()}
    assert splits == {f"JPEGImages/{n}.jpg": s for n, s in (("good", "train"), ("hole", "train"), ("both", "val"))}


@pytest.fixture
def made(widget, tmp_path, run) -> Path:
    code, _, err = run(
        *("generate", "copypaste", "--normal", widget, "-n", 6, "--shots", 1, "--with-normals"),
        *("--out", tmp_path / "made"),
    )
    assert code == 0, err
    return tmp_path / "made"


def test_merged_generated_images_train_and_so_does_what_they_were_made_from(widget, made, tmp_path, run):
    code, _, err = run("export", made, "--merge", widget, "--format", "coco,yolo", "--out", tmp_path / "out")
    assert code == 0 and "they and their parts train" in err
    rows = list(origins(tmp_path / "out/coco").values())
    assert rows == [{**r, "file": r["file"]} for r in origins(tmp_path / "out/yolo").values()]
    generated = [row for row in rows if row["source"] == "generated"]
    assert len(generated) == 6 and {row["split"] for row in generated} == {"train"}
    assert all(row["method"] == "copypaste" and row["caption"] and row["reference"] for row in generated)
    by_file = {row["origin_file"]: row for row in rows if row["source"] == "real"}
    assert {row["category"] for row in rows} == {"widget"}
    assert len(by_file) == 17  # the good ones that were copied beside the generated are there once
    for row in generated:
        assert by_file[row["reference"]]["split"] == "train" == by_file[row["normal"]]["split"]
    parts = {by_file[row["reference"]]["group"] for row in generated}
    assert {row["split"] for row in rows if row["group"] in parts} == {"train"}
    assert {row["split"] for row in rows} == {"train", "val", "test"}


def test_generated_alone_is_divided_by_the_photograph(made, tmp_path):
    export(made, tmp_path / "out", ["coco"])
    sides: dict[str, set[str]] = {}
    for row in origins(tmp_path / "out").values():
        if row["source"] == "generated" and row["method"]:
            sides.setdefault(row["normal"], set()).add(row["split"])
    assert sides and all(len(side) == 1 for side in sides.values())


def test_what_would_leak_or_mislead_is_refused(widget, made, tmp_path):
    with pytest.raises(FlawsmithError, match="trains on good images only"):
        export(made, tmp_path / "out", ["mvtec", "coco"], merge=[widget])
    with pytest.raises(FlawsmithError, match="give --split part"):
        export(made, tmp_path / "out", ["coco"], merge=[widget], split="own")
    (made / "generate.json").write_text("{")
    with pytest.raises(FlawsmithError, match="nobody knows which real defects were seen"):
        export(made, tmp_path / "out", ["coco"], merge=[widget])
    assert not (tmp_path / "out").exists()


def test_a_folder_of_refused_images_is_no_data_set(widget, tmp_path, run):
    """The thumbnails in refused/ are no defects; the same folder goes as soon as one image is kept."""
    made = tmp_path / "made"
    command = ("generate", "copypaste", "--normal", widget, "--shots", 1, "--gate", "strict", "--set", "max_redraws=0")
    run(*command, "-n", 2, "--out", made)
    lines = [json.loads(line) for line in (made / "manifest.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["rejected"] * 2 and (made / "refused").is_dir()
    code, _, err = run("export", made, "--merge", widget, "--format", "coco", "--out", tmp_path / "out")
    assert code == 2 and f"{made} holds no generated image: every one was refused" in err
    assert not (tmp_path / "out").exists()
    for source in (made, f"folder:{made}", f"mvtec_ad:{made}"):
        code, _, err = run("check", source)
        assert code == 2 and f"{made} holds no generated image: every one was refused" in err


def test_a_folder_of_dropped_images_is_no_data_set(widget, tmp_path, run):
    made = tmp_path / "made"
    run("generate", "cutpaste", "--normal", widget, "-n", 2, "--gate", "off", "--out", made)
    run("review", made)
    verdicts = tmp_path / "made-review.csv"
    verdicts.write_text(verdicts.read_text().replace(",keep,", ",drop,"))
    assert run("review", made, "--csv", verdicts)[0] == 0
    for folder in sorted((path for path in made.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()  # as a copy does that knows files only
    assert (made / "dropped/test").is_dir()
    code, _, err = run("check", made)
    assert code == 2 and f"{made} holds no generated image: every one was refused or dropped" in err


@pytest.mark.parametrize("reader", ["mvtec_ad", "folder"])
def test_what_a_run_sets_aside_is_no_part_of_its_images(made, reader):
    before = [record.name for record in datasets.read(reader, made)]
    fakes.save(made / "refused/00000-0.jpg", fakes.photo(70))
    fakes.save(made / "dropped/test/crack/000.png", fakes.photo(71))
    assert [record.name for record in datasets.read(reader, made)] == before
    assert not [one for one in check(f"{reader}:{made}").findings if one.file.startswith(("refused", "dropped"))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": ["cocoo"]}, "Did you mean 'coco'"),
        ({"formats": []}, "name each of"),
        ({"formats": ["coco", "coco"]}, "once at most"),
        ({"val": 0.5, "test": 0.5}, "together less than 1"),
        ({"val": float("nan")}, "together less than 1"),
        ({"split": "random"}, "known: own, part"),
        ({"merge": ["SELF"]}, "named twice"),
        ({"out": "INSIDE"}, "must stay as it is"),
        ({"category": "wodget"}, "wodget"),
    ],
)
def test_refusals_write_nothing(widget, tmp_path, change, message):
    before = sorted(tmp_path.rglob("*"))
    chosen = {"out": tmp_path / "out", "formats": ["coco"], **change}
    if chosen.get("merge"):
        chosen["merge"] = [widget]
    if chosen["out"] == "INSIDE":
        chosen["out"] = widget / "test" / "out"
    with pytest.raises(FlawsmithError, match=message):
        export(widget, **chosen)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_same_call_resumes_and_another_is_refused(widget, tmp_path, run):
    out = tmp_path / "out"
    assert run("export", widget, "--format", "coco,voc", "--out", out)[0] == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "coco/annotations/instances_train.json").unlink()
    lost = next((out / "voc/JPEGImages").iterdir())
    lost.write_bytes(b"half")
    code, shown, _ = run("export", widget, "--format", "coco,voc", "--out", out)
    assert code == 0 and "were already there" in shown
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    code, _, err = run("export", widget, "--format", "coco,voc", "--val", "0.3", "--out", out)
    assert code == 2 and "val was 0.1, now it is 0.3" in err
    code, _, err = run("export", widget, "--format", "coco", "--out", widget.parent)
    assert code == 2
    shutil.copy(widget / "test/good/000.png", widget / "test/good/077.png")
    assert run("export", widget, "--format", "coco,voc", "--out", out)[0] == 2


def test_links_in_the_output_are_not_followed_out_of_it(widget, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    export(widget, out, ["coco"])
    shutil.rmtree(out / "images")
    os.symlink(elsewhere, out / "images")
    with pytest.raises(FlawsmithError, match="would leave"):
        export(widget, out, ["coco"])
    assert not list(elsewhere.iterdir())


def test_damage_is_named_and_nothing_passes_for_good(widget, tmp_path, run):
    (widget / "ground_truth/crack/005_mask.png").unlink()
    code, _, err = run("export", widget, "--format", "yolo,mvtec", "--out", tmp_path / "out")
    assert code == 0 and "1 defect images mark no pixel and are left out" in err
    names = {row["origin_file"] for row in origins(tmp_path / "out/yolo").values()}
    assert "test/crack/005.png" not in names and "test/crack/004.png" in names
    assert "test/crack/005.png" in {row["origin_file"] for row in origins(tmp_path / "out/mvtec").values()}
    image = widget / "test/good/000.png"
    image.write_bytes(image.read_bytes()[:400])
    code, _, err = run("export", widget, "--format", "coco", "--out", tmp_path / "two")
    assert code == 2 and "000.png" in err


def test_equal_part_names_of_two_sets_are_two_parts(widget, tmp_path):
    other = fakes.mvtec_tree(tmp_path / "more", good=5, defects={"crack": 6}, groups=GROUPS, seed=50)
    export(widget, tmp_path / "out", ["coco"], merge=[other])
    groups = {record.group for record in datasets.read("coco", tmp_path / "out") if record.defect_type == "crack"}
    assert sorted(groups) == ["part 0", "part 1", "part 2", *(f"widget 1: part {n}" for n in range(3))]


def test_two_products_keep_apart(tmp_path):
    for name in ("gear", "nut"):
        fakes.mvtec_tree(tmp_path / "data", category=name, good=2, test_good=0, defects={"hole": 2})
    export(f"mvtec_ad:{tmp_path / 'data'}", tmp_path / "out", ["coco", "mvtec"])
    for name, folder in (("coco", "coco"), ("mvtec_ad", "mvtec")):
        assert Counter(r.category for r in datasets.read(name, tmp_path / "out" / folder)) == {"gear": 4, "nut": 4}


def test_nothing_left_is_said(tmp_path):
    folder = fakes.mvtec_tree(tmp_path / "data", good=0, test_good=0, defects={"hole": 2})
    for path in (folder / "ground_truth/hole").iterdir():
        images.write_image(path, np.zeros((48, 64), dtype=bool))
    with pytest.raises(FlawsmithError, match=r"No image of .*widget is left for yolo"):
        export(folder, tmp_path / "out", ["yolo"])


def test_a_killed_export_leaves_whole_files_and_the_same_command_ends_it(widget, tmp_path):
    command = [sys.executable, "-m", "flawsmith", "export", str(widget), "--format", "coco,voc", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    whole = {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").rglob("*") if p.is_file()}
    out = tmp_path / "out"
    process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.rglob("*.png"))) < 6:
        time.sleep(0.002)
    process.kill()
    process.wait()
    for path in out.rglob("*"):
        if path.is_file() and ".partial" not in path.parts:
            assert path.read_bytes() == whole[path.relative_to(out)]
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == whole
