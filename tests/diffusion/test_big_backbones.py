"""Every diffusion method on Stable Diffusion's and LDM's classes, from real folders, by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

import thin  # noqa: E402
from small import Run, request  # noqa: E402

import fakes  # noqa: E402
from contract import Contract  # noqa: E402
from flawsmith import images  # noqa: E402
from flawsmith.diffusion.backbone import Backbone, fingerprint  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.methods import load  # noqa: E402
from flawsmith.methods.anomalycontrol.synthesizer import AnomalyControl  # noqa: E402
from flawsmith.methods.anomalyxfusion.synthesizer import AnomalyXFusion  # noqa: E402
from flawsmith.methods.base import Synthesizer  # noqa: E402
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer  # noqa: E402
from flawsmith.training import support as training_data  # noqa: E402


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("big")
    for kind in thin.KINDS:
        thin.write(kind, base / kind)
    return {kind: base / kind for kind in thin.KINDS}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.mvtec_tree(tmp_path_factory.mktemp("data"), good=3, defects={"crack": 6, "hole": 6}, size=(60, 80))


@pytest.fixture(autouse=True)
def _few_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "DRAWN", 2)  # they take longer than two steps of a thin denoiser


@pytest.fixture
def method(folders: dict[str, Path]) -> Synthesizer:
    return DiffusionSynthesizer(str(folders["ldm"]), steps=2)


class TestContract(Contract):
    """Every promise, on a blending backbone behind a VAE."""


@pytest.mark.parametrize("kind", thin.KINDS)
@pytest.mark.parametrize("name", ["inpaint", "anomalycontrol", "anomalyxfusion"])
def test_train_and_generate(
    name: str, kind: str, folders: dict[str, Path], data: Path, blip: Path, clip: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, run: Run,
) -> None:  # fmt: skip
    """Two steps and two images under the smallest preset: exact outside the mask, the window the model's own."""
    monkeypatch.setenv("FLAWSMITH_CACHE", str(tmp_path / "cache"))
    own = {
        "inpaint": ["rank=2"],
        "anomalycontrol": [f"reader={blip}"],
        "anomalyxfusion": [f"clip={clip}", "lora_rank=2", "mask_steps=0"],
    }[name]
    sets = [x for value in [*own, "batch_size=2", "evaluate_every=2", "warmup=1"] for x in ("--set", value)]
    before = fingerprint(Backbone.from_pretrained(folders[kind]))
    common = ("--data", data, "--backbone", folders[kind], "--shots", 4, "--defect", "hole")
    trained = tmp_path / "run"
    code, _, err = run("train", name, *common, "--steps", 2, *sets, "--memory", 8, "--out", trained)
    assert code == 0 and "Training needs about" in err, err
    card = json.loads((trained / "card.json").read_text())
    assert set(card["learned"]) == {"widget/hole"} and card["backbone_fingerprint"] == before
    assert np.isfinite(card["learned"]["widget/hole"]["held_out"])
    out, place = tmp_path / "out", ("--device", "cpu", "--memory", 12)
    sampling = ("--set", "sampling=fast", "--set", "min_share=0", "--set", "min_visibility=0")
    code, _, err = run("generate", trained, "--normal", data, "-n", 2, *place, *sampling, "--out", out)
    assert code == 0 and "Painting needs about" in err, err
    manifest = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert len(manifest) == 2 and any(line["status"] == "kept" for line in manifest)
    for line in manifest:
        if line["status"] == "kept":
            image, mask = images.read_image(out / line["image"]), images.read_mask(out / line["mask"])
            normal = images.read_image(data / line["normal"]["file"])
            assert np.array_equal(image[~mask], normal[~mask]) and not np.array_equal(image, normal)
    code, shown, _ = run("show", trained)
    assert code == 0 and ("LoRA of rank 2" in shown) == (name != "anomalycontrol")


