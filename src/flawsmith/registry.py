"""Names to objects: plain dictionaries of lazy strings, so that listing a table imports nothing."""

from __future__ import annotations

import gc
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from flawsmith.errors import FlawsmithError, short, unknown

EXTRAS = frozenset({"torch", "diffusers", "transformers", "accelerate", "peft", "safetensors"})
OUTSIDE = re.compile(r"(?P<module>[^\W\d]\w*(?:\.\w+)*):(?P<object>[^\W\d]\w*)$")  # "package.module:Object"
METHOD = "flawsmith.methods.base:Synthesizer"  # what a method from outside is a subclass of
PARAMETERS = {"Reader": ("root", "category", "group_by"), "Mask": ("rng", "area", "elongation")}  # of a function

own_process = False  # set by the command line: nobody else's code runs here


def resolve(name: str, table: Mapping[str, str], what: str = "Name") -> Any:
    """Return the object behind a name in `table` or behind "package.module:Object".

    `what` is the kind of object ("Method", "Reader", "Mask"). One from outside the table is imported, which runs its
    module's code, and must keep that kind's contract before it is given to anyone: a Method is a subclass of
    `Synthesizer`, a Reader a function of root, category and group_by, a Mask a function of rng, area and elongation.
    The standard library holds none of them and is not imported. Raises FlawsmithError for an unknown name (with the
    known ones), an object that cannot be imported, or one of another kind.
    """
    if name in table:
        return _imported(name, table, what)
    found = OUTSIDE.match(name)
    if found is None or (what != "Method" and what not in PARAMETERS):
        raise unknown(what, name, table)
    if found["module"].partition(".")[0] in sys.stdlib_module_names:
        raise FlawsmithError(
            f"{what} {name!r} names Python's own library, which holds none: give a known name "
            f"({', '.join(sorted(table))}) or your own 'package.module:Object'."
        )
    one = _imported(name, table, what)
    wanted = _contract(one, what)
    if wanted:
        raise FlawsmithError(f"{what} {name!r} is {short(one)}, and must be {wanted}: name one that is.")
    return one


def _imported(name: str, table: Mapping[str, str], what: str) -> Any:
    module, _, attribute = table.get(name, name).partition(":")
    failures: tuple[type[BaseException], ...] = (ImportError, AttributeError)
    if name not in table:
        failures = (Exception, SystemExit)  # a stranger's module may do anything while it is imported
    try:
        with importing():
            return getattr(import_module(module), attribute)
    except failures as error:
        missing = getattr(error, "name", None)
        if missing in EXTRAS:
            raise FlawsmithError(
                f"{what} {name!r} needs {missing}, which is not installed: pip install 'flawsmith[diffusion]'."
            ) from error
        raise FlawsmithError(
            f"{what} {name!r} cannot be imported: {str(error) or type(error).__name__}. Give a known name "
            f"({', '.join(sorted(table))}) or an importable 'package.module:Object'."
        ) from error


def _contract(one: Any, what: str) -> str:
    """What an object from outside would have to be, or "" where it is that."""
    if what == "Method":
        module, _, name = METHOD.partition(":")
        base = getattr(import_module(module), name)
        return "" if isinstance(one, type) and issubclass(one, base) else f"a subclass of {module}.{name}"
    names = PARAMETERS[what]
    takes = inspect.signature(one).parameters if inspect.isfunction(one) else {}
    return "" if set(names) <= set(takes) else f"a function of {', '.join(names)}"


@contextmanager
def importing() -> Iterator[None]:
    """No garbage collection inside: imports make a million objects that stay, and every search walks through all of
    them. In a process of our own they are left out of later searches too.
    """
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if own_process:
            gc.freeze()
        if searched:
            gc.enable()
