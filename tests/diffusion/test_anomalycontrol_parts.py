"""CSM, ASEA and the projection by themselves: BLIP-2 at tiny size, the compact reader, IP-Adapter files."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402

from flawsmith.diffusion.attention import SemanticAttention  # noqa: E402
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.methods.anomalycontrol.adapter import Resampler, SemanticProjection, load_ip_adapter  # noqa: E402
from flawsmith.methods.anomalycontrol.enhanced_attention import (  # noqa: E402
    attention_share,
    optimise_guidance,
    token_mask,
)
from flawsmith.methods.anomalycontrol.semantic import Blip2Reader, CompactReader, plain  # noqa: E402


@pytest.fixture(params=["compact", "blip2"])
def reader(request: pytest.FixtureRequest, tiny: Backbone, blip: Path) -> CompactReader | Blip2Reader:
    return CompactReader(tiny) if request.param == "compact" else Blip2Reader.from_pretrained(blip)


def images(size: int, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(count, 3, size, size, generator=generator) * 2 - 1
    mask = torch.zeros(count, 1, size, size)
    for row in range(count):
        mask[row, :, 3 + 4 * row : 9 + 4 * row, 5 : 12 + row] = 1
    return image, mask


TEXTS = ["a crack", "this is an image with holes", "holes"]


def guided(reader: CompactReader | Blip2Reader, updates: int = 5, rows: slice = slice(None)):
    image, mask = (x[rows] for x in images(reader.size))
    prompt = reader.prompt(image, mask, TEXTS[rows])
    return prompt, optimise_guidance(prompt.read, prompt.visual, token_mask(mask, reader.grid), reader.prefix, updates)


def test_blip2_states_are_the_stock_matching_branchs(blip: Path) -> None:
    """At e_g = 0: the stock branch's head on our states gives the stock branch's logits."""
    reader = Blip2Reader.from_pretrained(blip)
    image, mask = images(reader.size)
    prompt = reader.prompt(image, mask, TEXTS)
    states, maps = prompt.read(torch.zeros_like(prompt.visual))
    from flawsmith.diffusion import tensors
    from flawsmith.methods.anomalycontrol.semantic import CLIP_MEAN, CLIP_STD

    batch = reader.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        stock = reader.model(
            tensors.normalise(image, CLIP_MEAN, CLIP_STD),
            batch.input_ids,
            batch.attention_mask,
            use_image_text_matching_head=True,
        )
        ours = reader.model.itm_head(states).mean(1)
    assert torch.allclose(ours, stock.logits_per_image, atol=1e-5)
    assert [m.shape for m in maps] == [(3, 2, 6, 17)] * 2  # every second layer looks; CLS + 4 x 4


def test_the_maps_and_the_guidance_have_the_visual_tokens_shape(reader: CompactReader | Blip2Reader) -> None:
    prompt, found = guided(reader)
    assert found.guidance.shape == prompt.visual.shape
    places = reader.prefix + reader.grid[0] * reader.grid[1]
    assert prompt.visual.shape[1] == places
    _, maps = prompt.read(found.guidance)
    for weights in maps:
        assert weights.shape[2:] == (reader.queries, places)
        assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
    assert found.states.shape == (3, reader.queries, reader.width)


def test_the_energy_falls_and_the_reader_looks_at_the_defect(reader: CompactReader | Blip2Reader) -> None:
    prompt, found = guided(reader)
    assert (found.energy[-1] < found.energy[0]).all() and len(found.energy) == 6
    cells = token_mask(images(reader.size)[1], reader.grid)
    before, after = (
        attention_share(prompt.read(e_g)[1], cells, reader.prefix)
        for e_g in (torch.zeros_like(found.guidance), found.guidance)
    )
    assert (after > before).all()
    assert torch.allclose((1 - after).square(), found.energy[-1], atol=1e-6)  # the last forward has the last e_g


@pytest.mark.parametrize("pixel", [(0, 0), (20, 20), (31, 31)])
def test_the_energy_falls_for_a_single_pixel(reader: CompactReader | Blip2Reader, pixel: tuple[int, int]) -> None:
    image, _ = images(reader.size, 1)
    mask = torch.zeros(1, 1, reader.size, reader.size)
    mask[0, 0, pixel[0], pixel[1]] = 1
    prompt = reader.prompt(image, mask, TEXTS[:1])
    cells = token_mask(mask, reader.grid)
    assert cells.sum() == 1
    found = optimise_guidance(prompt.read, prompt.visual, cells, reader.prefix)
    assert found.energy[-1] < found.energy[0]


def test_the_first_step_is_adams_from_zero(reader: CompactReader | Blip2Reader) -> None:
    """Adam's first step is the rate times the sign of the gradient: so e_g started at zero."""
    prompt, found = guided(reader, 1)
    cells = token_mask(images(reader.size)[1], reader.grid)
    e_g = torch.zeros_like(prompt.visual, requires_grad=True)
    energy = (1 - attention_share(prompt.read(e_g)[1], cells, reader.prefix)).square()
    (gradient,) = torch.autograd.grad(energy.sum(), e_g)
    sure = gradient.abs() > 1e-5
    assert sure.any()
    assert torch.allclose(found.guidance[sure], -0.1 * gradient[sure].sign(), atol=1e-3)


