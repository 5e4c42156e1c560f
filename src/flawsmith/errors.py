"""The one exception a user may see: what was given, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class FlawsmithError(ValueError):
    """A mistake in what was given, not in the program. The CLI prints it without a traceback and exits with 2."""


WANT_OF_MEMORY = (  # in the words of
    "can't allocate memory",  # torch on the CPU
    "could not create a primitive",  # oneDNN
    "Insufficient memory",  # OpenCV
    "can't start new thread",  # Python
    "PyObject pointer is null",  # libraries in Rust, which panic: safetensors, tokenizers
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or the one that it was raised from, is a want of memory."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if named or any(words in str(error) for words in WANT_OF_MEMORY):
        return True
    return error.__cause__ is not None and out_of_memory(error.__cause__)


def short(value: Any, most: int = 120) -> str:
    """What was given, as a message repeats it: its beginning, where all of it would bury the message."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def unknown(what: str, given: str, known: Iterable[str], where: str = "") -> FlawsmithError:
    """The error for a name that is not known: lists the known ones and guesses the one that was meant.

    `what` is the kind of name ("Defect"), `where` an optional place ("in runs/bottle").
    """
    names = sorted(known)
    guess = get_close_matches(str(given)[:120], names, n=1)
    text = f"{what} {short(given)} is not known{' ' + where if where else ''}; known: {', '.join(names) or 'none'}."
    return FlawsmithError(text + (f" Did you mean {guess[0]!r}?" if guess else ""))
