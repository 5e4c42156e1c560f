"""The division for one-class detectors: no defect trains, nothing leaks, and nobody is left without being told."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

import fakes
import fakes_annotated as painted
from flawsmith.datasets.exports import one_class, sources
from flawsmith.errors import FlawsmithError

GROUPS = {f"train/good/{n:03d}.png": f"part {n // 2}" for n in range(12)} | {
    f"test/crack/{n:03d}.png": f"flaw {n // 2}" for n in range(6)
}


@pytest.fixture
def widget(tmp_path: Path) -> Path:
    """Twelve good images of six parts; six cracks of three parts, two of which a generator learns from."""
    return fakes.mvtec_tree(tmp_path / "data", good=12, defects={"crack": 6}, groups=GROUPS, test_good=3)


def paint(run: Callable, widget: Path, out: Path, number: int) -> Path:
    code, _, err = run(
        "generate", "copypaste", "--normal", widget, "-n", number, "--shots", 2, "--gate", "off", "--out", out
    )
    assert code == 0, err
    return out


@pytest.mark.parametrize("seed", range(4))
def test_no_defect_trains_and_nothing_leaks(widget: Path, tmp_path: Path, run: Callable, seed: int) -> None:
    made = paint(run, widget, tmp_path / "made", 12)
    found = sources.read([str(widget), str(made)], None, "group")
    chosen = one_class.divide(found, 0.34, 0.2, seed)
    sides = {side: [r for r in found.records if chosen.get(r.image) == side] for side in ("train", "val", "test")}
    generated = [record for record in sides["val"] if record.image in found.lines]
    assert {record.defect_type for record in sides["train"]} == {"good"} and len(sides["train"]) == 8
    assert sum(record.is_good for record in sides["val"]) == 4
    assert not any(record.image in found.lines for side in ("train", "test") for record in sides[side])
    # What validates was painted on what validates, and everything that was painted there does.
    held = {record.image for record in sides["val"]}
    for record in found.records:
        if record.image in found.lines:
            assert (record.image in held) == (found.normals[record.image].image in held)
    assert 0 < len(generated) < 12 and f"{len(generated)} of 12 generated images validate" in found.notes[0]
    # The test holds real images alone, none of a part that a generator has learned from.
    assert not any(sources.is_seen(record, found) for record in sides["test"])
    seen = {record.group for record in found.records if sources.is_seen(record, found)}
    assert seen.isdisjoint(record.group for record in sides["test"])
    assert [record.defect_type for record in sides["test"]].count("crack") in (2, 4)
    parts = {side: {record.group for record in records if record.group} for side, records in sides.items()}
    assert parts["train"].isdisjoint(parts["val"]) and parts["train"].isdisjoint(parts["test"])


def test_images_that_were_painted_on_are_held_out_first(widget: Path, tmp_path: Path, run: Callable) -> None:
    made = paint(run, widget, tmp_path / "made", 1)
    for seed in range(8):
        found = sources.read([str(widget), str(made)], None, "group")
        chosen = one_class.divide(found, 0.2, 0.2, seed)
        assert [chosen[image] for image in found.lines] == ["val"]


def test_a_set_without_a_division_is_divided_by_part(tmp_path: Path) -> None:
    painted.coco_tree(tmp_path / "set")
    table = tmp_path / "set/annotations.json"
    content = json.loads(table.read_text())
    for number in range(8):
        fakes.save(tmp_path / f"set/images/more {number}.png", fakes.photo(50 + number))
        content["images"].append({"id": 100 + number, "file_name": f"more {number}.png", "width": 64, "height": 48})
    fakes.write(table, json.dumps(content))
    found = sources.read([f"coco:{tmp_path / 'set'}"], None, "group")
    chosen = one_class.divide(found, 0.25, 0.3, 0)
    kinds: dict[str | None, list[str]] = {"train": [], "val": [], "test": [], None: []}
    for record in found.records:
        kinds[chosen.get(record.image)].append(record.defect_type)
    assert set(kinds["train"]) == {"good"} and kinds["val"] == ["good", "good"]
    assert "good" in kinds["test"] and kinds[None] and "good" not in kinds[None]  # defects that would train


def test_what_leaves_nothing_is_refused(widget: Path, tmp_path: Path, run: Callable) -> None:
    made = paint(run, widget, tmp_path / "made", 4)
    found = sources.read([str(widget), str(made)], None, "group")
    with pytest.raises(FlawsmithError, match=r"None of the 4 generated images .* raise val, or generate more"):
        one_class.divide(found, 0.01, 0.2, 0)
    found.records = [record for record in found.records if not record.is_good or record.split != "train"]
    with pytest.raises(FlawsmithError, match=r"No good image .* learns good images only"):
        one_class.divide(found, 0.3, 0.2, 0)


def test_without_anomalib_the_remedy_is_told() -> None:
    if find_spec("anomalib") is not None:
        pytest.skip("anomalib is installed")
    with pytest.raises(FlawsmithError, match=r"pip install 'flawsmith\[anomalib\]'"):
        import flawsmith.anomalib  # noqa: F401
