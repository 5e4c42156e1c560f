"""A device that is not there is refused at once: nothing but torch has been imported and no folder looked into."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flawsmith.diffusion.devices import refuse_device
from flawsmith.errors import FlawsmithError

SLOW = {"diffusers", "transformers", "accelerate", "peft", "safetensors.torch"}
COMMANDS = {
    "generate": ["generate", "inpaint", "--normal", "DATA", "--backbone", "NOWHERE", "--out", "OUT"],
    "train": ["train", "inpaint", "--data", "DATA", "--backbone", "NOWHERE", "--out", "OUT"],
    "evaluate": ["evaluate", "NOWHERE", "--real", "DATA", "--out", "OUT"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_missing_gpu_is_refused_before_anything_slow(arguments: list[str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    code = (
        "import sys\nfrom flawsmith.cli import main as cli\nsys.argv = ['flawsmith', *sys.argv[1:]]\n"
        "try: cli.main()\nfinally: print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--device", "cuda"],
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # a machine without one, whatever this one has
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert "'cuda' is not there" in said and "sees no GPU" in said and "leave --device out" in said
    loaded = set(done.stdout.split())
    assert "torch" in loaded and not loaded & SLOW
    assert not any(tmp_path.iterdir())


def test_the_cpu_is_always_there_and_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from flawsmith.diffusion import devices; devices.refuse_device('cpu')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("device", ["", "tpu", "cuda:", "cuda:x", "gpu"])
def test_what_is_no_device_lists_those_that_are(device: str) -> None:
    with pytest.raises(FlawsmithError, match="known: cpu, cuda"):
        refuse_device(device)


def test_a_gpu_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(FlawsmithError, match=r"pip install 'flawsmith\[diffusion\]'"):
        refuse_device("cuda")


def test_a_gpu_beyond_those_there_is_refused_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refuse_device("cuda:1")
    with pytest.raises(FlawsmithError, match="2 GPUs are numbered from 0"):
        refuse_device("cuda:7")
