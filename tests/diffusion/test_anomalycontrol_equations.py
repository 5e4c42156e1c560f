"""AnomalyControl's parts against their equations: ASEA step by step, the projections, and what lambda weighs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import small  # noqa: E402
from by_hand import attention, drawn, gelu, linear, normed, pooled, stirred  # noqa: E402

import fakes  # noqa: E402
from flawsmith.diffusion import tensors  # noqa: E402
from flawsmith.diffusion.attention import detach  # noqa: E402
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.batch import Batch  # noqa: E402
from flawsmith.methods.anomalycontrol.adapter import Resampler, SemanticProjection  # noqa: E402
from flawsmith.methods.anomalycontrol.enhanced_attention import (  # noqa: E402
    attention_share,
    optimise_guidance,
    token_mask,
)
from flawsmith.methods.anomalycontrol.features import seen  # noqa: E402
from flawsmith.methods.anomalycontrol.synthesizer import AnomalyControl  # noqa: E402

Maps = tuple[torch.Tensor, ...]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAWSMITH_CACHE", str(tmp_path / "cache"))


# -- ASEA ------------------------------------------------------------------------------------------------------------

VISUAL = drawn(2, 1 + 4, 3)  # CLS and a 2 x 2 grid
CELLS = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 1.0, 0]])
LAYERS = [drawn(3, 2 * 3, seed=s) for s in (5, 6)]  # of two heads, three queries


def read(e_g: torch.Tensor) -> tuple[torch.Tensor, Maps]:
    """A reader in small: softmax over the places of linear scores; states are what the last layer's first head sees."""
    seen = VISUAL + e_g
    maps = tuple((seen @ layer).softmax(1).transpose(1, 2).unflatten(1, (2, 3)) for layer in LAYERS)
    return maps[-1][:, 0] @ seen, maps


def energy(e_g: torch.Tensor) -> torch.Tensor:
    """E = (1 - r)^2, r the masked share of the mean over layers, heads and queries without the CLS column."""
    found = []
    for row in range(2):
        inside = total = torch.zeros(())
        for weights in read(e_g)[1]:
            for head in range(2):
                for query in range(3):
                    inside = inside + (weights[row, head, query, 1:] * CELLS[row]).sum()
                    total = total + weights[row, head, query, 1:].sum()
        found.append((1 - inside / total) ** 2)
    return torch.stack(found)


@pytest.mark.parametrize(("updates", "rate"), [(5, 0.1), (4, 0.1), (2, 0.03)])
def test_asea_is_adam_on_the_energy_from_zero_and_reads_the_last_guidance(updates: int, rate: float) -> None:
    found = optimise_guidance(read, VISUAL, CELLS, 1, updates, rate)
    e_g, mean, square, energies = torch.zeros_like(VISUAL), 0.0, 0.0, []
    for step in range(1, updates + 1):
        e_g.requires_grad_()
        energies.append(energy(e_g))
        (gradient,) = torch.autograd.grad(energies[-1].sum(), e_g)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        unbiased = mean / (1 - 0.9**step), square / (1 - 0.999**step)
        e_g = (e_g - rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)).detach()
    energies.append(energy(e_g))
    assert torch.allclose(found.guidance, e_g, atol=1e-4)
    assert torch.allclose(found.energy, torch.stack(energies), atol=1e-5)
    assert torch.allclose(found.states, read(e_g)[0], atol=1e-4)


def test_asea_settings_are_the_papers_by_default() -> None:
    given = optimise_guidance(read, VISUAL, CELLS, 1)
    assert torch.equal(given.guidance, optimise_guidance(read, VISUAL, CELLS, 1, 5, 0.1).guidance)


def test_the_share_is_taken_over_layers_heads_and_queries() -> None:
    share = attention_share(read(torch.zeros_like(VISUAL))[1], CELLS, 1)
    assert torch.allclose((1 - share).square(), energy(torch.zeros_like(VISUAL)), atol=1e-6)


def test_a_cell_is_in_the_mask_if_any_of_its_pixels_is() -> None:
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, 0, 9, 31], mask[1, 0, 3:5, 7:9] = 1, 1
    found = token_mask(mask, (8, 8))
    assert torch.equal(found, pooled(mask, 8).flatten(1)) and found.sum(1).tolist() == [1, 4]


# -- SGA -------------------------------------------------------------------------------------------------------------


def test_the_projection_is_two_linear_layers_of_the_mean_state_and_a_norm() -> None:
    """g = W1 f + b1; F_c = LN(reshape(W2 g + b2, (N, D)))."""
    projection, states = stirred(SemanticProjection(6, 8, 3, 10)), drawn(2, 5, 6)
    with torch.no_grad():
        for row in range(2):
            f = sum(states[row]) / 5
            flat = linear(projection.proj, linear(projection.entry, f))
            wanted = torch.stack([normed(projection.norm, flat[8 * i : 8 * i + 8]) for i in range(3)])
            assert torch.allclose(projection(states)[row], wanted, atol=1e-5)


def test_the_resampler_is_queries_that_attend_to_the_normed_states() -> None:
    """x = Q + MHA(Q, LN(H)); F_c = LN(W (x + MLP(LN(x))) + b)."""
    resampler, states = stirred(Resampler(8, 6, 3, 2)), drawn(2, 5, 8)
    with torch.no_grad():
        asked = resampler.queries[None].repeat(2, 1, 1)
        x = asked + attention(resampler.attend, asked, normed(resampler.before, states))
        norm, first, _, last = resampler.mlp
        x = x + linear(last, gelu(linear(first, normed(norm, x))))
        assert torch.allclose(resampler(states), normed(resampler.norm, linear(resampler.proj, x)), atol=1e-5)


