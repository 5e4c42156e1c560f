"""AnomalyXFusion's parts against their equations, each written out a second time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import thin  # noqa: E402
from by_hand import attention, drawn, gelu, heads, linear, normed, pooled, stirred  # noqa: E402

from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.denoise import Conditioning, predict  # noqa: E402
from flawsmith.methods.anomalyxfusion.dif_fusion import DifFusion, sinusoid  # noqa: E402
from flawsmith.methods.anomalyxfusion.features import ClipFeatures, OwnFeatures  # noqa: E402
from flawsmith.methods.anomalyxfusion.in_fusion import InFusion  # noqa: E402
from flawsmith.methods.anomalyxfusion.location import LocationEncoder, PaperLocationEncoder  # noqa: E402
from flawsmith.methods.anomalyxfusion.reweighting import reweighted, weights  # noqa: E402
from flawsmith.methods.anomalyxfusion.tokens import NullTokens, SemanticTokens, TextureTokens  # noqa: E402

SIZES, WIDTH = (2, 3, 1), 8  # of the three groups, and of a token


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    with torch.no_grad():
        yield


def tau(t: int) -> torch.Tensor:
    rates = [10_000 ** (-i / 128) for i in range(128)]
    return torch.tensor([*(math.cos(t * r) for r in rates), *(math.sin(t * r) for r in rates)])


def said(fusion: DifFusion, given: torch.Tensor) -> torch.Tensor:
    """Its MLP: linear, SiLU, linear."""
    hidden = linear(fusion.mlp[0], given)
    return linear(fusion.mlp[2], hidden / (1 + (-hidden).exp()))


# -- DDF -------------------------------------------------------------------------------------------------------------


def test_a_step_is_cosines_and_sines_of_falling_frequency() -> None:
    assert torch.allclose(sinusoid(torch.tensor([0, 7, 999])), torch.stack([tau(t) for t in (0, 7, 999)]), atol=1e-3)


def test_film_re_tunes_each_group_by_its_own_gamma_and_beta() -> None:
    """X_t = X * (1 + gamma_g(t)) + beta_g(t), token by token."""
    fusion, x, steps = stirred(DifFusion(WIDTH, SIZES)), drawn(2, 6, WIDTH), (10, 900)
    found = fusion(x, torch.tensor(steps))
    for row, t in enumerate(steps):
        table = said(fusion, tau(t)).view(3, 2, WIDTH)  # group, (gamma, beta)
        for token, group in enumerate([0, 0, 1, 1, 1, 2]):
            gamma, beta = table[group]
            assert torch.allclose(found[row, token], x[row, token] * (1 + gamma) + beta, atol=1e-3)


def test_concat_adds_what_the_mlp_says_of_token_and_step() -> None:
    """X_t = X + MLP([X; tau(t)])."""
    fusion, x, steps = stirred(DifFusion(WIDTH, SIZES, "concat")), drawn(2, 6, WIDTH), (10, 900)
    found = fusion(x, torch.tensor(steps))
    for row, t in enumerate(steps):
        for token in range(6):
            added = said(fusion, torch.cat([x[row, token], tau(t)]))
            assert torch.allclose(found[row, token], x[row, token] + added, atol=1e-3)


# -- MIF -------------------------------------------------------------------------------------------------------------


def test_in_fusion_is_one_pre_norm_block_over_marked_groups() -> None:
    """E = tokens + g, U = E + MSA(LN(E)), X = U + MLP(LN(U))."""
    fusion, tokens = stirred(InFusion(WIDTH, SIZES, heads=4, ratio=2)), drawn(2, 6, WIDTH)
    e = tokens + fusion.group[[0, 0, 1, 1, 1, 2]]
    n = normed(fusion.norm_attention, e)
    u = e + attention(fusion.attention, n, n)
    x = u + linear(fusion.mlp[2], gelu(linear(fusion.mlp[0], normed(fusion.norm_mlp, u))))
    assert torch.allclose(fusion(tokens), x, atol=1e-5)


# -- the three groups ------------------------------------------------------------------------------------------------


def test_the_location_map_is_minus_one_and_one_and_keeps_every_touched_cell() -> None:
    """2 m - 1 of the max-pooled mask: what the trunk is given."""
    encoder, given = LocationEncoder(12, base=8, side=16), []
    encoder.trunk.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, 0, 37, 5], mask[1, 0, 8:31, 40:41] = 1, 1
    encoder(mask)
    assert torch.equal(given[0], 2 * pooled(mask, 16) - 1)
    assert given[0][0].sum() == 1 - 255  # one cell of 256


def test_each_location_token_pools_the_map_by_its_own_attention() -> None:
    """e_loc_i = W LN(sum_n softmax_n(q_i . c_n / sqrt(C)) c_n) + b over the places c_n of the map."""
    encoder = stirred(LocationEncoder(12, base=8, side=32))
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 4:20, 10:15] = 1
    cells = (encoder.trunk(2 * mask - 1).flatten(2) + encoder.place)[0]  # (C, n)
    tokens = []
    for query in encoder.queries:
        scores = (query[:, None] * cells).sum(0) / math.sqrt(len(query))
        share = scores.exp() / scores.exp().sum()
        tokens.append(linear(encoder.project, normed(encoder.norm, (cells * share).sum(1))))
    assert torch.allclose(encoder(mask)[0], torch.stack(tokens), atol=1e-5)
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3


def doubled(x: torch.Tensor) -> torch.Tensor:
    """Bilinear, twice as large: three quarters of the cell a pixel lies in, a quarter of its nearer neighbour."""
    for axis in (2, 3):
        place = torch.arange(x.shape[axis])
        sides = [x.index_select(axis, (place + step).clamp(0, len(place) - 1)) for step in (-1, 1)]
        x = torch.stack([0.75 * x + 0.25 * side for side in sides], axis + 1).flatten(axis, axis + 1)
    return x


def test_the_published_location_encoder_merges_a_pyramid_and_has_four_heads() -> None:
    """up(up(c5) + L c4) + L c3, one head per token; each residual unit is its shortcut plus its body."""
    encoder = PaperLocationEncoder(4).eval()
    maps: dict[str, torch.Tensor] = {}
    for number, stage in enumerate(encoder.stages):
        stage.register_forward_hook(lambda m, a, out, n=number: maps.update({f"c{n + 2}": out}))
    unit = encoder.stages[3][0]
    unit.register_forward_hook(lambda m, a, out: maps.update({"in": a[0], "out": out}))
    encoder.stem.register_forward_pre_hook(lambda m, a: maps.update({"mask": a[0]}))
    encoder.heads[0].register_forward_pre_hook(lambda m, a: maps.update({"merged": a[0]}))
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 4:12, 6:20] = 1
    found = encoder(mask)
    assert torch.equal(maps["mask"], (2 * mask - 1).repeat_interleave(8, 2).repeat_interleave(8, 3).repeat(1, 3, 1, 1))
    assert torch.allclose(maps["out"], unit.shortcut(maps["in"]) + unit.body(maps["in"]), atol=1e-5)
    four, three = (layer(maps[c]) for layer, c in zip(encoder.lateral, ("c4", "c3"), strict=True))
    merged = doubled(doubled(maps["c5"]) + four) + three
    assert merged.shape == (1, 512, 64, 64) and torch.allclose(maps["merged"], merged, atol=1e-4)
    assert found.shape == (1, 4, 4)
    assert torch.allclose(found[0], torch.stack([head(merged)[0] for head in encoder.heads]), atol=1e-4)


def test_semantic_tokens_are_one_projection_of_the_unit_feature() -> None:
    """e_sem = W s / |s| + b, k times; a caption that is missing is the bias alone."""
    semantic, feature = stirred(SemanticTokens(5, WIDTH, 3)), drawn(2, 5) * 7
    feature[1] = 0
    found = semantic(feature)
    lengths = feature.square().sum(1, keepdim=True).sqrt().clamp_min(1e-6)
    assert torch.allclose(found, linear(semantic.project, feature / lengths)[:, None].repeat(1, 3, 1), atol=1e-5)
    assert torch.allclose(semantic(feature / 50), found, atol=1e-5)
    assert torch.equal(found[1, 0], semantic.project.bias)


def test_no_gradient_goes_to_the_caption_feature() -> None:
    semantic, feature = SemanticTokens(5, WIDTH, 3), drawn(2, 5).requires_grad_()
    with torch.enable_grad():
        semantic(feature).square().sum().backward()
    assert feature.grad is None and semantic.project.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("identity", [False, True])
def test_texture_tokens_are_start_plus_projected_feature_plus_table(identity: bool) -> None:
    """e_tex[name] = w + P f[name] + T[name]."""
    start, features = drawn(2, WIDTH), drawn(3, 2 * WIDTH if identity else 5, seed=2)
    texture = TextureTokens(start, features.shape[1], identity=identity)
    names = ["a/x", "a/y", "b/x"]
    for name, feature in zip(names, features, strict=True):
        texture.add(name, feature)
    stirred(texture)
    null = drawn(2, WIDTH, seed=9)
    found = texture(["b/x", "", "a/y"], null)
    for row, index in ((0, 2), (2, 1)):
        projected = features[index] if identity else linear(texture.project, features[index])
        assert torch.allclose(found[row], start + projected.view(2, WIDTH) + texture.table[index], atol=1e-5)
    assert torch.equal(found[1], null)
    tokens = stirred(NullTokens(start))
    assert torch.equal(tokens(), start + tokens.learned) and tokens.learned.abs().sum() > 0


# -- features --------------------------------------------------------------------------------------------------------


def test_own_text_features_are_weighted_means_of_word_pieces(tiny: Backbone) -> None:
    table, pieces = tiny.text_encoder.table, ["a", "red", "scratch", "##es"]
    ids = [tiny.tokenizer.ids[piece] for piece in pieces]
    mean = sum(table.weight[i] * table.vectors[i] for i in ids) / sum(table.weight[i] for i in ids)
    found = OwnFeatures(tiny).text(["a red scratches", ""])
    assert torch.allclose(found[0], mean / mean.norm(), atol=1e-5) and not found[1].any()


def test_clip_features_are_the_stock_models_of_caption_and_masked_patch(clip: Path) -> None:
    """Both towers with their projections; x * m in CLIP's own statistics, so that outside the mask is its mean."""
    features = ClipFeatures(str(clip), torch.device("cpu"))
    image, mask = drawn(1, 3, 32, 32).clamp(-1, 1), torch.zeros(1, 1, 32, 32)
    mask[..., 9:20, 3:18] = 1
    ids = features.tokenizer(["a hole"], padding="max_length", max_length=77, return_tensors="pt")
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = torch.stack([((image[0, c] + 1) / 2 - mean[c]) / std[c] * mask[0, 0] for c in range(3)])[None]
    stock = features.model(input_ids=ids.input_ids, attention_mask=ids.attention_mask, pixel_values=pixels)
    for found, theirs in (
        (features.text(["a hole"]), stock.text_embeds),
        (features.image(image, mask), stock.image_embeds),
    ):
        assert torch.allclose(found / found.norm(dim=-1, keepdim=True), theirs, atol=1e-5)
    assert not features.text([""]).any()


