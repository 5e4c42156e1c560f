"""The mask model's equations: what it is told, what it is trained on, how a shape is drawn and where it lands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from by_hand import linear, stirred  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from flawsmith.diffusion.mask_examples import SIDE, Example, outline  # noqa: E402
from flawsmith.diffusion.mask_model import LearnedMasks  # noqa: E402
from flawsmith.training import mask_run  # noqa: E402
from flawsmith.training.mask_run import MaskSettings  # noqa: E402

SAID = ("red wire missing", "blue scratch", "a round hole")
CENTRES = ((0.3, 0.2), (0.6, 0.8), (0.5, 0.5))


def one(name: str, place: int, **changes: Any) -> Example:
    """A disc of a quarter of its box."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) - 0.5
    shape = np.clip((0.28 - np.hypot(y, x)) / 0.2, -1, 1).astype(np.float32)
    given = {"fill": 0.25, "centre": CENTRES[place], "size": 0.2, "on_object": 1.0, "aligned": True, **changes}
    return Example(name, SAID[place], shape, **given)


@pytest.fixture
def made() -> LearnedMasks:
    found = LearnedMasks([one("w/a", 0), one("w/b", 1), one("w/b", 2)])
    stirred(found.model.kind, 1), stirred(found.model.said, 2)
    return found


class Told:
    """The inputs and outputs of the denoiser while it is open."""

    def __init__(self, made: LearnedMasks) -> None:
        self.noisy: list[Tensor] = []
        self.steps: list[Tensor] = []
        self.given: list[Tensor] = []
        self.out: list[Tensor] = []
        self.unet = made.model.unet

    def __enter__(self) -> Told:
        self.hook = self.unet.register_forward_hook(self._keep, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def _keep(self, module: nn.Module, args: Any, named: Any, out: Any) -> None:
        self.noisy.append(args[0].detach())
        self.steps.append(args[1])
        self.given.append(named["class_labels"].detach())
        self.out.append(out[0].detach())


def wanted(made: LearnedMasks, name: str, caption: str) -> Tensor:
    """Type plus a projection of the caption's unit feature, (64,)."""
    ids, valid = made.pieces([caption])
    weight = (made.table.weight[ids] * valid)[0]
    mean = (weight[:, None] * made.table.vectors[ids[0]]).sum(0)
    feature = mean / mean.norm() if caption else torch.zeros_like(mean)
    return (made.model.kind.weight[made.names.index(name)] + linear(made.model.said, feature)).detach()


def test_type_and_caption_reach_every_step_of_a_drawn_mask(made: LearnedMasks) -> None:
    allowed = np.ones((100, 100), bool)
    spread = []
    for caption in (*SAID[:2], ""):
        with Told(made) as told:
            made.draw("w/b", caption, allowed, np.random.default_rng(0))
        assert told.given and all(torch.allclose(g[0], wanted(made, "w/b", caption), atol=1e-5) for g in told.given)
        spread.append(told.given[0][0])
    assert all((a - b).abs().max() > 0.05 for i, a in enumerate(spread) for b in spread[:i])


def test_training_predicts_v_of_noisy_shapes_told_by_type_and_caption(made: LearnedMasks) -> None:
    settings = MaskSettings(batch_size=8, drop_caption=0.3, seed=4)
    shapes, kinds, words = mask_run.batch(made, 5, settings)
    assert shapes.shape == (8, 1, SIDE, SIDE) and shapes.abs().max() <= 1
    with Told(made) as told, torch.no_grad():
        loss = mask_run.loss(made, 5, settings)
    t, (noisy,), (out,) = told.steps[0], told.noisy, told.out
    alpha = made.scheduler.alphas_cumprod[t][:, None, None, None]
    sure = alpha < 0.999  # elsewhere too little noise to take it out again
    noise = (noisy - alpha.sqrt() * shapes) / (1 - alpha).sqrt()
    assert abs(float(noise.mean())) < 0.05 and float(noise.std()) == pytest.approx(1, abs=0.05) and sure.all()
    v = alpha.sqrt() * noise - (1 - alpha).sqrt() * shapes
    assert float(loss) == pytest.approx(float((out - v).square().mean()), rel=1e-4)
    assert sorted((t * 8 / 1000).long().tolist()) == list(range(8))  # stratified
    given = made.model.kind(kinds) + linear(made.model.said, words)
    assert torch.allclose(told.given[0], given, atol=1e-5)


def test_a_batch_draws_types_evenly_with_their_own_captions_some_dropped(made: LearnedMasks) -> None:
    _, kinds, words = mask_run.batch(made, 0, MaskSettings(batch_size=600, drop_caption=0.25))
    dropped = (words == 0).all(1)
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.07)
    assert float(kinds.float().mean()) == pytest.approx(0.5, abs=0.08)  # not by their number of examples
    for kind, row in zip(kinds[~dropped], words[~dropped], strict=True):
        mine = [made.words[i] for i, e in enumerate(made.examples) if e.name == made.names[int(kind)]]
        assert any(torch.equal(row, own) for own in mine)


