"""What strangers hand in, as paths, names, JSON and YAML: what no file or manifest could hold is refused here, once."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, TypeVar

import yaml

from flawsmith.errors import FlawsmithError, short

DEEPEST, MOST = 8, 10_000  # levels and values of a setting: more is no setting but a mistake, or an attack

Named = TypeVar("Named", str, Path)


def home(path: Named) -> Named:
    """`~` and `~user` at the beginning of a path replaced by the home folder; shells do it for whole words only.

    Raises FlawsmithError for a user whom this machine does not know.
    """
    text = str(path)
    if not text.startswith("~"):
        return path
    full = os.path.expanduser(text)
    if full.startswith("~"):
        raise FlawsmithError(
            f"{short(text)} begins with the home folder of a user whom this machine does not know: write the whole "
            f"path, or put ./ before it where that is the folder's own name."
        )
    return type(path)(full)


def is_text(name: str | Path) -> bool:
    """Whether a name is UTF-8 text. Python hands on a byte that is none as half a character, which no JSON can hold."""
    try:
        str(name).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def refuse_odd_name(name: str | Path, what: str) -> None:
    """Raise FlawsmithError unless a name is UTF-8 text."""
    if not is_text(name):
        raise FlawsmithError(
            f"{what} {short(str(name))} is no UTF-8 text, so no manifest can name it: rename the file or folder, for "
            "example with convmv -f latin1 -t utf8."
        )


def leaves(folder: Path, relative: str) -> bool:
    """Whether `folder / relative`, a path that a stranger's file names, is none or leads out of the folder."""
    if "\0" in relative or os.path.isabs(relative):
        return True
    return not Path(os.path.realpath(folder / relative)).is_relative_to(os.path.realpath(folder))


def inside(folder: Path, relative: str, file: str) -> Path:
    """`folder / relative`, a path that `file` in the folder names. Raises FlawsmithError where it would lead out."""
    if leaves(folder, relative):
        raise FlawsmithError(f"Path {relative!r} in {folder / file} leaves its folder: the file is not safe.")
    return folder / relative


def parse_json(text: str | bytes, kind: type = dict) -> Any:
    """The value of a JSON text, an object unless `kind` says otherwise.

    Raises ValueError for a text that is no JSON, of another kind, or nested deeper than Python can follow.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, kind):
        raise ValueError(f"it holds a {type(value).__name__} where a {kind.__name__} belongs")
    return value


class _Loader(yaml.SafeLoader):
    """Stops at the first level that is too deep: the parser itself would take minutes over thousands of them."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > 2 * DEEPEST:
            raise ValueError("it is nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse_yaml(text: str) -> Any:
    """The value of a YAML or JSON text. Raises ValueError for one that is none, also where it is nested too deeply."""
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # YAML's own errors, and whatever its tags and dates raise: 2024-13-45, !!int x
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def refuse_odd_value(value: Any, where: str) -> None:
    """Refuse what is no setting: deep nesting, NaN, bytes, dates, keys that are no words, text that is no UTF-8.

    Raises FlawsmithError that begins with `where` ("--set resize").
    """
    left = [(value, 0)]
    for count, (one, depth) in enumerate(left):  # `left` grows while it is walked
        problem = None
        if depth > DEEPEST or count > MOST:
            problem = f"is nested more than {DEEPEST} levels deep or holds more than {MOST} values: write it flat"
        elif isinstance(one, dict):
            problem = next((f"has the key {short(k)}: write a word" for k in one if not isinstance(k, str)), None)
            left += [(part, depth + 1) for pair in one.items() for part in pair]
        elif isinstance(one, list):
            left += [(part, depth + 1) for part in one]
        elif isinstance(one, float) and not math.isfinite(one):
            problem = f"holds {one}: give a finite number"
        elif isinstance(one, str) and ("\0" in one or not is_text(one)):
            problem = f"holds {short(one)}, which is no UTF-8 text: write it without the odd characters"
        elif not isinstance(one, (str, int, float, type(None))):
            problem = f"holds {short(one)}, a {type(one).__name__}: give a number, or a text in quotes"
        if problem:
            raise FlawsmithError(f"{where} {problem}.")
