"""The gate's check "words": does painting bring the window nearer to what its caption says?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import fakes
from flawsmith import compose
from flawsmith.datasets.writer import read_manifest
from flawsmith.quality import Gate
from flawsmith.records import Request, Sample

Run = Callable[..., tuple[int, str, str]]
MASK = np.hypot(*(np.mgrid[:96, :96] - 48)) < 14


def plate(level: int = 140) -> np.ndarray:
    grain = np.random.default_rng(0).normal(0, 2, (96, 96, 1))
    return np.repeat(np.clip(level + grain, 0, 255).astype(np.uint8), 3, axis=2)


def painted(by: int, caption: str) -> tuple[Sample, Request]:
    photo = plate()
    image = np.where(MASK[..., None], np.clip(photo.astype(int) + by, 0, 255).astype(np.uint8), photo)
    asked = Request(Sample(photo, np.zeros_like(MASK), "plate"), MASK, "stain", caption)
    return Sample(image, MASK, "plate", "stain", caption), asked


def darkness(windows: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
    """A reader that knows one word: how dark a window is agrees with "dark"; it likes the product whatever is on it."""
    dark = np.array([1 - window.mean() / 255 for window in windows])
    return np.stack([0.2 * dark if "dark" in text else np.full(len(dark), 0.9) for text in texts], axis=1)


def test_what_is_painted_against_its_words_is_refused_with_the_reason() -> None:
    gate = Gate("normal", reader=darkness)
    for by, refused in ((-60, False), (60, True)):
        verdict = gate.judge(*painted(by, "A dark stain on the plate."))
        window = compose.square_window(MASK, 64, 1.5).slices
        sample, asked = painted(by, "A dark stain on the plate.")
        change = (asked.normal.image[window].mean() - sample.image[window].mean()) / 255
        assert verdict.scores["words"] == pytest.approx(0.2 * change, abs=1e-3)
        assert (verdict.refusal is not None) == refused
        if verdict.refusal is not None:
            assert verdict.refusal.check == "words" and verdict.refusal.reason.startswith("words: painting brought")


def test_without_a_model_or_a_caption_nothing_is_asked() -> None:
    assert "words" not in Gate("normal").judge(*painted(60, "A dark stain.")).scores
    assert "words" not in Gate("normal", reader=darkness).judge(*painted(60, "")).scores


def test_a_run_asks_a_real_clip_and_says_so(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    import tiny_clip
    from flawsmith.generation import gating

    data = fakes.mvtec_tree(tmp_path / "data", good=3, defects={"crack": 3}, size=(96, 120))
    model = tiny_clip.write(tmp_path / "clip")
    command = ("generate", "procedural", "--normal", data, "-n", 4, "--prompt", "tiny white hole", "--defect", "hole")
    assert run(*command, "--gate", "normal", "--words", model, "--out", tmp_path / "out")[0] == 0
    lines = read_manifest(tmp_path / "out")
    kept = [line for line in lines if line["status"] == "kept"]
    refused = [entry for line in lines for entry in line["refused"] if entry["check"] == "words"]
    assert kept and all(line["checks"]["words"] >= 0 for line in kept)
    assert refused and all(entry["score"] < 0 and "words" in entry["reason"] for entry in refused)
    window = [np.ascontiguousarray(plate()[:64, :64])]
    found = gating.reader(model)(window, ["a crack", "a photo of a plate"])
    assert found.shape == (1, 2) and (np.abs(found) <= 1).all() and found[0, 0] != found[0, 1]


def test_a_model_that_reads_no_words_is_refused(run: Run, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    data = fakes.mvtec_tree(tmp_path / "data", good=2, defects={}, size=(48, 64))
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(image_size=32, patch_size=8, **small)
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    command = ("generate", "procedural", "--normal", data, "-n", 1, "--out", tmp_path / "out")
    code, _, err = run(*command, "--gate", "normal", "--words", tmp_path / "vit")
    assert code == 2 and "reads no words" in " ".join(err.split())
    assert not (tmp_path / "out/test").exists()
