"""Several types of defects in one image: pixels, ids, words, the order of work, and every format that carries them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fakes
from flawsmith import captions, datasets, images
from flawsmith.config import GenerateConfig
from flawsmith.datasets.exports import FORMATS
from flawsmith.datasets.exports.run import export
from flawsmith.datasets.review import apply
from flawsmith.datasets.writer import read_manifest
from flawsmith.errors import FlawsmithError
from flawsmith.generation import run as generation
from written import READS, origins, tree, unpack

Run = Callable[..., tuple[int, str, str]]
ASKED = {"crack": 1, "hole": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.mvtec_tree(tmp_path_factory.mktemp("data"), good=4, defects={"crack": 6, "hole": 6}, size=(120, 160))


def config(data: Path, out: Path, **more: Any) -> GenerateConfig:
    given = {"method": "copypaste", "normal": f"mvtec_ad:{data}", "out": out, "n": 4, "combine": ASKED, "seed": 1}
    return GenerateConfig(**{**given, **more})


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    generation.run(config(data, out, n=6, mix={"combined": 2, "hole": 1}, gate="off"))
    return out


def truth(out: Path) -> dict[str, dict[str, np.ndarray]]:
    """Image -> type -> (H, W) bool, from the manifest and the image of ids."""
    found = {}
    for line in read_manifest(out):
        if line["status"] == "kept" and "instances" in line:
            ids = images.read_image(out / line["instances"]["file"])[..., 0]
            kinds = {one["id"]: one["defect_type"] for one in line["instances"]["defects"]}
            found[line["image"]] = {
                kind: np.isin(ids, [i for i, k in kinds.items() if k == kind]) for kind in set(kinds.values())
            }
    return found


@pytest.mark.parametrize("method", ["copypaste", "analogy", "procedural", "perlin", "cutpaste", "nsa"])
def test_every_defect_is_there_and_nothing_else_changed(method: str, data: Path, tmp_path: Path) -> None:
    kinds = ASKED if method in ("copypaste", "analogy", "procedural") else {"a": 1, "b": 2}
    generation.run(config(data, tmp_path / "out", method=method, combine=kinds, n=3))
    lines = [line for line in read_manifest(tmp_path / "out") if line["status"] == "kept"]
    assert lines
    for line in lines:
        told = line["instances"]["defects"]
        ids = images.read_image(tmp_path / "out" / line["instances"]["file"])[..., 0]
        mask = images.read_mask(tmp_path / "out" / line["mask"])
        image = images.read_image(tmp_path / "out" / line["image"])
        normal = images.read_image(data / line["normal"]["file"])
        assert line["defect_type"] == "combined" and Counter(one["defect_type"] for one in told) == kinds
        assert np.array_equal(ids > 0, mask) and np.array_equal(image[~mask], normal[~mask])
        for one in told:
            part = ids == one["id"]
            assert part.sum() == one["area"] > 0 and (image[part] != normal[part]).any()
            assert one["caption"].strip() in line["caption"] or all(kind in line["caption"] for kind in kinds)


def test_later_defects_are_painted_on_the_image_with_the_earlier_ones(data: Path, tmp_path: Path) -> None:
    """The same request at the same photograph: what another defect is beside decides its pixels."""
    made, synthesizer, loader = generation.prepare(config(data, tmp_path / "out"))
    job = made.jobs[0]
    first, second = job.painted[0], job.painted[1]
    earlier = synthesizer.generate([loader.request(first)])[0]
    asked = loader.request(second, 0, earlier)
    assert np.array_equal(asked.normal.image, earlier.image) and not asked.normal.mask.any()
    generation.run(config(data, tmp_path / "out", n=1))
    image = images.read_image(tmp_path / "out/test/combined/000.png")
    ids = images.read_image(tmp_path / "out/instances/combined/000.png")[..., 0]
    assert np.array_equal(image[ids == 1], earlier.image[ids == 1]) and np.array_equal(ids == 1, earlier.mask)


def test_a_longer_resumed_or_batched_run_is_the_same(data: Path, tmp_path: Path) -> None:
    more = {"mix": {"combined": 2, "hole": 1}, "gate": "normal"}
    generation.run(config(data, tmp_path / "whole", **more))
    for n in (1, 3, 4):
        generation.run(config(data, tmp_path / "parts", n=n, **more))
    assert tree(tmp_path / "whole") == tree(tmp_path / "parts")
    lines = read_manifest(tmp_path / "whole")
    assert [line["defect_type"] for line in lines] == ["combined", "hole", "combined", "combined"]
    assert "instances" not in lines[1]
    assert any(one["defect_type"] != "combined" for line in lines for one in line["refused"]) or not any(
        line["refused"] for line in lines
    )


def test_an_image_that_lacks_a_defect_is_refused(data: Path, tmp_path: Path) -> None:
    """A region of interest that has room for one: the second type finds no place."""
    roi = np.zeros((120, 160), bool)
    roi[50:62, 60:72] = True
    images.write_image(tmp_path / "roi.png", roi)
    asked = config(data, tmp_path / "out", roi=tmp_path / "roi.png", combine={"crack": 8, "hole": 8}, n=1)
    generation.run(asked)
    (line,) = read_manifest(tmp_path / "out")
    assert line["status"] == "rejected" and line["reason"].startswith("no good ")
    assert not (tmp_path / "out/test").exists() and not (tmp_path / "out/instances").exists()


def test_the_reader_gives_each_defect_its_type(made: Path) -> None:
    known, seen = truth(made), 0
    for record in datasets.read("mvtec_ad", made):
        if record.defect_type != "combined":
            assert record.labels == ("hole",)
            continue
        sample = record.load()
        parts = list(record.parts(sample.mask.shape, lambda image=sample.image: image))
        assert [kind for kind, _ in parts] == ["crack", "hole", "hole"]
        for kind, mask in known[record.name].items():
            assert np.array_equal(mask, np.any([part for own, part in parts if own == kind], axis=0))
        line = next(line for line in read_manifest(made) if line["image"] == record.name)
        assert np.array_equal(sample.mask, images.read_mask(made / line["mask"]))
        seen += 1
    assert seen == len(known) >= 3


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_names_each_defect_by_its_own_type(name: str, made: Path, tmp_path: Path) -> None:
    known = truth(made)
    export(made, tmp_path / "out", [name])
    unpack(tmp_path / "out")
    rows, seen = origins(tmp_path / "out"), 0
    for record in datasets.read(READS[name], tmp_path / "out"):
        parts = known.get(rows[record.name]["origin_file"])
        if parts is None:
            assert "crack" not in record.labels
            continue
        sample, seen = record.load(), seen + 1
        assert record.defect_type == "combined" and set(record.labels) == set(parts) and len(record.masks) == 3
        if name != "yolo":  # boxes alone: the pixels are proposed
            for kind, mask in parts.items():
                drawn = [one for own, one in record.parts(mask.shape, lambda image=sample.image: image) if own == kind]
                assert np.array_equal(np.any(drawn, axis=0), mask)
    assert seen == len(known)


def test_a_dropped_image_takes_its_instances_along(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    generation.run(config(data, out, n=2, gate="off"))
    before = tree(out)
    apply(out, {"test/combined/000.png": ("drop", "")})
    assert not list((out / "instances").rglob("000.*")) and len(list((out / "dropped/instances").rglob("000.*"))) == 2
    apply(out, {"test/combined/000.png": ("keep", "")})
    after = tree(out)
    assert before.keys() == after.keys()
    assert all(before[name] == after[name] for name in before if "manifest" not in str(name))


def test_captions_name_all_or_repeat_what_is_said() -> None:
    plain = [captions.sentence("tile", kind) for kind in ("crack", "hole", "hole")]
    assert captions.together("tile", ["crack", "hole", "hole"], plain) == (
        "A photo of a tile with 3 defects: crack, hole and hole."
    )
    own = ["A long crack on the tile.", "A hole.", "A hole."]
    assert captions.together("tile", ["crack", "hole", "hole"], own) == "A long crack on the tile. A hole."


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--combine", "crack=1"), "two types or more"),
        (("--combine", "crack=1,hole"), "crack=3,hole=1"),
        (("--combine", "crack=1,hole=0"), "greater than or equal to 1"),
        (("--combine", "crack=1,hole=1.5"), "valid integer"),
        (("--combine", "crack=15,hole=15"), "20 defects at most"),
        (("--combine", "crack=1,hoel=1"), "hole"),
        (("--combine", "crack=1,hole=1", "--defects", "2"), "--defects"),
        (("--combine", "crack=1,hole=1", "--defect", "hole"), "--defect"),
        (("--combine", "crack=1,hole=1", "--mix", "hole=1"), "combined=W"),
        (("--combine", "crack=1,hole=1", "--mix", "combined=1,hoel=1"), "hole"),
    ],
)
def test_what_means_nothing_is_refused(run: Run, data: Path, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    code, _, err = run("generate", "copypaste", "--normal", data, "--out", tmp_path / "o", *more)
    assert code == 2 and said in " ".join(err.split()), err
    assert not (tmp_path / "o").exists()


def test_a_mask_image_and_a_single_reference_hold_one_type(run: Run, data: Path, tmp_path: Path) -> None:
    mask = data / "ground_truth/crack/000_mask.png"
    command = ("generate", "copypaste", "--normal", data, "--out", tmp_path / "o", "--combine", "crack=1,hole=1")
    code, _, err = run(*command, "--mask", mask)
    assert code == 2 and "leave out one of them" in err
    code, _, err = run(*command, "--reference", data / "test/crack/000.png", "--reference-mask", mask)
    assert code == 2 and "leave one of them out" in " ".join(err.split())


TWICE = '[{"id": 1, "defect_type": "a"}, {"id": 1, "defect_type": "b"}]'


TWICE = '[{"id": 1, "defect_type": "a"}, {"id": 1, "defect_type": "b"}]'


@pytest.mark.parametrize("content", ["[]x", "{}", '[{"id": 1}]', '[{"id": 0, "defect_type": "a"}]', TWICE])
def test_a_damaged_file_of_types_is_named(made: Path, tmp_path: Path, content: str) -> None:
    export(made, tmp_path / "out", ["mvtec"])
    path = next((tmp_path / "out").rglob("instances/*/*.json"))
    path.write_text(content)
    with pytest.raises(FlawsmithError, match=path.name):
        datasets.read("mvtec_ad", tmp_path / "out")


def test_the_identity_of_a_run_names_it_only_where_used(tmp_path: Path) -> None:
    plain = GenerateConfig(method="nsa", normal="x", out=tmp_path)
    assert "combine" not in plain.identity()
    assert json.dumps(plain.model_copy(update={"combine": ASKED}).identity()["combine"]) == json.dumps(ASKED)
