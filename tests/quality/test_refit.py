"""Limits fitted to a person's keep and drop: known limits are recovered, and a run refuses by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flawsmith.config import GenerateConfig
from flawsmith.datasets import review
from flawsmith.datasets.writer import read_manifest
from flawsmith.errors import FlawsmithError
from flawsmith.generation import run as generation
from flawsmith.quality import profile
from flawsmith.quality.gate import CHECKS

Run = Callable[..., tuple[int, str, str]]
NORMAL = {name: check.normal for name, check in CHECKS.items()}


def benign(rng: np.random.Generator, count: int) -> list[dict[str, float]]:
    """Scores that no check refuses at normal, the same whatever a person says."""
    return [
        {
            "visibility": rng.uniform(11, 80),
            "label": rng.uniform(0.8, 1),
            "seam": rng.uniform(0.2, 2),
            "ghost": rng.uniform(-0.1, 0.38),
            "realism": rng.uniform(0.3, 2),
        }
        for _ in range(count)
    ]


def judged(seed: int, verdict: Callable[[dict[str, float]], bool], count: int = 300) -> tuple[list, list]:
    """(kept, dropped) by a rule that a fit does not know."""
    rows = benign(np.random.default_rng(seed), count)
    return [row for row in rows if not verdict(row)], [row for row in rows if verdict(row)]


def test_a_limit_that_was_known_in_advance_is_recovered_and_no_other_moves() -> None:
    for seed in range(5):
        kept, dropped = judged(seed, lambda row: row["seam"] > 1.25)
        found = profile.fit(kept, dropped)
        inside = max(row["seam"] for row in kept), min(row["seam"] for row in dropped)
        assert inside[0] <= found.limits["seam"] <= inside[1]
        assert {name: found.limits[name] for name in CHECKS if name != "seam"} == {
            name: limit for name, limit in NORMAL.items() if name != "seam"
        }
        assert (found.kept, found.dropped) == (0, 1)


def test_two_limits_one_of_them_from_below_are_recovered_together() -> None:
    kept, dropped = judged(1, lambda row: row["visibility"] < 30 or row["ghost"] > 0.2)
    found = profile.fit(kept, dropped)
    assert found.limits["visibility"] == pytest.approx(30, abs=1.5)
    assert found.limits["ghost"] == pytest.approx(0.2, abs=0.02)
    assert found.dropped > 0.97 and found.kept < 0.03


def test_a_limit_is_loosened_where_what_it_refuses_is_kept() -> None:
    rng = np.random.default_rng(3)
    kept = [row | {"extent": rng.uniform(0.1, 0.6)} for row in benign(rng, 80)]
    dropped = [row | {"extent": rng.uniform(0.1, 0.6), "seam": 1.9} for row in benign(rng, 40)]
    found = profile.fit([row | {"seam": 1.0} for row in kept], dropped)
    assert found.limits["extent"] is None or found.limits["extent"] > 0.5
    assert found.kept <= 0.1 and found.dropped == 1


def test_of_noise_little_is_learned() -> None:
    """Verdicts by a coin: at most a tenth of the kept is refused, whatever that is worth."""
    coin = np.random.default_rng(8)
    kept, dropped = judged(2, lambda row: bool(coin.random() < 0.5))
    found = profile.fit(kept, dropped)
    assert found.kept <= 0.1 and found.dropped < 0.3


@pytest.mark.parametrize("counts", [(9, 30), (30, 9), (0, 0)])
def test_too_few_verdicts_are_refused(counts: tuple[int, int]) -> None:
    rows = benign(np.random.default_rng(0), 30)
    with pytest.raises(FlawsmithError, match="need 10 of each"):
        profile.fit(rows[: counts[0]], rows[: counts[1]])


def test_a_review_is_refitted_and_a_run_refuses_by_it(run: Run, widget: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "painted", tmp_path / "own.json"
    wide = tmp_path / "wide.json"  # scores are taken, nothing is refused
    wide.write_text(json.dumps({"limits": dict.fromkeys(CHECKS)}))
    settings = {"method": "procedural", "normal": f"mvtec_ad:{widget}", "n": 40, "gate": str(wide), "defect": ("hole",)}
    generation.run(GenerateConfig(**settings, out=out))
    lines = [line for line in read_manifest(out) if line["status"] == "kept"]
    assert len(lines) >= 30 and not any(line["refused"] for line in lines)
    assert {line["gate"] for line in lines} == {"wide.json"}
    middle = float(np.quantile([line["checks"]["visibility"] for line in lines], 0.6))
    pale = {line["image"]: ("drop", "") for line in lines if line["checks"]["visibility"] < middle}
    review.apply(out, pale)
    code, said, err = run("review", out, "--refit", file)
    assert code == 0 and "visibility" in said and str(file) in said.replace("\n", ""), err
    limit = profile.load(file)["visibility"]
    assert limit == pytest.approx(middle, rel=0.1)
    told = json.loads(file.read_text())
    assert (told["run"], told["kept"], told["dropped"]) == ("painted", len(lines) - len(pale), len(pale))
    again = tmp_path / "again"
    command = ["generate", "procedural", "--normal", widget, "--defect", "hole", "-n", 12, "--out", again]
    code, _, err = run(*command, "--gate", file)
    assert code == 0, err
    seen = [line["checks"]["visibility"] for line in read_manifest(again) if line["status"] == "kept"]
    refused = [r for line in read_manifest(again) for r in line["refused"] if r["check"] == "visibility"]
    assert seen and min(seen) >= limit and all(one["limit"] == limit for one in refused) and refused
    file.write_text(json.dumps({"limits": {"visibility": 3}}))
    code, _, err = run(*command, "--gate", file)
    assert code == 2 and "gate" in err  # other limits are another run


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "no profile"),
        ('{"limits": {}}', "no profile"),
        ("[1", "no profile"),
        ('{"limits": {"beauty": 3}}', "beauty"),
        ('{"limits": {"seam": "high"}}', "give a number"),
        ('{"limits": {"seam": NaN}}', "give a number"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_and_never_overwritten(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "notes.json"
    file.write_text(content)
    with pytest.raises(FlawsmithError, match=said):
        profile.load(file)
    kept, dropped = judged(0, lambda row: row["seam"] > 1.25)
    with pytest.raises(FlawsmithError):
        profile.save(profile.fit(kept, dropped), file, "x", (1, 1))
    assert file.read_text() == content


def test_a_gate_that_is_no_level_and_no_file_is_refused(run: Run, widget: Path, tmp_path: Path) -> None:
    code, _, err = run("generate", "nsa", "--normal", widget, "--out", tmp_path / "o", "--gate", "strickt")
    assert code == 2 and "profile" in " ".join(err.split())