def test_no_updates_is_the_plain_feature(reader: CompactReader | Blip2Reader) -> None:
    prompt, found = guided(reader, 0)
    assert not found.guidance.any() and len(found.energy) == 1
    assert torch.equal(found.states, prompt.read(torch.zeros_like(prompt.visual))[0])


def test_references_of_one_batch_do_not_see_each_other(reader: CompactReader | Blip2Reader) -> None:
    _, together = guided(reader)
    for row in range(3):
        _, alone = guided(reader, rows=slice(row, row + 1))
        assert torch.allclose(alone.states[0], together.states[row], atol=1e-4)


def test_no_weight_of_the_reader_moves(reader: CompactReader | Blip2Reader) -> None:
    modules = [reader.backbone.reader, reader.backbone.reference] if hasattr(reader, "backbone") else [reader.model]
    before = [p.clone() for m in modules for p in m.parameters()]
    for module in modules:
        module.requires_grad_(True)  # even where somebody forgot to freeze it
    try:
        guided(reader)
    finally:
        for module in modules:
            module.requires_grad_(False)
    after = [p for m in modules for p in m.parameters()]
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, after, strict=True))


def test_image_and_words_both_count(reader: CompactReader | Blip2Reader) -> None:
    image, mask = images(reader.size)
    same = image[:1].expand(2, -1, -1, -1), mask[:1].expand(2, -1, -1, -1)

    def feature(images: torch.Tensor, masks: torch.Tensor, texts: list[str]) -> torch.Tensor:
        prompt = reader.prompt(images, masks, texts)
        return prompt.read(torch.zeros_like(prompt.visual))[0].mean(1)

    words = feature(*same, ["a crack" if isinstance(reader, Blip2Reader) else "red scratches", "a"])
    assert (words[0] - words[1]).abs().max() > 1e-3
    shown = feature(image[:2], mask[:2], ["a", "a"])
    assert (shown[0] - shown[1]).abs().max() > 1e-3


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(FlawsmithError, match="empty"):
        token_mask(torch.zeros(2, 1, 32, 32), (8, 8))


def test_the_share_of_attention_by_hand() -> None:
    """Two layers, one head, one query, CLS and four places: r = (.3 + .1) / 2 of (.6 + .4) / 2 + ..."""
    maps = tuple(torch.tensor(row).view(1, 1, 1, 5) for row in ([0.4, 0.3, 0.1, 0.1, 0.1], [0.2, 0.1, 0.3, 0.2, 0.2]))
    cells = torch.tensor([[1.0, 0, 0, 0]])
    assert attention_share(maps, cells, prefix=1).item() == pytest.approx(0.2 / 0.7)


def test_blips_clean_up() -> None:
    assert plain('This "wood" has: holes, (two)!') == "this wood has holes, two"


@pytest.mark.parametrize("kind", [SemanticProjection, Resampler])
def test_nothing_in_gives_fixed_tokens(kind: type[torch.nn.Module]) -> None:
    projection = kind(16, 12, 4)
    tokens = projection(torch.zeros(3, 5, 16))
    assert tokens.shape == (3, 4, 12)
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.allclose(tokens[0], projection(torch.randn(1, 5, 16))[0], atol=1e-3)


