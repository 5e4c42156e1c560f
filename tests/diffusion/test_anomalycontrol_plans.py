"""AnomalyControl's plans: supports by normals by masks, references of another product, refusals before painting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("cache")


import fakes  # noqa: E402
from flawsmith.config import GenerateConfig  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.generation import run as generation  # noqa: E402
from flawsmith.generation.run import prepare  # noqa: E402
from flawsmith.methods.anomalycontrol.synthesizer import reference_text  # noqa: E402


def config(folder: Path, data: Path, out: Path, **more: Any) -> GenerateConfig:
    given = {"method": "anomalycontrol", "normal": f"mvtec_ad:{data}", "backbone": str(folder), "options": {"steps": 2}}
    return GenerateConfig(out=out, **{**given, **more})


def test_the_bulk_plan_is_support_x_normals_x_masks(folder: Path, data: Path, tmp_path: Path) -> None:
    made, _, _ = prepare(config(folder, data, tmp_path / "o", n=40, per_defect=True, shots=2, references=2))
    assert len(made.jobs) == 80
    for defect in ("crack", "hole"):
        jobs = [job for job in made.jobs if job.defect_type == defect]
        names = {job.reference.name for job in jobs}
        assert len(names) == 2 and all("test/" + defect in name for name in names)
        assert {job.normal.name for job in jobs} == {f"widget/train/good/{i:03d}.png" for i in range(3)}
        pairs = {(job.reference.name, job.normal.name) for job in jobs}
        assert len(pairs) == 6  # every reference meets every normal
        assert all(len(job.others) <= 1 and job.reference not in job.others for job in jobs)
        assert any(job.others for job in jobs)
    assert len({job.seed for job in made.jobs}) == 80


def test_references_of_another_product(folder: Path, data: Path, tmp_path: Path) -> None:
    tile = tmp_path / "tile"
    fakes.mvtec_tree(tile, "tile", good=1, defects={"blowhole": 4}, size=(50, 50), seed=40)
    (tile / "LICENSE.txt").write_text("own")
    asked = config(folder, data, tmp_path / "o", n=4, shots=2, references_from=f"mvtec_ad:{tile}")
    made, _, loader = prepare(asked)
    assert {(j.normal.category, j.reference.category, j.defect_type) for j in made.jobs} == {
        ("widget", "tile", "blowhole")
    }
    first = loader.request(made.jobs[0])
    assert reference_text(first.reference, first.normal.category) == "This is an image with a blowhole."
    assert "LICENSE.txt" in made.description["licences"] and not made.notes
    summary = generation.run(asked)
    assert summary.kept + summary.rejected == 4
    for other, reason in (("procedural", "reads no references"), ("copypaste", "one reference per image")):
        plain = {"method": other, "backbone": None, "options": {}, "references": 2 if other == "copypaste" else 1}
        with pytest.raises(FlawsmithError, match=reason):
            prepare(asked.model_copy(update=plain))
    with pytest.raises(FlawsmithError, match="both given"):
        prepare(asked.model_copy(update={"reference": tile, "reference_mask": tile}))


def test_a_reference_that_cannot_be_seen_stops_before_the_first_image(folder: Path, data: Path, tmp_path: Path) -> None:
    image = fakes.save(tmp_path / "r.png", fakes.photo(3))
    mask = np.zeros((48, 64), bool)
    mask[5, 5] = True
    path = fakes.save(tmp_path / "m.png", mask)
    with pytest.raises(FlawsmithError, match=r"r\.png cannot be used: its defect covers"):
        prepare(config(folder, data, tmp_path / "o", reference=image, reference_mask=path))
    assert not (tmp_path / "o").exists()
