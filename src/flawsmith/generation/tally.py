"""What is kept in mind of the images of a run: counts for its end, and brief fingerprints to know repeats by."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from flawsmith import images
from flawsmith.datasets.leaks import Print, near
from flawsmith.generation.finished import Finished, place
from flawsmith.generation.planning import Plan
from flawsmith.quality.repeats import Prints, print_of
from flawsmith.records import Sample


class Tally:
    """Hears every manifest line of a run, found or written, in order; of none more than a few bytes stay.

    n: the images that were asked for; what a longer run made before stands behind them and does not count.
    """

    def __init__(self, out: Path, n: int) -> None:
        self.out, self.n = out, n
        self.kept = self.rejected = 0
        self.reasons: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()  # attempts that the gate refused: by type and check
        self.changed: Counter[str] = Counter()  # images kept after a retry: what was changed
        self._prints: dict[tuple[str, str], Prints] = defaultdict(Prints)

    def hear(self, line: dict[str, Any]) -> None:
        """Raises ValueError, KeyError, TypeError or AttributeError for a line that is none, and counts none of it."""
        if line["index"] >= self.n:
            return
        own = line["defect_type"]
        refused = [(entry.get("defect_type", own), entry["check"]) for entry in line.get("refused", ())]
        if line["status"] != "kept":
            reason = line["reason"].split("(")[0].strip()
            self.rejected += 1
            self.reasons[reason] += 1
        else:
            changed = " and ".join(line["changed"]) if line.get("refused") else None
            if "print" in line:
                self._prints[line["category"], line["defect_type"]].add(line["index"], line["print"])
            self.kept += 1
            if changed is not None:
                self.changed[changed] += 1
        for one in refused:
            self.refused[one] += 1

    def repeats(self, one: Finished, made: Plan) -> bool:
        """Whether an image is like one of the last that were kept of its type."""
        if one.print is None:
            return False
        prints = self._prints[one.line["category"], one.line["defect_type"]]
        for index in prints.maybe(one.print):
            image, mask = place(made, index, "test", ".png"), place(made, index, "ground_truth", "_mask.png")
            earlier = _written(self.out, image, mask)
            if near([one.print], [earlier]):
                return True
        return False


@lru_cache(maxsize=256)
def _written(out: Path, image: str, mask: str) -> Print:
    """The fingerprint of an image that was written."""
    return print_of(Sample(images.read_image(out / image), images.read_mask(out / mask)))
