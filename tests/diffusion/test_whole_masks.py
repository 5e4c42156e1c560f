"""The mask model of whole masks: what it learns of a real one and is told, where and in how many parts it draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from by_hand import linear, stirred  # noqa: E402
from test_mask_model import Aims, Told  # noqa: E402

from flawsmith.diffusion import mask_model  # noqa: E402
from flawsmith.diffusion.mask_examples import NEAR, WHOLE, outline, whole_example  # noqa: E402
from flawsmith.diffusion.mask_model import FILE, REDRAWS, LearnedMasks  # noqa: E402
from flawsmith.diffusion.whole_masks import WholeMasks  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.records import Sample  # noqa: E402
from flawsmith.training.mask_run import MaskSettings, batch, learn  # noqa: E402

OBJECT = np.zeros((120, 160), bool)
OBJECT[20:100, 30:130] = True  # a box of 80 x 100
LEFT, RIGHT = "a dent on the left", "a dent on the right"
SQUARE = np.zeros((120, 160), bool)
SQUARE[60:80, 40:65] = True  # a sixteenth of the box, in its third quarter from above, its second eighth from the left


def discs(*places: tuple[float, float], radius: float = 9) -> np.ndarray:
    """Discs at (row, column) as shares of the object's box, (120, 160) bool."""
    y, x = np.ogrid[:120, :160]
    return np.any([np.hypot(y - 20 - 80 * row, x - 30 - 100 * column) < radius for row, column in places], axis=0)


def sample(mask: np.ndarray, caption: str = "") -> Sample:
    return Sample(np.full((*mask.shape, 3), 128, np.uint8), mask, "w", "x", caption)


def made(*masks: np.ndarray, captions: tuple[str, ...] = ("", "", "")) -> WholeMasks:
    pairs = zip(masks, captions, strict=False)
    return WholeMasks([whole_example("w/x", sample(mask, caption), OBJECT) for mask, caption in pairs])


def middle(mask: np.ndarray) -> tuple[float, float]:
    """Row and column of a mask's middle, as shares of the object's box."""
    row, column = np.argwhere(mask).mean(0)
    return float((row + 0.5 - 20) / 80), float((column + 0.5 - 30) / 100)


def loud(words: torch.Tensor) -> torch.Tensor:
    """Unit features as they are told: the square root of their number times as large."""
    return words * 128**0.5


def test_a_whole_mask_is_its_distances_in_the_objects_box() -> None:
    one = whole_example("w/x", sample(SQUARE, LEFT), OBJECT)
    assert one.share == pytest.approx(20 * 25 / 80 / 100) and one.whole.shape == (WHOLE, WHOLE)
    cells = np.argwhere(one.whole > 0)  # rows 1/2 to 3/4 and columns 1/10 to 7/20 of 64
    assert cells.min(0) == pytest.approx([32, 6.4], abs=1) and cells.max(0) == pytest.approx([47, 21.4], abs=1)
    cell = 1 / (NEAR * WHOLE)  # what a distance of one cell is
    assert one.whole[20, 10:16] == pytest.approx(-1) and one.whole[28, 12:16] == pytest.approx(-3.5 * cell, abs=0.06)
    assert one.whole[40, 8] == pytest.approx(2.1 * cell, abs=0.06)
    outside = SQUARE | (np.indices((120, 160)) == [[[10]], [[40]]]).all(0)
    assert whole_example("w/x", sample(outside), OBJECT).share == pytest.approx(501 / 90 / 100)  # the box holds all


def test_type_caption_and_share_reach_every_step_of_a_drawn_mask() -> None:
    masks = WholeMasks([whole_example(name, sample(SQUARE, LEFT), OBJECT) for name in ("w/a", "w/b")])
    stirred(masks.model.kind, 1), stirred(masks.model.said, 2)
    shares = []
    for caption in (LEFT, RIGHT, ""):
        feature = torch.cat([loud(masks.features([caption])), torch.zeros(1, 1)], 1)
        known = masks.model.kind.weight[1] + linear(masks.model.said, feature)[0]
        with Told(masks) as told:
            masks.draw("w/b", caption, OBJECT, np.random.default_rng(0))
        weight = masks.model.said.weight[:, -1]
        for given in told.given:
            size = float(((given[0] - known) @ weight / (weight @ weight)).detach())
            assert torch.allclose(given[0], known + size * weight, atol=1e-4)
            shares.append(float(np.exp(4 * size)))
    assert len({round(share, 5) for share in shares}) <= 3 * REDRAWS  # one for all steps of a draw
    assert np.median(shares) == pytest.approx(1 / 16, rel=0.4)


