"""The object is found on its background; a surface is all object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from areas import disc
from flawsmith import images
from flawsmith.masks import foreground


def shaded(mask: np.ndarray, inside: int, outside: int, grain: float = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    grey = np.where(mask, inside, outside) + rng.normal(0, grain, mask.shape) + np.linspace(-8, 8, mask.shape[1])
    return np.clip(np.repeat(grey[..., None], 3, axis=2), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("inside", "outside"), [(60, 240), (190, 40), (120, 60)])
def test_one_product_on_a_background(inside: int, outside: int) -> None:
    true = disc(500, 170)
    found = foreground(shaded(true, inside, outside))
    overlap = (found & true).sum() / (found | true).sum()
    assert overlap > 0.93 and not (true & ~found).sum() > 0.01 * true.sum()


def test_a_part_with_a_dark_margin() -> None:
    true = np.zeros((300, 400), dtype=bool)
    true[:, 22:380] = True
    found = foreground(shaded(true, 130, 12))
    assert (found ^ true).mean() < 0.02


def test_surfaces_are_all_object() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(60, 200, (200, 300, 3)).astype(np.uint8)
    stripes = np.tile((120 + 40 * np.sin(np.arange(300) / 9))[None, :, None], (200, 1, 3)).astype(np.uint8)
    flat = np.full((50, 70, 3), 255, dtype=np.uint8)
    checks = (
        np.kron(np.indices((8, 10)).sum(axis=0) % 2, np.ones((32, 32)))[..., None].repeat(3, 2).astype(np.uint8) * 255
    )
    tiny = np.zeros((3, 5, 3), dtype=np.uint8)
    for surface in (noise, stripes, flat, checks, tiny, np.zeros((40, 40, 3), dtype=np.uint8)):
        assert foreground(surface).all()


def test_textures_of_an_installed_library_are_all_object() -> None:
    data = pytest.importorskip("skimage.data")
    for name in ("brick", "gravel", "grass"):
        grey = getattr(data, name)()
        assert foreground(np.repeat(grey[..., None], 3, axis=2)).all()


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("cookie", 0.15, 0.45), ("ball_screw", 1, 1), ("magnetic_tile", 0.8, 1), ("mvtec_ad/bottle", 0.6, 0.7)],
)
def test_real_objects(shared_data, name: str, least: float, most: float) -> None:  # type: ignore[no-untyped-def]
    folder: Path = shared_data(name)
    files = sorted((folder / "train" / "good").iterdir())[::40][:5]
    for path in files:
        assert least <= foreground(images.read_image(path)).mean() <= most


def test_a_ring_is_seen_through_but_a_small_hole_may_be_a_defect() -> None:
    rows, columns = np.mgrid[:120, :120] - 60
    radius = np.hypot(rows, columns)
    rng = np.random.default_rng(0)
    for inner, open_ in ((20, True), (4, False)):
        ring = (radius < 48) & (radius >= inner)
        image = np.where(ring, 190, 40)[..., None] + rng.normal(0, 3, (120, 120, 1))
        found = foreground(np.repeat(np.clip(image, 0, 255).astype(np.uint8), 3, axis=2))
        assert found[ring].mean() > 0.99 and found[radius > 54].mean() == 0
        assert found[radius < inner - 3].mean() == (0 if open_ else 1)
