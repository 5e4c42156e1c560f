"""What the denoiser attends to under AnomalyXFusion, in training and at every step of sampling, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

import small  # noqa: E402
import thin  # noqa: E402
from by_hand import stirred  # noqa: E402

import fakes  # noqa: E402
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.batch import Batch  # noqa: E402
from flawsmith.methods.anomalyxfusion.synthesizer import PROMPTS, AnomalyXFusion  # noqa: E402
from flawsmith.training.losses import batch_loss  # noqa: E402
from flawsmith.training.settings import FitConfig  # noqa: E402

NAMES = ("widget/hole", "widget/crack")


def method(backbone: Backbone, **config: Any) -> AnomalyXFusion:
    """Every part has something to say, as after a fit."""
    made = AnomalyXFusion(backbone, config, steps=4, guidance_scale=1.0, context=1.0)
    made.extend({name: small.samples(name.split("/")[1], 2) for name in NAMES})
    for number, module in enumerate(made.trainable().values()):
        stirred(module, number, 0.2)
    return made


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling rounds to bfloat16 where the processor has it: wider than the tolerances here."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)


@pytest.fixture
def made(tiny: Backbone) -> AnomalyXFusion:
    return method(tiny)


def tokens(made: AnomalyXFusion, caption: str, name: str, mask: torch.Tensor, t: int) -> torch.Tensor:
    """X_t = DDF(MIF([e_tex; e_loc; e_sem]), t) of one window, (N, D), from the parts alone."""
    groups = [
        made.texture([name], made.null()[: made.sizes[0]]),
        made.location(mask[None]),
        made.semantic(made.features.text([caption])),
    ]
    return made.dif_fusion(made.in_fusion(torch.cat(groups, 1)), torch.tensor([t]))[0]


class Seen:
    """The denoiser's calls while it is open: steps, context, and the mask of what is painted."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self.steps, self.contexts, self.masks = backbone, [], [], []

    def __enter__(self) -> Seen:
        self.hook = self.backbone.unet.register_forward_pre_hook(self._keep, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def _keep(self, module: torch.nn.Module, given: Sequence[Any], named: dict[str, Any]) -> None:
        channels = self.backbone.latent_channels
        cells = given[0][:, channels : channels + self.backbone.mask_channels]
        self.masks.append(torch.nn.functional.pixel_shuffle(cells, self.backbone.factor))
        self.steps.append(given[1].tolist())
        self.contexts.append(named["encoder_hidden_states"].detach())


def test_every_step_of_sampling_sees_words_place_and_looks_tuned_to_that_step(made: AnomalyXFusion) -> None:
    asked = [small.request(0), small.request(1, caption="blue scratches on metal", defect_type="crack")]
    asked[1].mask[20:27] = False
    with Seen(made.backbone) as seen, torch.no_grad():
        made.generate(asked)
        assert len(seen.steps) == 4 and len({row[0] for row in seen.steps}) == 4
        for steps, context, masks in zip(seen.steps, seen.contexts, seen.masks, strict=True):
            for row, request in enumerate(asked):
                assert masks[row].sum() == request.mask.sum()  # the window is not shrunk
                text = made.backbone.encode_text([request.caption])[0]
                x = tokens(made, request.caption, f"widget/{request.defect_type}", masks[row], steps[row])
                assert torch.allclose(context[row], torch.cat([text, x]), atol=1e-4)


def test_words_place_name_and_step_each_change_the_tokens(made: AnomalyXFusion) -> None:
    """So that the comparison above can fail: each input moves what it says it moves by more than its tolerance."""
    mask = torch.zeros(1, 32, 32)
    mask[:, 4:12, 6:20] = 1
    given = {"caption": "red spot", "name": NAMES[0], "mask": mask, "t": 500}
    with torch.no_grad():
        x = tokens(made, **given)
        for other in ({"caption": "thin scratches"}, {"name": NAMES[1]}, {"mask": mask.roll(9, 2)}, {"t": 900}):
            assert (tokens(made, **{**given, **other}) - x).abs().max() > 0.02, other


def test_guidance_moves_away_from_no_words_and_the_null_tokens(made: AnomalyXFusion) -> None:
    with Seen(made.backbone) as seen, torch.no_grad():
        made.generate([small.request(0)], guidance_scale=2.0)
        nothing = torch.cat([made.backbone.encode_text([""])[0], made.null()])
    assert all(len(context) == 2 and torch.allclose(context[0], nothing, atol=1e-5) for context in seen.contexts)
    assert all((context[1] - context[0]).abs().max() > 0.1 for context in seen.contexts)


def batch(dropped: Sequence[bool] = (False, False, True)) -> Batch:
    images = np.stack([fakes.photo(seed, (32, 32)) for seed in range(3)])
    masks = np.zeros((3, 32, 32), bool)
    for row in range(3):
        masks[row, 3 + 5 * row : 12 + 5 * row, 6:20] = True
    words = ["red spot", "blue scratches", "thin"]
    names = [NAMES[0], NAMES[1], NAMES[1]]
    return Batch(images, images, masks, words, [None] * 3, words=words, names=names, dropped=list(dropped))


def test_training_sees_the_tokens_of_its_own_step_and_nulls_where_they_are_dropped(made: AnomalyXFusion) -> None:
    given, steps = batch(), [3, 500, 990]
    noise = torch.randn(3, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    with Seen(made.backbone) as seen, torch.no_grad():
        t = torch.tensor(steps)
        batch_loss(made.backbone, given, t, noise, FitConfig(bf16=False), made.training_condition)
        assert seen.steps == [steps]
        for row in range(3):
            mask = torch.from_numpy(given.mask[row]).float()[None]
            assert torch.equal(seen.masks[0][row], mask)
            x = tokens(made, given.captions[row], given.names[row], mask, steps[row])
            wanted = torch.cat([made.backbone.encode_text([given.captions[row]])[0], made.null() if row == 2 else x])
            assert torch.allclose(seen.contexts[0][row], wanted, atol=1e-4)


def test_with_the_template_the_caption_speaks_through_the_semantic_tokens_only(tiny: Backbone) -> None:
    made = method(tiny, prompt="template")
    steps = torch.tensor([3, 500, 991])
    templates = [PROMPTS[t % len(PROMPTS)] for t in steps.tolist()]
    assert len(set(templates)) == 3
    with torch.no_grad():
        context = made.training_condition(batch(), steps).context
        for row, template in zip(context, templates, strict=True):
            text = made.backbone.encode_text([template.format("a defect")])[0]
            assert torch.allclose(row[: len(text)], text, atol=1e-5)
        asked = made.prepare([small.request(0)], torch.ones(1, 1, 32, 32), made.options)
        assert torch.equal(asked.text, made.backbone.encode_text([PROMPTS[0].format("a defect")]))


def test_a_part_that_is_painted_already_counts_as_the_whole_window(made: AnomalyXFusion) -> None:
    with torch.no_grad():
        whole = torch.ones(1, 1, 32, 32)
        empty, full = (made.prepare([small.request(0)], mask, made.options).x for mask in (0 * whole, whole))
    assert torch.equal(empty, full)


def test_tokens_before_the_encoder_are_re_tuned_where_they_come_out(clip: Any) -> None:
    """LDM: the encoded prompt with DDF of its own positions first .. first + N at each row's step."""
    made = method(thin.backbone("ldm"), clip=str(clip))
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., 4:12, 6:20] = 1
    with torch.no_grad():
        x = made.fuse(["a hole", "a crack"], NAMES, mask)
        fused = made.insert(["a hole", "a crack"], x, torch.tensor([False, False]))
        count, first = sum(made.sizes), int(fused.first[0])
        context = made.condition(fused, torch.tensor([10, 900])).context
        for row, t in enumerate((10, 900)):
            wanted = fused.text[row].clone()
            inserted = fused.text[row : row + 1, first : first + count]
            wanted[first : first + count] = made.dif_fusion(inserted, torch.tensor([t]))[0]
            assert torch.allclose(context[row], wanted, atol=1e-5)
        assert not torch.allclose(context[0], fused.text[0], atol=1e-2)
