"""A manifest's line is used whole or not at all, whoever wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fakes
from flawsmith.datasets import lines
from flawsmith.datasets.writer import read_manifest
from flawsmith.errors import FlawsmithError

KEPT: dict[str, Any] = {
    "index": 0, "status": "kept", "category": "widget", "defect_type": "dent", "caption": "a dent", "redraws": 1,
    "normal": {"file": "train/good/0.png", "sha": "00"}, "reference": None, "scores": {"area": 3.0, "more": None},
    "image": "test/dent/000.png", "mask": "ground_truth/dent/000_mask.png", "prompt": "prompt/dent/000.txt",
    "refused": [{"check": "faint", "reason": "too faint", "thumbnail": "refused/0.png"}], "somebody's": [1],
}  # fmt: skip
ODD: list[dict[str, Any]] = [
    {"index": "0"}, {"index": 1.5}, {"index": None}, {"status": "done"}, {"category": 3}, {"caption": None},
    {"normal": {}}, {"normal": {"file": "x", "sha": 5}}, {"reference": {"file": "x"}}, {"reference": []},
    {"scores": [1]}, {"redraws": "1"}, {"image": None}, {"mask": 3}, {"prompt": ["x"]}, {"status": "rejected"},
    {"refused": [{}]}, {"refused": {}}, {"instances": {}}, {"instances": {"file": 1}}, {"changed": "seed"},
    {"checks": 3}, {"info": []}, {"severity": float("nan")}, {"method": 1},
]  # fmt: skip


def test_a_sound_line_is_taken_as_it_is() -> None:
    for changes in ({}, {"status": "rejected", "reason": "faint"}, {"status": "dropped", "reason": "a person's word"}):
        line = {**KEPT, **changes}
        assert lines.parse(json.dumps(line).encode()) == line


@pytest.mark.parametrize("changes", ODD, ids=json.dumps)
def test_a_line_with_values_of_another_kind_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    rows = [json.dumps(one) for one in (KEPT, {**KEPT, **changes}, KEPT)]
    fakes.write(tmp_path / "manifest.jsonl", "\n".join(rows) + "\n")
    with pytest.raises(FlawsmithError, match=r"manifest\.jsonl, line 2, is damaged \(.+\): run `generate` again"):
        read_manifest(tmp_path)
