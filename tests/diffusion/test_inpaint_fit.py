"""`inpaint` learns on a tiny real backbone: adapters, windows of a fit, and training by the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from small import Run, request, samples  # noqa: E402

import fakes  # noqa: E402
from flawsmith import images  # noqa: E402
from flawsmith.diffusion.adapters import (  # noqa: E402
    add_adapter,
    load_adapter,
    merged,
    save_adapter,
    use_adapter,
)
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.methods import load  # noqa: E402
from flawsmith.methods.diffusion.runs import fingerprint  # noqa: E402
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer  # noqa: E402
from flawsmith.records import Sample  # noqa: E402
from flawsmith.training.settings import FitConfig  # noqa: E402
from flawsmith.training.windows import FewShotWindows  # noqa: E402


def test_an_adapter_saved_and_loaded_gives_the_same_image(folder: Path, tmp_path: Path) -> None:
    backbone = Backbone.from_pretrained(folder).freeze()
    before = DiffusionSynthesizer(backbone, steps=2).generate([request()])[0].image
    parameters = add_adapter(backbone, "one", rank=2)
    with torch.no_grad():
        for name, parameter in parameters.items():
            generator = torch.Generator().manual_seed(len(name))
            parameter.copy_((0.3 * torch.randn(parameter.shape, generator=generator)).half().float())
    changed = DiffusionSynthesizer(backbone, steps=2).generate([request()])[0].image
    assert not np.array_equal(before, changed)
    save_adapter(backbone, "one", tmp_path / "one.safetensors")
    use_adapter(backbone, None)
    assert np.array_equal(DiffusionSynthesizer(backbone, steps=2).generate([request()])[0].image, before)
    other = Backbone.from_pretrained(folder).freeze()
    load_adapter(other, "two", tmp_path / "one.safetensors")
    assert np.array_equal(DiffusionSynthesizer(other, steps=2).generate([request()])[0].image, changed)
    assert fingerprint(other) == fingerprint(Backbone.from_pretrained(folder))


def test_an_adapter_merged_for_sampling_answers_as_beside_the_weights_and_leaves_them_alone(folder: Path) -> None:
    backbone = Backbone.from_pretrained(folder).freeze()
    unet = backbone.unet
    for name in ("one", "two"):
        for number, parameter in enumerate(add_adapter(backbone, name, rank=2).values()):
            generator = torch.Generator().manual_seed(number)
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    use_adapter(backbone, "one")
    backbone.freeze()
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    layers = [m for m in unet.modules() if hasattr(m, "lora_A") and isinstance(m.get_base_layer(), torch.nn.Linear)]
    for layer in layers:
        x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            beside = layer(x)
            with merged(unet):
                base = layer.get_base_layer()
                assert torch.allclose(torch.nn.functional.linear(x, base.weight, base.bias), beside, atol=1e-4)
                assert torch.equal(layer(x), torch.nn.functional.linear(x, base.weight, base.bias))
    assert layers
    assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())
    use_adapter(backbone, None)
    with merged(unet):
        assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())


def test_a_denoiser_in_half_precision_keeps_its_adapter_apart(folder: Path) -> None:
    backbone = Backbone.from_pretrained(folder).freeze()
    add_adapter(backbone, "one", rank=2)
    weights = [p for key, p in backbone.unet.named_parameters() if "base_layer" in key]
    for parameter in weights:
        parameter.data = parameter.data.bfloat16()
    with merged(backbone.unet):
        assert not any(getattr(m, "merged", False) for m in backbone.unet.modules())


def test_a_damaged_adapter_is_named(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    path.write_bytes(b"not weights")
    with pytest.raises(FlawsmithError, match=r"one\.safetensors"):
        load_adapter(Backbone.from_pretrained(folder), "one", path)


def test_only_the_adapter_is_trained(folder: Path) -> None:
    backbone = Backbone.from_pretrained(folder).freeze()
    parameters = add_adapter(backbone, "one", rank=2)
    trained = {id(p) for module in backbone.modules().values() for p in module.parameters() if p.requires_grad}
    assert trained == {id(p) for p in parameters.values()} and trained


def test_fit_windows_hold_the_defect_and_repeat(folder: Path) -> None:
    real = samples("hole", 3, (80, 110))
    normals = [Sample(fakes.photo(9, (80, 110)), np.zeros((80, 110), bool), "widget")]
    windows = FewShotWindows(real, normals, (), 32, FitConfig(seed=4))
    first, second = windows.batch(5, 12), windows.batch(5, 12)
    assert first.mask.any(axis=(1, 2)).all()
    assert np.array_equal(first.image, second.image) and first.captions == second.captions
    assert not np.array_equal(first.image, windows.batch(6, 12).image)


def test_train_generate_add_a_type_and_resume(
    folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flawsmith.cli.terminal.EVERY", 0.02)
    data = fakes.mvtec_tree(tmp_path / "data", good=3, defects={"crack": 6, "hole": 6}, size=(60, 80))
    common = ("--data", data, "--backbone", folder, "--steps", 4, "--shots", 4)
    small = ("--set", "rank=2", "--set", "batch_size=3", "--set", "save_every=2", "--set", "evaluate_every=2")
    whole = tmp_path / "whole"
    code, _, err = run("train", "inpaint", *common, *small, "--defect", "crack", "--out", whole)
    assert (
        code == 0 and "preparing" in err and re.search(r"widget/crack, loss [\d.]+(, held out [\d.]+)?: [1-4]/4", err)
    )
    crack = (whole / "adapters" / "widget" / "crack.safetensors").read_bytes()
    assert run("train", "inpaint", *common, *small, "--out", whole)[0] == 0
    assert (whole / "adapters" / "widget" / "crack.safetensors").read_bytes() == crack
    card = json.loads((whole / "card.json").read_text())
    assert set(card["learned"]) == {"widget/crack", "widget/hole"}
    assert all(len(entry["support"]) == 4 for entry in card["learned"].values())
    lines = [json.loads(x) for x in (whole / "train" / "widget-hole" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4 and np.isfinite(lines[-1]["held_out"])
    assert list((whole / "train" / "widget-hole" / "previews").glob("*.png"))
    assert run("show", whole)[0] == 0
    code, _, said = run("show", whole, "--sheet", tmp_path / "sheet.png")
    assert code == 2 and "leave --sheet out" in said and not (tmp_path / "sheet.png").exists()
    out = tmp_path / "out"
    assert run("generate", whole, "--normal", data, "-n", 4, "--set", "steps=2", "--out", out)[0] == 0
    manifest = [json.loads(x) for x in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["defect_type"] for line in manifest] == ["crack", "hole"] * 2
    recorded = json.loads((out / "generate.json").read_text())["support"]
    trained = {k: v for entry in card["learned"].values() for k, v in entry["support"].items()}
    assert trained.items() <= recorded.items()  # what it was trained on is known to any leak check
    for line in manifest:
        if line["status"] == "kept":
            image, mask = images.read_image(out / line["image"]), images.read_mask(out / line["mask"])
            normal = images.read_image(data / line["normal"]["file"])
            assert np.array_equal(image[~mask], normal[~mask])


def test_a_stopped_fit_resumes_to_the_same_weights(folder: Path, tmp_path: Path) -> None:
    from flawsmith.training.fitting import fit_adapter

    real = samples("hole", 3)
    settings = {"rank": 2, "batch_size": 2, "save_every": 2, "evaluate_every": 2, "bf16": False}

    def weights(out: Path, stop: int | None) -> dict:
        backbone = Backbone.from_pretrained(folder).freeze()

        def halt(what: str, done: int, total: int, line: dict) -> None:
            if stop is not None and line["step"] == stop + 1:
                raise KeyboardInterrupt

        fit_adapter(backbone, "one", real, (), (), out, FitConfig(steps=6, **settings), progress=halt)
        return {k: v.clone() for k, v in backbone.unet.named_parameters() if ".one." in k}

    straight = weights(tmp_path / "a", None)
    with pytest.raises(KeyboardInterrupt):
        weights(tmp_path / "b", 4)
    resumed = weights(tmp_path / "b", None)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[k], resumed[k]) for k in straight)


def test_a_backbone_that_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    DiffusionSynthesizer(str(folder)).save_pretrained(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    card["backbone_fingerprint"] = "0" * 16
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(FlawsmithError, match="fingerprint"):
        load(tmp_path)
