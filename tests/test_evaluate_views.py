"""`--metrics realism,one-class,classification`: of a folder and of a comparison, paired, anchored and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import fakes  # noqa: E402
from flawsmith import datasets  # noqa: E402
from flawsmith.config import GenerateConfig  # noqa: E402
from flawsmith.evaluation.detectors import one_class  # noqa: E402
from flawsmith.evaluation.metrics import realism  # noqa: E402
from flawsmith.generation import run as generation  # noqa: E402

Run = Callable[..., tuple[int, str, str]]
VIEWS = ("--metrics", "realism,one-class,classification", "--set", "one_class.size=64", "--set", "one_class.memory=50")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("made")
    data = fakes.mvtec_tree(root / "data", good=8, defects={"crack": 12, "hole": 12}, size=(72, 96), test_good=4)
    generation.run(
        GenerateConfig(
            method="copypaste", normal=f"mvtec_ad:{data}", out=root / "pasted", n=9, per_defect=True, shots=2
        )
    )
    torch.manual_seed(0)
    config = transformers.MobileNetV2Config(depth_multiplier=0.1, image_size=64, num_labels=4, initializer_range=0.3)
    transformers.MobileNetV2ForImageClassification(config).save_pretrained(root / "mobilenet")
    return root


def values(out: Path) -> list[dict]:
    return list(json.loads((out / "results.json").read_text())["values"])


def test_a_folder_is_judged_beside_its_untouched_photographs(run: Run, made: Path, tmp_path: Path) -> None:
    command = ["evaluate", made / "pasted", "--real", f"mvtec_ad:{made / 'data/widget'}", "--out", tmp_path]
    code, shown, err = run(*command, "--features", made / "mobilenet", *VIEWS)
    assert code == 0, err
    assert "probe_AUC" in shown and "spectrum_dB" in shown
    painted = {record.image for record in datasets.read("mvtec_ad", made / "pasted") if not record.is_good}
    photographs = realism.photographs(made / "pasted", {})
    assert set(photographs) == painted and 1 < len(set(photographs.values())) <= 8
    found = {(v["key"], v["type"], v["method"]): v for v in values(tmp_path)}
    for arm in ("", "untouched"):
        assert 0 <= found["probe_AUC/mobilenet/window", "all", arm]["value"] <= 1
        assert found["spectrum_dB/grey/window", "all", arm]["value"] > 0
    assert "image_AUROC/one-class/mobilenet", "all" in found
    assert 0 <= found["pixel_AUPRO/one-class/mobilenet/untuned", "mean", ""]["value"] <= 1
    assert found["accuracy/mobilenet/window", "all", ""]["settings"]["majority"] == 0.5


def test_arms_are_paired_and_anchors_stand_beside_them(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["evaluate", "--compare", "--real", f"mvtec_ad:{made / 'data/widget'}", "--out", tmp_path]
    command += ["--arms", "real,procedural", "--shots", "2", "--seeds", "0", "--images", "9", "--jobs", "1", *VIEWS]
    code, _, err = run(*command, "--features", made / "mobilenet")
    assert code == 0, err
    rows = {(v["key"], v["type"], v["method"]): v for v in values(tmp_path)}
    arms = "2 real", "2 real + procedural, share 0.5"
    for key in ("image_AUROC", "pixel_AUPRO", "image_F1", "pixel_AP"):
        pair = [rows[f"{key}/one-class/mobilenet/untuned", "all", arm]["value"] for arm in arms]
        assert pair[0] == pair[1] is not None  # without defects all arms of a seed are one detector
        assert all(rows[f"{key}/one-class/mobilenet", "all", arm]["value"] is not None for arm in arms)
    assert {arm for key, _, arm in rows if key == "accuracy/mobilenet/window"} == set(arms)
    probes = {arm: v for (key, kind, arm), v in rows.items() if key.startswith("probe_AUC") and kind == "all"}
    assert set(probes) == {"2 real", "2 real + procedural", "copypaste", "untouched"}
    assert probes["2 real"]["value"] is None and "8 of each are needed" in probes["2 real"]["reason"]
    assert all(probes[arm]["value"] is not None for arm in ("2 real + procedural", "copypaste", "untouched"))
    told = json.loads((tmp_path / "results.json").read_text())["verdicts"]
    assert len(told) == 1 and told[0].startswith("One-class, 2 real + procedural, share 0.5:")
    monkeypatch.setattr(one_class, "run", lambda *_, **__: pytest.fail("judged again"))
    before = values(tmp_path)
    assert run(*command, "--features", made / "mobilenet")[0] == 0 and values(tmp_path) == before


@pytest.mark.parametrize(
    ("setting", "said"),
    [("one_class.sise=3", "Did you mean 'size'"), ("one_class.encoder=nowhere/at/all", "cannot be loaded")],
)
def test_wrong_settings_are_refused_before_anything(
    run: Run, made: Path, tmp_path: Path, setting: str, said: str
) -> None:
    command = ["evaluate", made / "pasted", "--real", f"mvtec_ad:{made / 'data/widget'}", "--out", tmp_path / "out"]
    code, _, err = run(*command, "--metrics", "one-class", "--set", setting)
    assert code == 2 and said in err and not (tmp_path / "out").exists()
