"""The walk of windows over a long mask: every pixel is painted once, by as few windows as its shape allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from fakes import photo
from flawsmith import compose
from flawsmith.methods.diffusion.canvas import Canvas, paste
from flawsmith.methods.diffusion.finishing import COARSE, with_coarse
from flawsmith.methods.diffusion.options import DiffusionOptions
from flawsmith.methods.diffusion.painting import Views
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.methods.diffusion.tiles import resized, tiles
from flawsmith.records import Request, Sample

SIZE = 64


def bar(length: int, thickness: int, place: tuple[int, int], shape: tuple[int, int] = (400, 400)) -> np.ndarray:
    """A mask (H, W) bool with one bar, lying; `place` is its upper left corner."""
    mask = np.zeros(shape, bool)
    mask[place[0] : place[0] + thickness, place[1] : place[1] + length] = True
    return mask


@pytest.mark.parametrize(
    ("length", "thickness", "windows"),
    [
        (51, 3, 1),  # .8 of the window, where 1.5 times the bar is no window's size
        (52, 3, 2),
        (102, 16, 2),  # a quarter of the window thick
        (36, 36, 1),
        (51, 36, 2),  # thick: .6
        (153, 3, 3),
    ],
)
def test_a_window_paints_more_of_a_mask_that_has_surroundings_at_its_flanks(
    length: int, thickness: int, windows: int
) -> None:
    for mask in (bar(length, thickness, (170, 120)), bar(length, thickness, (170, 120)).T):
        assert len(tiles(mask, SIZE, 1.5, 1.0)) == windows


def walk(mask: np.ndarray) -> Canvas:
    """A black region, each of whose windows was painted in a grey of its own."""
    black = np.zeros((*mask.shape, 3), np.uint8)
    request = Request(Sample(black, np.zeros_like(mask), "widget"), mask, "crack", "", None, 0)
    area = compose.Window(0, 0, *mask.shape)
    canvas = Canvas(request, area, black.copy(), mask, tiles(mask, SIZE, 1.5, 1.0))
    for turn, view in enumerate(canvas.tiles):
        context, _ = resized(canvas.pixels, canvas.mask & ~canvas.done, view, SIZE, keep=True)
        paste(canvas, turn, context, np.full_like(context, 50 + turn), DiffusionOptions())
    return canvas


@pytest.mark.parametrize(
    "mask",
    [
        bar(150, 3, (0, 0)),
        bar(150, 3, (397, 250)),
        bar(200, 5, (100, 60)),
        bar(70, 60, (0, 0)),
        bar(3, 200, (200, 0)),
        bar(300, 4, (20, 0), (40, 300)),
        np.eye(300, dtype=bool) | np.eye(300, k=1, dtype=bool),
    ],
)
def test_a_walk_paints_every_pixel_of_the_mask_and_no_other(mask: np.ndarray) -> None:
    canvas = walk(mask)
    assert len(canvas.tiles) > 1
    assert np.array_equal(canvas.done, mask)
    assert np.array_equal(canvas.pixels.max(axis=2) >= 50, mask) and not canvas.pixels[~mask].any()


def test_a_window_goes_on_from_what_the_one_before_has_painted() -> None:
    """Both see at least an eighth of a window of the first one's; a margin at its end is left to the second."""
    canvas = walk(bar(100, 3, (200, 100)))
    first, second = canvas.tiles
    shade = canvas.pixels[201, 100:200, 0]
    assert sorted(set(shade.tolist())) == [50, 51] and (np.diff(shade.astype(int)) >= 0).all()
    end = 100 + int((shade == 50).sum())
    assert end <= first.right - 4 and end - second.left >= SIZE // 8


class Watched(DiffusionSynthesizer):
    """Remembers how much there was to paint in each window."""

    def _sample(self, views: Views, options: object) -> np.ndarray:
        self.holes += [int(hole.sum()) for hole in views.masks]
        return super()._sample(views, options)


def test_no_window_is_computed_in_which_nothing_is_left_to_paint(folder: Path) -> None:
    method = Watched(str(folder), steps=1, max_reduction=1.0)
    size, shape = method.backbone.size, (200, 200)
    long = bar(3 * size, 2, (90, 40), shape)
    square = bar(round(size * 0.7), round(size * 0.7), (60, 60), shape)  # two windows and more; one paints it whole
    normal = Sample(photo(0, shape), np.zeros(shape, bool), "widget")
    for mask in (long, square):
        method.holes = []
        method.generate([Request(normal, mask, "crack", "a dark crack", None, 3)])
        assert min(method.holes) > 0
    assert len(method.holes) < len(tiles(square, size, 1.5, 1.0))


def test_what_is_coarse_is_the_starts_and_what_is_fine_the_paintings() -> None:
    """A wave passes a blur of s.d. s by exp(-2 (pi s / length)^2): so much of the start's comes, so much of the
    painting's goes. A cast of colour goes whole, also in a line of 3 px, and nothing happens beside the mask.
    """
    rows, columns = np.mgrid[:120, :120]
    mask = (rows > 10) & (rows < 110) & (columns > 10) & (columns < 110)
    even = np.full((120, 120, 3), 120, np.uint8)
    for length in (4, 16, 64):
        wave = 40 * np.sin(2 * np.pi * columns / length)[..., None]
        shown = np.clip(np.rint(even + wave), 0, 255).astype(np.uint8)
        passes = np.exp(-2 * (np.pi * COARSE / length) ** 2)
        middle = (slice(40, 80), slice(40, 80))  # four s.d. from the border
        for start, painted, share in ((even, shown, 1 - passes), (shown, even, passes)):
            kept = (with_coarse(start, painted, mask).astype(float) - 120)[middle]
            assert kept.std() == pytest.approx(share * wave[middle].std(), abs=0.6)
    for region in (mask, mask & (rows % 40 < 3)):
        cast = np.where(region[..., None], even + np.array([0, 10, 30], np.uint8), 7).astype(np.uint8)
        corrected = with_coarse(even, cast, region)
        assert np.abs(corrected[region].astype(int) - 120).max() <= 1 and (corrected[~region] == 7).all()
    assert np.array_equal(with_coarse(even, shown, mask, strength=0), shown)
