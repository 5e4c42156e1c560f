"""`anomalycontrol` on a tiny real backbone: the whole contract, references that count, training, one path on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import small  # noqa: E402
import thin  # noqa: E402
from small import Run, reference, request  # noqa: E402

import fakes  # noqa: E402
from contract import Contract  # noqa: E402
from flawsmith import images  # noqa: E402
from flawsmith.config import GenerateConfig  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.generation import run as generation  # noqa: E402
from flawsmith.generation.run import prepare  # noqa: E402
from flawsmith.methods import load  # noqa: E402
from flawsmith.methods.anomalycontrol.features import invisible, seen  # noqa: E402
from flawsmith.methods.anomalycontrol.synthesizer import AnomalyControl, reference_text  # noqa: E402
from flawsmith.methods.base import Synthesizer  # noqa: E402
from flawsmith.records import Request, Sample  # noqa: E402
from flawsmith.training import run as training  # noqa: E402
from flawsmith.training.losses import batch_loss  # noqa: E402
from flawsmith.training.settings import FitConfig, settings_of  # noqa: E402
from flawsmith.training.windows import FewShotWindows  # noqa: E402


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLAWSMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def method(folder: Path) -> Synthesizer:
    return AnomalyControl(str(folder), steps=2)


class TestContract(Contract):
    """Every promise, on a tiny backbone of our own."""


def trained(folder: Path, **config: Any) -> AnomalyControl:
    """As after a fit: every weight of the adapter somewhere else than it started."""
    made = AnomalyControl(str(folder), config, steps=2, min_visibility=0, min_share=0)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in made.parameters().values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    made.card["learned"] = {"widget/hole": {"file": "weights.safetensors", "support": {}, "names": ["widget/hole"]}}
    return made


def picture(method: Synthesizer, asked: Request, **options: Any) -> np.ndarray:
    return method.generate([asked], **options)[0].image


# -- references count ----------------------------------------------------------------------------------------------


def test_another_reference_gives_another_picture(folder: Path) -> None:
    for config in ({}, {"pooling": "resample", "tokens": 6}, {"context_reference": False}):
        made = trained(folder, **config)
        assert not np.array_equal(picture(made, request(shown=0)), picture(made, request(shown=3)))


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
    plain = picture(frozen, replace(asked, reference=None))
    assert np.array_equal(picture(made, asked, adapter_scale=0.0), plain)
    assert not np.array_equal(picture(made, asked), plain)
    untrained = AnomalyControl(str(folder), steps=2, min_visibility=0, min_share=0)
    assert np.array_equal(picture(untrained, asked, adapter_scale=0.0), plain)
    assert not np.array_equal(picture(untrained, asked), plain)
    for guidance in (1.0, 3.0):
        same = picture(made, asked, adapter_scale=0.0, guidance_scale=guidance)
        assert np.array_equal(same, picture(frozen, replace(asked, reference=None), guidance_scale=guidance))


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
        picture(made, request(), adapter_scale=x, guidance_scale=1.5).astype(int) for x in (0.0, 0.05, 1.0)
    )
    assert 0 < np.abs(half - frozen).sum() < np.abs(full - frozen).sum()


def test_the_denoiser_is_left_as_it_was(folder: Path) -> None:
    made = trained(folder)
    weights = {k: v.clone() for k, v in made.backbone.unet.state_dict().items()}
    processors = dict(made.backbone.unet.attn_processors)
    picture(made, request())
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
    assert not np.array_equal(picture(made, request()), picture(made, request(), asea=False))


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


# -- the cache -----------------------------------------------------------------------------------------------------


def test_cached_is_uncached(folder: Path, cache: Path) -> None:
    first = picture(trained(folder), request())
    assert len(list(cache.rglob("*.safetensors"))) == 1
    again = trained(folder)
    assert np.array_equal(picture(again, request()), first) and again.features.made == 0
    without = trained(folder)
    assert np.array_equal(picture(without, request(), cache=False), first) and without.features.made == 1
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
    first = picture(trained(folder), request())
    (file,) = cache.rglob("*.safetensors")
    file.write_bytes(b"half a fi")
    assert np.array_equal(picture(trained(folder), request()), first)
    shutil.rmtree(cache)
    cache.write_text("a file where the folder should be")
    assert np.array_equal(picture(trained(folder), request()), first)


# -- refusals ------------------------------------------------------------------------------------------------------


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


# -- training ------------------------------------------------------------------------------------------------------


def windows(config: FitConfig, count: int = 3) -> FewShotWindows:
    real = [reference(s) for s in range(count)]
    drawn = [reference(s + 50, "crack") for s in range(2)]
    return FewShotWindows(real, [Sample(fakes.photo(5, (60, 90)), np.zeros((60, 90), bool))], drawn, 32, config)


def test_conditions_are_dropped_five_five_five() -> None:
    preset = AnomalyControl.presets["default"]["fit"]
    config = FitConfig(normal=0, drawn=0, **{key: preset[key] for key in ("drop_text", "drop_tokens", "drop_both")})
    made, rng, count = windows(config), np.random.default_rng(0), 10_000
    small = replace(made.real[0], image=made.real[0].image[15:47, 28:60], mask=made.real[0].mask[15:47, 28:60])
    made.real = [small]
    drawn = [made.window(rng) for _ in range(count)]
    no_text, no_tokens = (
        np.array([pick(w) for w in drawn]) for pick in (lambda w: w.caption == "", lambda w: w.dropped)
    )
    spread = 4 * (0.05 * 0.95 / count) ** 0.5
    for share in ((no_text & ~no_tokens).mean(), (~no_text & no_tokens).mean(), (no_text & no_tokens).mean()):
        assert abs(share - 0.05) < spread


def test_half_of_the_references_are_another_picture_of_the_type() -> None:
    """The references of two defects at two brightnesses tell whose they are."""
    config = FitConfig(normal=0, drawn=0, reference=1.0, self_reference=0.5, drop_text=0, seed=3)
    made = windows(config)
    dark, bright = (
        Sample(np.full((60, 90, 3), value, np.uint8), reference(0).mask, "w", "hole") for value in (40, 210)
    )
    made.real = [dark, bright]
    batch = made.batch(0, 400)
    own = [(i.mean() > 125) == (r[0].mean() > 125) for i, r in zip(batch.image, batch.references, strict=True)]
    assert 0.4 < np.mean(own) < 0.6


def test_a_slow_reader_sees_few_pictures() -> None:
    made = windows(FitConfig(normal=0, drawn=0, reference=1.0, reference_views=2))
    shown = {r[0].tobytes() for step in range(12) for r in made.batch(step, 6).references if r is not None}
    assert 3 <= len(shown) <= 3 * 2 * 2  # three defects, two views, each as itself (varied) or as another's


def test_painted_defects_show_themselves() -> None:
    made = windows(FitConfig(normal=0, drawn=1.0, drawn_reference=1.0))
    assert all(r is not None for r in made.batch(0, 8).references)
    made = windows(FitConfig(normal=0, drawn=1.0))
    assert all(r is None for r in made.batch(0, 8).references)


def test_only_the_adapter_learns_and_dropped_rows_get_the_unconditional_tokens(folder: Path) -> None:
    made = AnomalyControl(str(folder))
    for parameter in made.parameters().values():
        parameter.requires_grad_(True)
    config = FitConfig(normal=0, drawn=0, reference=1.0, drop_text=0, bf16=False)
    batch = windows(config).batch(0, 3)
    batch.dropped[1] = True
    t = torch.tensor([100, 500, 900])
    given = made.training_condition(batch, t)
    null = made.unconditional(3)
    assert torch.equal(given.semantic[1], null.semantic[1])
    assert not torch.allclose(given.semantic[0], null.semantic[0], atol=1e-3)
    length = made.backbone.encode_text(["a"]).shape[1]
    assert torch.equal(given.context[1, length:], null.context[1, length:])  # nor through the context
    assert not torch.allclose(given.context[0, length:], null.context[0, length:], atol=1e-3)
    noise = torch.randn(3, made.backbone.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    batch_loss(made.backbone, batch, t, noise, config, made.training_condition).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters().values())
    assert all(p.grad is None for module in made.backbone.modules().values() for p in module.parameters())


def test_the_condition_of_training_is_that_of_sampling(folder: Path) -> None:
    """The same reference and words, once as a batch and once as a request: the same tokens."""
    made = trained(folder)
    asked = request()
    batch = windows(FitConfig(normal=0, drawn=0, reference=1.0)).batch(0, 1)
    batch.references = [seen(asked.reference, made.reader.size)]
    batch.captions, batch.words, batch.names, batch.dropped = [asked.caption], [""], [""], [False]
    batch.words = [reference_text(asked.reference, "widget")]
    learned = made.training_condition(batch, torch.tensor([500]))
    used = made.prepare([asked], torch.ones(1, 1, 32, 32), made.options)
    assert torch.allclose(learned.semantic, used.semantic, atol=1e-6)
    assert torch.allclose(learned.context, used.context, atol=1e-6)


def test_the_mask_channel_is_zero_or_one_in_training_and_in_sampling(folder: Path) -> None:
    made = trained(folder)
    backbone = made.backbone
    given: list[torch.Tensor] = []

    def look(module: Any, arguments: tuple, keywords: dict) -> None:
        given.append(arguments[0].detach())

    hook = backbone.unet.register_forward_pre_hook(look, with_kwargs=True)
    picture(made, request())
    sampled, given[:] = list(given), []
    noise = torch.zeros(3, backbone.latent_channels, 8, 8)
    config = FitConfig(bf16=False)
    batch_loss(
        backbone, windows(config).batch(0, 3), torch.tensor([5, 50, 500]), noise, config, made.training_condition
    )
    hook.remove()
    assert sampled and given
    for x in (*sampled, *given):
        mask = x[:, backbone.latent_channels : backbone.latent_channels + backbone.mask_channels]
        assert set(mask.unique().tolist()) == {0.0, 1.0}
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    hole = torch.zeros(2, 1, 32, 32)
    hole[:, :, 8:20, 10:25] = 1
    for kind in (backbone, thin.backbone("sd-inpainting")):  # and nothing of what the hole hides is among the inputs
        extra, scrambled = (kind.inpaint_input(x, hole) for x in (image, torch.where(hole == 1, -image, image)))
        assert torch.equal(extra, scrambled)
        assert set(extra[:, : kind.mask_channels].unique().tolist()) == {0.0, 1.0}


def spot(seed: int, colour: tuple[int, int, int]) -> Sample:
    rng = np.random.default_rng(seed)
    image, mask = rng.integers(90, 150, (48, 48, 3), dtype=np.uint8), np.zeros((48, 48), bool)
    top, left = rng.integers(8, 28, 2)
    mask[top : top + 12, left : left + 12] = True
    image[mask] = colour
    return Sample(image, mask, "w", "spot", "a spot")


def test_the_adapter_learns_to_follow_the_reference(folder: Path) -> None:
    """Red and blue spots with the same words: after a fit the own reference gives a lower loss than the other's."""
    made = AnomalyControl(str(folder), {"context_reference": False})
    for parameter in made.parameters().values():
        parameter.requires_grad_(True)
    config = FitConfig(normal=0, drawn=0, reference=1.0, self_reference=0.5, drop_text=0, bf16=False, widen=0)
    colours = ((200, 20, 20), (20, 20, 200))
    kinds = [FewShotWindows([spot(10 * k + i, c) for i in range(6)], [], [], 32, config) for k, c in enumerate(colours)]
    t = torch.linspace(600, 990, 6).long()
    shape = (6, made.backbone.latent_channels, 8, 8)

    def margin() -> float:
        """How much the smaller of the two losses rises when red and blue windows swap their references."""
        first, second = (windows_of.batch(999, 6, real_only=True) for windows_of in kinds)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        found = []
        with torch.no_grad():
            for batch, other in ((first, second), (second, first)):
                swapped = replace(batch, references=other.references)
                own, wrong = (
                    float(batch_loss(made.backbone, b, t, noise, config, made.training_condition).mean())
                    for b in (batch, swapped)
                )
                found.append(wrong - own)
        return min(found)

    assert margin() < 0.002
    optimiser = torch.optim.AdamW(made.parameters().values(), lr=1e-2)
    for step in range(80):
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(step + 7))
        steps = (torch.rand(6, generator=torch.Generator().manual_seed(step)) * 1000).long()
        batch = kinds[step % 2].batch(step, 6)
        optimiser.zero_grad()
        batch_loss(made.backbone, batch, steps, noise, config, made.training_condition).mean().backward()
        optimiser.step()
    assert margin() > 0.004


