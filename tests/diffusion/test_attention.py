"""The second cross-attention: invisible at lambda = 0, gone after detach, the paper's size at Stable Diffusion's."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from flawsmith.diffusion.adapters import add_adapter  # noqa: E402
from flawsmith.diffusion.attention import SemanticAttention, attach, attached, cross_attention, detach  # noqa: E402
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.compact.recipe import CompactConfig  # noqa: E402
from flawsmith.diffusion.denoise import Conditioning, predict  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.methods.anomalycontrol.adapter import SemanticProjection  # noqa: E402

SD15 = {
    "sample_size": 64,
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}


def small_sd() -> diffusers.UNet2DConditionModel:
    """Stable Diffusion's inpainting denoiser with all its layers, thin."""
    torch.manual_seed(0)
    thin = {"sample_size": 16, "block_out_channels": (8, 8, 16, 16), "cross_attention_dim": 12, "norm_num_groups": 4}
    return diffusers.UNet2DConditionModel(**{**SD15, **thin, "attention_head_dim": 2}).eval()


def inputs(unet: torch.nn.Module, width: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    channels, side = unet.config.in_channels, unet.config.sample_size
    x = torch.randn(2, channels, side, side, generator=generator)
    return x, torch.randn(2, 7, width, generator=generator), torch.randn(2, 4, width, generator=generator)


def output(unet: torch.nn.Module, context: object, weight: float | None = None) -> torch.Tensor:
    x, words, tokens = inputs(unet, unet.config.cross_attention_dim)
    given = Conditioning(words) if weight is None else Conditioning(words, tokens, weight)
    with torch.no_grad():
        return predict(unet, x, torch.tensor([10, 800]), given)


@pytest.fixture(params=["compact", "sd", "sd plain"])
def unet(request: pytest.FixtureRequest, recipe: CompactConfig, text: object) -> torch.nn.Module:
    if request.param == "compact":
        return Backbone.compact(recipe, seed=1, text=text).freeze().unet  # type: ignore[arg-type]
    made = small_sd()
    if request.param == "sd plain":
        made.set_attn_processor(diffusers.models.attention_processor.AttnProcessor())
    return made


def test_lambda_zero_and_detach_are_the_frozen_denoiser_bit_for_bit(unet: torch.nn.Module) -> None:
    before, weights, processors = output(unet, None), dict(unet.state_dict()), dict(unet.attn_processors)
    semantic = attach(unet)
    with torch.no_grad():
        for parameter in semantic.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    assert torch.equal(output(unet, None, 0.0), before)
    assert torch.equal(output(unet, None), before)  # a plain context, as other methods give it
    assert not torch.allclose(output(unet, None, 1.0), before, atol=1e-4)
    assert unet.state_dict().keys() == weights.keys()  # nothing of the adapter lives in the denoiser
    detach(unet)
    assert torch.equal(output(unet, None), before)
    assert all(unet.attn_processors[name] is processor for name, processor in processors.items())


def test_the_output_grows_continuously_from_lambda_zero(unet: torch.nn.Module) -> None:
    attach(unet)
    plain = output(unet, None, 0.0)
    steps = [(output(unet, None, weight) - plain).abs().max() for weight in (1e-6, 1e-2, 1e-1)]
    assert steps[0] < 1e-4 < steps[2] and steps[1] < steps[2]


def test_the_formula_on_one_layer(unet: torch.nn.Module) -> None:
    """Z by hand, with one head's softmax written out."""
    layer = list(cross_attention(unet).values())[-1]
    semantic = attach(unet)
    width, context = layer.to_q.in_features, layer.to_k.in_features
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(1, 3, width, generator=generator)
    words, tokens = (torch.randn(1, n, context, generator=generator) for n in (5, 4))
    with torch.no_grad():
        for parameter in semantic.parameters():
            parameter.normal_(std=0.2, generator=generator)
        layer.processor.weight = 0.7
        found = layer(hidden, encoder_hidden_states=(words, tokens))
        z = torch.zeros(3, width)
        size = width // layer.heads
        for head in range(layer.heads):
            cut = slice(head * size, (head + 1) * size)
            q = layer.to_q(hidden)[0][:, cut]
            for source, to_k, to_v, weight in (
                (words, layer.to_k, layer.to_v, 1.0),
                (tokens, semantic.to_k_ip[-1], semantic.to_v_ip[-1], 0.7),
            ):
                share = (q @ to_k(source)[0][:, cut].T / size**0.5).softmax(-1)
                z[:, cut] += weight * share @ to_v(source)[0][:, cut]
        assert torch.allclose(found[0], layer.to_out[0](z), atol=1e-5)


def test_it_starts_as_a_copy_of_the_layers_own_keys_and_values(unet: torch.nn.Module) -> None:
    semantic = SemanticAttention(unet)
    for layer, key, value in zip(cross_attention(unet).values(), semantic.to_k_ip, semantic.to_v_ip, strict=True):
        assert torch.equal(layer.to_k.weight, key.weight) and torch.equal(layer.to_v.weight, value.weight)
        assert key.weight.data_ptr() != layer.to_k.weight.data_ptr()


def test_only_the_adapter_gets_gradients(unet: torch.nn.Module) -> None:
    unet.requires_grad_(False)
    semantic = attach(unet)
    x, words, tokens = inputs(unet, unet.config.cross_attention_dim)
    predict(unet, x, torch.tensor([10, 800]), Conditioning(words, tokens)).square().sum().backward()
    assert all(p.grad is None for p in unet.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in semantic.parameters())


def test_a_denoiser_is_left_as_it_was_after_the_block(tiny: Backbone) -> None:
    before = dict(tiny.unet.attn_processors)
    semantic = SemanticAttention(tiny.unet)
    with pytest.raises(RuntimeError), attached(tiny.unet, semantic):
        assert any(p is not before[name] for name, p in tiny.unet.attn_processors.items())
        raise RuntimeError
    assert all(p is before[name] for name, p in tiny.unet.attn_processors.items())


def test_beside_a_lora(tiny: Backbone, recipe: CompactConfig, text: object) -> None:
    """A fitted few-shot adapter and the semantic one are independent: widths are read, names are not."""
    backbone = Backbone.compact(recipe, seed=1, text=text).freeze()  # type: ignore[arg-type]
    add_adapter(backbone, "one", rank=2)
    before = output(backbone.unet, None)
    assert len(attach(backbone.unet)) == len(SemanticAttention(tiny.unet))
    assert torch.equal(output(backbone.unet, None, 0.0), before)


def test_another_denoisers_adapter_is_refused(tiny: Backbone) -> None:
    with pytest.raises(FlawsmithError, match="another backbone"):
        attach(small_sd(), SemanticAttention(tiny.unet))


def test_the_papers_size_on_stable_diffusion() -> None:
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**SD15)
        semantic, projection = attach(unet), SemanticProjection(768, 768, tokens=4, hidden=1024)
    assert len(semantic) == 16
    assert semantic.positions == list(range(1, 32, 2))
    assert semantic.names[-1].startswith("mid_block") and semantic.positions[-1] == 31
    count = [sum(p.numel() for p in m.parameters()) for m in (semantic, projection.proj, projection.entry)]
    count[1] += sum(p.numel() for p in projection.norm.parameters())
    assert count == [19_169_280, 3_150_336, 787_456] and sum(count) == 23_107_072
