"""Smaller batches after out-of-memory, presets, estimates: nothing of them may change what is painted or learned."""

from __future__ import annotations

import copy
import json
import runpy
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

import thin  # noqa: E402
from small import Run, samples  # noqa: E402

import fakes  # noqa: E402
from flawsmith import methods  # noqa: E402
from flawsmith.config import GenerateConfig  # noqa: E402
from flawsmith.diffusion import tensors  # noqa: E402
from flawsmith.diffusion.adapters import add_adapter, save_adapter  # noqa: E402
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.denoise import Conditioning, denoise, draw_noise  # noqa: E402
from flawsmith.diffusion.devices import PRESETS  # noqa: E402
from flawsmith.diffusion.estimate import LivePeak, activations, coding_bytes, fused_attention  # noqa: E402
from flawsmith.diffusion.memory import batch_that_fits  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.generation import run as generation  # noqa: E402
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer  # noqa: E402
from flawsmith.records import Request, Sample  # noqa: E402
from flawsmith.training.fitting import fit_adapter  # noqa: E402
from flawsmith.training.losses import batch_loss  # noqa: E402
from flawsmith.training.settings import FitConfig  # noqa: E402
from flawsmith.training.steps import Steps, draw  # noqa: E402
from flawsmith.training.windows import FewShotWindows  # noqa: E402

SHOWN = {"steps": 2, "min_share": 0, "min_visibility": 0, "threshold": 0}
FIT = FitConfig(
    steps=3, batch_size=6, rank=2, warmup=1, evaluate_every=3, save_every=2, bf16=False, learning_rate=0.01, ema=0.0
)


def requests(count: int) -> list[Request]:
    made = []
    for seed in range(count):
        mask = np.zeros((60, 90), bool)
        mask[20:34, 30 + seed : 52] = True
        normal = Sample(fakes.photo(seed, (60, 90)), np.zeros_like(mask), "widget")
        made.append(Request(normal, mask, "hole", "a hole", None, seed))
    return made


class Full:
    """A GPU with room for so many rows in the denoiser: one more raises what torch raises."""

    def __init__(self, backbone: Backbone, room: int) -> None:
        self.room, self.refused = room, 0
        self.rows: list[int] = []
        backbone.unet.register_forward_pre_hook(self)

    def __call__(self, module: Any, args: Any) -> None:
        if len(args[0]) > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.rows.append(len(args[0]))


