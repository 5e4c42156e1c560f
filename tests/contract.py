"""The promises in the docstring of methods/base.py, as one class of tests for any method.

A file of tests has a fixture `method` and `class TestContract(Contract)`: every promise is checked of that method.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fakes
from flawsmith import compose, images
from flawsmith.errors import FlawsmithError
from flawsmith.methods import load
from flawsmith.methods.base import Synthesizer
from flawsmith.records import Request, Sample

SIZES = [(48, 64), (37, 91), (1, 40), (9, 7), (130, 67)]


def defect_types(method: Synthesizer) -> tuple[str, ...]:
    return method.types("widget") or ("hole",)


def a_request(
    method: Synthesizer, mask: np.ndarray, seed: int = 0, defect_type: str | None = None, caption: str = ""
) -> Request:
    image = fakes.photo(seed, (mask.shape[0], mask.shape[1]))
    reference_image, reference_mask = fakes.with_defect(fakes.photo(seed + 50, (48, 64)), "hole", seed)
    reference = Sample(reference_image, reference_mask, "widget", "hole")
    normal = Sample(image, np.zeros(mask.shape, dtype=bool), "widget")
    return Request(normal, mask, defect_type or defect_types(method)[0], caption, reference, seed)


def some_masks() -> dict[str, np.ndarray]:
    masks = {f"full {h}x{w}": np.ones((h, w), dtype=bool) for h, w in SIZES}
    for height, width in SIZES:
        one = np.zeros((height, width), dtype=bool)
        one[height // 2, width // 3] = True
        masks[f"one pixel {height}x{width}"] = one
    corner = np.zeros((40, 55), dtype=bool)
    corner[:12, :15] = True
    masks["corner"] = corner
    rim = np.zeros((40, 55), dtype=bool)
    rim[:, -3:] = True
    masks["rim"] = rim
    scattered = np.random.default_rng(1).random((40, 55)) < 0.15
    masks["scattered"] = scattered
    hole = np.zeros((60, 60), dtype=bool)
    hole[10:50, 10:50] = True
    hole[20:40, 20:40] = False
    masks["ring"] = hole
    far = np.zeros((50, 90), dtype=bool)
    far[4:12, 4:14] = far[38:46, 70:85] = True
    masks["two far parts"] = far
    return masks


MASKS = some_masks()


def check(request: Request, sample: Sample) -> None:
    normal = request.normal.image
    assert sample.image.shape == normal.shape and sample.image.dtype == np.uint8
    assert sample.mask.shape == request.mask.shape and sample.mask.dtype == bool
    assert np.array_equal(sample.image[~sample.mask], normal[~sample.mask])
    assert not (sample.mask & ~request.mask).any()
    if "rejected" in sample.info:
        assert sample.info["rejected"] and not sample.mask.any() and np.array_equal(sample.image, normal)
        return
    assert sample.mask.any()
    changed = compose.changed_region(normal, sample.image, sample.info["scores"]["tolerance"])
    assert not (changed & ~sample.mask).any()
    assert changed.sum() >= 0.4 * sample.mask.sum()
    json.dumps(sample.info)  # facts go to the manifest


class Contract:
    """Every promise; whoever inherits it gives the fixture `method`."""

    @pytest.mark.parametrize("name", MASKS)
    def test_any_mask_at_any_size(self, method: Synthesizer, name: str) -> None:
        for seed in range(2):
            request = a_request(method, MASKS[name], seed)
            before = request.normal.image.copy()
            (sample,) = method.generate([request])
            assert np.array_equal(request.normal.image, before)
            check(request, sample)

    def test_every_defect_type_of_the_method(self, method: Synthesizer) -> None:
        mask = fakes.defect_mask("hole", 3, (60, 80))
        for defect_type in defect_types(method):
            (sample,) = method.generate([a_request(method, mask, 3, defect_type)])
            assert sample.defect_type == defect_type
            check(a_request(method, mask, 3, defect_type), sample)

    def test_a_plain_case_is_kept(self, method: Synthesizer) -> None:
        """The promises allow refusals, so a method that refuses everything would pass; this one it may not refuse."""
        mask = np.zeros((96, 120), dtype=bool)
        mask[30:60, 40:80] = True
        kept = [not method.generate([a_request(method, mask, seed)])[0].info.get("rejected") for seed in range(6)]
        assert sum(kept) >= 4

    def test_batches_do_not_matter(self, method: Synthesizer) -> None:
        masks = [MASKS["corner"], MASKS["ring"], MASKS["two far parts"]]
        requests = [a_request(method, mask, seed) for seed, mask in enumerate(masks)]
        together = method.generate(requests)
        assert [sample.image.shape for sample in together] == [request.normal.image.shape for request in requests]
        backwards = method.generate(requests[::-1])[::-1]
        for request, first, second in zip(requests, together, backwards, strict=True):
            (alone,) = method.generate([request])
            for other in (first, second):
                assert alone.caption == other.caption
                if method.learns != "nothing":  # in bf16 another batch may round a tie the other way, here and there
                    assert np.abs(alone.image.astype(int) - other.image).max() <= 2
                    assert (alone.mask != other.mask).mean() < 0.01
                    continue
                assert np.array_equal(alone.image, other.image) and np.array_equal(alone.mask, other.mask)
                assert alone.info == other.info

    def test_another_seed_gives_another_image(self, method: Synthesizer) -> None:
        mask = MASKS["ring"]
        first, second = (a_request(method, mask, 5), a_request(method, mask, 5))
        second = Request(first.normal, mask, first.defect_type, "", first.reference, seed=6)
        assert not np.array_equal(method.generate([first])[0].image, method.generate([second])[0].image)

    def test_saved_and_loaded(self, method: Synthesizer, tmp_path: Path) -> None:
        changed = method
        changed.options = method.parse_options({"min_visibility": 0.0, "tolerance": 3.0}, method.options)
        changed.save_pretrained(tmp_path / "run")
        again = load(tmp_path / "run")
        assert type(again) is type(method) and again.options == changed.options
        request = a_request(method, MASKS["corner"], 2)
        (first,), (second,) = changed.generate([request]), again.generate([request])
        assert np.array_equal(first.image, second.image) and np.array_equal(first.mask, second.mask)

    def test_unknown_options_are_refused(self, method: Synthesizer) -> None:
        with pytest.raises(FlawsmithError, match="min_visibility"):
            type(method)(min_visibilty=3)
        with pytest.raises(FlawsmithError, match="known"):
            method.generate([a_request(method, MASKS["corner"])], no_such_dial=1)
        with pytest.raises(FlawsmithError, match="tolerance"):
            type(method)(tolerance=-1)

    def test_options_of_a_call_do_not_stick(self, method: Synthesizer) -> None:
        request = a_request(method, MASKS["ring"], 4)
        before = method.generate([request])[0]
        (refused,) = method.generate([request], min_visibility=255)
        assert "too faint" in refused.info["rejected"] or "visible" in refused.info["rejected"]
        assert np.array_equal(method.generate([request])[0].image, before.image)

    def test_needs_reference_says_so(self, method: Synthesizer) -> None:
        request = a_request(method, MASKS["ring"])
        bare = Request(request.normal, request.mask, request.defect_type)
        if method.references != "none":
            with pytest.raises(FlawsmithError, match="reference"):
                method.generate([bare])
        else:
            check(bare, method.generate([bare])[0])

    def test_default_mask_is_a_family(self, method: Synthesizer) -> None:
        from flawsmith import masks

        assert all(method.default_mask(defect_type) in masks.MASKS for defect_type in defect_types(method))

    @pytest.mark.parametrize("level", [0, 255])
    def test_flat_photographs(self, method: Synthesizer, level: int) -> None:
        """Saturated and empty images happen: a method may refuse, never crash or warn."""
        request = a_request(method, MASKS["ring"])
        flat = Sample(np.full_like(request.normal.image, level), request.normal.mask, "widget")
        flat_request = Request(flat, request.mask, request.defect_type, "", request.reference, 1)
        check(flat_request, method.generate([flat_request])[0])

    def test_a_card_never_imports(self, tmp_path: Path) -> None:
        images.write_bytes(tmp_path / "card.json", b'{"method": "os:system", "options": {}}')
        with pytest.raises(FlawsmithError, match="not known"):
            load(tmp_path)
        images.write_bytes(tmp_path / "card.json", b"{")
        with pytest.raises(FlawsmithError, match="not a flawsmith checkpoint"):
            load(tmp_path)
        card: dict[str, Any] = {"options": {}}
        images.write_bytes(tmp_path / "card.json", json.dumps(card).encode())
        with pytest.raises(FlawsmithError, match=r"card\.json"):
            load(tmp_path)
