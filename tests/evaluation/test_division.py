"""Nothing is judged on an image that was used: by file, by part, by look; and every refusal names the pair."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import fakes
from flawsmith import datasets, images
from flawsmith.config import EvaluateConfig, GenerateConfig
from flawsmith.datasets.splits import around, few_shot
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation import protocol as division
from flawsmith.evaluation.protocol import Used, read_real, refuse_leaks, use, used_by
from flawsmith.generation import run as generation


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight cracks: pairs of images show one part."""
    groups = {f"test/crack/{i:03d}.png": f"part {i // 2}" for i in range(8)}
    return fakes.mvtec_tree(tmp_path / "data", good=4, defects={"crack": 8}, size=(72, 96), groups=groups)


def config(data: Path, **changes) -> EvaluateConfig:
    return EvaluateConfig(**{"real": f"mvtec_ad:{data}", "out": data / "out", "generated": "x", **changes})


def divided(data: Path, shots: int = 1) -> tuple[list, division.Division]:
    real = read_real(config(data))
    return real.records, use(few_shot(real.records, shots, validation=0.3), real)


def test_sides_share_no_part_and_normals_none_with_the_test(data: Path) -> None:
    twin = data / "train" / "good" / "twin.png"
    twin.write_bytes((data / "test" / "good" / "000.png").read_bytes())  # a test photograph among the training ones
    _, found = divided(data)
    groups = [{r.group for r in side} for side in (found.support, found.validation, found.test)]
    assert all(groups) and not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert twin not in {r.image for r in found.normals} and len(found.normals) == 4
    assert found.types == ["crack"]


def test_a_photograph_of_a_judged_part_is_not_trained_on(data: Path) -> None:
    _, before = divided(data)
    victim = next(r for r in before.test if not r.is_good)
    earlier = data / "train" / "good" / "earlier.png"  # the part as it was, in other light
    images.write_image(earlier, (images.read_image(victim.image).astype(int) + 6).clip(0, 255).astype("uint8"))
    _, found = divided(data)
    assert victim.image in {r.image for r in found.test}
    assert [r.image for r in found.normals] == [r.image for r in before.normals]


