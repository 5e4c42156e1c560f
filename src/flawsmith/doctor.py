"""What this machine offers and what stands in the way, with a remedy for each finding."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """One line of `flawsmith doctor`."""

    name: str
    status: Literal["ok", "note", "problem"]
    detail: str
    remedy: str = ""


CORE = ("numpy", "pillow", "scipy", "opencv-python-headless", "pydantic", "typer", "rich", "scikit-image")
DIFFUSION = ("diffusers", "transformers", "accelerate", "safetensors")


def version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def checks() -> Iterator[Check]:
    """Look at Python, the core, torch, the GPU, optional parts, the disk, and the traps we know."""
    from flawsmith import __version__

    python = platform.python_version()
    yield Check("Python", "ok", f"{python}, {platform.system()} {platform.machine()}")  # pip refuses older than 3.10
    yield Check("flawsmith", "ok", __version__)
    yield Check("machine", "ok", f"{os.cpu_count()} cores{_memory()}")
    missing = [name for name in CORE if version(name) is None]
    if missing:
        yield Check("core", "problem", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Check("core", "ok", ", ".join(f"{name} {version(name)}" for name in CORE))
    yield from _torch()
    yield from _traps()
    yield _disk()


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return ""
    return f", {total:.0f} GiB memory"


def _torch() -> Iterator[Check]:
    if importlib.util.find_spec("torch") is None:
        yield Check(
            "torch",
            "note",
            "not installed: the classic methods work, the diffusion methods do not",
            "pip install torch (CPU build: add --index-url https://download.pytorch.org/whl/cpu), "
            "then pip install 'flawsmith[diffusion]'",
        )
        return
    code = (
        "import torch;c=torch.cuda.is_available();"
        "print(torch.__version__, c, torch.cuda.get_device_name(0) if c else '-',"
        "torch.cuda.mem_get_info()[0]/2**30 if c else 0, sep='|')"
    )
    # In a process of its own: a broken torch must not take the doctor down with it.
    probe = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    if probe.returncode != 0:
        last = (probe.stderr.strip().splitlines() or ["no output"])[-1]
        yield Check("torch", "problem", f"import fails: {last}", "pip install --force-reinstall torch")
        return
    number, cuda, device, free = probe.stdout.strip().split("|")
    yield Check("torch", "ok", number)
    if cuda == "True":
        yield Check("GPU", "ok", f"{device}, {float(free):.1f} GiB free", "add --device cuda to train and generate")
    else:
        yield Check("GPU", "note", "none: everything works on the CPU, diffusion is slower", "")
    missing = [name for name in DIFFUSION if version(name) is None]
    if missing:
        yield Check("diffusion", "note", f"missing: {', '.join(missing)}", "pip install 'flawsmith[diffusion]'")
    else:
        yield Check("diffusion", "ok", ", ".join(f"{name} {version(name)}" for name in DIFFUSION))


def _traps() -> Iterator[Check]:
    if version("torchvision") is not None:
        probe = subprocess.run(
            [sys.executable, "-c", "import torchvision"], capture_output=True, text=True, timeout=120, check=False
        )
        if probe.returncode != 0:
            yield Check(
                "torchvision",
                "problem",
                "installed but cannot be imported (often: a CUDA torchvision beside a CPU torch, 'torchvision::nms')",
                "pip uninstall torchvision (flawsmith does not need it), or install the build that matches torch",
            )
    both = [name for name in ("opencv-python", "opencv-contrib-python") if version(name) is not None]
    if both:
        yield Check(
            "opencv",
            "note",
            f"{', '.join(both)} beside opencv-python-headless: they overwrite each other's files",
            f"pip uninstall {' '.join(both)}; pip install --force-reinstall opencv-python-headless",
        )
    if os.environ.get("OMP_NUM_THREADS") == "1" and (os.cpu_count() or 1) > 1:
        yield Check("threads", "note", "OMP_NUM_THREADS=1: torch uses one core", "unset OMP_NUM_THREADS")


def _disk() -> Check:
    folder = os.getcwd()
    free = shutil.disk_usage(folder).free / 2**30
    try:
        with tempfile.TemporaryFile(dir=folder):
            writable = True
    except OSError:
        writable = False
    if not writable:
        return Check("disk", "note", f"{folder} is read-only", "give --out a folder you may write to")
    if free < 1:
        return Check("disk", "problem", f"{free:.1f} GiB free in {folder}", "free some space before generating")
    return Check("disk", "ok", f"{free:.0f} GiB free in {folder}")