settings = partial(small.settings, "anomalycontrol", {"learning_rate": 0.01})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    fakes.mvtec_tree(path, "widget", good=3, defects={"crack": 6, "hole": 6}, size=(60, 80))
    return path


@pytest.fixture(scope="module")
def finished(folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAWSMITH_CACHE", str(out.parent / "cache"))
        training.train(settings(folder, data, out))
    yield out


def test_train_save_load(folder: Path, data: Path, finished: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    stored = load_file(finished / "weights.safetensors")
    fresh = AnomalyControl(str(folder), {"seed": 0})
    assert set(stored) == set(fresh.parameters())
    assert all(not torch.equal(stored[key], p) for key, p in fresh.parameters().items())  # everything was trained
    loaded = load(finished)
    assert isinstance(loaded, AnomalyControl) and loaded.adapting
    loaded.save_pretrained(tmp_path / "copy")
    again = load(tmp_path / "copy")
    assert np.array_equal(picture(loaded, request()), picture(again, request()))
    assert set(loaded.card["learned"]) == {"widget/crack", "widget/hole"} and loaded.seen()
    with pytest.raises(FlawsmithError, match="nothing of its own"):  # a new reference needs no training
        other = tmp_path / "data"
        fakes.mvtec_tree(other, "gear", good=2, defects={"chip": 5}, size=(40, 50), seed=77)
        training.train(settings(folder, other, finished))


def test_a_stopped_fit_resumes_to_the_same_weights(folder: Path, data: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        training.train(settings(folder, data, tmp_path / "b"), small.stop_at_three)
    training.train(settings(folder, data, tmp_path / "b"))
    assert (tmp_path / "b/weights.safetensors").read_bytes() == (finished / "weights.safetensors").read_bytes()


def test_presets_are_settings_that_exist(folder: Path, data: Path, tmp_path: Path) -> None:
    paper = settings_of(settings(folder, data, tmp_path, options={"preset": "paper"}), AnomalyControl)
    assert paper.fit.self_reference == 1.0 and paper.fit.drop_tokens == 0.05 and paper.fit.loss_norm == "all"
    assert paper.config["context_reference"] is False
    assert paper.options["steps"] == 50 and paper.options["guidance_scale"] == 7.0
    default = settings_of(settings(folder, data, tmp_path), AnomalyControl)
    assert default.fit.self_reference == 0.5 and default.fit.reference == 1.0
    AnomalyControl(str(folder), paper.config, **paper.options)


def test_training_starts_from_an_ip_adapter_file(folder: Path, data: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from diffusion.test_anomalycontrol_parts import ip_file

    fresh = AnomalyControl(str(folder))
    save_file(ip_file(fresh.attention, fresh.projection), tmp_path / "ip.safetensors")
    options = {"ip_adapter": str(tmp_path / "ip.safetensors"), "learning_rate": 1e-9, "weight_decay": 0.0}
    training.train(settings(folder, data, tmp_path / "run", steps=1, options=options))
    loaded = AnomalyControl.from_pretrained(tmp_path / "run")
    assert torch.allclose(loaded.attention.to_k_ip[0].weight, torch.full_like(loaded.attention.to_k_ip[0].weight, 4.0))
    (tmp_path / "ip.safetensors").unlink()
    AnomalyControl.from_pretrained(tmp_path / "run")  # the file was needed once


def test_blip2_as_the_reader(folder: Path, data: Path, tmp_path: Path, cache: Path, blip: Path) -> None:
    options = {"reader": str(blip), "reference_views": 1}
    training.train(settings(folder, data, tmp_path / "run", steps=2, options=options))
    files = {path.name for path in cache.rglob("*.safetensors")}
    training.train(settings(folder, data, tmp_path / "again", steps=2, options=options))
    assert files and files == {path.name for path in cache.rglob("*.safetensors")}  # each view is read once
    loaded = AnomalyControl.from_pretrained(tmp_path / "run")
    assert not np.array_equal(picture(loaded, request(shown=0)), picture(loaded, request(shown=3)))
    with pytest.raises(FlawsmithError, match="learned nothing"):
        AnomalyControl(str(folder), {"reader": str(blip)}).generate([request()])


# -- plans and the command line ------------------------------------------------------------------------------------


def config(folder: Path, data: Path, out: Path, **more: Any) -> GenerateConfig:
    given = {"method": "anomalycontrol", "normal": f"mvtec_ad:{data}", "backbone": str(folder), "options": {"steps": 2}}
    return GenerateConfig(out=out, **{**given, **more})


def test_the_bulk_plan_is_support_x_normals_x_masks(folder: Path, data: Path, tmp_path: Path) -> None:
    made, _, _ = prepare(config(folder, data, tmp_path / "o", n=40, per_defect=True, shots=2, references=2))
    assert len(made.jobs) == 80
    for defect in ("crack", "hole"):
        jobs = [job for job in made.jobs if job.defect_type == defect]
        names = {job.reference.name for job in jobs}
        assert len(names) == 2 and all("test/" + defect in name for name in names)
        assert {job.normal.name for job in jobs} == {f"widget/train/good/{i:03d}.png" for i in range(3)}
        pairs = {(job.reference.name, job.normal.name) for job in jobs}
        assert len(pairs) == 6  # every reference meets every normal
        assert all(len(job.others) <= 1 and job.reference not in job.others for job in jobs)
        assert any(job.others for job in jobs)
    assert len({job.seed for job in made.jobs}) == 80


def test_references_of_another_product(folder: Path, data: Path, tmp_path: Path) -> None:
    tile = tmp_path / "tile"
    fakes.mvtec_tree(tile, "tile", good=1, defects={"blowhole": 4}, size=(50, 50), seed=40)
    (tile / "LICENSE.txt").write_text("own")
    asked = config(folder, data, tmp_path / "o", n=4, shots=2, references_from=f"mvtec_ad:{tile}")
    made, _, loader = prepare(asked)
    assert {(j.normal.category, j.reference.category, j.defect_type) for j in made.jobs} == {
        ("widget", "tile", "blowhole")
    }
    first = loader.request(made.jobs[0])
    assert reference_text(first.reference, first.normal.category) == "This is an image with a blowhole."
    assert "LICENSE.txt" in made.description["licences"] and not made.notes
    summary = generation.run(asked)
    assert summary.kept + summary.rejected == 4
    for other, reason in (("procedural", "reads no references"), ("copypaste", "one reference per picture")):
        plain = {"method": other, "backbone": None, "options": {}, "references": 2 if other == "copypaste" else 1}
        with pytest.raises(FlawsmithError, match=reason):
            prepare(asked.model_copy(update=plain))
    with pytest.raises(FlawsmithError, match="both given"):
        prepare(asked.model_copy(update={"reference": tile, "reference_mask": tile}))


def test_a_reference_that_cannot_be_seen_stops_before_the_first_picture(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    image = fakes.save(tmp_path / "r.png", fakes.photo(3))
    mask = np.zeros((48, 64), bool)
    mask[5, 5] = True
    path = fakes.save(tmp_path / "m.png", mask)
    with pytest.raises(FlawsmithError, match=r"r\.png cannot be used: its defect covers"):
        prepare(config(folder, data, tmp_path / "o", reference=image, reference_mask=path))
    assert not (tmp_path / "o").exists()


def test_the_command_line(finished: Path, data: Path, tmp_path: Path, run: Run) -> None:
    shown = reference(4)
    image, mask = fakes.save(tmp_path / "r.png", shown.image), fakes.save(tmp_path / "m.png", shown.mask)
    common = ("generate", finished, "--normal", f"mvtec_ad:{data}", "-n", 2, "--set", "steps=2", "--set", "min_share=0",
              "--set", "min_visibility=0", "--reference", image, "--reference-text", "This is an image with holes.",
              "--prompt", "a widget with holes", "--defect", "hole")  # fmt: skip
    assert run(*common, "--reference-mask", mask, "--adapter-scale", 0.8, "--out", tmp_path / "a")[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "a/manifest.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert line["options"]["adapter_scale"] == 0.8 and line["reference"]["file"] == "r.png"
        assert line["info"]["asea"]["energy_after"][0] < line["info"]["asea"]["energy_before"][0]
        assert line["caption"] == "a widget with holes"
        normal, made = (
            images.read_image(data / line["normal"]["file"]),
            images.read_image(tmp_path / "a" / line["image"]),
        )
        label = images.read_mask(tmp_path / "a" / line["mask"])
        assert np.array_equal(made[~label], normal[~label])
    assert run(*common, "--out", tmp_path / "b")[0] == 2  # no mask: refused
    even = np.random.default_rng(0).normal(130, 4, (90, 120, 3)).clip(0, 255).astype(np.uint8)
    fakes.save(image, fakes.with_defect(even, "hole", 1)[0])
    code, _, err = run(*common, "--reference-mask", "auto", "--out", tmp_path / "d")
    assert code == 0 and "look at" in err and (tmp_path / "d-reference.png").is_file()
    first = (tmp_path / "d/manifest.jsonl").read_bytes()
    assert run(*common, "--reference-mask", "auto", "--out", tmp_path / "d")[0] == 0  # resumes
    assert (tmp_path / "d/manifest.jsonl").read_bytes() == first
    assert run(*common, "--reference-mask", mask, "--adapter-scale", -1, "--out", tmp_path / "c")[0] == 2
    assert not (tmp_path / "b").exists() and not (tmp_path / "c").exists()


# -- Stable Diffusion's shapes -------------------------------------------------------------------------------------


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
    first, second = picture(made, request(shown=0)), picture(made, request(shown=3))
    assert not np.array_equal(first, second)
    normal = request().normal.image
    assert np.array_equal(first[~request().mask], normal[~request().mask])
    zero = [picture(made, request(shown=shown), adapter_scale=0.0) for shown in (0, 3)]
    assert np.array_equal(*zero)  # at lambda = 0 no reference is seen


def test_a_backbone_without_a_reader_names_the_setting() -> None:
    with pytest.raises(FlawsmithError, match="reader=FOLDER"):
        AnomalyControl(thin.backbone("sd"))
