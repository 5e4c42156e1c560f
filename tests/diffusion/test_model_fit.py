"""The seam of methods that learn one model: a smallest possible one is trained, resumed, extended, saved and loaded."""

from __future__ import annotations

import dataclasses
import json
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
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.batch import Batch  # noqa: E402
from flawsmith.diffusion.denoise import Conditioning  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer  # noqa: E402
from flawsmith.records import Sample  # noqa: E402
from flawsmith.training import run as training  # noqa: E402
from flawsmith.training.fitting import Material, TypeWindows  # noqa: E402
from flawsmith.training.losses import batch_loss, masked_loss, prediction_target, step_weight  # noqa: E402
from flawsmith.training.settings import FitConfig  # noqa: E402


class Names(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = torch.nn.Parameter(torch.randn(1, width))
        self.table = torch.nn.ParameterList()


class OneToken(DiffusionSynthesizer):
    """One token per name, and one that all share: the least such a method can be."""

    name = "one-token"
    learns = "model"

    def build(self) -> None:
        self.tokens, self.known = Names(self.backbone.context_width), []

    def trainable(self) -> dict[str, torch.nn.Module]:
        return {"tokens": self.tokens}

    def extend(self, support: dict[str, Any]) -> None:
        for name in support:
            self.known.append(name)
            self.tokens.table.append(torch.zeros_like(self.tokens.shared))

    def own(self, name: str) -> list[str]:
        return [f"tokens.table.{self.known.index(name)}"]

    def context(self, captions: list[str], names: list[str]) -> Conditioning:
        rows = [self.tokens.table[self.known.index(n)] if n else torch.zeros_like(self.tokens.shared) for n in names]
        return Conditioning(torch.cat([self.backbone.context(captions), torch.stack(rows) + self.tokens.shared], 1))

    def training_condition(self, batch: Any, t: torch.Tensor) -> Conditioning:
        return self.context(batch.captions, batch.names)

    def prepare(self, requests: Any, masks: torch.Tensor, options: Any) -> Conditioning:
        names = [f"{r.normal.category}/{r.defect_type}" for r in requests]
        return self.context([r.caption for r in requests], [n if n in self.known else "" for n in names])

    def unconditional(self, count: int) -> Conditioning:
        return self.context([""] * count, [""] * count)


METHOD = "diffusion.test_model_fit:OneToken"
settings = partial(small.settings, METHOD, {"lora_rank": 2})


def weights(run: Path, file: str = "weights.safetensors") -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run / file)


def test_train_resume_extend_and_load(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    fakes.mvtec_tree(data, "widget", good=2, defects={"crack": 6, "hole": 6}, size=(40, 50))
    fakes.mvtec_tree(data, "gear", good=2, defects={"chip": 5}, size=(40, 50), seed=77)
    straight = training.train(settings(folder, data, tmp_path / "a", category="widget"))
    assert set(straight["learned"]) == {"widget/crack", "widget/hole"}

    with pytest.raises(KeyboardInterrupt):
        training.train(settings(folder, data, tmp_path / "b", category="widget"), small.stop_at_three)
    with pytest.raises(FlawsmithError, match="stopped fit"):
        training.train(settings(folder, data, tmp_path / "b", category="widget", defect=("hole",)))
    training.train(settings(folder, data, tmp_path / "b", category="widget"))
    first, resumed = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[key], resumed[key]) for key in first) and first.keys() == resumed.keys()
    for key in first:  # saved = trained: nothing stands where it started
        fresh = OneToken(str(folder), {"seed": 0, "lora_rank": 2})
        fresh.extend(dict.fromkeys(straight["learned"], ()))
        assert not torch.equal(first[key], fresh.trainable()["tokens"].state_dict()[key.removeprefix("tokens.")])

    lora = weights(tmp_path / "a", "lora.safetensors")
    card = training.train(settings(folder, data, tmp_path / "a"))
    grown = weights(tmp_path / "a")
    assert all(torch.equal(first[key], grown[key]) for key in first)  # what was there is bit for bit what it was
    assert grown.keys() - first.keys() == {"tokens.table.2"} and grown["tokens.table.2"].abs().sum() > 0
    assert all(torch.equal(value, lora[k]) for k, value in weights(tmp_path / "a", "lora.safetensors").items()) and lora
    loaded = OneToken.from_pretrained(tmp_path / "a")
    assert len(loaded.seen()) == 12 and set(card["learned"]) == {"widget/crack", "widget/hole", "gear/chip"}
    assert all(torch.equal(loaded.tokens.state_dict()[key[7:]], value) for key, value in grown.items())
    assert json.loads((tmp_path / "a" / "card.json").read_text())["config"] == {"seed": 0, "lora_rank": 2}
    with pytest.raises(FlawsmithError, match="lora_rank"):
        training.train(settings(folder, data, tmp_path / "a", options={"lora_rank": 4}, steps=5, defect=("chip",)))
    with pytest.raises(FlawsmithError, match="lora_rnk"):
        training.train(settings(folder, data, tmp_path / "c", options={"lora_rnk": 4}))
    with pytest.raises(FlawsmithError, match="Preset"):
        training.train(settings(folder, data, tmp_path / "c", options={"preset": "papr"}))


