"""The one exception a user may see: what was given, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class FlawsmithError(ValueError):
    """A mistake in what was given, not in the program. The CLI prints it without a traceback and exits with 2."""


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
