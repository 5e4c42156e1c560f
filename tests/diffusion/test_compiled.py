"""OpenVINO in torch's place: the same answers up to rounding, with all adapters, and it is written down."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")
pytest.importorskip("openvino")

import control  # noqa: E402
import thin  # noqa: E402
from small import Run, request, samples  # noqa: E402

from flawsmith import methods  # noqa: E402
from flawsmith.diffusion import compiled as runtimes  # noqa: E402
from flawsmith.diffusion import denoise  # noqa: E402
from flawsmith.diffusion.adapters import add_adapter, merged, use_adapter  # noqa: E402
from flawsmith.diffusion.attention import attach, detach  # noqa: E402
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.compiled import Compiled, compiled  # noqa: E402
from flawsmith.diffusion.denoise import Conditioning, autocast, predict  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.methods.anomalyxfusion.synthesizer import AnomalyXFusion  # noqa: E402
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer  # noqa: E402
from flawsmith.records import Request, Sample  # noqa: E402

ROUNDING = 1e-4  # of an answer around 1, both in float32: sums are added in another order
Given = tuple[torch.Tensor, torch.Tensor, Conditioning, torch.Tensor | None]


def given(backbone: Backbone, rows: int, seed: int = 0, semantic: bool = False, weight: float = 1.0) -> Given:
    """Random arguments of `predict`."""
    generator = torch.Generator().manual_seed(seed)
    side, channels = backbone.size // backbone.factor, int(backbone.unet.config.in_channels)
    x = torch.randn(rows, channels, side, side, generator=generator)
    context = torch.randn(rows, 9, backbone.context_width, generator=generator)
    told = torch.randn(rows, 4, backbone.context_width, generator=generator) if semantic else None
    own = backbone.latent_channels
    extra = x[:, own:] if channels > own else None
    return x[:, :own], (torch.arange(rows) * 211 + 40) % 1000, Conditioning(context, told, weight), extra


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@torch.no_grad()
def stirred(unet: Any) -> None:
    """Every weight that starts at zero somewhere else, so that nothing agrees for want of an effect."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in unet.named_parameters():
        if not parameter.any() or "lora_B" in name:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(params=["wiener", "clean", "sd-inpainting"])
def backbone(request: pytest.FixtureRequest, recipe: Any, text: Path) -> Backbone:
    if request.param in thin.KINDS:
        made = Backbone(**thin.parts(request.param)).freeze()
    else:
        from dataclasses import replace

        made = Backbone.compact(replace(recipe, denoiser=request.param), seed=1, text=text).freeze()
    stirred(made.unet)
    return made


@torch.no_grad()
def test_the_network_says_the_same_for_any_number_of_rows(backbone: Backbone) -> None:
    other = compiled(backbone, "openvino")
    assert isinstance(other, Compiled) and compiled(backbone, "torch") is None
    for rows in (1, 4, 3):
        asked = given(backbone, rows, seed=rows)
        wanted = predict(backbone.unet, *asked)
        assert wanted.std() > 0.05 and apart(predict(other, *asked), wanted) < ROUNDING
    assert len(other._networks) == 1  # the same for all three


@torch.no_grad()
def test_adapters_are_followed_merged_or_not(recipe: Any, text: Path) -> None:
    backbone = Backbone.compact(recipe, seed=1, text=text).freeze()
    for seed, name in enumerate(("one", "two")):
        add_adapter(backbone, name, 2, seed)
    stirred(backbone.unet)
    other, asked = Compiled(backbone.unet), given(backbone, 2)
    answers = []
    for name in ("one", "two", "one"):
        use_adapter(backbone, name)
        wanted = predict(backbone.unet, *asked)
        with merged(backbone.unet):
            answers.append(predict(other, *asked))
        assert apart(answers[-1], wanted) < ROUNDING
    assert torch.equal(answers[0], answers[2]) and len(other._networks) == 2
    assert apart(answers[0], answers[1]) > 100 * ROUNDING


@torch.no_grad()
def test_the_second_attention_and_its_lambda_are_in_the_graph(tiny: Backbone) -> None:
    other = Compiled(tiny.unet)
    attach(tiny.unet)
    try:
        answers = []
        for weight in (1.0, 0.3):
            asked = given(tiny, 3, semantic=True, weight=weight)
            answers.append(predict(other, *asked))
            assert apart(answers[-1], predict(tiny.unet, *asked)) < ROUNDING
    finally:
        detach(tiny.unet)
    assert apart(answers[0], answers[1]) > 100 * ROUNDING and len(other._networks) == 2


def methods_of(kind: str, runtime: Any, folder: Path) -> tuple[Any, list[Request]]:
    """A method as after a fit, and three images to be asked of it."""
    asked = [request(seed) for seed in range(3)]
    plain = {"steps": 3, "min_visibility": 0, "min_share": 0, "runtime": runtime}
    if kind == "inpaint":
        return DiffusionSynthesizer(str(folder), **plain), asked
    if kind == "anomalyxfusion":
        made = AnomalyXFusion(str(folder), {"lora_rank": 2}, **plain)
        made.extend({"widget/hole": samples("hole", 2)})
        made.add_lora()
        stirred(made.backbone.unet)
        made.card["learned"] = {"widget/hole": {"support": {}}}
        return made, asked
    made = control.trained(folder)
    made.options = made.parse_options({"steps": 3}, made.options)
    made.compiled = compiled(made.backbone, runtime)
    return made, asked