# -- re-weighting ----------------------------------------------------------------------------------------------------


def test_reweighting_multiplies_the_logits_of_the_inserted_tokens_only() -> None:
    """One cross-attention layer of a real denoiser by hand, with guidance's doubled batch."""
    unet = thin.parts("sd")["unet"]
    layer = unet.get_submodule("up_blocks.1.attentions.0.transformer_blocks.0.attn2")
    kept: dict[str, torch.Tensor] = {}
    hook = layer.register_forward_hook(
        lambda m, a, k, out: kept.update(x=a[0], words=k["encoder_hidden_states"], out=out), with_kwargs=True
    )
    latents, normal, words = drawn(1, 4, 16, 16), drawn(1, 4, 16, 16, seed=3), drawn(2, 9, 24, seed=4)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:9, 2:13] = 1
    with reweighted(unet, (5, 8), normal, mask):
        predict(unet, latents.repeat(2, 1, 1, 1), torch.tensor([500, 500]), Conditioning(words))
    hook.remove()
    places = weights(latents, normal, mask).flatten()
    assert 1 < places.max() <= 1.5 and len(places) == kept["x"].shape[1]
    factor = torch.ones(2, len(places), 9)
    factor[..., 5:8] = places[:, None]
    q, k, v = layer.to_q(kept["x"]), layer.to_k(words), layer.to_v(words)
    z = heads(q, k, v, layer.heads, lambda scores: scores * factor)
    assert torch.allclose(kept["out"], linear(layer.to_out[0], z), atol=1e-5)


def test_weights_are_clamped_shares_of_a_softmax_inside_the_mask() -> None:
    latents, normal = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=2)
    mask = (drawn(2, 1, 4, 4, seed=3) > 0).float()
    found = weights(latents, normal, mask)
    for row in range(2):
        inside = [(i, j) for i in range(4) for j in range(4) if mask[row, 0, i, j]]
        near = [1 / max(1e-2, float((latents - normal)[row, :, i, j].square().mean())) for i, j in inside]
        total = sum(math.exp(n - max(near)) for n in near)
        wanted = torch.ones(4, 4)
        for (i, j), n in zip(inside, near, strict=True):
            wanted[i, j] = min(1.5, max(1.0, len(inside) * math.exp(n - max(near)) / total))
        assert torch.allclose(found[row, 0], wanted, atol=1e-4) and wanted.max() > 1