# -- painting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sd-inpainting", "ldm"])
def test_painting_goes_on_in_smaller_parts(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    plain, tight = (DiffusionSynthesizer(thin.backbone(kind), **SHOWN) for _ in range(2))
    full = Full(tight.backbone, room=4)  # guidance doubles a window: 7 -> 4 -> 2 windows
    first, second = plain.generate(requests(7)), tight.generate(requests(7))
    assert full.refused == 2 and max(full.rows) == 4 and tight.batch == 2
    for one, other in zip(first, second, strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 1
    assert "Out of memory while painting with 7 windows at a time: going on with 4." in caplog.messages
    tight.generate(requests(3))
    assert full.refused == 2  # it has learned


def test_not_even_one_window_is_said(caplog: pytest.LogCaptureFixture) -> None:
    made = DiffusionSynthesizer(thin.backbone("sd"), **SHOWN)
    Full(made.backbone, room=1)
    with pytest.raises(FlawsmithError, match="--memory 8"):
        made.generate(requests(2))


def test_a_run_survives_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thin.write("sd", tmp_path / "sd")
    data = fakes.mvtec_tree(tmp_path / "data", good=3, defects={"hole": 6}, size=(60, 80))
    config = GenerateConfig(
        method="inpaint", normal=f"mvtec_ad:{data}", out=tmp_path / "out", n=5, backbone=str(tmp_path / "sd"),
        options={"steps": 2, "min_share": 0, "min_visibility": 0}, max_redraws=0, batch_size=4,
    )  # fmt: skip
    load = methods.load

    def tight(*args: Any, **settings: Any) -> Any:
        made = load(*args, **settings)
        Full(made.backbone, room=2)
        return made

    monkeypatch.setattr(methods, "load", tight)
    generation.run(config)
    assert len((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()) == 5
    assert "memory" not in json.loads((tmp_path / "out" / "generate.json").read_text())  # it may change on resuming


# -- training ------------------------------------------------------------------------------------------------------


def fitted(out: Path, room: int | None, **changes: Any) -> dict[str, Any]:
    backbone = thin.backbone("sd-inpainting")
    if room is not None:
        Full(backbone, room)
    fit_adapter(backbone, "one", samples("hole", 3), (), (), out, replace(FIT, **changes))
    save_adapter(backbone, "one", out / "one.safetensors")
    return {k: p.detach() for k, p in backbone.unet.named_parameters() if ".one." in k}


def test_training_goes_on_in_smaller_parts(tmp_path: Path) -> None:
    plain, tight = fitted(tmp_path / "plain", None), fitted(tmp_path / "tight", room=2)
    before = {k: p for k, p in add_adapter(thin.backbone("sd-inpainting"), "one", FIT.rank, FIT.seed).items()}
    assert any(not torch.equal(before[k], plain[k]) for k in plain)
    for key, value in plain.items():
        assert torch.allclose(value, tight[key], atol=2e-4), key
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("plain", "tight")]
    first, second = (json.loads(found[-1]) for found in lines)
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-3)
    with pytest.raises(FlawsmithError, match="while training, even one window"):
        fitted(tmp_path / "none", room=0)


def total(steps: Steps, step: int) -> float:
    return sum(float(part()) for part in steps(step))


def test_views_are_encoded_once() -> None:
    backbone = thin.backbone("sd-inpainting")
    windows = FewShotWindows(samples("hole", 3), (), (), backbone.size, FIT)
    batches = [windows.batch(n, 6) for n in range(2)]
    steps = Steps(backbone, batches.__getitem__, batches[0], replace(FIT, views=2))
    count: list[int] = []
    backbone.vae.encoder.register_forward_pre_hook(lambda _, args: count.append(len(args[0])))
    with torch.no_grad():
        kept = [total(steps, step) for step in range(4)]
        assert sum(count) == 2 * 2 * 6  # image and surroundings of two batches
        fresh = Steps(backbone, lambda n: batches[n % 2], batches[0], FIT)
        assert kept == pytest.approx([total(fresh, step) for step in range(4)], rel=1e-4)
        assert len(set(kept)) == 4  # diffusion steps and noise are new every time
        count.clear()
        assert steps.held_out() == steps.held_out() and sum(count) == 2 * 6


def test_recomputed_blocks_give_the_same_gradients() -> None:
    found = []
    for memory in (None, 8):
        backbone = thin.backbone("sd").place("cpu", memory)
        parameters = add_adapter(backbone, "one", FIT.rank, FIT.seed)
        windows = FewShotWindows(samples("hole", 3), (), (), backbone.size, FIT)
        steps = Steps(backbone, lambda n, w=windows: w.batch(n, 6), windows.batch(0, 6), FIT)  # type: ignore[misc]
        for part in steps(0):
            part().backward()
        found.append({k: p.grad.clone() for k, p in parameters.items()})
    assert any(g.abs().sum() > 0 for g in found[0].values())
    for key, value in found[0].items():
        assert torch.allclose(value, found[1][key], atol=1e-6), key


def test_an_adapter_learns_beside_a_denoiser_in_half_precision() -> None:
    backbone = thin.backbone("sd").place("cpu", dtype=torch.bfloat16).freeze()
    parameters = add_adapter(backbone, "one", FIT.rank, FIT.seed)
    assert {p.dtype for p in parameters.values()} == {torch.float32} and backbone.unet_dtype == torch.bfloat16
    windows = FewShotWindows(samples("hole", 3), (), (), backbone.size, FIT)
    steps = Steps(backbone, lambda n: windows.batch(0, 6), windows.batch(0, 6), FIT)
    optimiser = torch.optim.AdamW(parameters.values(), lr=0.02)
    start = steps.held_out()
    for _ in range(12):
        for part in steps(0):
            part().backward()
        optimiser.step()
        optimiser.zero_grad()
    assert steps.held_out() < start


# -- estimates -----------------------------------------------------------------------------------------------------


def test_the_peak_of_what_lives_at_once() -> None:
    with torch.device("meta"), LivePeak() as counted:
        a = torch.empty(1000)
        b = a + 1
        del a
        c = b.view(10, 100) * 2  # the view is no new memory
        del b
        d = c.relu_()  # nor is what is changed in place
    assert d.is_meta and counted.peak == 2 * 4000


@pytest.mark.parametrize("training", [False, True])
def test_the_meta_device_counts_what_the_real_pass_allocates(training: bool) -> None:
    backbone = thin.backbone("sd")
    counted = activations(backbone, 2, training)
    words = torch.zeros(2, 77, 24, requires_grad=training)
    with LivePeak() as real, fused_attention(), torch.set_grad_enabled(training):
        out = backbone.unet(torch.zeros(2, 4, 16, 16), torch.tensor([1, 1]), words, return_dict=False)[0]
        if training:
            out.sum().backward()
    assert counted == pytest.approx(real.peak, rel=0.25)  # the kernels' own scratch differs
    assert activations(backbone, 4, training) == pytest.approx(2 * counted, rel=0.1)


def test_recomputing_needs_less_and_adapters_more() -> None:
    backbone = thin.backbone("sd")
    plain = activations(backbone, 2, training=True)
    assert activations(backbone, 2, training=True, checkpointing=True) < 0.7 * plain
    assert activations(backbone, 2, training=False) < 0.5 * plain
    add_adapter(backbone, "one", FIT.rank, FIT.seed)
    assert activations(backbone, 2, training=True) > plain
    assert coding_bytes(backbone) > 8 * 32 * 32 * 4  # one feature map at the image's size


def test_a_preset_takes_the_largest_batch_that_fits(caplog: pytest.LogCaptureFixture) -> None:
    backbone = thin.backbone("sd")
    caplog.set_level("INFO", "flawsmith")
    assert batch_that_fits(backbone, 2**16) == 2**16 and not caplog.messages  # no preset on a CPU: nothing to say
    found = []
    for gib in PRESETS:
        backbone.place("cpu", gib)
        batch = batch_that_fits(backbone, 2**18)
        row = 2 * activations(backbone, 1, training=False)
        assert batch * row < gib * 2**30 < 2.5 * batch * row + 2**30
        assert f"one pass of {batch} windows" in caplog.messages[-1]
        found.append(batch)
    assert found == sorted(found) and found[0] < found[-1]


def test_what_leaves_the_gpu() -> None:
    sd, ldm = thin.backbone("sd"), thin.backbone("ldm")
    for backbone in (sd, ldm):
        assert not any(backbone.offloaded(name) for name in backbone.modules())
        backbone.place("cpu", 8)
    assert {name for name in sd.modules() if sd.offloaded(name)} == {"vae", "text_encoder"}
    assert {name for name in ldm.modules() if ldm.offloaded(name)} == {"vae"}  # its tokens are trained through it


def test_a_place_that_is_no_place(tmp_path: Path, run: Run) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", good=2, defects={"hole": 3}, size=(60, 80))
    common = ("--normal", data, "--out", tmp_path / "out", "-n", 1)
    for arguments, said in (
        (("inpaint", "--device", "tpu"), "device='tpu' is not allowed"),
        (("inpaint", "--memory", 10), "8, 12, 16 or 24"),
        (("perlin", "--device", "cpu"), "leave --device out"),
    ):
        code, _, err = run("generate", *arguments, *common)
        assert code == 2 and said in err
    with pytest.raises(FlawsmithError, match="known: cpu, cuda"):
        thin.backbone("sd").place("tpu")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", thin.KINDS)
@pytest.mark.parametrize("memory", [None, 8])
def test_on_a_gpu(kind: str, memory: int | None, tmp_path: Path) -> None:
    """The same image but for half precision; what is offloaded is on the GPU only while it works."""
    backbone = thin.backbone(kind)
    made = DiffusionSynthesizer(backbone, device="cuda", memory=memory, **SHOWN)
    assert backbone.device.type == "cuda" and backbone.unet_dtype != torch.float32
    first, second = made.generate(requests(3)), DiffusionSynthesizer(thin.backbone(kind), **SHOWN).generate(requests(3))
    for one, other in zip(first, second, strict=True):
        assert np.abs(one.image.astype(int) - other.image).mean() < 2
    away = {name for name, m in backbone.modules().items() if next(m.parameters()).device.type == "cpu"}
    assert away == {name for name in backbone.modules() if backbone.offloaded(name)}
    assert fit_adapter(backbone, "one", samples("hole", 3), (), (), tmp_path, FIT)["steps"] == 3


@pytest.mark.parametrize("kind", ["compact", *thin.KINDS])
def test_nothing_of_a_step_stays_on_another_device(kind: str, tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """On "meta", a device without numbers that no CPU tensor may meet: one training step, and sampling both ways."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know this device
    backbone = copy.deepcopy(tiny) if kind == "compact" else thin.backbone(kind)
    windows = FewShotWindows(samples("hole", 3), (), (), backbone.size, replace(FIT, reference=1.0))
    batch = windows.batch(0, 6)
    words = backbone.encode_text(batch.captions)
    for module in backbone.modules().values():
        module.to("meta")
    if kind != "compact":
        monkeypatch.setattr(backbone, "_sentences", lambda _: list(words))  # they are kept on the CPU
    add_adapter(backbone, "one", FIT.rank, FIT.seed)
    t, noise = draw(backbone, FIT, 0)
    loss = batch_loss(backbone, batch, t, noise, FIT)
    loss.sum().backward()
    assert loss.is_meta
    image, mask = (f.to("meta") for f in (tensors.from_images(batch.image), tensors.from_masks(batch.mask)))
    given = Conditioning(backbone.context(batch.captions))
    latents = backbone.encode(image)
    blend = backbone.input_kind == "blend"
    for sampler in ("ddim", "dpm++"):
        out = denoise(
            backbone.unet,
            backbone.sampler(sampler),
            lambda t: given,
            draw_noise(range(6), latents.shape[1:], "meta"),
            extra=backbone.inpaint_input(image, mask),
            unconditional=lambda t: given,
            guidance_scale=2.0,
            num_inference_steps=3,
            eta=1.0 if sampler == "ddim" else 0.0,
            step_noise=lambda i: draw_noise(range(6), latents.shape[1:], "meta"),
            start=latents,
            strength=0.7,
            known=latents if blend else None,
            mask=tensors.pool_mask(mask, latents.shape[-1]) if blend else None,
        )
        assert backbone.decode(out).is_meta


def test_the_benchmark_runs_tiny_and_only_tiny_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = str(Path(__file__).resolve().parents[2] / "benchmarks" / "backbones.py")
    words = ["--device", "cpu", "--kinds", "ldm", "--memory", "8", "--batches", "2", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", [script, *words, "--tiny", "--out", str(tmp_path / "rows.json")])
    runpy.run_path(script, run_name="__main__")
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["work"] for row in rows] == ["painting: fast", "training: new windows", "training: kept latents"]
    assert all(row["peak_gib"] is None for row in rows) and rows[0]["seconds_per_image"] > 0
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(SystemExit):
        runpy.run_path(script, run_name="__main__")