def test_an_honest_folder_passes_and_the_split_follows_it(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    generation.run(GenerateConfig(method="copypaste", normal=f"mvtec_ad:{data}", out=out, n=3, shots=2))
    used = used_by(out, [r.image for r in datasets.read("mvtec_ad", out) if not r.is_good])
    real = read_real(config(data))
    records = real.records
    support = division.support_of(used, records)
    assert len(support) == 2 and len(used.images) == 3 and used.normals
    found = use(around(records, support, 0.3), real)
    refuse_leaks(used, records, found)
    assert set(found.support) == set(support)


@pytest.mark.parametrize("side", ["test", "validation"])
def test_a_renamed_copy_of_a_judged_image_is_refused(data: Path, tmp_path: Path, side: str) -> None:
    records, found = divided(data)
    copy = tmp_path / "renamed.png"
    victim = next(r for r in getattr(found, side) if not r.is_good)
    copy.write_bytes(victim.image.read_bytes())
    with pytest.raises(FlawsmithError, match=rf"leak: {victim.name}, used as renamed.png \(same file\)"):
        refuse_leaks(Used({}, {}, (copy,)), records, found)
    sha = images.file_sha(victim.image)
    for used in (Used({sha: "training list"}, {}, ()), Used({}, {sha: "painted on"}, ())):
        with pytest.raises(FlawsmithError, match="same file"):
            refuse_leaks(used, records, found)


def test_another_image_of_a_trained_part_is_refused(data: Path) -> None:
    records, found = divided(data)
    victim = next(r for r in found.test if not r.is_good)
    relative = next(r for r in records if r.group == victim.group and r is not victim)
    sides = [tuple(r for r in side if r is not relative) for side in (found.support, found.validation, found.test)]
    rest = division.Division(*sides, found.normals)
    with pytest.raises(FlawsmithError, match="same group"):
        refuse_leaks(Used({images.file_sha(relative.image): "x"}, {}, ()), records, rest)


def test_another_exposure_of_a_judged_image_is_refused(data: Path, tmp_path: Path) -> None:
    records, found = divided(data)
    victim = next(r for r in found.test if not r.is_good)
    brighter = (images.read_image(victim.image).astype(int) + 6).clip(0, 255).astype("uint8")
    images.write_image(tmp_path / "brighter.png", brighter)
    with pytest.raises(FlawsmithError, match=r"brighter.png \(look alike\)"):
        refuse_leaks(Used({}, {}, (tmp_path / "brighter.png",)), records, found)


def test_good_photographs_that_all_look_alike_stay(tmp_path: Path) -> None:
    folder = fakes.mvtec_tree(tmp_path / "data", good=3, defects={"crack": 3}, size=(72, 96))
    for index in range(3):  # a fixed camera: only the noise differs
        image = images.read_image(folder / "test/good/000.png").copy()
        image[index, index] ^= 1
        images.write_image(folder / f"train/good/{index:03d}.png", image)
    real = read_real(config(folder))
    assert len(use(few_shot(real.records, 1), real).normals) == 3


def test_look_alikes_of_the_data_set_are_kept_on_one_side(tmp_path: Path) -> None:
    folder = fakes.mvtec_tree(tmp_path / "data", good=3, defects={"crack": 6}, size=(72, 96))
    again = images.read_image(folder / "test/crack/000.png").astype(int) + 5
    images.write_image(folder / "test/crack/006.png", again.clip(0, 255).astype("uint8"))
    mask = folder / "ground_truth/crack/000_mask.png"
    mask.with_name("006_mask.png").write_bytes(mask.read_bytes())
    real = read_real(config(folder))
    found = use(few_shot(real.records, 1), real)
    assert {r.image.name for r in found.support} == {"000.png"}
    assert "006.png" not in {r.image.name for r in found.test if not r.is_good}


def test_what_the_weights_have_seen_is_not_tested_on(data: Path, tmp_path: Path) -> None:
    listed = tmp_path / "seen.txt"
    sha = images.file_sha(data / "test" / "good" / "000.png")
    listed.write_text(f"widget/part 3\n{sha}\n")
    real = read_real(config(data, seen=listed))
    found = use(few_shot(real.records, 1, validation=0.3), real)
    judged = {r.name for r in (*found.test, *found.validation)}
    assert judged and not judged & {"test/crack/006.png", "test/crack/007.png", "test/good/000.png"}
    listed.write_text("".join(f"widget/part {i}\n" for i in range(4)))
    real = read_real(config(data, seen=listed))
    with pytest.raises(FlawsmithError, match="No real defect is left"):
        use(few_shot(real.records, 1), real)
    with pytest.raises(FlawsmithError, match="cannot be read"):
        read_real(config(data, seen=tmp_path / "none.txt"))


def test_refusals_before_any_work(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FlawsmithError, match="Did you mean 'crack'"):
        read_real(config(data, defect=("crak",)))
    bare = fakes.mvtec_tree(tmp_path / "bare", good=2, defects={}, size=(48, 64))
    with pytest.raises(FlawsmithError, match="must hold good photographs and real defects"):
        read_real(config(bare))
    fakes.mvtec_tree(data.parent, "gadget", good=2, defects={"crack": 2}, size=(48, 64))
    with pytest.raises(FlawsmithError, match="choose one with --category"):
        read_real(config(data.parent))
    broken = tmp_path / "broken"
    fakes.write(broken / "generate.json", "{")
    with pytest.raises(FlawsmithError, match="damaged"):
        used_by(broken, [])
    fakes.write(broken / "generate.json", json.dumps({"support": {"a.png": "abc"}}))
    assert used_by(broken, []).defects == {"abc": "a.png"}


@pytest.mark.parametrize("name", ["cookie", "magnetic_tile", "mvtec_ad/transistor"])
def test_honest_images_of_real_sets_are_not_refused(
    name: str, shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    source = f"mvtec_ad:{shared_data(name)}"
    out = tmp_path / "out"
    generation.run(GenerateConfig(method="copypaste", normal=source, out=out, n=8))
    real = read_real(EvaluateConfig(real=source, out=tmp_path, generated="x"))
    used = used_by(out, [r.image for r in datasets.read("mvtec_ad", out) if not r.is_good])
    found = use(around(real.records, division.support_of(used, real.records), 0.2), real)
    refuse_leaks(used, real.records, found)
    assert len(found.normals) > 20 and len(found.test) > 20