def test_the_denoiser_sees_every_cell_and_where_it_lies_and_has_no_attention() -> None:
    masks = made(SQUARE)
    noisy = torch.randn(2, 1, WHOLE, WHOLE, generator=torch.Generator().manual_seed(0))
    said = masks.model.said.weight.new_zeros(2, masks.model.said.in_features)
    with Told(masks) as told, torch.no_grad():
        found = masks.model(noisy, torch.tensor([5, 5]), torch.tensor([0, 0]), said)
    (cells,), (out,) = told.noisy, told.out
    assert cells.shape == (2, 6, WHOLE // 2, WHOLE // 2) and found.shape == noisy.shape
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3)):
        assert torch.equal(cells[:, channel], noisy[:, 0, row::2, column::2])
        assert torch.equal(found[:, 0, row::2, column::2], out[:, channel])
    line = torch.linspace(-1, 1, WHOLE // 2)
    assert torch.allclose(cells[:, 4], line[:, None]) and torch.allclose(cells[:, 5], line)
    assert not any("attention" in type(part).__name__.lower() for part in masks.model.modules())


def test_lessons_are_moved_a_little_never_mirrored_and_tell_their_own_share() -> None:
    masks = made(discs((0.3, 0.2)), captions=(LEFT,))
    found = [masks.lesson(0, np.random.default_rng(seed), 0.5) for seed in range(120)]
    places = np.array([ndimage.center_of_mass(field > 0) for field, _ in found]) / WHOLE
    assert places.mean(0) == pytest.approx([0.3, 0.2], abs=0.02) and (places.std(0) > 0.015).all()
    assert (places[:, 1] < 0.4).all()
    told = np.array([np.exp(4 * float(said[-1])) for _, said in found])
    assert (
        told == pytest.approx([(field > 0).mean() for field, _ in found], rel=0.2) and told.std() > 0.05 * told.mean()
    )
    silent = [not said[:-1].any() for _, said in found]
    assert 0.35 < np.mean(silent) < 0.65
    assert all(
        torch.allclose(said[:-1], loud(masks.words[0]))
        for (_, said), none in zip(found, silent, strict=True)
        if not none
    )


def test_a_batch_holds_lessons() -> None:
    masks = made(discs((0.3, 0.2)), discs((0.3, 0.8)), captions=(LEFT, RIGHT))
    fields, kinds, said = batch(masks, 3, MaskSettings("whole", batch_size=6, drop_caption=0.0))
    assert fields.shape == (6, 1, WHOLE, WHOLE) and not kinds.any()
    for field, words in zip(fields[:, 0], said, strict=True):
        left = ndimage.center_of_mass(field.numpy() > 0)[1] < WHOLE / 2
        assert torch.allclose(words[:-1], loud(masks.words[0 if left else 1]))


def aimed(masks: WholeMasks, field: np.ndarray) -> Aims:
    masks.model = Aims(masks.scheduler.alphas_cumprod, field)  # type: ignore[assignment]
    return masks.model


@pytest.mark.parametrize("shape", [(120, 160), (200, 90)])
def test_a_mask_is_its_field_laid_into_the_objects_box_with_all_parts(shape: tuple[int, int]) -> None:
    """Two ellipses: centres and shares of the box are the discs', whatever box they are laid into."""
    two = discs((0.3, 0.2), (0.6, 0.75))
    masks = made(two)
    aimed(masks, masks.examples[0].whole)
    allowed = np.zeros(shape, bool)
    allowed[10:-14, 6:-9] = True
    height, width = shape[0] - 24, shape[1] - 15
    drawn = [masks.draw("w/x", "", allowed, np.random.default_rng(seed)) for seed in range(9)]
    for mask in drawn:
        parts, number = ndimage.label(mask)
        assert number == 2 and not (mask & ~allowed).any()
        places = np.array(ndimage.center_of_mass(mask, parts, [1, 2])) + 0.5 - [10, 6]
        assert np.sort(places / [height, width], axis=0) == pytest.approx(np.array([[0.3, 0.2], [0.6, 0.75]]), abs=0.02)
    shares = [mask.sum() / height / width for mask in drawn]
    assert np.median(shares) == pytest.approx(two.sum() / 80 / 100, rel=0.2) and np.std(shares) > 0.05 * np.mean(shares)


@pytest.mark.parametrize(("copies", "drawn"), [(True, REDRAWS), (False, 1)])
def test_a_copy_is_drawn_again(copies: bool, drawn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_model, "COPY", 0.6)  # the share varies at random, which alone makes some no copies at 0.9
    angle = discs((0.3, 0.3), (0.7, 0.3), (0.7, 0.8))
    masks = made(angle)
    spy = aimed(masks, (masks if copies else made(discs((0.5, 0.5)))).examples[0].whole)
    mask = masks.draw("w/x", "", OBJECT, np.random.default_rng(1))
    assert spy.calls == 12 * drawn and (masks.likeness(mask) > 0.6) == copies


def test_too_much_of_a_border_is_drawn_again() -> None:
    masks = made(SQUARE)
    field = np.full((WHOLE, WHOLE), -1, np.float32)
    field[20:30, : WHOLE - 8] = 1
    field[:, 0] = 1  # all of a border
    spy = aimed(masks, field)
    masks.shape("w/x", masks.features([""]), float((field > 0).mean()), np.random.default_rng(0))
    assert spy.calls == 12 * REDRAWS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> LearnedMasks:
    """One type whose captions tell the side, one that comes in pairs."""
    rng = np.random.default_rng(0)

    def near(row: float, column: float) -> tuple[float, float]:
        return row + rng.normal(0, 0.04), column + rng.normal(0, 0.04)

    sides = [(LEFT, 0.22), (RIGHT, 0.78)] * 4
    material = {
        "w/dent": [(sample(discs(near(0.5, column), radius=11), said), OBJECT) for said, column in sides],
        "w/pair": [(sample(discs(near(0.3, 0.5), near(0.75, 0.5)), "two holes"), OBJECT) for _ in range(5)],
    }
    settings = MaskSettings("whole", steps=300, batch_size=8, learning_rate=3e-3, ema=0.95)
    return learn(material, tmp_path_factory.mktemp("run"), settings)


@pytest.mark.slow
def test_the_side_that_the_caption_tells_is_learned(trained: LearnedMasks) -> None:
    for caption, low, high in ((LEFT, 0.0, 0.45), (RIGHT, 0.55, 1.0)):
        drawn = [trained.draw("w/dent", caption, OBJECT, np.random.default_rng(seed)) for seed in range(8)]
        assert all(low < middle(mask)[1] < high for mask in drawn), [middle(mask) for mask in drawn]


@pytest.mark.slow
def test_masks_of_two_parts_come_in_two_parts(trained: LearnedMasks) -> None:
    drawn = [trained.draw("w/pair", "two holes", OBJECT, np.random.default_rng(seed)) for seed in range(12)]
    parts = [ndimage.label(mask)[1] for mask in drawn]
    assert parts.count(2) >= 8, parts
    assert all(abs(middle(mask)[1] - 0.5) < 0.2 for mask in drawn)


def test_saved_and_loaded_it_draws_the_same(tmp_path: Path) -> None:
    masks = made(SQUARE, discs((0.3, 0.8)), captions=(LEFT, RIGHT))
    masks.save(tmp_path)
    again = LearnedMasks.load(tmp_path)
    assert isinstance(again, WholeMasks) and again.names == masks.names
    assert [one.caption for one in again.examples] == [LEFT, RIGHT]
    seeds = zip((masks, again, again), (3, 3, 4), strict=True)
    first, second, other = (found.draw("w/x", LEFT, OBJECT, np.random.default_rng(seed)) for found, seed in seeds)
    assert np.array_equal(first, second) and not np.array_equal(first, other)


@pytest.mark.parametrize("kind", ["shape", "whole"])
def test_a_fit_stopped_at_any_step_ends_with_the_same_bytes(kind: str, tmp_path: Path) -> None:
    material = {"w/x": [(sample(discs((0.3, 0.2)), LEFT), OBJECT), (sample(discs((0.3, 0.8)), RIGHT), OBJECT)]}
    settings = MaskSettings(kind, steps=5, batch_size=2, save_every=2, evaluate_every=1)

    def stops(at: int) -> Callable[..., None]:
        def progress(what: str, done: int, total: int, facts: Any) -> None:
            if done == at:
                raise KeyboardInterrupt

        return progress

    learn(material, tmp_path / "whole", settings)
    for at in (3, 4):
        with pytest.raises(KeyboardInterrupt):
            learn(material, tmp_path / "stopped", settings, stops(at))
    learn(material, tmp_path / "stopped", settings)
    one, other = ((tmp_path / name / FILE).read_bytes() for name in ("whole", "stopped"))
    assert one == other


def test_a_run_keeps_to_one_kind(tmp_path: Path) -> None:
    made(SQUARE).save(tmp_path)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(FlawsmithError, match="mask_model=whole"):
        learn({"w/new": [(sample(SQUARE), OBJECT)]}, tmp_path, MaskSettings("shape", steps=1))
    assert (tmp_path / FILE).read_bytes() == before
    found = learn({"w/new": [(sample(SQUARE), OBJECT)]}, tmp_path, MaskSettings("whole", steps=1, batch_size=1))
    assert isinstance(found, WholeMasks) and found.names == ["w/x", "w/new"]


def test_a_speck_of_a_mask_is_a_lesson() -> None:
    """One pixel, far below a cell: it has no cell inside its outline, yet a place and an outline of its own."""
    speck = np.zeros((120, 160), bool)
    speck[60, 50] = True
    masks = made(speck)
    field, said = masks.lesson(0, np.random.default_rng(0), 0.0)
    assert np.isfinite(field).all() and bool(said.isfinite().all())
    drawn = outline(field, masks.examples[0].share, 100)
    assert np.argwhere(drawn).mean(0) / 100 == pytest.approx([0.5, 0.2], abs=0.1)
