"""The user's way through `flawsmith evaluate FOLDER`: a folder judged and resumed, and the refusals of every kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import judging  # noqa: E402
from flawsmith.evaluation.detectors import segmentation  # noqa: E402
from judging import QUICK, results  # noqa: E402
from written import Run  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judging.folder(tmp_path_factory.mktemp("made"))


def test_a_folder_is_judged_whole_and_the_same_command_resumes(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "judged"
    command = ["evaluate", made / "pasted", "--real", f"mvtec_ad:{made / 'data/widget'}", "--out", out]
    command += ["--features", made / "mobilenet", "--metrics", "kid,is,copies,segmentation,classification", *QUICK]
    command += ["--set", "classification.steps=4", "--set", "classification.size=48", "--seeds", "0,1"]
    command += ["--set", "classification.network=small"]
    code, shown, err = run(*command)
    assert code == 0, err
    assert "changed_outside_label" in shown and "results.md" in shown
    content = results(out)
    assert content["command"].startswith("flawsmith evaluate") and content["versions"]["torch"]
    assert len(content["extractors"]["mobilenet"]["hash"]) == 16
    split = content["split"]
    assert not set(split["support"]) & set(split["test"]) and not set(split["validation"]) & set(split["test"])
    seen = json.loads((made / "pasted" / "generate.json").read_text())["support"]
    assert set(split["support"]) == set(seen)  # the split follows what the generator saw
    values = {(v["key"], v["type"], v["seed"]): v for v in content["values"]}
    assert values["changed_outside_label/label", "mean", 0]["value"] == 0
    for metric in ("image_AUROC", "pixel_AUROC", "pixel_AP", "pixel_AUPR", "pixel_AUPRO", "pixel_F1Max", "pixel_IoU"):
        for kind in ("crack", "hole", "all", "mean"):
            for seed in (0, 1):
                assert 0 <= values[f"{metric}/pyramid-mobilenet/val-selected", kind, seed]["value"] <= 1
    assert values["accuracy/small-resnet/val-selected", "all", 0]["settings"]["majority"] == 0.5
    assert (out / "segmenter.safetensors").is_file() and (out / "results.csv").read_text().startswith("key,value")
    monkeypatch.setattr(segmentation, "train", lambda *_: pytest.fail("trained again"))
    code, _, err = run(*command)
    assert code == 0, err
    assert results(out)["values"] == content["values"]
    monkeypatch.undo()


def test_a_strange_folder_is_judged_and_a_leak_is_refused(run: Run, made: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    shutil.copytree(made / "pasted", strange)
    for name in ("manifest.jsonl", "generate.json"):
        (strange / name).unlink()
    command = [
        "evaluate",
        strange,
        "--real",
        made / "data/widget",
        "--features",
        made / "mobilenet",
        "--metrics",
        "kid",
    ]
    code, _, err = run(*command, "--out", tmp_path / "one")
    assert code == 0, err
    content = results(tmp_path / "one")
    assert any("no manifest.jsonl" in v["reason"] for v in content["values"] if v["key"] == "label_IoU/label")
    leaked = content["split"]["test"][0]
    target = next((strange / "test" / "crack").glob("*.png"))
    target.write_bytes((made / "data" / "widget" / leaked).read_bytes())
    code, _, err = run(*command, "--out", tmp_path / "two")
    assert code == 2 and leaked in err and "same file" in err and "Traceback" not in err
    assert not (tmp_path / "two").exists()  # refused before anything was written


def test_more_shots_than_the_generator_saw_would_leak(run: Run, made: Path, tmp_path: Path) -> None:
    command = ["evaluate", made / "pasted", "--real", made / "data/widget", "--features", made / "mobilenet"]
    code, _, err = run(*command, "--shots", "1", "--metrics", "kid", "--out", tmp_path / "out")
    assert code == 2 and "would leak" in err and "--shots" in err


def test_paper_protocol_stands_under_its_name_with_its_caveat(run: Run, made: Path, tmp_path: Path) -> None:
    small = [part for key in ("epochs=2", "samples=8", "base=2", "size=64") for part in ("--set", f"paper.{key}")]
    command = ["evaluate", made / "pasted", "--real", made / "data/widget", "--metrics", "segmentation", *small]
    code, _, err = run(*command, "--protocol", "paper-protocol", "--out", tmp_path)
    assert code == 0 and "BEST ON THE TEST SET" in err.upper(), err
    keys = {v["key"] for v in results(tmp_path)["values"]}
    chosen = {key for key in keys if "AUROC" in key}
    assert chosen and all("/paper-protocol/" in key for key in chosen)
    assert {key.rsplit("/", 1)[1] for key in chosen} == {"test-selected", "last"}


def test_the_segmenter_is_exported_and_agrees(run: Run, made: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    command = ["evaluate", made / "pasted", "--real", made / "data/widget", "--metrics", "segmentation", *QUICK]
    code, _, err = run(*command, "--export", "onnx", "--out", tmp_path)
    assert code == 0 and "differs from torch by at most" in err, err
    assert (tmp_path / "segmenter.onnx").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--real", "DATA", "--out", "OUT"], "needs a folder of generated images"),
        (["MADE"], "real is missing"),
        (["MADE", "--real", "DATA", "--out", "OUT", "--metrics", "kdi"], "Did you mean 'kid'"),
        (["MADE", "--real", "DATA", "--out", "OUT", "--set", "steps=3"], "segmentation.KEY=VALUE"),
        (["MADE", "--real", "DATA", "--out", "OUT", "--set", "segmentation.stps=3"], "Did you mean 'steps'"),
        (["MADE", "--real", "DATA", "--out", "OUT", "--set", "segmentation.steps=many"], "valid integer"),
        (["MADE", "--real", "DATA", "--out", "OUT", "--features", "nowhere/at/all"], "cannot be loaded"),
        (["MADE", "--real", "DATA", "--out", "OUT", "--protocol", "paper"], "paper-protocol"),
        (["MADE", "--real", "DATA", "--out", "OUT", "--seeds", "one"], "--seeds 0,1,2"),
        (["MADE", "--real", "DATA", "--out", "OUT", "--export", "onnx", "--metrics", "kid"], "--export needs"),
        (["MADE", "--real", "DATA", "--out", "OUT", "--arms", "real"], "belongs to --compare"),
        (["MADE", "--compare", "--real", "DATA", "--out", "OUT"], "OUT does not go with --compare"),
        (["--compare", "--real", "DATA", "--out", "OUT", "--arms", "real,copypast"], "Did you mean 'copypaste'"),
        (["--compare", "--real", "DATA", "--out", "OUT", "--shots", "-1"], "shots"),
        (["--compare", "--real", "DATA", "--out", "OUT", "--set", "fit.stps=3"], "Did you mean 'steps'"),
        (["--compare", "--real", "DATA", "--out", "OUT", "--set", "generate.sampling=fats"], "Did you mean 'fast'"),
        (["--compare", "--real", "DATA", "--out", "OUT", "--set", "fit.inpaint.steps=many"], "valid integer"),
        (["--compare", "--real", "DATA", "--out", "OUT", "--set", "fit.inpiant.steps=3"], "Did you mean 'inpaint'"),
        (["--compare", "--real", "DATA", "--out", "OUT", "--set", "generate.inpaint.stps=3"], "Did you mean 'steps'"),
        (["--compare", "--real", "DATA", "--out", "OUT", "--ratios", "1.5"], "a share lies above 0"),
        (["DATA/train", "--real", "DATA", "--out", "OUT", "--metrics", "segmentation"], "holds no defect images"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(
    run: Run, made: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    places = {"MADE": made / "pasted", "DATA": made / "data/widget", "OUT": tmp_path / "out"}
    filled = [arguments[0].replace("DATA", str(places["DATA"])), *arguments[1:]]
    code, _, err = run("evaluate", *(places.get(word, word) for word in filled))
    assert code == 2, err
    assert said in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()
