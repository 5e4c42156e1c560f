"""AnomalyControl's training: what a window shows, what learns, one path on disk from fit to command line."""

from __future__ import annotations

import json
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
from control import painted, trained  # noqa: E402
from small import Run, reference, request  # noqa: E402

import fakes  # noqa: E402
from flawsmith import images  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.methods import load  # noqa: E402
from flawsmith.methods.anomalycontrol.features import seen  # noqa: E402
from flawsmith.methods.anomalycontrol.synthesizer import AnomalyControl, reference_text  # noqa: E402
from flawsmith.records import Sample  # noqa: E402
from flawsmith.training import run as training  # noqa: E402
from flawsmith.training.losses import batch_loss  # noqa: E402
from flawsmith.training.settings import FitConfig, settings_of  # noqa: E402
from flawsmith.training.windows import FewShotWindows  # noqa: E402

pytestmark = pytest.mark.usefixtures("cache")
settings = partial(small.settings, "anomalycontrol", {"learning_rate": 0.01})


def windows(config: FitConfig, count: int = 3) -> FewShotWindows:
    real = [reference(s) for s in range(count)]
    drawn = [reference(s + 50, "crack") for s in range(2)]
    return FewShotWindows(real, [Sample(fakes.photo(5, (60, 90)), np.zeros((60, 90), bool))], drawn, 32, config)


# -- windows -----------------------------------------------------------------------------------------------------------


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


def test_half_of_the_references_are_another_image_of_the_type() -> None:
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


def test_a_slow_reader_sees_few_images() -> None:
    made = windows(FitConfig(normal=0, drawn=0, reference=1.0, reference_views=2))
    shown = {r[0].tobytes() for step in range(12) for r in made.batch(step, 6).references if r is not None}
    assert 3 <= len(shown) <= 3 * 2 * 2  # three defects, two views, each as itself (varied) or as another's


def test_painted_defects_show_themselves() -> None:
    made = windows(FitConfig(normal=0, drawn=1.0, drawn_reference=1.0))
    assert all(r is not None for r in made.batch(0, 8).references)
    made = windows(FitConfig(normal=0, drawn=1.0))
    assert all(r is None for r in made.batch(0, 8).references)


# -- the loss ----------------------------------------------------------------------------------------------------------


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

    def appearance(module: Any, arguments: tuple, keywords: dict) -> None:
        given.append(arguments[0].detach())

    hook = backbone.unet.register_forward_pre_hook(appearance, with_kwargs=True)
    painted(made, request())
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


# -- one path on disk --------------------------------------------------------------------------------------------------


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
    assert np.array_equal(painted(loaded, request()), painted(again, request()))
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
    assert not np.array_equal(painted(loaded, request(shown=0)), painted(loaded, request(shown=3)))
    with pytest.raises(FlawsmithError, match="learned nothing"):
        AnomalyControl(str(folder), {"reader": str(blip)}).generate([request()])


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
