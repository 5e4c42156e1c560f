"""Presets and switches: the papers' optimiser and steps, and ablations whose rows differ in one thing."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

import small  # noqa: E402

import fakes  # noqa: E402
from flawsmith.methods import METHODS  # noqa: E402
from flawsmith.methods.anomalycontrol.synthesizer import AnomalyControl  # noqa: E402
from flawsmith.methods.anomalyxfusion.synthesizer import AnomalyXFusion  # noqa: E402
from flawsmith.registry import resolve  # noqa: E402
from flawsmith.training import run as training  # noqa: E402
from flawsmith.training import support  # noqa: E402
from flawsmith.training.settings import FitConfig, settings_of  # noqa: E402
from flawsmith.training.tuning import tune  # noqa: E402
from flawsmith.training.windows import FewShotWindows  # noqa: E402


@pytest.mark.parametrize(
    ("kind", "rate", "decay"),
    [("anomalyxfusion", 1e-3, 0.0), ("anomalycontrol", 1e-4, 1e-2)],
    ids=["xfusion", "control"],
)
def test_the_papers_optimiser(kind: str, rate: float, decay: float, folder: Path, tmp_path: Path) -> None:
    """What `preset=paper` makes of a parameter, beside torch's own Adam and AdamW at a constant rate."""
    config = small.settings(kind, {}, folder, tmp_path, tmp_path, options={"preset": "paper"})
    config = config.model_copy(update={"options": {"preset": "paper"}, "steps": None})
    fit = settings_of(config, resolve(kind, METHODS, "Method")).fit
    assert (fit.learning_rate, fit.weight_decay, fit.beta2, fit.ema, fit.patience) == (rate, decay, 0.999, 0.0, 0)
    start = torch.tensor([0.3, -0.2, 0.1])
    expected, made = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimiser: Any = torch.optim.AdamW([expected], lr=rate, betas=(0.9, 0.999), weight_decay=decay)
    if kind == "anomalyxfusion":
        optimiser = torch.optim.Adam([expected], lr=rate, betas=(0.9, 0.999))
    slope = torch.tensor([0.1, 0.2, -0.3])
    for step in range(40):
        optimiser.zero_grad()
        (expected * slope * (step % 3)).square().sum().backward()
        optimiser.step()
    found = tune(
        {"p": made},
        lambda step: [lambda: (made * slope * (step % 3)).square().sum()],
        tmp_path / "fit",
        dataclasses.replace(fit, steps=40, evaluate_every=10),
        held_out=None,
        stop_early=False,
    )
    assert torch.allclose(made, expected, atol=1e-7) and not torch.allclose(made, start, atol=1e-3)
    rates = {json.loads(line)["lr"] for line in (tmp_path / "fit/metrics.jsonl").read_text().splitlines()}
    assert rates == {rate} and found == {"steps": 40, "held_out": None, "stopped": "all steps done"}


@pytest.mark.parametrize("kind", ["anomalyxfusion", "anomalycontrol"])
def test_the_papers_fits_do_all_their_steps(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a rate that spoils everything a fit with patience stops, the papers' do not."""
    monkeypatch.setattr(support, "preview", lambda *_: np.zeros((4, 4, 3), np.uint8))  # of 200 sampling steps each
    data = tmp_path / "data"
    fakes.mvtec_tree(data, "widget", good=1, defects={"hole": 3}, size=(40, 50))
    given = {"preset": "paper", "evaluate_every": 1, "learning_rate": 3.0, "batch_size": 2}
    entries = []
    for name, more in (("paper", {}), ("patient", {"patience": 1})):
        settings = small.settings(kind, {}, folder, data, tmp_path / name, steps=6, options={**given, **more})
        own = {"mask_steps": 0} if kind == "anomalyxfusion" else {}
        options = {**settings.options, **own}
        entries.append(training.train(settings.model_copy(update={"options": options}))["learned"]["widget/hole"])
    assert entries[0]["steps"] == 6 and entries[0]["stopped"] == "all steps done" and entries[0]["held_out"] is None
    assert entries[1]["stopped"] == "no better for 1 evaluations" and entries[1]["steps"] < 6


def test_each_row_of_the_ablation_switches_one_thing() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "ablation.py"
    spec = importlib.util.spec_from_file_location("ablation", path)
    assert spec is not None and spec.loader is not None
    ablation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ablation)
    rows = list(ablation.VARIANTS.values())
    for before, row in itertools.pairwise(rows):
        assert sum(before[key] != row[key] for key in row) == 1 and before.keys() == row.keys()


def test_with_templates_the_text_switch_leaves_the_prompt_alone(folder: Path) -> None:
    """`text` on and off give the frozen text encoder the same words: only the semantic tokens differ."""
    found = []
    for text in (True, False):
        made = AnomalyXFusion(str(folder), {"text": text, "prompt": "template"})
        made.extend({"widget/hole": small.samples("hole", 2)})
        masks = torch.ones(1, 1, 32, 32)
        x = made.fuse(["a red spot"], ["widget/hole"], masks)
        found.append(made.insert(["a red spot"], x, torch.zeros(1, dtype=torch.bool)))
    assert torch.equal(found[0].text, found[1].text) and found[0].x.shape[1] == found[1].x.shape[1] + 4


def test_a_run_made_without_asea_reads_without_it(folder: Path) -> None:
    config = FitConfig(normal=0, drawn=0, reference=1.0)
    batch = FewShotWindows(small.samples("hole", 2), (), (), 32, config).batch(0, 3)
    t, states = torch.arange(3), {}
    for asea in (True, False):
        made = AnomalyControl(str(folder), {"asea": asea, "context_reference": False})
        states[asea] = made.training_condition(batch, t).semantic
        assert made._asea(made.options).updates == (5 if asea else 0)
    assert not torch.allclose(states[True], states[False], atol=1e-4)
