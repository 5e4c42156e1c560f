"""diffusers' U-Net and schedulers without those of their imports that no command here needs.

Loaded as it stands, one class of diffusers brings 1,500 modules of others: torch's compiler, and peft, transformers and
scipy.stats where they are installed. In a command they were a quarter of the time of 16 images (docs/performance.md).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from flawsmith import startup

NEEDED = (
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.schedulers.scheduling_ddim",
    "diffusers.schedulers.scheduling_dpmsolver_multistep",
)


def load() -> None:
    """Import NEEDED narrowly, in a process of our own; elsewhere leave them to the import statement.

    diffusers then believes for the length of its import that peft and transformers are missing, a state it supports.
    What that leaves out for good is loading single-file checkpoints and layerwise casting; torch.compile, peft,
    transformers and scipy work as ever, imported when first used.
    """
    if not startup.own_process or any(name in sys.modules for name in (*NEEDED, "torch._dynamo")):
        return
    before = set(sys.modules)
    try:
        with startup.importing(), _narrowed():
            for name in NEEDED:
                import_module(name)
    except Exception:  # a version of diffusers that is built otherwise: forget it, and import all of it
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "diffusers":
                del sys.modules[name]


@contextmanager
def _narrowed() -> Iterator[None]:
    # the placeholders are taken away again, and the first real use imports the module
    with _in_place("torch._dynamo", _no_compiler()), _in_place("scipy.stats", ModuleType("scipy.stats")):
        flags: Any = import_module("diffusers.utils.import_utils")  # it looks up what is installed
        import_module("diffusers.loaders")  # it decides what it offers to pipelines
        told = {name: getattr(flags, name) for name in ("_peft_available", "_transformers_available")}
        try:
            for name in told:
                setattr(flags, name, False)
            with _in_place("transformers", None):  # None: importing it fails
                yield
        finally:
            for name, value in told.items():
                setattr(flags, name, value)


@contextmanager
def _in_place(name: str, module: ModuleType | None) -> Iterator[None]:
    """A module that `import` finds under a name, unless the real one is there already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module  # type: ignore[assignment]  # the import system itself takes None
    try:
        yield
    finally:
        del sys.modules[name]


def _no_compiler() -> ModuleType:
    """Stands for torch._dynamo, whose marks on functions mean nothing unless a model is compiled."""
    module: Any = ModuleType("torch._dynamo")
    module.allow_in_graph = lambda marked: marked
    module.disable = lambda marked=None, *_, **__: (lambda f: f) if marked is None else marked
    return module
