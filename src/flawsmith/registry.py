"""Names to objects: plain dictionaries of lazy strings, so that listing a table imports nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from flawsmith import startup
from flawsmith.errors import FlawsmithError, unknown

EXTRAS = frozenset({"torch", "diffusers", "transformers", "accelerate", "peft", "safetensors"})


def resolve(name: str, table: Mapping[str, str], what: str = "Name") -> Any:
    """Return the object behind a name in `table` or behind "package.module:Object".

    Raises FlawsmithError for an unknown name (with the known ones) or an object that cannot be imported.
    """
    target = table.get(name, name)
    if ":" not in target:
        raise unknown(what, name, table)
    module_name, _, attribute = target.partition(":")
    try:
        with startup.importing():
            return getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        if getattr(error, "name", None) in EXTRAS:
            raise FlawsmithError(
                f"{what} {name!r} needs {error.name}, which is not installed: pip install 'flawsmith[diffusion]'."
            ) from error
        raise FlawsmithError(
            f"{what} {name!r} cannot be imported: {error}. Give a known name ({', '.join(sorted(table))}) "
            "or an importable 'package.module:Object'."
        ) from error
