"""AnomalyXFusion's parts: sizes of the paper, what they are before training, what one step changes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")
from xfusion import masks  # noqa: E402

from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.methods.anomalyxfusion.dif_fusion import DifFusion  # noqa: E402
from flawsmith.methods.anomalyxfusion.in_fusion import InFusion  # noqa: E402
from flawsmith.methods.anomalyxfusion.location import LocationEncoder, PaperLocationEncoder  # noqa: E402
from flawsmith.methods.anomalyxfusion.reweighting import weights as reweighting  # noqa: E402
from flawsmith.methods.anomalyxfusion.tokens import SemanticTokens, TextureTokens  # noqa: E402


def test_sizes_of_the_paper() -> None:
    """At LDM size, without a byte of memory: 12 tokens of 1280, and the parameter counts the design names."""
    with torch.device("meta"):
        semantic = SemanticTokens(512, 1280, 4)
        location, published = LocationEncoder(1280, base=32), PaperLocationEncoder(1280)
        texture = TextureTokens(torch.zeros(4, 1280), 512)
        texture.add("bottle/contamination", None)
        fusion, step = InFusion(1280, (4, 4, 4), heads=8), DifFusion(1280, (4, 4, 4))
    counts = {m: sum(p.numel() for p in m.parameters()) for m in (semantic, location, published, fusion, step)}
    assert counts[semantic] == 512 * 1280 + 1280 == 656_640
    assert 356e6 * 0.99 < counts[published] < 356e6 * 1.01
    assert 3e5 < counts[location] < 3e6
    assert abs(counts[fusion] - 19.7e6) < 0.1e6
    assert texture.table[0].shape == (4, 1280) and texture.project.weight.shape == (4 * 1280, 512)
    e = torch.cat([torch.empty(2, 4, 1280, device="meta")] * 3, 1)
    assert step(fusion(e), torch.empty(2, device="meta")).shape == (2, 12, 1280)
    assert semantic(torch.empty(2, 512, device="meta")).shape == (2, 4, 1280)


def test_location_tells_places_apart_and_refuses_nothing() -> None:
    encoder = LocationEncoder(32)
    first, second = encoder(masks(2))
    assert first.shape == (4, 32) and not torch.allclose(first, second)
    dot = torch.zeros(1, 1, 512, 512)
    dot[..., 300, 17] = 1
    assert not torch.allclose(encoder(dot), encoder(dot.roll(200, -1)))
    with pytest.raises(FlawsmithError, match="empty"):
        encoder(torch.zeros(1, 1, 32, 32))


def test_texture_starts_at_the_word_and_names_part_ways() -> None:
    word = torch.randn(4, 8)
    texture = TextureTokens(word, 5)
    for name in ("a/x", "a/y"):
        texture.add(name, torch.randn(5))
    null = torch.zeros(4, 8)
    both = texture(["a/x", "a/y"], null)
    assert torch.equal(both[0], word) and torch.equal(both[1], word)
    torch.optim.SGD(texture.parameters(), lr=0.1).step(lambda: _backward(texture(["a/x"], null).square().sum()))
    torch.optim.SGD(texture.parameters(), lr=0.1).step(lambda: _backward((texture(["a/y"], null) - 1).square().sum()))
    assert not torch.allclose(*texture(["a/x", "a/y"], null))
    assert torch.equal(texture([""], null)[0], null)
    with pytest.raises(FlawsmithError, match="a/x"):
        texture(["a/z"], null)


def _backward(loss: torch.Tensor) -> torch.Tensor:
    loss.backward()
    return loss


def test_in_fusion_starts_as_concatenation_and_then_mixes() -> None:
    torch.manual_seed(0)
    fusion, e = InFusion(32, (4, 4, 4), heads=4), torch.randn(2, 12, 32)
    assert torch.equal(fusion(e), e)
    optimiser = torch.optim.SGD(fusion.parameters(), lr=1.0)
    for _ in range(2):  # the first step moves the last layers only
        optimiser.zero_grad()
        fusion(e).pow(3).mean().backward()
        optimiser.step()
    changed = e.clone()
    changed[:, :4] += torch.randn(2, 4, 32)
    assert (fusion(changed)[:, 4:] - fusion(e)[:, 4:]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["film", "concat"])
def test_dif_fusion_starts_as_nothing_and_then_depends_on_the_step(kind: str) -> None:
    torch.manual_seed(0)
    fusion, x = DifFusion(16, (4, 4, 2), kind), torch.randn(1, 10, 16)
    early, late = torch.tensor([10]), torch.tensor([900])
    assert torch.equal(fusion(x, early), x) and torch.equal(fusion(x, late), x)
    optimiser = torch.optim.SGD(fusion.parameters(), lr=0.1)
    (fusion(x, early).square().sum() - fusion(x, late).square().sum()).backward()
    optimiser.step()
    assert not torch.allclose(fusion(x, early), fusion(x, late))


def test_reweighting_by_hand() -> None:
    normal = torch.zeros(1, 1, 2, 2)
    latents = torch.tensor([[[[1.0, 2.0], [0.0, 9.0]]]])
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    share = torch.softmax(torch.tensor([1.0, 0.25]), 0) * 2
    expected = torch.tensor([[min(1.5, max(1.0, float(share[0]))), 1.0], [1.0, 1.0]])
    assert torch.allclose(reweighting(latents, normal, mask)[0, 0], expected)
    assert expected[0, 0] > 1
