"""The weights that come with the package: complete, small, safe, and obedient to the plainest words."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from small import reference  # noqa: E402

import fakes  # noqa: E402
from flawsmith.diffusion.attention import attached  # noqa: E402
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.compact import SHIPPED  # noqa: E402
from flawsmith.diffusion.denoise import Conditioning, predict  # noqa: E402
from flawsmith.methods.anomalycontrol.synthesizer import AnomalyControl  # noqa: E402
from flawsmith.methods.anomalyxfusion.synthesizer import AnomalyXFusion  # noqa: E402
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer  # noqa: E402
from flawsmith.records import Request, Sample  # noqa: E402

FOLDER = SHIPPED["compact"]


def test_the_folder_is_complete_small_and_without_pickles() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".md"}
    assert sum(path.stat().st_size for path in files) <= 30e6
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for word in ("CC BY-SA 4.0", "MIT", "steps", "seed", "Limits"):
        assert word in card


@pytest.fixture(scope="module")
def shipped() -> DiffusionSynthesizer:
    return DiffusionSynthesizer(Backbone.from_pretrained("compact").freeze(), min_visibility=0, min_share=0)


def brightness(shipped: DiffusionSynthesizer, word: str) -> float:
    """Mean change of grey level under the same four thin masks, when only the colour word differs."""
    requests = []
    for seed in range(4):
        normal = fakes.photo(seed, (160, 160))
        mask = np.zeros((160, 160), bool)
        mask[78:83, 40:120] = True
        none = np.zeros((160, 160), bool)
        requests.append(Request(Sample(normal, none), mask, "scratch", f"a long {word} scratch on metal", None, seed))
    samples = shipped.generate(requests, steps=8, threshold=0)
    changes = [
        float((sample.image.astype(int) - request.normal.image)[request.mask].mean())
        for request, sample in zip(requests, samples, strict=True)
    ]
    return float(np.mean(changes))


def test_white_is_brighter_than_black(shipped: DiffusionSynthesizer) -> None:
    assert brightness(shipped, "white") > brightness(shipped, "black") + 20


def test_an_image_from_words_alone(shipped: DiffusionSynthesizer) -> None:
    normal = fakes.photo(3, (150, 180))
    mask = np.zeros((150, 180), bool)
    mask[60:72, 80:92] = True
    none = np.zeros((150, 180), bool)
    (sample,) = shipped.generate(
        [Request(Sample(normal, none), mask, "hole", "a deep dark hole", None, 1)], min_share=0.1
    )
    assert "rejected" not in sample.info and sample.mask.any()
    assert np.array_equal(sample.image[~sample.mask], normal[~sample.mask])


def test_fresh_methods_are_nearly_the_backbone(shipped: DiffusionSynthesizer) -> None:
    """As their pages say: zero tokens and an untrained adapter change a prediction by less than half a per cent."""
    backbone = shipped.backbone
    generator = torch.Generator().manual_seed(0)
    side = backbone.size // backbone.factor
    noisy = torch.randn(2, backbone.latent_channels, side, side, generator=generator)
    mask = torch.zeros(2, 1, backbone.size, backbone.size)
    mask[..., 40:80, 40:80] = 1
    extra = backbone.inpaint_input(torch.rand(2, 3, backbone.size, backbone.size, generator=generator) * 2 - 1, mask)
    t = torch.tensor([300, 800])
    fused = AnomalyXFusion(backbone)
    fused.extend({"widget/hole": [reference(0)]})
    x = fused.fuse(["a hole"] * 2, ["widget/hole"] * 2, mask)
    whole = fused.condition(fused.insert(["a hole"] * 2, x, torch.zeros(2, dtype=torch.bool)), t).context
    length = whole.shape[1] - sum(fused.sizes[1:])
    steered = AnomalyControl(backbone)
    semantic = steered.projection(torch.randn(2, steered.reader.queries, steered.reader.width, generator=generator))
    with torch.no_grad():
        plain = predict(backbone.unet, noisy, t, Conditioning(whole[:, :length]), extra)
        tokens = predict(backbone.unet, noisy, t, Conditioning(whole), extra)
        with attached(backbone.unet, steered.attention):
            adapted = predict(backbone.unet, noisy, t, Conditioning(whole[:, :length], semantic), extra)
    assert not whole[:, length:].any()
    for found in (tokens, adapted):
        assert 0 < float((found - plain).norm() / plain.norm()) < 0.005