def test_the_resampler_sees_what_the_mean_forgets() -> None:
    """Two sets of states with one mean: the projection cannot tell them apart, the resampler does."""
    torch.manual_seed(0)
    states = torch.randn(1, 6, 16)
    other = states.mean(1, keepdim=True) + 2 * (states - states.mean(1, keepdim=True))
    mean, several = SemanticProjection(16, 12), Resampler(16, 12)
    assert torch.allclose(mean(states), mean(other), atol=1e-5)
    assert not torch.allclose(several(states), several(other), atol=1e-2)


def ip_file(attention: SemanticAttention, projection: SemanticProjection) -> dict[str, torch.Tensor]:
    """An IP-Adapter file whose every tensor is filled with a number of its own."""
    shapes = {
        "image_proj.proj.weight": projection.proj.weight.shape,
        "image_proj.proj.bias": projection.proj.bias.shape,
        "image_proj.norm.weight": projection.norm.weight.shape,
        "image_proj.norm.bias": projection.norm.bias.shape,
    }
    for number, key in zip(attention.positions, attention.to_k_ip, strict=True):
        shapes[f"ip_adapter.{number}.to_k_ip.weight"] = shapes[f"ip_adapter.{number}.to_v_ip.weight"] = key.weight.shape
    return {key: torch.full(shape, float(value)) for value, (key, shape) in enumerate(shapes.items())}


def test_an_ip_adapter_file_lands_key_by_key(tmp_path: Path) -> None:
    from diffusion.test_attention import small_sd

    unet = small_sd()
    attention, projection = SemanticAttention(unet), SemanticProjection(768, 12, 4, 1024)
    assert attention.positions == list(range(1, 32, 2))
    stored = ip_file(attention, projection)
    save_file(stored, tmp_path / "ip-adapter_sd15.safetensors")
    load_ip_adapter(tmp_path / "ip-adapter_sd15.safetensors", projection, attention)
    for place, number in enumerate(range(1, 32, 2)):
        for name, part in (("to_k_ip", attention.to_k_ip), ("to_v_ip", attention.to_v_ip)):
            assert torch.equal(part[place].weight, stored[f"ip_adapter.{number}.{name}.weight"])
    assert torch.equal(projection.proj.bias, stored["image_proj.proj.bias"])
    assert torch.equal(projection.norm.weight, stored["image_proj.norm.weight"])
    several, fresh = Resampler(16, 12), SemanticAttention(unet)
    load_ip_adapter(tmp_path / "ip-adapter_sd15.safetensors", several, fresh)  # only W' fits
    assert torch.equal(fresh.to_k_ip[0].weight, stored["ip_adapter.1.to_k_ip.weight"])


def test_a_file_that_does_not_fit_names_the_key_and_changes_nothing(tiny: Backbone, tmp_path: Path) -> None:
    attention, projection = SemanticAttention(tiny.unet), SemanticProjection(16, tiny.context_width, 4, 8)
    good = ip_file(attention, projection)
    first = f"ip_adapter.{attention.positions[0]}.to_k_ip.weight"
    before = attention.to_k_ip[0].weight.clone()
    cases = {
        first: {**good, first: torch.zeros(3, 3)},
        "image_proj.proj.bias": {k: v for k, v in good.items() if k != "image_proj.proj.bias"},
        "ip_adapter.99.to_k_ip.weight": {**good, "ip_adapter.99.to_k_ip.weight": torch.zeros(2)},
    }
    for key, stored in cases.items():
        save_file(stored, tmp_path / "file.safetensors")
        with pytest.raises(FlawsmithError, match=key.replace(".", r"\.")):
            load_ip_adapter(tmp_path / "file.safetensors", projection, attention)
        assert torch.equal(attention.to_k_ip[0].weight, before)
    (tmp_path / "file.bin").write_bytes(b"\x80")
    with pytest.raises(FlawsmithError, match="pickle"):
        load_ip_adapter(tmp_path / "file.bin", projection, attention)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(FlawsmithError, match=r"bad\.safetensors"):
        load_ip_adapter(tmp_path / "bad.safetensors", projection, attention)


def test_a_folder_that_is_no_reader(tmp_path: Path) -> None:
    with pytest.raises(FlawsmithError, match="BLIP-2"):
        Blip2Reader.from_pretrained(tmp_path)