# -- the condition ---------------------------------------------------------------------------------------------------


def method(backbone: Backbone, **config: Any) -> AnomalyControl:
    made = AnomalyControl(backbone, config, steps=2, cache=False)
    for number, module in enumerate(made.trainable().values()):
        stirred(module, number, 0.2)
    made.card["learned"] = {"widget/hole": {}}
    return made


def feature(made: AnomalyControl, image: np.ndarray, mask: np.ndarray, text: str, updates: int = 5) -> torch.Tensor:
    """What CSM and ASEA make of one reference, (Q, E), from the reader itself."""
    given = tensors.from_images([image]), tensors.from_masks([mask])
    prompt = made.reader.prompt(*given, [text])
    return optimise_guidance(prompt.read, prompt.visual, pooled(given[1], 8).flatten(1), 1, updates, 0.1).states[0]


@pytest.mark.parametrize(("scale", "asea", "speaks"), [(0.25, True, True), (3.0, True, True), (1.0, False, False)])
def test_lambda_weighs_the_mean_of_the_references(tiny: Backbone, scale: float, asea: bool, speaks: bool) -> None:
    """Context: the words, and "no reference" moved by min(lambda, 1) to what the reader says of the mean state."""
    made = method(tiny, context_reference=speaks)
    asked = small.request(others=(small.reference(3),))
    options = made.parse_options({"adapter_scale": scale, "asea": asea}, made.options)
    text, updates = "This is an image with a hole.", 5 if asea else 0
    with torch.no_grad():
        given = made.prepare([asked], torch.ones(1, 1, 32, 32), options)
        shown = [seen(reference, 32) for reference in (asked.reference, *asked.others)]
        states = sum(feature(made, *one, text, updates) for one in shown)[None] / 2
        absent, share = tiny.reader.null[None], min(scale, 1.0) if speaks else 0.0
        tokens = (1 - share) * absent + share * linear(tiny.reader.project, states)
        wanted = torch.cat([tiny.encode_text([asked.caption]), tokens], 1)
        assert torch.allclose(given.context, wanted, atol=1e-5)
        assert torch.allclose(given.semantic, made.projection(states), atol=1e-5)
        assert given.weight == scale
        plain = feature(made, *shown[0], text, 5 - updates)
        assert (plain - feature(made, *shown[0], text, updates)).abs().max() > 1e-3  # ASEA is seen in the above


def test_without_words_and_reference_the_feature_is_zero(tiny: Backbone) -> None:
    made = method(tiny)
    with torch.no_grad():
        nothing = made.unconditional(2)
        assert torch.equal(nothing.context, tiny.null(2).context) and nothing.weight == 1.0
        zero = torch.zeros(2, made.reader.queries, made.reader.width)
        assert torch.equal(nothing.semantic, made.projection(zero))


def test_a_training_row_is_read_by_its_caption_or_the_template_and_nulled_where_dropped(tiny: Backbone) -> None:
    made = method(tiny)
    images, masks = np.stack([fakes.photo(s, (32, 32)) for s in range(5)]), np.zeros((5, 32, 32), bool)
    masks[:, 8:20, 5:16] = True
    shown = [(images[4 - row], np.roll(masks[row], row, 0)) for row in range(5)]
    said = ["red spot", "blue spot", "", "thin", "a scratch"]
    words = ["red spot", "blue spot", "red scratches", "thin", "a scratch"]  # before one was dropped
    names = ["widget/hole", "widget/big_hole", "widget/hole", "widget/hole", ""]
    references = [*shown[:3], None, shown[4]]
    batch = Batch(images, images, masks, said, references, words=words, names=names, dropped=[False] * 4 + [True])
    texts = ["red spot", "This is an image with a big hole.", "red scratches"]
    with torch.no_grad():
        given = made.training_condition(batch, torch.tensor([2, 1, 4, 4, 5]))  # even: its caption, odd: the template
        detach(tiny.unet)
        for row in range(5):
            states = torch.zeros(1, made.reader.queries, made.reader.width)
            tokens = tiny.reader.null[None]
            if row < 3:
                states = feature(made, *shown[row], texts[row])[None]
                tokens = linear(tiny.reader.project, states)
            wanted = torch.cat([tiny.encode_text([said[row]]), tokens], 1)[0]
            assert torch.allclose(given.context[row], wanted, atol=1e-4), row
            assert torch.allclose(given.semantic[row], made.projection(states)[0], atol=1e-4), row
        assert given.weight == 1.0


def test_contrast_and_start_fade_with_lambda(tiny: Backbone) -> None:
    made = method(tiny)
    for scale, contrast, strength in ((0.0, 0.0, 1.0), (0.5, 0.4, 0.8), (1.0, 0.8, 0.6), (2.0, 0.8, 0.6)):
        options = made.parse_options({"adapter_scale": scale, "contrast": 0.8, "strength": 0.6}, made.options)
        assert made.contrast_strength(options) == pytest.approx(contrast)
        assert made.start(options) == {"strength": pytest.approx(strength)}
