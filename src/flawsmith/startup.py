"""What makes a command start fast: no search for garbage while modules load, and a word that the process is ours."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

own_process = False  # set by the command line: nobody else's code runs here


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
