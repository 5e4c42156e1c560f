"""A run of the command line, and what it has written, for comparisons byte by byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]  # the fixture `run`


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder: path in it -> content."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def painted(folder: Path) -> dict[str, bytes]:
    """All that must repeat byte for byte; generate.json names its own settings."""
    return {name: content for name, content in tree(folder).items() if name != "generate.json"}
