"""Blocks in work around one model: the same images, one pass of the model at a time, and a stop that is heard."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import fakes  # noqa: E402
from flawsmith.config import GenerateConfig  # noqa: E402
from flawsmith.generation import here  # noqa: E402
from flawsmith.generation import run as generation  # noqa: E402
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer  # noqa: E402
from flawsmith.records import Request, Sample  # noqa: E402
from written import tree  # noqa: E402


def asked(folder: Path, data: Path, out: Path, **more: object) -> GenerateConfig:
    faint = {"steps": 2, "min_visibility": 2, "min_share": 0.01}  # weights that have learned nothing paint little
    more = {"n": 7, "batch_size": 2, "max_redraws": 1, "options": faint, **more}
    return GenerateConfig(method="inpaint", normal=f"mvtec_ad:{data}", backbone=str(folder), out=out, **more)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return fakes.mvtec_tree(tmp_path / "data", good=3, defects={"crack": 3}, size=(48, 40))


def test_overlapping_changes_no_byte_and_the_model_paints_one_block_at_a_time(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, most, names = [0], [0], set()
    plain = DiffusionSynthesizer.generate

    def watched(self: DiffusionSynthesizer, requests: Sequence[Request], **options: object) -> list[Sample]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        names.add(threading.current_thread().name)
        made = plain(self, requests, **options)
        inside[0] -= 1
        return made

    monkeypatch.setattr(DiffusionSynthesizer, "generate", watched)
    generation.run(asked(folder, data, tmp_path / "overlapped"))
    assert most == [1] and names == {"flawsmith-model_0"}
    monkeypatch.setattr(here, "OVERLAPPED", 0)  # as for photographs too large for more than one block
    generation.run(asked(folder, data, tmp_path / "plain"))
    assert threading.main_thread().name in names
    assert len(list((tmp_path / "plain" / "test").rglob("*.png"))) > 3
    assert tree(tmp_path / "overlapped") == tree(tmp_path / "plain")


def test_a_run_that_is_stopped_between_blocks_resumes_to_the_same_bytes(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    def stop(what: str, done: int, total: int, facts: object) -> None:
        if done == 3 and what == "crack":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generation.run(asked(folder, data, tmp_path / "parts", defect=("crack",)), stop)
    assert len((tmp_path / "parts" / "manifest.jsonl").read_bytes().splitlines()) == 3
    generation.run(asked(folder, data, tmp_path / "parts", defect=("crack",)))
    generation.run(asked(folder, data, tmp_path / "whole", defect=("crack",)))
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
