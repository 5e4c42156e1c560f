"""Captions out of the public scripts: parsed, never run."""

from __future__ import annotations

import pytest

import fakes
from flawsmith import datasets
from flawsmith.datasets.mvtec_caption import build_prompts, parse
from flawsmith.errors import FlawsmithError

SCRIPT = """
import os
root = "/somewhere"
raise SystemExit("this must never run")
widget = {
    "crack": ["a crack, long and thin", "a crack", "a crack"],
    "hole": ["one hole"] * 0 + [] if False else ["one hole", "two holes"],
}
gear = {"chip": ["a chipped tooth", "two chipped teeth",]}
numbers = {"a": [1, 2]}
categories = {"widget": widget, "gear": gear}
for name in categories:
    os.remove(name)
"""
PLAIN = SCRIPT.replace('["one hole"] * 0 + [] if False else ', "")


def test_parse_takes_literals_only(tmp_path):
    found = parse(fakes.write(tmp_path / "script.py", PLAIN))
    assert sorted(found) == ["gear", "widget"]
    assert found["widget"]["crack"][0] == "a crack, long and thin"
    assert sorted(parse(fakes.write(tmp_path / "computed.py", SCRIPT))) == ["gear"]


def test_prompts_are_written_and_read_back(tmp_path):
    script = fakes.write(tmp_path / "script.py", PLAIN)
    root = tmp_path / "data"
    fakes.mvtec_tree(root, defects={"crack": 3, "hole": 2}, captions=False)
    rows = build_prompts(script, root)
    assert rows == [
        {"category": "widget", "type": "crack", "captions": 3, "different": 2},
        {"category": "widget", "type": "hole", "captions": 2, "different": 2},
    ]
    records = datasets.read("mvtec_ad", root)
    captions = {record.name: record.caption for record in records if not record.is_good}
    assert captions["widget/test/crack/000.png"] == "a crack, long and thin"
    assert captions["widget/test/hole/001.png"] == "two holes"


def test_loco_folders_count_as_one_image(tmp_path):
    script = fakes.write(tmp_path / "script.py", PLAIN)
    folder = fakes.mvtec_tree(tmp_path / "data", "gear", defects={"chip": 2}, mask_name="{stem}/0.png", captions=False)
    fakes.save(folder / "ground_truth/chip/000/1.png", fakes.defect_mask("chip", 5))
    assert build_prompts(script, tmp_path / "data")[0]["captions"] == 2


def test_other_counts_write_nothing_and_name_both(tmp_path):
    script = fakes.write(tmp_path / "script.py", PLAIN)
    folder = fakes.mvtec_tree(tmp_path / "data", defects={"crack": 3, "hole": 5}, captions=False)
    with pytest.raises(FlawsmithError, match=r"widget/hole: 2 captions, 5 in ground_truth/hole"):
        build_prompts(script, tmp_path / "data")
    assert not (folder / "prompt").exists()


def test_refusals(tmp_path):
    fakes.mvtec_tree(tmp_path / "data", "bottle")
    for name, text, message in (
        ("a.py", "x = (", "not a Python file"),
        ("b.py", "x = 1", "holds no captions"),
        ("c.py", PLAIN, r"none of the categories.*widget, gear"),
    ):
        with pytest.raises(FlawsmithError, match=message):
            build_prompts(fakes.write(tmp_path / name, text), tmp_path / "data")
    with pytest.raises(FlawsmithError, match="cannot be read"):
        build_prompts(tmp_path / "absent.py", tmp_path / "data")
