"""The Python front door: arrays in, Samples out, no folder on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fakes
import flawsmith
from flawsmith import datasets
from flawsmith.datasets.writer import read_manifest
from flawsmith.errors import FlawsmithError


def defect(size: tuple[int, int] = (64, 64)) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros(size, dtype=bool)
    mask[24:36, 20:44] = True
    image = fakes.photo(9, size)
    image[mask] //= 4
    return image, mask


def test_images_of_every_kind_come_back_painted_and_otherwise_untouched(tmp_path: Path) -> None:
    photo = fakes.photo(0, (96, 80))
    Image.fromarray(photo).save(tmp_path / "good.png")
    method = flawsmith.load("procedural")
    mask = np.zeros((96, 80), dtype=bool)
    mask[30:60, 20:50] = True
    kinds = [photo, Image.fromarray(photo), tmp_path / "good.png"]
    made = [method(kind, mask, defect_type="stain", seed=3)[0] for kind in kinds]
    for sample in made:
        assert sample.mask.any() and not (sample.mask & ~mask).any()
        assert np.array_equal(sample.image[~sample.mask], photo[~sample.mask])
        assert np.array_equal(sample.image, made[0].image)
    assert made[0].caption.startswith("A photo of a product with")


def test_masks_are_drawn_where_none_is_given_and_n_takes_the_images_in_turn() -> None:
    photos = [fakes.photo(seed, (80, 80)) for seed in range(2)]
    method = flawsmith.load("cutpaste")
    made = method(photos, "scratch", n=5, seed=1)
    assert len(made) + len(made.refused) == 5
    again = method(photos, "scratch", n=5, seed=1)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(made, again, strict=True))
    shorter = method(photos, "scratch", n=2, seed=1)
    assert np.array_equal(shorter[1].image, made[1].image)


def test_a_reference_is_a_pair_of_arrays() -> None:
    image, mask = defect()
    made = flawsmith.load("copypaste")([fakes.photo(1, (64, 64))], reference=(image, mask), defect_type="burn", n=3)
    assert made and all(sample.defect_type == "burn" and sample.mask.any() for sample in made)
    with pytest.raises(FlawsmithError, match="pair"):
        flawsmith.load("copypaste")([fakes.photo(1, (64, 64))], reference=[image])
    with pytest.raises(FlawsmithError, match="reference"):
        flawsmith.load("copypaste")([fakes.photo(1, (64, 64))])


def test_saved_samples_are_a_data_set(tmp_path: Path) -> None:
    image, mask = defect()
    made = flawsmith.load("copypaste")([fakes.photo(1, (64, 64))], reference=(image, mask), defect_type="burn", n=3)
    folder = made.save(tmp_path / "out")
    records = datasets.read("mvtec_ad", folder)
    assert len(records) == len(made)
    for record, sample in zip(sorted(records, key=lambda r: r.name), made, strict=True):
        loaded = record.load()
        assert np.array_equal(loaded.image, sample.image) and np.array_equal(loaded.mask, sample.mask)
    lines = read_manifest(folder)
    assert [line["seed"] for line in lines] == [sample.info["seed"] for sample in made]
    assert made.save(tmp_path / "out") == folder  # the same again is no error
    with pytest.raises(FlawsmithError, match="another run"):
        flawsmith.Samples(made[:1]).save(tmp_path / "out")


def test_a_list_shows_itself() -> None:
    made = flawsmith.load("procedural")(fakes.photo(2, (64, 64)), defect_type="scratch", n=2)
    assert made._repr_png_().startswith(b"\x89PNG")
    assert isinstance(made[:1], flawsmith.Samples)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"images": []}, "No image"),
        ({"images": np.zeros((8, 8, 3))}, "uint8"),
        ({"images": np.zeros((64, 64, 3), np.uint8), "masks": []}, "empty"),
        ({"images": np.zeros((64, 64, 3), np.uint8), "masks": "scratches"}, "scratch"),
        ({"images": np.zeros((64, 64, 3), np.uint8), "masks": np.zeros((9, 9), bool)}, "mask is"),
        ({"images": np.zeros((64, 64, 3), np.uint8), "no_such_dial": 1}, "known"),
        ({"images": np.zeros((64, 64, 3), np.uint8), "mask_options": {"siez": 1}}, "size"),
        ({"images": np.zeros((64, 64, 3), np.uint8), "roi": np.zeros((64, 64), bool)}, "region of interest"),
    ],
)
def test_wrong_calls_are_answered(given: dict[str, object], words: str) -> None:
    with pytest.raises(FlawsmithError, match=words):
        flawsmith.load("procedural")(**given)


def test_a_fit_to_arrays_resumes_and_its_method_paints_what_it_learned(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    image, mask = defect((96, 96))
    goods = [fakes.photo(seed, (96, 96)) for seed in range(2)]
    few = {"steps": 2, "batch_size": 2, "patience": 0, "evaluate_every": 2, "preview_every": 100}
    method = flawsmith.fit("inpaint", [(image, mask)] * 2, goods, tmp_path / "run", defect_type="burn", **few)
    made = method(goods, mask, defect_type="burn", n=2, min_visibility=0, min_share=0)
    assert set(method.seen()) and len(made) == 2 and made[0].category == "product"
    assert np.array_equal(made[0].image[~made[0].mask], goods[0][~made[0].mask])
    again = flawsmith.fit("inpaint", [(image, mask)] * 2, goods, tmp_path / "run", defect_type="burn", **few)
    remade = again(goods, mask, defect_type="burn", n=2, min_visibility=0, min_share=0)
    assert all(np.array_equal(one.image, two.image) for one, two in zip(made, remade, strict=True))
    assert flawsmith.fit("inpaint", [(image, mask)], goods, steps=1, batch_size=1, patience=0).home is not None
    with pytest.raises(FlawsmithError, match="nothing to train"):
        flawsmith.fit("copypaste", [(image, mask)], goods, tmp_path / "other")
    with pytest.raises(FlawsmithError, match="at least one"):
        flawsmith.fit("inpaint", [], goods, tmp_path / "other")


def test_generate_and_evaluate_are_the_commands(tmp_path: Path) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", good=4, defects={"crack": 6})
    done = flawsmith.generate("copypaste", data, tmp_path / "out", n=4, seed=2, blend="hard")
    assert done.kept == 4 and read_manifest(tmp_path / "out")[0]["options"]["blend"] == "hard"
    with pytest.raises(FlawsmithError, match="blend"):
        flawsmith.generate("copypaste", data, tmp_path / "other", n=4, blnd="hard")
    pytest.importorskip("torch")
    values = flawsmith.evaluate(tmp_path / "out", data, tmp_path / "results", metrics=["copies"])
    assert (
        any(value.key.startswith("label_IoU") for value in values) and (tmp_path / "results" / "results.json").is_file()
    )
