"""The compact reader of references: its queries' states and maps layer by layer, and what is known without learning."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from by_hand import drawn, gelu, heads, linear, normed, stirred  # noqa: E402
from torch import Tensor  # noqa: E402

from flawsmith.diffusion.compact.reference import ReferenceEncoder, ReferenceReader, contrast  # noqa: E402


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    with torch.no_grad():
        yield


def test_queries_and_words_share_attention_and_queries_look_in_every_second_layer() -> None:
    """H = QFormer([Q; T], image = e_v + e_g), the states of Q; words that are not there are not attended to."""
    reader = stirred(ReferenceReader(text_width=6, width=8, queries=3, layers=4, heads=2, visual_width=10))
    visual, e_g, text = drawn(2, 5, 10), drawn(2, 5, 10, seed=2), drawn(2, 4, 6, seed=3)
    keep = torch.tensor([[True] * 4, [True, True, False, False]])
    states, maps = reader.features(visual, text, keep, e_g)
    seen = linear(reader.from_visual, visual + e_g)
    valid = torch.cat([torch.ones(2, 3, dtype=torch.bool), keep], 1)[:, None]
    x, found = torch.cat([reader.queries[None].repeat(2, 1, 1), linear(reader.from_text, text)], 1), []

    def attend(layer: torch.nn.Module, asked: Tensor, source: Tensor, valid: Tensor | None = None) -> Tensor:
        shown = []

        def logits(scores: Tensor) -> Tensor:
            shown.append(scores.softmax(-1))
            return scores if valid is None else scores.masked_fill(~valid, -1e9)

        q, k, v = linear(layer.query, asked), linear(layer.key, source), linear(layer.value, source)
        out = linear(layer.out, heads(q, k, v, 2, logits))
        found.append(torch.stack(shown, 1))
        return out

    for number, layer in enumerate(reader.layers):
        n = normed(layer.norm_self, x)
        x = x + attend(layer.attend_self, n, n, valid)
        found.pop()
        if number % 2 == 0:
            looked = attend(layer.attend_look, normed(layer.norm_look, x[:, :3]), seen)
            x = torch.cat([x[:, :3] + looked, x[:, 3:]], 1)
        x = x + linear(layer.mlp[2], gelu(linear(layer.mlp[0], normed(layer.norm_mlp, x))))
    assert torch.allclose(states, normed(reader.norm, x[:, :3]), atol=1e-4)
    assert len(maps) == 2 and all(torch.allclose(a, b, atol=1e-5) for a, b in zip(maps, found, strict=True))
    assert torch.allclose(reader(visual, text, keep, e_g), linear(reader.project, states), atol=1e-5)
    assert torch.equal(reader.absent(2)[1], reader.null)


def test_contrast_is_colour_difference_and_spread_inside_and_around() -> None:
    image, mask = drawn(2, 3, 8, 8).clamp(-1, 1), torch.zeros(2, 1, 8, 8)
    mask[0, 0, 2:5, 1:7], mask[1, 0, 7, 7] = 1, 1
    found = contrast(image, mask)
    for row in range(2):
        inside, around = (image[row][:, mask[row, 0] == value] for value in (1, 0))
        mean, outer = inside.mean(1), around.mean(1)
        share = mask[row].mean().log() / 4
        wanted = [2 * mean, 4 * (mean - outer), 4 * inside.std(1, correction=0), 4 * around.std(1, correction=0)]
        assert torch.allclose(found[row], torch.cat([*wanted, share[None]]), atol=1e-4)


def test_the_first_visual_token_is_the_masked_regions_and_the_rest_are_places() -> None:
    """LN(tokens + position): the mean of the map under the mask plus a projection of `contrast`, then cell by cell."""
    encoder = stirred(ReferenceEncoder(16, 16, 4), std=0.1)
    image, mask = drawn(1, 3, 128, 128).clamp(-1, 1), torch.zeros(1, 1, 128, 128)
    mask[..., 16:64, 32:72] = 1  # half of the cells in its last column
    given: list[Tensor] = []
    encoder.stem.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    encoder.stages[-1].register_forward_hook(lambda module, args, out: given.append(out))
    tokens = encoder(image, mask)
    assert torch.equal(given[0], torch.cat([image, 2 * mask - 1], 1))
    cells = given[1][0].flatten(1).T  # (64, E), in row order
    share = torch.tensor([[float(mask[0, 0, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16].mean()) for j in range(8)]
                          for i in range(8)]).flatten()  # fmt: skip
    assert set(share.tolist()) == {0.0, 0.5, 1.0}
    pooled = (cells * share[:, None]).sum(0) / share.sum() + linear(encoder.contrast, contrast(image, mask))[0]
    wanted = normed(encoder.norm, torch.cat([pooled[None], cells]) + encoder.position)
    assert torch.allclose(tokens[0], wanted, atol=1e-4)
