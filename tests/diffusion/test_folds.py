"""Fits judge themselves rightly: what is held out teaches nothing, shows no target to itself, and parts add up."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

import small  # noqa: E402
import thin  # noqa: E402

import fakes  # noqa: E402
from flawsmith import datasets, images  # noqa: E402
from flawsmith.datasets.splits import hold_out  # noqa: E402
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.batch import Batch  # noqa: E402
from flawsmith.methods.anomalycontrol.synthesizer import AnomalyControl  # noqa: E402
from flawsmith.methods.anomalyxfusion.synthesizer import AnomalyXFusion  # noqa: E402
from flawsmith.records import Sample  # noqa: E402
from flawsmith.training import run as training  # noqa: E402
from flawsmith.training.fitting import Material, TypeWindows  # noqa: E402
from flawsmith.training.settings import FitConfig  # noqa: E402
from flawsmith.training.steps import Steps  # noqa: E402


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAWSMITH_CACHE", str(tmp_path / "cache"))


def repainted(data: Path, where: Path, judge: bool) -> Path:
    """A copy of the data in which one support image of each type is another one: those that judge, or ones that do
    not.
    """
    shutil.copytree(data, where)
    records = datasets.read("mvtec_ad", where)
    support: dict[str, list[Any]] = {}
    for record in records:
        if not record.is_good and int(record.image.stem) < 3:  # the first three are the shots of `settings`
            support.setdefault(f"{record.category}/{record.defect_type}", []).append(record)
    held = hold_out(support, 0)
    for name, found in support.items():
        changed = next(record for record in found if (record in held[name]) is judge)
        fakes.save(changed.image, 255 - images.read_image(changed.image))
    return where


def weights(run: Path) -> dict[str, dict[str, bytes]]:
    from safetensors.torch import load_file

    files = [path for path in sorted(run.rglob("*.safetensors")) if path.relative_to(run).parts[0] != "train"]
    return {file.name: {key: v.numpy().tobytes() for key, v in load_file(file).items()} for file in files}


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("inpaint", {"rank": 2}),
        ("anomalyxfusion", {"lora_rank": 2, "mask_steps": 0}),
        ("anomalycontrol", {"learning_rate": 0.01}),
    ],
)
def test_what_is_held_out_teaches_nothing(folder: Path, tmp_path: Path, method: str, own: dict[str, Any]) -> None:
    """Another image in the held-out one's place changes the verdict and no trained byte; in a teacher's, the bytes.

    One verdict, after the last step, so that it chooses nothing.
    """
    data = tmp_path / "data"
    fakes.mvtec_tree(data, "widget", good=2, defects={"crack": 4, "hole": 4}, size=(40, 50))
    settings = partial(small.settings, method, own, folder, options={"evaluate_every": 3}, steps=3, shots=3)
    plain, judged, taught = (
        training.train(settings(root, tmp_path / f"{root.name}-run"))
        for root in (
            data,
            repainted(data, tmp_path / "judged", judge=True),
            repainted(data, tmp_path / "taught", judge=False),
        )
    )
    runs = [weights(tmp_path / f"{name}-run") for name in ("data", "judged", "taught")]
    assert runs[0] and runs[0] == runs[1]
    assert all(runs[0][name] != runs[2][name] for name in runs[0])
    for name, entry in plain["learned"].items():
        assert np.isfinite(entry["held_out"]) and entry["held_out"] != judged["learned"][name]["held_out"]
        assert len(entry["support"]) == 3 and entry["support"] != taught["learned"][name]["support"]


@pytest.mark.parametrize(("shots", "patience"), [(1, 4), (3, 0)])
def test_without_a_judge_all_steps_are_done_and_no_loss_is_claimed(
    folder: Path, tmp_path: Path, shots: int, patience: int, run: small.Run
) -> None:
    data = tmp_path / "data"
    fakes.mvtec_tree(data, "widget", good=2, defects={"hole": 4}, size=(40, 50))
    common = ("--data", data, "--backbone", folder, "--steps", 3, "--shots", shots, "--out", tmp_path / "run")
    fit = {"rank": 2, "batch_size": 2, "evaluate_every": 1, "patience": patience}
    given = [word for key, value in fit.items() for word in ("--set", f"{key}={value}")]
    code, out, _ = run("train", "inpaint", *common, *given)
    assert code == 0 and "3 steps, nothing held out" in out and "all steps done" in out
    entry = json.loads((tmp_path / "run/card.json").read_text())["learned"]["widget/hole"]
    assert entry["held_out"] is None and len(entry["support"]) == shots
    lines = [json.loads(x) for x in (tmp_path / "run/train/widget-hole/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and not any("held_out" in line for line in lines)
    code, out, _ = run("show", tmp_path / "run")
    assert code == 0 and "held-out loss" in out
    card = json.loads((tmp_path / "run/card.json").read_text())
    card["learned"]["widget/hole"] |= {"held_out": {}, "stopped": None}
    del card["learned"]["widget/hole"]["steps"]  # a stranger's card may say anything
    (tmp_path / "run/card.json").write_text(json.dumps(card))
    assert run("show", tmp_path / "run")[0] == 0
    code, out, err = run("train", "inpaint", *common, *given)
    assert code == 0 and "widget/hole" in out, err


def test_a_type_with_only_empty_masks_is_refused_by_name(folder: Path, tmp_path: Path, run: small.Run) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", "widget", good=1, defects={"hole": 2}, size=(40, 50))
    for file in (data / "ground_truth" / "hole").iterdir():
        fakes.save(file, np.zeros((40, 50), bool))
    for method in ("inpaint", "anomalyxfusion"):
        code, _, said = run(
            "train", method, "--data", data, "--backbone", folder, "--shots", 2, "--out", tmp_path / "o"
        )
        assert code == 2 and "widget/hole has only empty masks" in said and "_mask.png" in said


def flat(value: int) -> Sample:
    mask = np.zeros((60, 90), bool)
    mask[20:40, 30:60] = True
    return Sample(np.full((60, 90, 3), value, np.uint8), mask, "w", "hole", "a hole")


@pytest.mark.parametrize("self_reference", [0.5, 1.0])
def test_references_of_the_held_out_loss_are_never_the_target(self_reference: float) -> None:
    """Brightness tells whose a reference is: the judge's images are bright, the teachers' dark."""
    config = FitConfig(reference=1.0, self_reference=self_reference)
    material = {
        "w/hole": Material([flat(40), flat(60)], held_out=[flat(210), flat(230)]),
        "w/dent": Material([flat(9)]),
    }
    judge = TypeWindows.judging(material, 32, config)
    assert judge is not None
    batch = judge.batch(0, 64, real_only=True)
    assert set(batch.names) == {"w/hole"} and (batch.image.mean((1, 2, 3)) > 125).all()
    shown = [pair[0].mean() for pair in batch.references if pair is not None]
    assert len(shown) == 64 and max(shown) < 125
    assert TypeWindows.judging({"w/dent": material["w/dent"]}, 32, config) is None


# -- parts of a batch --------------------------------------------------------------------------------------------------


def windows(size: int, **changes: Any) -> Batch:
    material = {f"widget/{kind}": Material(small.samples(kind, 3)) for kind in ("crack", "hole")}
    config = FitConfig(reference=1.0, self_reference=0.5, drop_tokens=0.2, **changes)
    batch = TypeWindows(material, size, config).batch(0, 12)
    batch.captions = [
        f"a {word} spot" if given else "" for given, word in zip(batch.captions, ["red", "blue"] * 6, strict=True)
    ]
    batch.words = [f"a {word} spot" for word in ["red", "blue"] * 6]
    return batch


def losses(backbone: Backbone, batch: Batch, condition: Any, rows: int) -> list[float]:
    """A training step's loss and the held-out loss, computed `rows` windows at a time."""
    config = FitConfig(batch_size=len(batch.captions), bf16=False)
    steps = Steps(backbone, lambda _: batch, batch, config, condition)
    steps.rows = rows
    with torch.no_grad():
        return [sum(float(part()) for part in steps(3)), steps.held_out()]