def test_a_merged_adapter_paints_the_same(folders: dict[str, Path], data: Path, tmp_path: Path, run: Run) -> None:
    trained, out = tmp_path / "run", tmp_path / "merged"
    sets = [x for v in ("rank=2", "batch_size=2", "learning_rate=0.05", "warmup=1") for x in ("--set", v)]
    common = ("--data", data, "--backbone", folders["sd"], "--shots", 3, "--steps", 3)
    assert run("train", "inpaint", *common, *sets, "--out", trained)[0] == 0
    code, _, err = run("merge", trained, "--out", out)
    assert code == 2 and "widget/crack, widget/hole" in err
    assert run("merge", trained, "--defect", "widget/hole", "--out", out)[0] == 0
    assert run("merge", trained, "--defect", "widget/hole", "--out", out)[0] == 2  # not empty
    with_adapter, merged = load(trained), DiffusionSynthesizer(str(out))
    plain = DiffusionSynthesizer(str(folders["sd"]))
    options = {"steps": 2, "min_share": 0, "min_visibility": 0, "threshold": 0}
    mask = request().mask
    first, second, third = (one.generate([request()], **options)[0].image for one in (with_adapter, merged, plain))
    near, far = (np.abs(first.astype(int) - other)[mask].mean() for other in (second, third))
    assert near < 1 and far > 3 * near  # the file is of half precision
    assert fingerprint(merged.backbone) != fingerprint(plain.backbone)


# -- what is frozen is computed once -------------------------------------------------------------------------------


def calls(module: Any) -> list[int]:
    """Rows of every forward pass from now on."""
    seen: list[int] = []
    module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(args[0] if args else next(iter(kwargs.values())))), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize("kind", thin.KINDS)
def test_dynamic_tokens_never_run_the_text_encoder_per_step(kind: str, folders: dict[str, Path], clip: Path) -> None:
    made = AnomalyXFusion(str(folders[kind]), {"clip": str(clip), "lora_rank": 0})
    made.extend({"widget/hole": [request().reference]})
    torch.nn.init.normal_(made.dif_fusion.mlp[-1].bias)  # tokens that do differ from step to step
    text, denoiser = calls(made.backbone.text_encoder), calls(made.backbone.unet)
    counts = []
    for steps in (2, 9):
        text.clear()
        denoiser.clear()
        made.generate([request()], steps=steps, guidance_scale=2.0, sampler="ddim")
        assert len(denoiser) == steps
        counts.append(len(text))
    assert counts[0] <= 2 and counts[1] <= counts[0]  # one prompt, one for guidance; later maybe none


def test_a_sentence_is_encoded_once_and_alone(folders: dict[str, Path]) -> None:
    backbone, other = (Backbone.from_pretrained(folders["sd"]).freeze() for _ in range(2))
    seen = calls(backbone.text_encoder)
    together = backbone.encode_text(["a hole", "", "a hole", "a crack"])
    assert seen == [1, 1, 1]
    assert torch.equal(together[0], together[2]) and torch.equal(backbone.encode_text(["a crack"])[0], together[3])
    assert seen == [1, 1, 1] and torch.equal(other.encode_text(["a crack"])[0], together[3])


def test_the_sampling_presets(folders: dict[str, Path], blip: Path, clip: Path) -> None:
    control = AnomalyControl.parse_options({"sampling": "paper"})
    assert (control.steps, control.guidance_scale, control.strength, control.start) == (50, 7.0, 0.7, "normal")  # type: ignore[attr-defined]
    fusion = AnomalyXFusion.parse_options({"sampling": "paper"})
    assert (fusion.steps, fusion.eta, fusion.guidance_scale, fusion.sampler) == (200, 1.0, 1.0, "ddim")  # type: ignore[attr-defined]
    for kind in (DiffusionSynthesizer, AnomalyControl, AnomalyXFusion):
        fast = kind.parse_options({"sampling": "fast", "steps": 8}, kind.parse_options({"eta": 1.0}))
        assert (fast.sampler, fast.steps, fast.eta) == ("dpm++", 8, 0.0)  # type: ignore[attr-defined]
        with pytest.raises(FlawsmithError, match="known: fast"):
            kind.parse_options({"sampling": "quick"})
