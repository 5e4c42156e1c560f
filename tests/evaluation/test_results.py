"""Results on disk: every value kept, means that are means, and a ledger that survives a kill."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from flawsmith.errors import FlawsmithError
from flawsmith.evaluation import results
from flawsmith.evaluation.results import Ledger, Value


def test_means_are_over_types_per_key_method_and_seed() -> None:
    values = [
        Value("KID/x/window", 0.2, "crack", seed=0, settings={"subsets": 100, "size": 3}),
        Value("KID/x/window", 0.4, "hole", seed=0, settings={"subsets": 100, "size": 4}),
        Value("KID/x/window", 0.9, "all", seed=0),
        Value("KID/x/window", 0.6, "crack", seed=1),
        Value("KID/x/window", None, "hole", seed=1, reason="too few"),
        Value("seconds/x", 3.0),
    ]
    means = [one for one in results.with_means(values) if one.type == "mean"]
    assert [(one.seed, one.value) for one in means] == [(0, pytest.approx(0.3)), (1, 0.6)]
    assert means[0].settings == {"subsets": 100}  # what the types share
    assert len(results.with_means(results.with_means(values))) == len(values) + 2  # nothing twice


def test_three_files_hold_command_versions_and_reasons(tmp_path: Path) -> None:
    values = [
        Value("KID/dinov2/window", -0.0012, "crack", spread=0.006, n_real=8, n_generated=20, settings={"size": 4}),
        Value("IS/dinov2/window", None, "crack", reason="the extractor is no classifier"),
    ]
    extractor = {"dinov2": {"hash": "abc", "size": 224, "resize": "bicubic-antialias", "smoke": False}}
    results.write(tmp_path, values, {"command": "flawsmith evaluate x", "extractors": extractor})
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["command"] == "flawsmith evaluate x" and content["versions"]["flawsmith"]
    assert content["values"][0]["value"] == -0.0012 and content["values"][0]["settings"] == {"size": 4}
    assert results.as_values(content["values"])[:1] == values[:1]
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert rows[0]["key"] == "KID/dinov2/window" and float(rows[0]["spread"]) == 0.006
    page = (tmp_path / "results.md").read_text()
    assert "| KID/dinov2/window | -0.0012 (± 0.006) |" in page and "hash abc" in page
    assert "IS/dinov2/window: the extractor is no classifier" in page


def test_arms_stand_together_and_seeds_are_averaged(tmp_path: Path) -> None:
    values = [
        Value(key, value, "mean", arm, seed)
        for arm, start in (("real", 0.2), ("ours", 0.4))
        for key in ("pixel_AP/n/s", "accuracy/n/s")
        for seed, value in enumerate((start, start + 0.2))
    ]
    page = results.markdown(values, {}).splitlines()
    lines = [line for line in page[page.index("| key | arm | mean | images |") :] if line.startswith("| ")]
    assert [line.split("|")[2].strip() for line in lines[1:]] == ["---", "real", "ours", "real", "ours"]
    assert "0.3 (seeds 0.1)" in lines[2]


def test_a_value_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        results.write(tmp_path, [Value("x", float("nan"))], {})
    assert not (tmp_path / "results.json").exists()


def test_ledger_resumes_and_cuts_off_what_a_kill_left(tmp_path: Path) -> None:
    ledger, row = Ledger(tmp_path / "new"), asdict(Value("KID/eye/window", 1.5))
    ledger.add("a", {"values": [row]})
    ledger.add("b", {"values": []})
    with ledger.path.open("a") as stream:
        stream.write('{"part": "c", "resu')
    again = Ledger(tmp_path / "new")
    assert "a" in again and again["a"] == {"values": [row]} and "c" not in again
    again.add("c", {"values": [row]})
    assert [json.loads(line)["part"] for line in again.path.read_text().splitlines()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "line",
    [
        '{"part": "b", "result": {"values": [{"key": "KID", "value": [1]}]}}',
        '{"part": "b", "result": {"values": [{"key": "KID", "value": NaN}]}}',
        '{"part": "b", "result": {"values": [{"key": "KID"}]}}',
        '{"part": "b", "result": {"values": [{"key": "KID", "value": 1, "more": 2}]}}',
        '{"part": ["b"], "result": {"values": []}}',
        '{"part": "b", "result": {"values": [], "count": "x"}}',
    ],
)
def test_a_ledger_is_redone_from_the_first_line_that_holds_no_values(tmp_path: Path, line: str) -> None:
    ledger = Ledger(tmp_path)
    ledger.add("a", {"values": []})
    with ledger.path.open("a") as stream:
        stream.write(line + "\n")
    assert list(Ledger(tmp_path).lines) == ["a"]
    assert ledger.path.read_text().count("\n") == 1


def test_ledger_refuses_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FlawsmithError, match="choose another --out"):
        Ledger(tmp_path / "file")


def test_the_summary_puts_an_arms_images_beside_each_of_its_shares() -> None:
    values = [
        Value("pixel_AUPR/net/val-selected", 0.5, "crack", "4 real + ours, share 0.5", 0),
        Value("pixel_AUPR/net/val-selected", 0.7, "crack", "4 real + ours, share 0.5", 1),
        Value("pixel_AUPR/net/val-selected", 0.9, "crack", "4 real + ours, share 0.9", 0),
        Value("pixel_AUPR/net/val-selected", 0.1, "hole", "4 real + ours, share 0.9", 0),
        Value("pixel_AUPR/net/val-selected", 0.3, "crack", "4 real", 0),
        Value("KID/eye/window", 0.25, "all", "4 real + ours", 0),
        Value("KID/eye/whole", 0.75, "all", "4 real + ours", 0),
        Value("KID/eye/window", 0.125, "all", "held-out", 0),
    ]
    table = results.summary(results.with_means(values))
    assert table[1] == "| arm | pixel_AUPR/net/val-selected | KID/eye/window |"
    assert table[3:] == [
        "| 4 real + ours, share 0.5 | 0.6 (seeds 0.1) | 0.25 |",
        "| 4 real + ours, share 0.9 | 0.5 | 0.25 |",
        "| 4 real | 0.3 | - |",
        "| held-out | - | 0.125 |",
    ]
