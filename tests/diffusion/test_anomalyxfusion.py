"""AnomalyXFusion on a tiny trained run: the whole contract, what reaches the denoiser, training, refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

import small  # noqa: E402
from small import samples  # noqa: E402
from xfusion import masks, step_loss, windows  # noqa: E402

import fakes  # noqa: E402
from contract import MASKS, Contract, a_request  # noqa: E402
from flawsmith import images  # noqa: E402
from flawsmith.config import GenerateConfig  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.generation import run as generation  # noqa: E402
from flawsmith.methods.anomalyxfusion.synthesizer import AnomalyXFusion  # noqa: E402
from flawsmith.methods.base import Synthesizer  # noqa: E402
from flawsmith.methods.diffusion.appearance import AppearanceStats, appearance_of  # noqa: E402
from flawsmith.training import run as training  # noqa: E402
from flawsmith.training.settings import FitConfig, settings_of  # noqa: E402

settings = partial(small.settings, "anomalyxfusion", {"lora_rank": 2, "mask_steps": 0})


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "root"
    fakes.mvtec_tree(root, "widget", good=3, defects={"crack": 6, "hole": 6}, size=(60, 80))
    fakes.mvtec_tree(root, "gear", good=2, defects={"chip": 5}, size=(60, 80), seed=77)
    return root


@pytest.fixture(scope="session")
def finished(folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "widget"
    training.train(settings(folder, data, out, category="widget"))
    return out


@pytest.fixture
def method(finished: Path) -> Synthesizer:
    made = AnomalyXFusion.from_pretrained(finished)
    made.options = made.parse_options({"steps": 2}, made.options)
    return made


class TestContract(Contract):
    """Every promise, on a tiny trained run."""


@pytest.fixture
def fresh(folder: Path) -> AnomalyXFusion:
    made = AnomalyXFusion(str(folder))
    made.extend({name: samples(name.split("/")[1], 2) for name in ("widget/crack", "widget/hole")})
    return made


def stirred(made: AnomalyXFusion) -> AnomalyXFusion:
    """With something to say in the layers that start at zero."""
    torch.manual_seed(0)
    for layer in (made.location.project, made.semantic.project):
        torch.nn.init.normal_(layer.weight, std=0.02)
    return made


# -- the method --------------------------------------------------------------------------------------------------------


def test_token_counts_and_context(fresh: AnomalyXFusion) -> None:
    queries = fresh.backbone.reader.queries.shape[0]
    assert fresh.sizes == [queries, 4, 4]
    x = fresh.fuse(["a red spot", ""], ["widget/crack", ""], masks(2))
    assert x.shape == (2, queries + 8, fresh.backbone.context_width)
    given = fresh.condition(fresh.insert(["a red spot", ""], x, torch.zeros(2, dtype=torch.bool)), torch.tensor([5, 9]))
    length = fresh.backbone.encode_text(["a"]).shape[1]
    assert given.context.shape[1] == length + queries + 8
    assert fresh.unconditional(3).context.shape == (3, *given.context.shape[1:])
    # without name and words, before any training, it is the backbone's own "nothing given" and tokens near zero
    null = fresh.backbone.null(1).context[0]
    assert torch.allclose(fresh.unconditional(1).context[0, : len(null)], null)
    assert not fresh.unconditional(1).context[0, len(null) :].any()


def test_a_caption_changes_only_the_semantic_tokens(fresh: AnomalyXFusion) -> None:
    plain = stirred(AnomalyXFusion(fresh.backbone, {"in_fusion": False}))
    plain.extend({"widget/hole": samples("hole", 2)})
    a, b = (plain.fuse([c], ["widget/hole"], masks(1)) for c in ("red spot", "blue scratches"))
    split = sum(plain.sizes[:2])
    assert torch.equal(a[:, :split], b[:, :split]) and not torch.allclose(a[:, split:], b[:, split:])
    assert torch.equal(stirred(fresh).fuse(["red"], ["widget/hole"], masks(1))[:, :split], a[:, :split])  # MIF at start


def test_texture_starts_from_the_support_as_the_reader_reads_it(fresh: AnomalyXFusion) -> None:
    image, mask = zip(*(fresh.reference_window(s) for s in samples("hole", 2)), strict=True)
    read = fresh.backbone.context(["", ""], list(zip(image, mask, strict=True)))[:, -fresh.sizes[0] :].mean(0)
    x = fresh.fuse(["red spot"], ["widget/hole"], masks(1))
    assert torch.allclose(x[0, : fresh.sizes[0]], read, atol=1e-6)
    assert not x[0, fresh.sizes[0] :].any()  # the rest is silent: a fresh method is the backbone with that reference


def test_gradient_reaches_all_that_is_trained_and_nothing_else(fresh: AnomalyXFusion) -> None:
    fresh.add_lora()
    parameters = fresh.parameters()
    optimiser = torch.optim.SGD(parameters.values(), lr=0.1)
    config = FitConfig(batch_size=16, bf16=False)
    drawn = windows()
    touched: set[str] = set()
    for step in range(3):  # zero layers hide what is before them in the first steps
        optimiser.zero_grad()
        step_loss(fresh.backbone, drawn.batch(step, 16), step, config, fresh.training_condition).backward()
        touched |= {name for name, p in parameters.items() if p.grad is not None and p.grad.abs().sum() > 0}
        optimiser.step()
    assert touched == set(parameters)
    inside = {id(p) for p in parameters.values()}
    for module in fresh.backbone.modules().values():
        assert all(p.grad is None for p in module.parameters() if id(p) not in inside)


def test_ddf_acts_after_training_and_not_on_dropped_rows(finished: Path) -> None:
    made = AnomalyXFusion.from_pretrained(finished)
    x = made.fuse(["red spot"] * 2, ["widget/hole"] * 2, masks(2))
    fused = made.insert(["red spot"] * 2, x, torch.tensor([False, True]))
    early, late = (made.condition(fused, torch.full((2,), t)).context for t in (10, 900))
    assert not torch.equal(early[0], late[0]) and torch.equal(early[1], late[1])


def test_without_a_reference_the_look_is_one_that_the_card_remembers(finished: Path) -> None:
    made = AnomalyXFusion.from_pretrained(finished)
    appearances = made.card["learned"]["widget/hole"]["appearances"]
    assert len(appearances) == len(made.card["learned"]["widget/hole"]["support"])
    bare = [small.request(seed, reference=None) for seed in range(len(appearances))]
    given = {"steps": 2, "min_visibility": 0, "min_share": 0}
    for asked in bare:
        assert made.appearance(made._canvas(asked, made.options)) == AppearanceStats(**appearances[asked.seed])
        shown = made._canvas(replace(asked, reference=small.reference(1)), made.options)
        assert made.appearance(shown) == appearance_of(small.reference(1))
    plain = made.generate(bare[:1], contrast=0.0, **given)[0].image
    assert not np.array_equal(made.generate(bare[:1], **given)[0].image, plain)


def test_saved_is_trained_is_loaded(folder: Path, finished: Path) -> None:
    """Nothing trained stands at its start, nothing frozen has moved, and every part is in the file."""
    from safetensors.torch import load_file

    stored = load_file(finished / "weights.safetensors")
    loaded = AnomalyXFusion.from_pretrained(finished)
    start = AnomalyXFusion(str(folder), loaded.config)
    start.extend(dict.fromkeys(loaded.texture.names, ()))
    trained = loaded.parameters()
    assert {k for k in trained if "lora" not in k} <= set(stored)
    before = start.parameters()
    assert all(torch.equal(trained[key], stored[key]) for key in before)
    same = [key for key in before if torch.equal(before[key], stored[key])]
    assert all("norm" in key or "in_proj_bias" in key for key in same), same  # four steps may leave these
    assert torch.equal(stored["texture.start"], start.texture.start)
    card = json.loads((finished / "card.json").read_text())
    assert set(card["learned"]) == {"widget/crack", "widget/hole"} and card["config"]["lora_rank"] == 2


def test_a_category_added_later_trains_its_tokens_only(
    folder: Path, data: Path, finished: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    grown = tmp_path / "grown"
    shutil.copytree(finished, grown)
    before = load_file(finished / "weights.safetensors")
    training.train(settings(folder, data, grown))
    after = load_file(grown / "weights.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert after.keys() - before.keys() == {"texture.table.2", "texture.feature_2"}
    assert after["texture.table.2"].abs().sum() > 0 and after["texture.feature_2"].abs().sum() > 0
    assert len(AnomalyXFusion.from_pretrained(grown).seen()) == 12


@pytest.mark.parametrize(
    "config",
    [{"text": False}, {"in_fusion": False}, {"dif_fusion": "off"}, {"dif_fusion": "concat"}],
)
def test_switches(folder: Path, data: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    out = tmp_path / "run"
    training.train(settings(folder, data, out, category="gear", options=config, steps=2))
    made = AnomalyXFusion.from_pretrained(out)
    parts = set(made.trainable())
    if config.get("text") is False:
        assert "semantic" not in parts and made.sizes[-1] == 4
        a, b = (
            made.insert([c], made.fuse([c], ["gear/chip"], masks(1)), torch.zeros(1, dtype=torch.bool)) for c in "ab"
        )
        assert torch.equal(a.text, b.text) and torch.equal(a.x, b.x)  # words change nothing
    assert ("in_fusion" in parts) == (config.get("in_fusion", True))
    assert ("dif_fusion" in parts) == (config.get("dif_fusion") != "off")
    drawn = generation.run(
        GenerateConfig(
            method=str(out), normal=f"mvtec_ad:{data}", category="gear", n=2, out=tmp_path / "out", options={"steps": 2}
        )
    )
    assert drawn.kept + drawn.rejected == 2


def test_the_papers_preset(folder: Path, data: Path, tmp_path: Path) -> None:
    config = settings(folder, data, tmp_path, options={"preset": "paper"})
    given = {"preset": "paper", "dif_fusion": "concat"}
    preset = settings_of(config.model_copy(update={"options": given}), AnomalyXFusion)
    assert preset.fit.loss_norm == "all" and preset.fit.steps == 4 and preset.fit.outside == 0
    assert preset.fit.learning_rate * preset.fit.name_rate == pytest.approx(0.02)
    made = AnomalyXFusion(str(folder), preset.config, **preset.options)
    assert made.options.steps == 200 and made.options.eta == 1.0 and made.config.lora_rank == 0
    made.extend({"widget/hole": samples("hole", 2)})
    words = [
        made.insert([c], made.fuse([c], ["widget/hole"], masks(1)), torch.zeros(1, dtype=torch.bool)).text for c in "ab"
    ]
    assert torch.equal(*words)  # the caption goes through the semantic tokens only
    assert settings_of(config.model_copy(update={"options": {}}), AnomalyXFusion).options == {}


def test_noise_of_every_step_is_the_requests_own(method: Synthesizer) -> None:
    request = a_request(method, MASKS["ring"], 3)
    plain, noisy, again = (
        method.generate([request], sampler="ddim", eta=eta, steps=3)[0].image for eta in (0.0, 1.0, 1.0)
    )
    assert np.array_equal(noisy, again) and not np.array_equal(plain, noisy)


def test_reweighting_changes_the_image_and_leaves_the_denoiser_as_it_was(method: Synthesizer) -> None:
    request = a_request(method, MASKS["ring"], 3)
    before = method.generate([request])[0].image
    assert not np.array_equal(method.generate([request], reweight=True)[0].image, before)
    assert np.array_equal(method.generate([request])[0].image, before)


def test_logical_anomalies_from_loco_files_to_images(folder: Path, tmp_path: Path) -> None:
    """Merged masks of grey levels and captions go through reader, training and generation; words alone take a part."""
    tree = fakes.mvtec_tree(tmp_path / "d", "box", good=3, defects={"logical_anomalies": 4}, size=(60, 80))
    for number in range(4):
        file = tree / "ground_truth" / "logical_anomalies" / f"{number:03d}_mask.png"
        whole = images.read_mask(file)
        file.unlink()
        half = whole.copy()
        half[:, : int(np.nonzero(whole)[1].mean())] = False
        for part, (level, mask) in enumerate(((60, half), (255, whole & ~half))):
            grey = (mask * level).astype(np.uint8)
            fakes.save(tree / "ground_truth" / "logical_anomalies" / f"{number:03d}" / f"{part:03d}.png", grey)
        fakes.write(tree / "prompt" / "logical_anomalies" / f"{number:03d}.txt", "one red spot is missing")
    data, out = f"mvtec_loco:{tree.parent}", tmp_path / "run"
    config = settings(folder, tree.parent, out, options={"mask_steps": 2}, steps=2)
    training.train(config.model_copy(update={"data": data}))
    asked = {"method": str(out), "normal": data, "n": 2, "options": {"steps": 2}}
    for name, more in (("moved", {}), ("learned", {"mask": "learned"})):
        generation.run(GenerateConfig(**asked, out=tmp_path / name, **more))
        lines = [json.loads(x) for x in (tmp_path / name / "manifest.jsonl").read_text().splitlines()]
        assert {line["caption"] for line in lines} == {"one red spot is missing"}
        assert {line["mask_source"] for line in lines} == {"reference" if name == "moved" else "learned"}
    shutil.rmtree(tree / "test" / "logical_anomalies")  # good photographs only: nothing to move
    fakes.save(tree / "train" / "good" / "000.png", parts_on_a_tray())
    for number in (1, 2):
        (tree / "train" / "good" / f"{number:03d}.png").unlink()
    generation.run(GenerateConfig(**asked, out=tmp_path / "words", prompt="the red part is missing"))
    lines = [json.loads(x) for x in (tmp_path / "words" / "manifest.jsonl").read_text().splitlines()]
    assert {line["mask_source"] for line in lines} == {"component"}
    for line in (x for x in lines if x["status"] == "kept"):  # the label is inside the red part, not the blue one
        rows, columns = np.nonzero(images.read_mask(tmp_path / "words" / line["mask"]))
        assert rows.max() <= 62 and columns.min() >= 27 and columns.max() <= 62


def parts_on_a_tray() -> np.ndarray:
    image = np.full((120, 160, 3), 60, np.uint8)
    image[10:110, 15:145] = 150
    image[25:60, 30:60], image[60:95, 90:130] = (200, 40, 40), (40, 60, 200)
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_untrained_it_says_how_to_train(folder: Path, data: Path, tmp_path: Path) -> None:
    config = GenerateConfig(
        method="anomalyxfusion", normal=f"mvtec_ad:{data}", category="widget", out=tmp_path / "o", backbone=str(folder)
    )
    with pytest.raises(FlawsmithError, match="flawsmith train anomalyxfusion"):
        generation.run(config)
    assert not (tmp_path / "o").exists()


def test_an_unknown_type_lists_the_known_ones(finished: Path, data: Path, tmp_path: Path) -> None:
    config = GenerateConfig(
        method=str(finished), normal=f"mvtec_ad:{data}", category="widget", defect=("chip",), out=tmp_path / "o"
    )
    with pytest.raises(FlawsmithError, match="crack"):
        generation.run(config)


def test_only_support_images_are_seen(folder: Path, data: Path, finished: Path) -> None:
    """Its record of real defects has no test image, and a split that would test on them is refused."""
    from flawsmith import datasets
    from flawsmith.datasets.leaks import leak_check
    from flawsmith.datasets.splits import few_shot

    records = [r for r in datasets.read("mvtec_ad", data, category="widget") if not r.is_good]
    split = few_shot(records, shots=4)
    seen = AnomalyXFusion.from_pretrained(finished).seen()
    assert set(seen) == {r.name for r in split.support} and not set(seen) & {r.name for r in split.test}
    with pytest.raises(FlawsmithError, match="leak"):
        leak_check(split.support, [*split.test, split.support[0]])
