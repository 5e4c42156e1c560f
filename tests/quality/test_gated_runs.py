"""Runs behind a gate: what is written of refusals, resume, and that neither batches nor order change a byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fakes
from flawsmith import images
from flawsmith.config import GenerateConfig
from flawsmith.datasets.writer import read_manifest
from flawsmith.generation import run as generation
from flawsmith.quality import CHECKS
from written import tree

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """Good plates with grain: large enough for a scratch to be seen."""
    for number in range(4):
        rng = np.random.default_rng(number)
        grey = np.clip(140 + rng.normal(0, 4, (160, 200, 1)), 0, 255).astype(np.uint8)
        images.write_image(tmp_path / "plates" / f"{number}.png", np.repeat(grey, 3, axis=2))
    return tmp_path / "plates"


def gated(source: Path, out: Path, **more: object) -> GenerateConfig:
    given = {"method": "procedural", "normal": f"folder:{source}", "out": out, "n": 8, "gate": "strict"}
    return GenerateConfig(**{**given, **more})


def test_every_refusal_keeps_its_reason_score_and_thumbnail(plates: Path, tmp_path: Path) -> None:
    summary = generation.run(gated(plates, tmp_path / "out", n=12))
    lines = read_manifest(tmp_path / "out")
    refused = [entry for line in lines for entry in line["refused"]]
    assert refused and sum(summary.refused.values()) == len(refused)
    for line in lines:
        assert line["gate"] == "strict" and len(line["refused"]) == line["redraws"] + (line["status"] != "kept")
        for entry in line["refused"]:
            assert entry["check"] in CHECKS and entry["reason"]
            if "thumbnail" in entry:
                assert images.read_image(tmp_path / "out" / entry["thumbnail"]).shape == (128, 260, 3)
        if line["status"] == "kept":
            assert not any(CHECKS[name].refuses(score, "strict") for name, score in line["checks"].items())
    named = {entry["thumbnail"] for entry in refused if "thumbnail" in entry}
    assert {f"refused/{path.name}" for path in (tmp_path / "out" / "refused").iterdir()} == named


def test_a_gated_run_resumes_to_the_same_bytes(plates: Path, tmp_path: Path) -> None:
    generation.run(gated(plates, tmp_path / "whole"))
    generation.run(gated(plates, tmp_path / "parts", n=3))
    generation.run(gated(plates, tmp_path / "parts"))
    assert tree(tmp_path / "whole") == tree(tmp_path / "parts")


def test_off_writes_no_word_of_a_gate(plates: Path, tmp_path: Path) -> None:
    generation.run(gated(plates, tmp_path / "out", gate="off", n=3))
    lines = read_manifest(tmp_path / "out")
    assert not any({"gate", "checks", "refused"} & line.keys() for line in lines)
    settings = json.loads((tmp_path / "out" / "generate.json").read_text())
    assert "gate" not in settings and settings["max_redraws"] == 5 and not (tmp_path / "out" / "refused").exists()


def test_what_the_gate_keeps_at_once_is_what_is_made_without_it(plates: Path, tmp_path: Path) -> None:
    generation.run(gated(plates, tmp_path / "off", gate="off", n=12))
    generation.run(gated(plates, tmp_path / "on", gate="normal", n=12))
    pairs = list(zip(read_manifest(tmp_path / "off"), read_manifest(tmp_path / "on"), strict=True))
    same = [one["image_sha"] == two["image_sha"] for one, two in pairs if not two["refused"]]
    other = [one.get("image_sha") == two["image_sha"] for one, two in pairs if two["refused"] and "image_sha" in two]
    assert len(same) >= 4 and all(same) and not any(other)


def test_retries_imitate_another_exemplar(tmp_path: Path) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", good=3, defects={"crack": 9}, size=(72, 96))
    out = tmp_path / "out"
    asked = gated(data, out, method="copypaste", normal=f"mvtec_ad:{data}", n=3, max_redraws=4)
    generation.run(asked.model_copy(update={"options": {"min_visibility": 250}}))  # nothing is good enough
    changed = [line["changed"] for line in read_manifest(out) if line["redraws"] >= 2]
    assert changed and all(one == ["seed", "exemplar"] for one in changed)


def test_exemplars_that_cannot_pass_are_not_imitated_and_that_is_said(tmp_path: Path) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", good=3, defects={"crack": 4}, size=(72, 96))
    for name in ("000", "002"):  # most of the photograph
        mask = np.zeros((72, 96), bool)
        mask[8:64, 8:88] = True
        images.write_image(data / f"ground_truth/crack/{name}_mask.png", mask)
    asked = gated(data, tmp_path / "on", method="copypaste", normal=f"mvtec_ad:{data}", n=6, shots=4, gate="normal")
    summary = generation.run(asked)
    lines = read_manifest(tmp_path / "on")
    assert {line["reference"]["file"] for line in lines} == {"test/crack/001.png", "test/crack/003.png"}
    assert any("exemplar" in line["changed"] for line in lines)
    assert any(note.startswith("2 of 4 real defects of crack are larger") for note in summary.notes)
    off = generation.run(asked.model_copy(update={"gate": "off", "out": tmp_path / "off"}))
    assert len({line["reference"]["file"] for line in read_manifest(tmp_path / "off")}) == 4 and not off.notes


def test_the_same_image_twice_is_made_only_once(plates: Path, tmp_path: Path) -> None:
    """One photograph, one mask, one method without chance: every further image would repeat the first."""
    mask = np.zeros((160, 200), bool)
    mask[60:100, 80:120] = True
    images.write_image(tmp_path / "mask.png", images.mask_image(mask))
    single = tmp_path / "single"
    images.write_image(single / "0.png", images.read_image(plates / "0.png"))
    asked = gated(
        single, tmp_path / "out", method="cutpaste", mask=str(tmp_path / "mask.png"), gate="normal", max_redraws=2, n=3
    )
    generation.run(asked)
    kept = [line for line in read_manifest(tmp_path / "out") if line["status"] == "kept"]
    checks = [entry["check"] for line in read_manifest(tmp_path / "out") for entry in line["refused"]]
    assert len({line["image_sha"] for line in kept}) == len(kept)
    assert checks  # an even plate hides its own patches


def test_the_command_says_what_was_refused_and_gates_by_default(run: Run, plates: Path, tmp_path: Path) -> None:
    command = ("generate", "procedural", "--normal", f"folder:{plates}", "-n", "12", "--out", tmp_path / "out")
    code, said, _ = run(*command, "--gate", "strict")
    assert code == 0 and "The gate refused" in said and "visibility" in said
    assert GenerateConfig(method="nsa", normal="x", out=Path("y")).gated().gate == "normal"
    assert GenerateConfig(method="nsa", normal="x", out=Path("y"), gate="off").gated().gate == "off"
    code, _, error = run(*command, "--gate", "lax")
    assert code == 2 and "strict" in error


def test_arrays_are_gated_where_asked(plates: Path) -> None:
    import flawsmith

    photo = images.read_image(plates / "0.png")
    paint = flawsmith.load("procedural")
    specks = {"size": (1e-4, 3e-4)}
    made = paint(photo, "blob", defect_type="stain", n=6, gate="strict", seed=3, mask_options=specks)
    told = [*made, *made.refused]
    assert all(one.info["gate"] == "strict" for one in told) and any(one.info["refused"] for one in told)
    assert all("gate" not in one.info for one in paint(photo, "scratch", defect_type="scratch", n=2))
