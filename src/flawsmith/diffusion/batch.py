"""A batch of training windows, as arrays and words: what a method conditions on while it is fitted."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np


@dataclass
class Batch:
    """Arrays of one batch; `references` has None where there is no reference."""

    image: np.ndarray  # (B, S, S, 3) uint8
    clean: np.ndarray  # (B, S, S, 3) uint8
    mask: np.ndarray  # (B, S, S) bool
    captions: list[str]
    references: list[tuple[np.ndarray, np.ndarray] | None] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    words: list[str] = field(default_factory=list)  # the captions before any was dropped
    names: list[str] = field(default_factory=list)  # "category/defect_type" of real defects, "" for other windows
    drafts: list[np.ndarray | None] = field(default_factory=list)  # (S, S, 3) uint8, a defect laid in the hole
    dropped: list[bool] = field(default_factory=list)  # the method's own tokens are to be left out

    def part(self, rows: slice) -> Batch:
        """Some of its rows."""
        return Batch(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})