def test_a_shape_is_ddim_from_the_draws_own_noise(made: LearnedMasks) -> None:
    """Twelve even steps back from pure noise, v-prediction, written out."""
    words = made.features(["blue scratch"])
    with torch.no_grad():
        found = made.shape("w/b", words, 0.25, np.random.default_rng(3))
        rng, alphas, kind = np.random.default_rng(3), made.scheduler.alphas_cumprod, torch.tensor([1])
        for _ in range(4):  # redrawn where too much of a border is set
            x = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(int(rng.integers(2**62))))
            steps = [round(1000 - i * 1000 / 12) - 1 for i in range(12)]
            for t in steps:
                a = alphas[t]
                before = alphas[t - 1000 // 12] if t >= 1000 // 12 else torch.tensor(1.0)
                v = made.model(x, torch.tensor([t]), kind, words)
                clean, noise = a.sqrt() * x - (1 - a).sqrt() * v, a.sqrt() * v + (1 - a).sqrt() * x
                x = before.sqrt() * clean + (1 - before).sqrt() * noise
            if np.allclose(x[0, 0].clamp(-1, 1).numpy(), found, atol=1e-2):
                return
    raise AssertionError("no draw of this seed")


class Aims(nn.Module):
    """Answers v so that the clean shape is the one it is given."""

    def __init__(self, alphas: Tensor, shape: np.ndarray) -> None:
        super().__init__()
        self.alphas, self.shape, self.calls = alphas, torch.from_numpy(shape)[None, None], 0

    def forward(self, x: Tensor, t: Tensor, kinds: Tensor, words: Tensor) -> Tensor:
        self.calls += 1
        a = self.alphas[t][:, None, None, None]
        return (a.sqrt() * x - self.shape) / (1 - a).sqrt()


@pytest.mark.parametrize(("share", "draws"), [(0.0, 1), (0.25, 1), (0.45, 4)])
def test_a_shape_with_more_than_a_third_of_a_border_is_drawn_again(
    made: LearnedMasks, share: float, draws: int
) -> None:
    field = made.examples[0].shape.copy()
    field[: round(share * SIDE), :4] = 1.0
    made.model = Aims(made.scheduler.alphas_cumprod, field)  # type: ignore[assignment]
    found = made.shape("w/a", made.features([""]), float((field > 0).mean()), np.random.default_rng(0))
    assert made.model.calls == 12 * draws and np.allclose(found, field, atol=1e-2)


@pytest.mark.parametrize("side", [16, 32, 48, 64, 80, 96, 128, 160])
def test_an_outline_is_where_its_field_is_and_covers_its_fill_at_every_size(side: int) -> None:
    field = one("w/a", 0).shape
    mask = outline(field, 0.2, side)
    assert np.argwhere(mask).mean(0) == pytest.approx([(side - 1) / 2] * 2, abs=0.05)  # the disc is in the middle
    assert mask.mean() == pytest.approx(0.2, abs=2.0 / side)
    corner = outline(np.where(np.add.outer(np.arange(SIDE), np.arange(SIDE)) < 20, 1.0, -1.0), 0.2, side)
    assert corner[0].any() and corner[:, 0].any() and not corner[-1].any() and ndimage.label(corner)[1] == 1


def drawn_masks(made: LearnedMasks, caption: str, allowed: np.ndarray, count: int = 12) -> list[np.ndarray]:
    made.model = Aims(made.scheduler.alphas_cumprod, made.examples[0].shape)  # type: ignore[assignment]
    return [made.draw("w/x", caption, allowed, np.random.default_rng(seed)) for seed in range(count)]


def test_size_area_and_place_are_the_examples() -> None:
    """A disc: its box is 1 / 1.25 of the side MARGIN * size * sqrt(area), its centre where the example's is."""
    allowed = np.zeros((200, 260), bool)
    allowed[20:180, 30:230] = True
    for place, size in ((0, 0.12), (1, 0.2)):
        masks = drawn_masks(LearnedMasks([one("w/x", place, size=size)]), "", allowed)
        longest = np.median([max(np.ptp(np.nonzero(mask)[axis]) for axis in (0, 1)) + 1 for mask in masks])
        side = 1.25 * size * (200 * 260) ** 0.5
        assert longest == pytest.approx(2 * (0.25 / np.pi) ** 0.5 * side, rel=0.15)  # a disc of a quarter of its box
        centre = np.median([np.argwhere(mask).mean(0) for mask in masks], axis=0)
        assert centre == pytest.approx([20 + CENTRES[place][0] * 160, 30 + CENTRES[place][1] * 200], abs=9)
        assert all(not (mask & ~allowed).any() for mask in masks)


def test_on_a_surface_a_shape_lands_anywhere() -> None:
    allowed = np.ones((200, 200), bool)
    kinds = [LearnedMasks([one("w/x", 2, aligned=aligned)]) for aligned in (True, False)]
    spread = [np.std([np.argwhere(m).mean(0) for m in drawn_masks(kind, "", allowed, 20)], axis=0) for kind in kinds]
    assert (spread[0] < 16).all() and (spread[1] > 25).all()


def test_real_masks_that_say_the_same_lend_their_place() -> None:
    """Chosen by exp(cosine / 0.1): here nearly always the one whose words they are, without words either."""
    allowed = np.ones((200, 200), bool)
    both = LearnedMasks([one("w/x", 0), one("w/x", 1)])
    middles = {
        caption: np.array([np.argwhere(m).mean(0)[1] for m in drawn_masks(both, caption, allowed, 16)])
        for caption in (*SAID[:2], "")
    }
    assert (middles[SAID[0]] < 100).mean() > 0.85 and (middles[SAID[1]] > 100).mean() > 0.85
    assert 0.2 < (middles[""] < 100).mean() < 0.8
