"""The command starts fast because it imports nothing heavy. (Its time is measured in benchmarks/.)"""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "transformers", "cv2", "scipy", "numpy", "pydantic")


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib, io\nfrom flawsmith import cli\nsys.argv = ['flawsmith', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): cli.main()"
    )
    loaded = modules_after(code)
    assert "flawsmith.cli" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("module", ["flawsmith.generation", "flawsmith.report", "flawsmith.datasets.check"])
def test_the_classic_path_needs_no_torch(module: str) -> None:
    assert not modules_after(f"import {module}") & {"torch", "diffusers", "transformers"}


@pytest.mark.parametrize("name", ["copypaste", "cutpaste", "nsa", "perlin", "procedural"])
def test_a_classic_method_needs_no_torch(name: str) -> None:
    code = f"from flawsmith.methods import load; load({name!r})"
    assert not modules_after(code) & {"torch", "diffusers", "transformers"}


def test_module_runs_as_script() -> None:
    done = subprocess.run([sys.executable, "-m", "flawsmith", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("flawsmith ")


@pytest.mark.parametrize(("command", "resumes"), [("train", True), ("generate", True), ("merge", False)])
def test_a_stopped_command_promises_what_it_keeps(command: str, resumes: bool) -> None:
    code = "import sys; from flawsmith import cli; sys.argv = ['flawsmith', *sys.argv[1:]]; cli._stopped()"
    done = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, check=False)
    assert done.returncode == 130 and ("again to resume" in done.stderr) == resumes


def test_a_command_leaves_out_what_the_compact_model_does_not_need() -> None:
    code = (
        "from flawsmith import startup; startup.own_process = True\nfrom flawsmith.methods import load; load('inpaint')"
    )
    loaded = modules_after(code)
    assert "diffusers.models.unets.unet_2d_condition" in loaded
    assert not loaded & {"torch._dynamo", "peft", "transformers", "scipy.stats"}


def test_what_was_left_out_is_there_when_it_is_used() -> None:
    code = (
        "from flawsmith import startup; startup.own_process = True\n"
        "import flawsmith.diffusion.unet\n"
        "import gc, torch, scipy, diffusers, transformers, peft, torch._dynamo\n"
        "assert gc.isenabled() and torch._dynamo.config and scipy.stats.norm and transformers.CLIPTextModel\n"
        "from diffusers.utils import is_peft_available, is_transformers_available\n"
        "assert is_peft_available() and is_transformers_available() and diffusers.utils.USE_PEFT_BACKEND\n"
        "from diffusers import AutoencoderKL, StableDiffusionPipeline\n"
        "from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel\n"
        "from flawsmith.diffusion.unet import PreconditionedUNet\n"
        "assert issubclass(PreconditionedUNet, UNet2DConditionModel) and hasattr(UNet2DConditionModel, 'add_adapter')"
    )
    modules_after(code)


def test_imports_narrow_nothing_in_a_process_of_others() -> None:
    assert {"torch._dynamo", "peft"} <= modules_after("import flawsmith.diffusion.unet")