def test_batches_name_real_defects_only_and_draw_types_alike(folder: Path) -> None:
    def material(kind: str, count: int) -> Material:
        real = small.samples(kind, count)
        normals = [Sample(fakes.photo(99, (60, 80)), np.zeros((60, 80), bool), "widget")]
        return Material(real, normals, real[:1])

    config = FitConfig(drop_text=0.1, drop_tokens=0.2, drop_both=0.1, reference=1.0, self_reference=0.5)
    windows = TypeWindows({"widget/crack": material("crack", 2), "widget/hole": material("hole", 9)}, 32, config)
    batch = windows.batch(0, 1000)
    again = windows.batch(0, 1000)
    assert np.array_equal(batch.image, again.image) and batch.names == again.names
    names = np.array(batch.names)
    unnamed = config.normal + config.drawn
    for name, share in (("", unnamed), ("widget/crack", (1 - unnamed) / 2), ("widget/hole", (1 - unnamed) / 2)):
        assert abs((names == name).mean() - share) < 4 * np.sqrt(share / 1000)
    assert all((name == "") == (shown is None) for name, shown in zip(batch.names, batch.references, strict=True))
    text, tokens = np.array([c == "" for c in batch.captions]), np.array(batch.dropped)
    for found, share in ((text & ~tokens, 0.1), (tokens & ~text, 0.2), (text & tokens, 0.1)):
        assert abs(found.mean() - share) < 4 * np.sqrt(share * (1 - share) / 1000)
    turns = windows.batch(0, 4, real_only=True)
    assert turns.names == ["widget/crack", "widget/hole"] * 2 and not any(turns.dropped)


def test_masked_loss_by_hand() -> None:
    """2 x 2 cells, one in the mask with error 3: 9 by area, 9/4 by the whole, and nothing of the rest."""
    error = torch.tensor([[[[3.0, 100.0], [100.0, 100.0]]]])
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert masked_loss(error, mask, 0.0, 0.0, 1).tolist() == [9.0]
    assert masked_loss(error, mask, 0.0, 0.0, 1, norm="all").tolist() == [2.25]
    assert masked_loss(error * (1 - mask), mask, 0.0, 0.0, 1).tolist() == [0.0]


def test_the_target_follows_the_scheduler(tiny: Backbone) -> None:
    from diffusers import DDIMScheduler

    latents, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    t = torch.tensor([10, 900])
    plain = DDIMScheduler(prediction_type="epsilon")
    assert torch.equal(prediction_target(plain, latents, noise, t), noise)
    velocity = DDIMScheduler(prediction_type="v_prediction")
    assert torch.equal(prediction_target(velocity, latents, noise, t), velocity.get_velocity(latents, noise, t))
    with pytest.raises(FlawsmithError, match="sample"):
        prediction_target(DDIMScheduler(prediction_type="sample"), latents, noise, t)
    # the same error of the clean image weighs the same in both above the cap
    alphas = plain.alphas_cumprod
    snr = alphas / (1 - alphas)
    as_epsilon = step_weight(alphas, torch.arange(1000), 5.0, "epsilon") * snr
    as_v = step_weight(alphas, torch.arange(1000), 5.0) * (snr + 1)
    high = snr > 5
    assert torch.allclose(as_epsilon[high], torch.tensor(5.0), rtol=1e-4)
    assert torch.allclose(as_v[high], torch.tensor(6.0), rtol=1e-4)
    assert step_weight(alphas, torch.arange(1000), 0.0).eq(1).all()


def test_behind_a_vae_the_loss_is_judged_in_cells_and_no_mask_vanishes() -> None:
    backbone = thin.backbone("ldm")
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    batch = Batch(image, image, np.zeros((2, 16, 16), bool), ["", ""], [None, None])
    batch.mask[0, 5, 5], batch.mask[1, 2:9, 3:8] = True, True
    tokens = torch.nn.Parameter(torch.zeros(2, 3, 16))
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    config = dataclasses.replace(FitConfig(), outside=0.0, bf16=False, snr_cap=0.0)
    given: Any = batch
    loss = batch_loss(backbone, given, torch.tensor([100, 700]), noise, config, lambda b, t: Conditioning(tokens))
    assert loss.shape == (2,) and (loss > 0).all()
    loss.sum().backward()
    assert tokens.grad is not None and (tokens.grad.abs().sum((1, 2)) > 0).all()
