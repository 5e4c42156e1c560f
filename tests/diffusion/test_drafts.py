"""Drafts: a reference laid in the hole at full detail, in training as in painting, without a look under the mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from small import request  # noqa: E402

import fakes  # noqa: E402
from flawsmith.diffusion import tensors  # noqa: E402
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.compact.recipe import CompactConfig  # noqa: E402
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer  # noqa: E402
from flawsmith.training.shards import Mix, Note, TrainingWindow, Windows, laid_in, write_shards  # noqa: E402


def hole(size: int = 48) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[14:30, 12:34] = True
    return mask


def test_what_is_under_the_mask_is_not_seen() -> None:
    reference = fakes.with_defect(fakes.photo(9, (48, 48)), "hole", 9)
    clean, other = fakes.photo(1, (48, 48)), fakes.photo(1, (48, 48))
    other[hole()] = np.random.default_rng(0).integers(0, 256, (int(hole().sum()), 3))
    assert np.array_equal(laid_in(clean, hole(), reference, 5), laid_in(other, hole(), reference, 5))


def test_a_reference_of_the_same_shape_is_laid_as_it_is() -> None:
    clean = np.full((48, 48, 3), 90, np.uint8)
    shown = clean.copy()
    shown[hole()] = (200, 40, 40)
    draft = laid_in(clean, hole(), (shown, hole()), 0)
    assert draft is not None and np.array_equal(draft[~hole()], clean[~hole()])
    inner = draft[18:26, 16:30].astype(int)
    assert np.abs(inner - (200, 40, 40)).max() < 20  # but for copypaste's own small change of contrast


def test_nothing_to_lay_is_no_draft() -> None:
    clean = fakes.photo(1, (48, 48))
    assert laid_in(clean, hole(), (clean, np.zeros((48, 48), bool)), 0) is None


def windows(count: int, kind: str, size: int = 64) -> list[TrainingWindow]:
    found = []
    for seed in range(count):
        clean = fakes.photo(seed, (size, size))
        image, mask = fakes.with_defect(clean, "hole", seed) if kind else (clean, np.zeros((size, size), bool))
        source = "widget" if kind else "tile"
        found.append(TrainingWindow(image, clean, mask, Note("a hole", kind, "", source, f"part {seed // 2}")))
    return found


def test_smaller_windows_are_cut_around_the_defect(tmp_path: Path) -> None:
    stored = windows(6, "hole")
    write_shards(tmp_path, stored)
    cut = Windows([tmp_path], Mix(native=1.0), 32)
    for row, whole in enumerate(stored):
        high, wide = np.ptp(np.argwhere(whole.mask), axis=0) + 1
        part = cut._view(np.random.default_rng(row), row)
        assert part.mask.shape == (32, 32) and part.image.shape == (32, 32, 3)
        if max(high, wide) <= 24:
            assert part.mask.sum() == whole.mask.sum()  # all of it, at its own scale
            shown = np.lib.stride_tricks.sliding_window_view(whole.image, (32, 32, 3))[:, :, 0]
            assert (shown == part.image).all((2, 3, 4)).any()


def test_a_surface_is_carried_from_another_piece_of_it(tmp_path: Path) -> None:
    """Without words, and neither the defect's picture nor the hole's own pixels lie in the draft."""
    write_shards(tmp_path / "bad", windows(4, "hole"))
    write_shards(tmp_path / "good", windows(4, ""))
    batch = Windows([tmp_path / "bad", tmp_path / "good"], Mix(carried=1.0, normal=0.0)).batch(8, 0, 0, augment=False)
    assert set(batch.captions) == {""} and all(reference is None for reference in batch.references)
    laid = [row for row, draft in enumerate(batch.drafts) if draft is not None]
    assert len(laid) >= 6
    for row in laid:
        assert np.array_equal(batch.image[row], batch.clean[row])
        draft = batch.drafts[row]
        assert draft is not None and np.array_equal(draft[~batch.mask[row]], batch.clean[row][~batch.mask[row]])
        assert not np.array_equal(draft, batch.clean[row])


def test_painting_shows_the_denoiser_the_reference_in_the_hole(recipe: CompactConfig, text: Path) -> None:
    tiny, seen = Backbone.compact(replace(recipe, denoiser="clean"), seed=1, text=text).freeze(), []
    hook = tiny.unet.conv_in.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        method = DiffusionSynthesizer(tiny, min_visibility=0, min_share=0, steps=2, guidance_scale=1)
        for draft in ("laid", "analogy", "none"):
            method.generate([request()], draft=draft)
    finally:
        hook.remove()
    laid, analogous, none = (seen[i][:, -48:] for i in (0, 2, 4))
    assert laid.abs().amax() > 0.1 and analogous.abs().amax() > 0.1 and not none.any()
    assert not torch.allclose(laid, analogous)
    mask = seen[0][:, 48:64].repeat(1, 3, 1, 1)
    assert not (laid * (1 - mask)).any()
    assert torch.equal(seen[0][:, -48:], seen[1][:, -48:])  # the same at every step


def test_the_continuation_of_one_image_is_that_of_a_batch() -> None:
    image = fakes.photo(3, (32, 64))
    mask = np.zeros((32, 64), bool)
    mask[10:20, 8:30] = True
    square = np.zeros((64, 64, 3), np.uint8)
    square[:32], square[32:] = image, image[-1:]
    padded = np.zeros((64, 64), bool)
    padded[:32] = mask
    wanted = tensors.smooth_fill(tensors.from_images([square]), tensors.from_masks([padded]))
    found = tensors.from_images([np.rint(tensors.continued(image, mask)).astype(np.uint8)])
    assert torch.allclose(found, wanted[:, :, :32], atol=1.1 / 127.5)