@pytest.mark.parametrize("kind", ["inpaint", "caption", "template", "before_encoder", "anomalycontrol", "blip"])
def test_a_loss_does_not_depend_on_how_the_batch_is_divided(kind: str, folder: Path, clip: Path, blip: Path) -> None:
    backbone = thin.backbone("ldm") if kind == "before_encoder" else Backbone.from_pretrained(folder).freeze()
    condition = None
    if kind in ("caption", "template", "before_encoder"):
        config = {"clip": str(clip)} if kind == "before_encoder" else {"prompt": kind}
        made: Any = AnomalyXFusion(backbone, config)
        made.extend({f"widget/{name}": small.samples(name, 2) for name in ("crack", "hole")})
    elif kind != "inpaint":
        made = AnomalyControl(backbone, {"reader": str(blip)} if kind == "blip" else {})
    if kind != "inpaint":
        condition = made.training_condition
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():  # layers that start at zero must have something to say
            for parameter in made.parameters().values():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    batch = windows(backbone.size)
    whole = losses(backbone, batch, condition, 12)
    for rows in (1, 2, 5):
        assert losses(backbone, batch, condition, rows) == pytest.approx(whole, rel=1e-6, abs=1e-6)


# -- one precision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["compact", "blip"])
def test_a_frozen_reader_reads_in_float32_under_any_autocast(reader: str, folder: Path, blip: Path) -> None:
    """As a fit calls it, inside bfloat16, and as painting does: the same bits."""
    made = AnomalyControl(str(folder), {} if reader == "compact" else {"reader": str(blip)})
    image, mask = (part[None] for part in made.reference_window(small.reference(0)))
    found = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            (reading,) = made.features.read(image, mask, ["a red spot"], made._asea(made.options))
            found.append((reading.states, made.backbone.context(["red spot"], [(image[0], mask[0])])))
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_a_reader_that_is_trained_follows_the_callers_precision(text: Path, recipe: Any) -> None:
    backbone = Backbone.compact(recipe, seed=1, text=text)
    with torch.autocast("cpu", torch.bfloat16):
        half = backbone.context(["red"])
    assert not torch.equal(half.float(), backbone.context(["red"]))
