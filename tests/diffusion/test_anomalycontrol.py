"""AnomalyControl on tiny backbones: the whole contract, references that count, their cache, and those refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import thin  # noqa: E402
from control import painted, trained  # noqa: E402
from small import reference, request  # noqa: E402

import fakes  # noqa: E402
from contract import Contract  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.methods.anomalycontrol.features import invisible, seen  # noqa: E402
from flawsmith.methods.anomalycontrol.synthesizer import AnomalyControl, reference_text  # noqa: E402
from flawsmith.methods.base import Synthesizer  # noqa: E402
from flawsmith.records import Sample  # noqa: E402
from flawsmith.training.losses import batch_loss  # noqa: E402
from flawsmith.training.settings import FitConfig  # noqa: E402
from flawsmith.training.windows import FewShotWindows  # noqa: E402

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def method(folder: Path) -> Synthesizer:
    return AnomalyControl(str(folder), steps=2)


class TestContract(Contract):
    """Every promise, on a tiny backbone of our own."""


# -- references count --------------------------------------------------------------------------------------------------


def test_another_reference_gives_another_image(folder: Path) -> None:
    for config in ({}, {"pooling": "resample", "tokens": 6}, {"context_reference": False}):
        made = trained(folder, **config)
        assert not np.array_equal(painted(made, request(shown=0)), painted(made, request(shown=3)))


def test_features_of_two_references_differ(folder: Path) -> None:
    made = AnomalyControl(str(folder))
    (first,), (second,), (again,) = made.read([request(shown=0), request(shown=3), request(shown=0)], made.options)
    assert (first.states - second.states).abs().max() > 1e-3
    assert torch.equal(first.states, again.states)
    assert made.features.made == 2  # the same reference is read once


def test_adapter_scale_zero_is_the_frozen_backbone(folder: Path) -> None:
    """lambda = 0: the very pixels of `inpaint` without a reference, whichever way the reference comes in."""
    from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer

    made = trained(folder)
    # contrast=0: without a reference `inpaint` would take a sketch's contrast
    frozen = DiffusionSynthesizer(str(folder), steps=2, min_visibility=0, min_share=0, contrast=0)
    asked = request()
    plain = painted(frozen, replace(asked, reference=None))
    assert np.array_equal(painted(made, asked, adapter_scale=0.0), plain)
    assert not np.array_equal(painted(made, asked), plain)
    untrained = AnomalyControl(str(folder), steps=2, min_visibility=0, min_share=0)
    assert np.array_equal(painted(untrained, asked, adapter_scale=0.0), plain)
    assert not np.array_equal(painted(untrained, asked), plain)
    for guidance in (1.0, 3.0):
        same = painted(made, asked, adapter_scale=0.0, guidance_scale=guidance)
        assert np.array_equal(same, painted(frozen, replace(asked, reference=None), guidance_scale=guidance))


def test_the_reference_laid_in_place_fades_with_lambda(folder: Path) -> None:
    made = AnomalyControl(str(folder), strength=0.6)
    for scale, strength in ((0.0, 1.0), (0.5, 0.8), (1.0, 0.6), (4.0, 0.6)):
        options = made.parse_options({"adapter_scale": scale}, made.options)
        assert made.start(options) == {"strength": pytest.approx(strength)}
    assert made.start(made.parse_options({"start": "noise"}, made.options)) == {}


@pytest.mark.parametrize("context_reference", [True, False])
def test_lambda_is_a_dial_with_guidance(folder: Path, context_reference: bool) -> None:
    made = trained(folder, context_reference=context_reference)
    frozen, half, full = (
        painted(made, request(), adapter_scale=x, guidance_scale=1.5).astype(int) for x in (0.0, 0.05, 1.0)
    )
    assert 0 < np.abs(half - frozen).sum() < np.abs(full - frozen).sum()


def test_the_denoiser_is_left_as_it_was(folder: Path) -> None:
    made = trained(folder)
    weights = {k: v.clone() for k, v in made.backbone.unet.state_dict().items()}
    processors = dict(made.backbone.unet.attn_processors)
    painted(made, request())
    assert all(torch.equal(weights[k], v) for k, v in made.backbone.unet.state_dict().items())
    assert all(made.backbone.unet.attn_processors[k] is v for k, v in processors.items())


def test_asea_is_reported_and_changes_the_feature(folder: Path) -> None:
    made = trained(folder)
    steered = made.generate([request()])[0].info["asea"]
    assert steered["updates"] == 5 and steered["energy_after"][0] < steered["energy_before"][0]
    plain = made.generate([request()], asea=False)[0].info["asea"]
    assert plain["updates"] == 0 and plain["energy_after"] == plain["energy_before"] == steered["energy_before"]
    four = made.generate([request()], e_g_updates=4)[0].info["asea"]
    assert steered["energy_after"][0] != four["energy_after"][0]
    assert not np.array_equal(painted(made, request()), painted(made, request(), asea=False))


def test_several_references_are_blended(folder: Path) -> None:
    made = trained(folder)
    one, other = reference(0), reference(3)
    both = request(others=(other,))
    blended = made.prepare([both], torch.ones(1, 1, 32, 32), made.options)
    states = [made.read([request(reference=shown)], made.options)[0][0].states for shown in (one, other)]
    wanted = made.projection(((states[0] + states[1]) / 2)[None])
    assert torch.allclose(blended.semantic, wanted, atol=1e-6)
    assert len(made.generate([both])[0].info["asea"]["energy_after"]) == 2


def test_the_words_of_a_reference() -> None:
    own = replace(reference(0), caption="A widget with a red hole.")
    assert reference_text(own, "widget") == "A widget with a red hole."
    assert reference_text(own, "wood") == "This is an image with a hole."
    assert reference_text(reference(0), "widget") == "This is an image with a hole."


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_cached_is_uncached(folder: Path, cache: Path) -> None:
    first = painted(trained(folder), request())
    assert len(list(cache.rglob("*.safetensors"))) == 1
    again = trained(folder)
    assert np.array_equal(painted(again, request()), first) and again.features.made == 0
    without = trained(folder)
    assert np.array_equal(painted(without, request(), cache=False), first) and without.features.made == 1
    assert again.generate([request()])[0].info == without.generate([request()], cache=False)[0].info


def test_what_decides_a_feature_is_in_its_key(folder: Path) -> None:
    made = AnomalyControl(str(folder), cache=False)
    asked = request()
    shown = reference(0)
    variants = [
        asked,
        replace(asked, reference=replace(shown, mask=np.roll(shown.mask, 3, 1))),
        replace(asked, reference=replace(shown, image=shown.image[::-1].copy())),
        replace(asked, reference=replace(shown, caption="blue scratches")),
    ]
    for number, variant in enumerate(variants, start=1):
        made.read([variant], made.options)
        assert made.features.made == number
    made.read([asked], made.options.model_copy(update={"e_g_updates": 3}))
    assert made.features.made == 5


def test_a_damaged_or_unwritable_cache_costs_only_time(folder: Path, cache: Path, monkeypatch: Any) -> None:
    first = painted(trained(folder), request())
    (file,) = cache.rglob("*.safetensors")
    file.write_bytes(b"half a fi")
    assert np.array_equal(painted(trained(folder), request()), first)
    shutil.rmtree(cache)
    cache.write_text("a file where the folder should be")
    assert np.array_equal(painted(trained(folder), request()), first)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_references_that_cannot_be_seen_are_refused_with_the_reason(method: Synthesizer) -> None:
    shown = reference(0)
    one = np.zeros_like(shown.mask)
    one[30, 40] = True
    cases = {
        "empty": replace(shown, mask=np.zeros_like(shown.mask)),
        "covers 1 pixels": replace(shown, mask=one),
        "12 x 10 pixels": Sample(shown.image[:10, :12].copy(), np.ones((10, 12), bool)),
        "flat": replace(shown, image=np.full_like(shown.image, 130)),
    }
    for reason, bad in cases.items():
        with pytest.raises(FlawsmithError, match=reason):
            method.generate([request(reference=bad)])
        with pytest.raises(FlawsmithError, match=reason):
            method.generate([request(others=(bad,))])
    assert invisible(shown, 32) == ""


def test_thin_defects_stay_in_the_readers_mask() -> None:
    image = fakes.photo(1, (600, 800))
    mask = np.zeros((600, 800), bool)
    mask[300, 50:750] = True
    small, where = seen(Sample(image, mask), 32)
    assert small.shape == (32, 32, 3) and where.any(axis=0).sum() > 20


def test_without_training_and_without_a_reader_it_says_what_to_do(folder: Path) -> None:
    with pytest.raises(FlawsmithError, match="flawsmith train anomalycontrol"):
        AnomalyControl(str(folder), {"context_reference": False}).generate([request()])


# -- Stable Diffusion's shapes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sd-inpainting", "sd"])
def test_on_stable_diffusion_with_blip2(kind: str, blip: Path) -> None:
    backbone = thin.backbone(kind)
    made = AnomalyControl(backbone, {"reader": str(blip)}, steps=2, min_visibility=0, min_share=0, threshold=0)
    with pytest.raises(FlawsmithError, match="learned nothing"):
        made.generate([request()])
    assert made.projection.entry.in_features == made.reader.width and made.projection.context == 24
    for parameter in made.parameters().values():
        parameter.requires_grad_(True)
    config = FitConfig(normal=0, drawn=0, reference=1.0, drop_text=0, bf16=False)
    few = FewShotWindows([reference(s) for s in range(3)], [], [], backbone.size, config)
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(made.parameters().values(), lr=0.05)
    losses = []
    for _ in range(8):
        loss = batch_loss(
            backbone, few.batch(0, 2), torch.tensor([300, 700]), noise, config, made.training_condition
        ).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    first, second = painted(made, request(shown=0)), painted(made, request(shown=3))
    assert not np.array_equal(first, second)
    normal = request().normal.image
    assert np.array_equal(first[~request().mask], normal[~request().mask])
    zero = [painted(made, request(shown=shown), adapter_scale=0.0) for shown in (0, 3)]
    assert np.array_equal(*zero)  # at lambda = 0 no reference is seen


def test_a_backbone_without_a_reader_names_the_setting() -> None:
    with pytest.raises(FlawsmithError, match="reader=FOLDER"):
        AnomalyControl(thin.backbone("sd"))
