"""Stable Diffusion and LDM folders: however they are written they load alike, and what cannot load is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import thin  # noqa: E402

from flawsmith.diffusion.backbone import Backbone, fingerprint  # noqa: E402
from flawsmith.diffusion.denoise import Conditioning, predict  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    base = tmp_path_factory.mktemp("folders")
    return {kind: (base / kind, thin.write(kind, base / kind)) for kind in thin.KINDS}


def state(backbone: Backbone) -> dict[str, Any]:
    return {f"{p}.{k}": v for p, m in backbone.modules().items() for k, v in m.state_dict().items()}


@pytest.mark.parametrize("kind", thin.KINDS)
def test_the_same_call_loads_all_kinds(kind: str, saved: dict) -> None:
    folder, made = saved[kind]
    backbone = Backbone.from_pretrained(folder)
    assert backbone.input_kind == ("inpaint" if kind == "sd-inpainting" else "blend")
    assert (backbone.size, backbone.factor, backbone.context_width) == (32, 2, 16 if kind == "ldm" else 24)
    for name, module in backbone.modules().items():
        for key, value in made[name].state_dict().items():
            assert torch.equal(module.state_dict()[key], value), (name, key)
        assert not module.training
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., 3:5, 9:12] = 1
    latents = backbone.encode(image)
    assert latents.shape == (2, 4, 16, 16) and backbone.decode(latents).shape == image.shape
    words = backbone.encode_text(["a hole", ""])
    assert words.shape == (2, 77, backbone.context_width) and not torch.equal(words[0], words[1])
    with torch.no_grad():
        out = predict(
            backbone.unet, latents, torch.tensor([5, 900]), Conditioning(words), backbone.inpaint_input(image, mask)
        )
    assert out.shape == latents.shape
    assert backbone.scheduler.config.clip_sample is False and backbone.sampler().config.clip_sample is False
    alphas = made["scheduler"].alphas_cumprod
    assert torch.allclose(backbone.scheduler.alphas_cumprod, alphas) and alphas[-1] == pytest.approx(0.0047, abs=2e-4)


@pytest.mark.parametrize("kind", ["sd-inpainting", "ldm"])
def test_shards_and_half_precision_files(kind: str, saved: dict, tmp_path: Path) -> None:
    plain = state(Backbone.from_pretrained(saved[kind][0]))
    made = thin.parts(kind)
    thin.write(kind, tmp_path / "sharded", made, max_shard_size="60KB")
    assert len(list((tmp_path / "sharded" / "unet").glob("*-of-*.safetensors"))) > 1
    sharded = state(Backbone.from_pretrained(tmp_path / "sharded"))
    assert sharded.keys() == plain.keys() and all(torch.equal(sharded[k], plain[k]) for k in plain)
    for name in ("unet", "vae", "text_encoder"):
        made[name].half()
    for folder, options in (("half", {}), ("shards", {"max_shard_size": "30KB"})):
        thin.write(kind, tmp_path / folder, made, variant="fp16", **options)
        found = state(Backbone.from_pretrained(tmp_path / folder))
        assert found.keys() == plain.keys()
        for key, value in plain.items():
            assert torch.equal(found[key], value.half().float() if value.is_floating_point() else value), key


def test_dtype_is_the_denoisers_and_the_fingerprint_the_files(saved: dict) -> None:
    folder, _ = saved["sd"]
    full, half = Backbone.from_pretrained(folder), Backbone.from_pretrained(folder, dtype=torch.bfloat16)
    assert half.unet_dtype == torch.bfloat16
    assert next(half.vae.parameters()).dtype == next(half.text_encoder.parameters()).dtype == torch.float32
    assert fingerprint(half) == fingerprint(full) != fingerprint(Backbone.from_pretrained(saved["ldm"][0]))
    words, noise = full.encode_text(["a crack"]), torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = (predict(one.unet, noise, torch.tensor([500]), Conditioning(words)) for one in (full, half))
    assert b.dtype == torch.float32 and torch.allclose(a, b, atol=0.1) and not torch.equal(a, b)


def damage(folder: Path, what: str) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    if what == "no vae":
        shutil.rmtree(folder / "vae")
    elif what == "not listed":
        del index["tokenizer"]
    elif what == "no weights":
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    elif what == "cut":
        file = folder / "unet" / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
    elif what == "no config":
        (folder / "vae" / "config.json").unlink()
    elif what == "two encoders":
        index["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
    elif what == "transformer":
        index["transformer"] = ["diffusers", "FluxTransformer2DModel"]
    elif what == "class":
        index["unet"] = ["somewhere", "Strange"]
    elif what == "channels":
        config = json.loads((folder / "unet" / "config.json").read_text())
        (folder / "unet" / "config.json").write_text(json.dumps({**config, "in_channels": 5}))
    elif what == "width":
        shutil.rmtree(folder / "text_encoder")
        other = thin.parts("sd")["text_encoder"]
        type(other)(type(other.config)(**{**other.config.to_dict(), "hidden_size": 32})).save_pretrained(
            folder / "text_encoder"
        )
    (folder / "model_index.json").write_text(json.dumps(index) if what != "index" else "{")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no vae", "no part vae"),
        ("not listed", "no part tokenizer"),
        ("no weights", "holds no weights"),
        ("cut", "part unet cannot be read"),
        ("no config", "part vae cannot be read"),
        ("two encoders", "Stable Diffusion XL"),
        ("transformer", "Flux"),
        ("class", r"part unet is of class somewhere\.Strange"),
        ("channels", "part unet cannot be read"),
        ("width", "tokens of width 32, the denoiser reads 24"),
        ("index", r"model_index\.json"),
    ],
)
def test_what_cannot_be_a_backbone_is_named(what: str, said: str, saved: dict, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(saved["sd"][0], folder)
    damage(folder, what)
    with pytest.raises(FlawsmithError, match=said):
        Backbone.from_pretrained(folder)


def test_a_depth_model_is_refused_by_its_channels(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    made = thin.parts("sd")
    made["unet"] = UNet2DConditionModel.from_config({**made["unet"].config, "in_channels": 5})
    thin.write("sd", tmp_path / "depth", made)
    with pytest.raises(FlawsmithError, match="takes 5 channels"):
        Backbone.from_pretrained(tmp_path / "depth")


@pytest.mark.parametrize(("kind", "part"), [("sd", "unet"), ("ldm", "bert")])
def test_pickles_are_refused_with_the_remedy(kind: str, part: str, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    thin.write(kind, folder)
    (weights,) = (folder / part).glob("*.safetensors")
    weights.unlink()
    stem = "diffusion_pytorch_model" if part == "unet" else "pytorch_model"
    torch.save({}, folder / part / f"{stem}.bin")
    with pytest.raises(FlawsmithError, match="may run code") as refused:
        Backbone.from_pretrained(folder)
    assert "save_pretrained" in str(refused.value) and f"{stem}.bin" in str(refused.value)


def test_one_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(FlawsmithError, match="from_single_file"):
        Backbone.from_pretrained(file)


def test_a_fetched_hub_id_needs_no_network(saved: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    revision = "0" * 40
    home = tmp_path / "models--me--thin"
    shutil.copytree(saved["sd"][0], home / "snapshots" / revision)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    backbone = Backbone.from_pretrained("me/thin")
    assert backbone.source == "me/thin" and fingerprint(backbone) == fingerprint(
        Backbone.from_pretrained(saved["sd"][0])
    )
    with pytest.raises(FlawsmithError, match="nor on the hub"):
        Backbone.from_pretrained("me/other")
