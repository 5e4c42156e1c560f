"""What a reader has found, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from flawsmith.records import Record


def kinds(records: Iterable[Record]) -> Counter[tuple[str, str]]:
    """(split, defect type) -> how many records."""
    return Counter((record.split, record.defect_type) for record in records)
