"""The user's way through `flawsmith evaluate --compare`: arms paired, killed, resumed and told in words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import fakes  # noqa: E402
import judging  # noqa: E402
from flawsmith import images  # noqa: E402
from flawsmith.comparison import shared, tasks  # noqa: E402
from flawsmith.config import CompareConfig  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.evaluation.detectors import segmentation  # noqa: E402
from flawsmith.evaluation.protocol import read_real  # noqa: E402
from flawsmith.records import Record, Sample  # noqa: E402
from judging import QUICK, results  # noqa: E402
from written import Run  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judging.folder(tmp_path_factory.mktemp("made"))


@pytest.fixture
def compare(run: Run, made: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        command = ["evaluate", "--compare", "--real", f"mvtec_ad:{made / 'data/widget'}", "--out", tmp_path / "out"]
        jobs = () if "--jobs" in arguments else ("--jobs", "1")
        return run(*command, "--images", "3", *QUICK, *jobs, *arguments)

    return call


def test_arms_are_paired_resumed_and_judged_in_words(
    compare: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ["--arms", "real,copypaste,procedural", "--seeds", "0,1", "--shots", "0,2", "--ratios", "0.25,0.5"]
    original, trained = segmentation.train, []

    def counted(*given, **named):
        if given[3].steps != 6:  # how long a step takes, for the plan
            return original(*given, **named)
        trained.append(1)
        if len(trained) == 4:
            raise RuntimeError("the power went out")
        return original(*given, **named)

    monkeypatch.setattr(segmentation, "train", counted)
    code, _, err = compare(*arguments)
    assert code == 1 and "the power went out" in err
    lines = (out / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 3  # whole parts only
    code, shown, err = compare(*arguments)
    assert code == 0, err
    # Per seed: procedural without any real; real; copypaste and procedural at two shares each.
    assert len(trained) == 2 * (1 + 1 + 4) + 1
    assert (out / "runs.jsonl").read_text().splitlines()[:3] == lines
    content = results(out)
    arms = {v["method"] for v in content["values"]}
    assert arms == {
        "no real + procedural",
        "2 real",
        *(
            f"2 real + {name}, share {share}"
            for name in ("copypaste", "procedural")
            for share in (0.25, 0.5, "by validation")
        ),
    }
    for name in ("copypaste", "procedural"):  # every value of the third row is that of the share validation likes best
        rows = {
            share: {
                (v["key"], v["type"], v["seed"]): v["value"]
                for v in content["values"]
                if v["method"] == f"2 real + {name}, share {share}"
            }
            for share in (0.25, 0.5, "by validation")
        }
        key = "validation_pixel_AP/light-unet", "mean"
        liked = {share: rows[share][(*key, 0)] + rows[share][(*key, 1)] for share in (0.25, 0.5)}
        assert rows["by validation"] == rows[max(liked, key=liked.__getitem__)]
    aps = [v for v in content["values"] if v["key"].startswith("pixel_AP/") and v["type"] == "mean"]
    assert len(aps) == 16 and {v["seed"] for v in aps} == {0, 1}
    sentences = content["verdicts"]
    assert len(sentences) == 6 and all("A first look: 2 seeds" in sentence for sentence in sentences)
    assert all(sentence in " ".join(shown.split()) for sentence in map(" ".join, map(str.split, sentences)))
    assert sum("over copypaste" in sentence or "against copypaste" in sentence for sentence in sentences) == 3
    code, _, _ = compare(*arguments)
    assert code == 0 and len(trained) == 13 and results(out)["values"] == content["values"]


def test_an_arm_takes_of_each_type_the_method_that_validation_likes(
    compare: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, learned = segmentation.train, []

    def watched(real, synthetic, *given, **named):
        synthetic = list(synthetic)
        if given[1].steps == 6:  # not the few steps of the plan
            learned.append([(sample.defect_type, images.array_sha(sample.image)) for sample in synthetic])
        return original(real, synthetic, *given, **named)

    monkeypatch.setattr(segmentation, "train", watched)
    arguments = ["--arms", "analogy-or-copypaste,copypaste,analogy", "--seeds", "0,1", "--shots", "2"]
    code, _, err = compare(*arguments)
    assert code == 0, err
    content = results(tmp_path / "out")
    for seed in (0, 1):
        made = dict(zip(("copypaste", "analogy", "chosen"), learned[3 * seed : 3 * seed + 3], strict=True))
        liked = {
            (v["method"].split()[3].strip(","), v["type"]): v["value"]
            for v in content["values"]
            if v["key"] == "validation_pixel_AP/light-unet" and v["seed"] == seed
        }
        for kind in ("crack", "hole"):
            best = max(("analogy", "copypaste"), key=lambda name: liked[name, kind] or 0.0)
            taken = sorted(one for one in made["chosen"] if one[0] == kind)
            assert taken and taken == sorted(one for one in made[best] if one[0] == kind)
            assert any(f"seed {seed}, " in note and best in note and kind in note for note in content["notes"])
    scores: dict[tuple[str, str], list[float]] = {}
    for v in content["values"]:
        if v["key"] == "validation_pixel_AP/light-unet" and v["method"].split()[3].strip(",") in (
            "analogy",
            "copypaste",
        ):
            scores.setdefault((v["type"], v["method"].split()[3].strip(",")), []).append(v["value"] or 0.0)
    (together,) = (note for note in content["notes"] if "all seeds together: " in note)
    for part in together.rstrip(".").split("together: ")[1].split("; "):
        method, kinds = part.split(" for ")
        other = {"analogy": "copypaste", "copypaste": "analogy"}[method]
        for kind in kinds.split(", "):
            assert sum(scores[kind, method]) >= sum(scores[kind, other])
    assert compare(*arguments)[0] == 0 and len(learned) == 6
    assert results(tmp_path / "out")["values"] == content["values"]
    assert compare(*(part if part != "0,1" else "0" for part in arguments))[0] == 0 and len(learned) == 6
    assert not any("all seeds together" in note for note in results(tmp_path / "out")["notes"])
    code, _, err = compare("--arms", "real,copypaste-or-analogy,copypaste", "--seeds", "0")
    assert code == 2 and "add analogy to --arms" in " ".join(err.split())


def test_another_network_takes_the_images_that_are_there(
    compare: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    arguments = ["--arms", "copypaste", "--seeds", "0", "--shots", "2"]
    assert compare(*arguments)[0] == 0
    painted = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "work").rglob("*.png")}
    code, _, err = compare(*arguments, "--set", "segmentation.steps=8")
    assert code == 0, err
    assert painted == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "work").rglob("*.png")}
    assert len((tmp_path / "out" / "runs.jsonl").read_text().splitlines()) == 2  # trained anew all the same


def test_networks_trained_side_by_side_are_those_trained_one_after_the_other(
    compare: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    arguments = ["--arms", "real,procedural", "--seeds", "0", "--shots", "2"]
    found = []
    for jobs in ("2", "1"):
        code, _, err = compare(*arguments, "--jobs", jobs)
        assert code == 0, err
        rows = results(tmp_path / "out")["values"]
        found.append([row for row in rows if not row["key"].startswith("seconds/")])
        shutil.rmtree(tmp_path / "out")
    assert found[0] == found[1] and len(found[0]) > 50


class Fatal(Record):
    """An image that is too much for the process that reads it."""

    def load(self) -> Sample:
        os._exit(9)


def test_a_process_that_the_system_ends_is_named(made: Path) -> None:
    real = read_real(CompareConfig(real=f"mvtec_ad:{made / 'data/widget'}", out=made / "unused"))
    division = shared.divide(real, 0)
    fatal = Fatal(division.support[0].image, "widget", "crack")
    sides = (fatal,), (), division.normals, division.validation, division.test
    two = [tasks.Task(name, name, segmentation.SegmentationConfig(steps=2), *sides) for name in ("a", "b")]
    with pytest.raises(FlawsmithError, match="fewer --jobs"):
        list(tasks.run_all(two, 2))


def test_a_method_sees_only_its_support(
    compare: Callable[..., tuple[int, str, str]], made: Path, tmp_path: Path
) -> None:
    arguments = ["--arms", "copypaste", "--seeds", "3", "--shots", "1", "--metrics", "kid,segmentation"]
    code, _, err = compare(*arguments, "--features", made / "mobilenet")
    assert code == 0, err
    work = next((tmp_path / "out" / "work").iterdir())
    shown = {images.file_sha(p) for p in (work / "data").rglob("*.png")}
    defects = {images.file_sha(p) for kind in ("crack", "hole") for p in (made / "data/widget/test" / kind).glob("*")}
    assert len(shown & defects) == 2  # one of each type, and nothing of validation and test
    assert not shown & {images.file_sha(p) for p in (made / "data/widget/test/good").glob("*")}
    kid = [v for v in results(tmp_path / "out")["values"] if v["key"] == "KID/mobilenet/window"]
    assert {v["type"] for v in kid} == {"crack", "hole", "all", "mean"}


def test_images_made_elsewhere_are_an_arm(compare: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, _, err = compare("--arms", "real,copypaste", "--seeds", "0", "--shots", "2")
    assert code == 0, err
    folder = next((tmp_path / "out" / "work").glob("seed0-2-*")) / "copypaste"
    code, _, err = compare("--arms", f"real,theirs={folder}", "--seeds", "0", "--shots", "2")
    assert code == 0, err
    values = {v["method"]: v["value"] for v in results(tmp_path / "out")["values"] if v["key"].startswith("pixel_AP/")}
    assert "2 real + theirs, share 0.5" in values


def test_an_image_that_looks_like_a_judged_one_is_left_out_with_a_note(
    compare: Callable[..., tuple[int, str, str]], made: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(made / "pasted", theirs)
    for name in ("manifest.jsonl", "generate.json"):  # what went into it is not known
        (theirs / name).unlink()
    real = read_real(CompareConfig(real=f"mvtec_ad:{made / 'data/widget'}", out=made / "unused"))
    judged = next(r for r in shared.divide(real, 0).test if r.defect_type == "crack")
    painted = sorted((theirs / "test" / "crack").glob("*.png"))
    brighter = np.clip(images.read_image(judged.image).astype(int) + 6, 0, 255).astype(np.uint8)
    images.write_image(painted[0], brighter)
    count = len(list((theirs / "test").rglob("*.png")))
    arguments = ["--arms", f"real,theirs={theirs}", "--seeds", "0", "--shots", "2"]
    for _ in range(2):  # the note is there after a resumed run as well
        code, _, err = compare(*arguments)
        assert code == 0, err
        content = results(tmp_path / "out")
        assert any("theirs: 1 images that look like a test image are left out" in note for note in content["notes"])
    rows = [v for v in content["values"] if v["key"].startswith("pixel_AP/") and v["type"] == "crack"]
    trained = {v["n_generated"] for v in rows if "theirs" in v["method"]}
    assert trained == {count - 1}


def test_one_support_for_all_seeds(compare: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, _, err = compare("--arms", "copypaste", "--seeds", "1,2", "--shots", "2", "--support", "fixed")
    assert code == 0, err
    seen, made = [], []
    for work in sorted((tmp_path / "out" / "work").iterdir()):
        seen.append({images.file_sha(path) for path in (work / "data").rglob("*.png")})
        made.append({images.file_sha(path) for path in (work / "copypaste" / "test").rglob("*.png")})
    assert len(seen) == 2 and seen[0] == seen[1] and not made[0] & made[1]
    assert any("All seeds learn from one support" in note for note in results(tmp_path / "out")["notes"])


def test_the_plan_is_told_before_the_start(compare: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    arguments = ["--arms", "real,procedural", "--shots", "2"]
    code, _, err = compare(*arguments, "--seeds", "0")
    told = " ".join(err.split())
    assert code == 0
    assert told.startswith(
        "Plan: arms real, procedural; seeds 0; shots 2; shares 0.5: 2 networks. Training takes about"
    ), err
    more = " ".join(compare(*arguments, "--seeds", "0,1")[2].split())
    assert "4 networks, 2 of them there. Training takes about" in more
    assert "4 networks, all of them there." in compare(*arguments, "--seeds", "0,1")[2]


def test_an_arm_that_leaks_is_refused(compare: Callable[..., tuple[int, str, str]], made: Path, tmp_path: Path) -> None:
    stolen = tmp_path / "stolen"
    for kind in ("crack", "hole"):  # real defects under another name: some of them are judged by
        for path in sorted((made / "data/widget/test" / kind).glob("*.png")):
            fakes.write(stolen / "test" / kind / f"new {path.name}", path.read_bytes())
            mask = made / "data/widget/ground_truth" / kind / f"{path.stem}_mask.png"
            fakes.write(stolen / "ground_truth" / kind / f"new {path.stem}_mask.png", mask.read_bytes())
    code, _, err = compare("--arms", f"real,theirs={stolen}", "--seeds", "0", "--shots", "2")
    assert code == 2 and "would leak" in err and "same file" in err


def test_shots_are_nested_and_validation_and_test_do_not_depend_on_them(made: Path) -> None:
    real = read_real(CompareConfig(real=f"mvtec_ad:{made / 'data/widget'}", out=made / "unused"))
    first, again, other = (shared.divide(real, seed) for seed in (0, 0, 1))
    assert first == again and set(first.support) != set(other.support)
    third = {r.name for r in shared.support_of(first, "third", 0)}
    one = {r.name for r in shared.support_of(first, 1, 0)}
    assert len(third) == 6 and len(one) == 2 and one < third and shared.support_of(first, 0, 0) == []


def test_all_arms_start_from_the_same_weights() -> None:
    def sample(kind: str, seed: int) -> Sample:
        return Sample(*fakes.with_defect(fakes.photo(seed), kind, seed), "widget", kind)

    normals = [Sample(fakes.photo(9), np.zeros((48, 64), bool), "widget")]
    config = segmentation.SegmentationConfig(steps=1, batch_size=2, crop=32, learning_rate=1e-12, seed=4)
    arms = [segmentation.train([sample("hole", 1)], made, normals, config) for made in ([], [sample("crack", 2)])]
    for a, b in zip(arms[0].model.parameters(), arms[1].model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