@pytest.mark.parametrize("kind", ["inpaint", "anomalycontrol", "anomalyxfusion"])
def test_images_are_the_same_pixel_by_pixel(
    kind: str, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both in float32: no pixel differs by more than one grey level, and the image says who painted it."""
    for module in (denoise, runtimes):
        monkeypatch.setattr(module, "has_bf16", lambda device: False)
    images: dict[str, list[Sample]] = {}
    for runtime in runtimes.RUNTIMES:
        made, asked = methods_of(kind, runtime, folder)
        images[runtime] = made.generate(asked)
        assert all(s.info["runtime"].startswith(runtime + " ") for s in images[runtime])
        assert all(s.info["runtime"].endswith(" float32") for s in images[runtime])
    for one, other, wish in zip(images["torch"], images["openvino"], asked, strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 1
        assert np.abs(one.image.astype(int) - wish.normal.image)[wish.mask].mean() > 2  # something was painted


@pytest.mark.skipif(not denoise.has_bf16("cpu"), reason="this processor has no bfloat16")
@torch.no_grad()
def test_in_half_precision_it_strays_by_less_than_a_hundredth() -> None:
    """From the answer in float32, on the shipped weights, of its spread; torch rounds too, at fewer places."""
    backbone = Backbone.from_pretrained("compact").freeze()
    other = Compiled(backbone.unet)
    image, mask = torch.zeros(2, 3, backbone.size, backbone.size), torch.zeros(2, 1, backbone.size, backbone.size)
    mask[:, :, 40:80, 40:80] = 1
    noise = denoise.draw_noise([1, 2], (backbone.latent_channels, 32, 32))
    context = Conditioning(backbone.context(["long thin rusty scratch"] * 2))
    for step in (900, 500, 100):
        asked = (noise, torch.full((2,), step), context, backbone.inpaint_input(image, mask))
        wanted = predict(backbone.unet, *asked)
        with autocast("cpu"):
            strayed = [(predict(unet, *asked) - wanted).square().mean().sqrt() for unet in (backbone.unet, other)]
        assert 0 < strayed[1] < 0.01 * wanted.std() and strayed[1] < 5 * strayed[0]


@pytest.mark.skipif(not denoise.has_bf16("cpu"), reason="this processor has no bfloat16")
@torch.no_grad()
def test_in_half_precision_company_changes_nothing(tiny: Backbone) -> None:
    """A fixed number of windows is computed at a time: none is lost or doubled, and no byte depends on the others."""
    stirred(tiny.unet)
    other, asked = Compiled(tiny.unet), given(tiny, 2 * runtimes.ROWS + 1)
    with autocast("cpu"):
        together = predict(other, *asked)
        x, t, conditioning, extra = asked
        assert extra is not None
        for i in range(len(x)):
            row = slice(i, i + 1)
            alone = Conditioning(conditioning.context[row], None, conditioning.weight)
            assert torch.equal(predict(other, x[row], t[row], alone, extra[row]), together[row])
    assert len(together) == len(x) and len(other._networks) == 1
    assert apart(together[0], together[1]) > 100 * ROUNDING


def test_it_is_written_down_and_a_folder_is_finished_with_what_began_it(
    folder: Path, data: Path, tmp_path: Path, run: Run
) -> None:
    common = ("generate", "inpaint", "--normal", data, "--backbone", folder, "--set", "steps=1", "--prompt", "a spot")
    common = (*common, "--set", "min_visibility=0", "--set", "min_share=0", "--batch-size", 2)
    out = tmp_path / "out"
    assert run(*common, "-n", 2, "--runtime", "openvino", "--out", out)[0] == 0
    assert json.loads((out / "generate.json").read_text())["runtime"] == "openvino"
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert all(line["info"]["runtime"].startswith("openvino 20") for line in lines)
    for other in ((), ("--runtime", "torch")):
        code, _, err = run(*common, "-n", 4, *other, "--out", out)
        assert code == 2 and 'runtime was "openvino"' in err
    assert run(*common, "-n", 4, "--runtime", "openvino", "--out", out)[0] == 0
    assert len((out / "manifest.jsonl").read_text().splitlines()) == 4

    plain = tmp_path / "plain"  # begun before the setting existed
    assert run(*common, "-n", 2, "--out", plain)[0] == 0
    written = json.loads((plain / "generate.json").read_text())
    assert written.pop("runtime") is None
    (plain / "generate.json").write_text(json.dumps(written))
    assert run(*common, "-n", 4, "--runtime", "torch", "--out", plain)[0] == 0


def test_what_a_graph_has_no_place_for_is_painted_by_torch(folder: Path) -> None:
    made, _ = methods_of("anomalyxfusion", "openvino", folder)
    running = [made.denoiser(made.parse_options({"reweight": value})) for value in (True, False)]
    assert running[0] is None and isinstance(running[1], Compiled)
    assert [runtimes.described(made.backbone, one).split()[0] for one in running] == ["torch", "openvino"]


def test_what_cannot_run_is_refused(folder: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FlawsmithError, match="known: openvino, torch"):
        methods.load("inpaint", backbone=str(folder), runtime="onnx")
    with pytest.raises(FlawsmithError, match="leave --runtime out"):
        methods.load("perlin", runtime="openvino")
    with pytest.raises(FlawsmithError, match=r"in bfloat16"):
        compiled(Backbone(**thin.parts("sd")).place("cpu", dtype=torch.bfloat16), "openvino")
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(FlawsmithError, match=r"pip install 'flawsmith\[openvino\]'"):
        compiled(tiny, "openvino")


def test_nothing_is_reported_to_anyone() -> None:
    """OpenVINO's converter sends a report when it is imported, where openvino_telemetry can be."""
    code = (
        "import sys; from flawsmith.diffusion.compiled import openvino; openvino(); "
        "assert sys.modules['openvino_telemetry'] is None; "
        "from openvino.tools.ovc import telemetry; print(type(telemetry).__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub", done.stderr
