"""The values of an evaluation for people: what a key means, one row per key and arm, intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith import inputs
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.results import HEADLINES, MEAN, Value, as_values
from flawsmith.report.generated import RESULTS

# name -> (what it says, whether more or less is better, "" where neither)
MEANING = {
    "KID": ("distance of generated to real windows in a vision model's features; 0 for equal sets", "less"),
    "FID": ("Fréchet distance of generated to real windows in a vision model's features; 0 for equal sets", "less"),
    "IS": ("how sure and how varied the vision model's own classes are", "more"),
    "pairwise-FD": ("mean feature distance over pairs of images of a type: variety", "more"),
    "IC-FD": ("variety among images near the same training defect", "more"),
    "precision": ("share of generated windows that lie among real ones", "more"),
    "recall": ("share of real windows that lie among generated ones", "more"),
    "density": ("how thickly generated windows lie among real ones", "more"),
    "coverage": ("share of real windows with a generated one nearby", "more"),
    "CLIP_score": ("100 x cosine of image and caption", "more"),
    "caption_retrieval": ("share of images whose caption fits better than one of another type", "more"),
    "nearest_ratio": ("distance to the nearest training defect, over that of held-out real defects", "more"),
    "near_copies": ("share of generated defects closer to a training defect than nearly any real one is", "less"),
    "label_IoU": ("overlap of the label and the pixels that changed; 1 is exact", "more"),
    "changed_outside_label": ("pixels outside the label that differ from the photograph; must be 0", "less"),
    "visibility": ("mean change inside the label, grey levels", ""),
    "label_over_mask": ("label against the mask that was asked for", ""),
    "duplicates": ("share of images that repeat another", "less"),
    "refused_share": ("share of images refused after all redraws", "less"),
    "probe_AUC": ("how well a probe tells generated from real: .5 not at all, 1 always", "less"),
    "spectrum_dB": ("mean difference of the grain's power, over wavelengths of 2 to 32 px", "less"),
    "image_AUROC": ("defective against good images, ranked by score", "more"),
    "image_AP": ("average precision over images", "more"),
    "pixel_AUROC": ("defect against good pixels, ranked by score", "more"),
    "pixel_AP": ("average precision over pixels, on real test defects", "more"),
    "pixel_AUPR": ("area under precision and recall over pixels", "more"),
    "pixel_AUPRO": ("mean overlap with each region, at false positive rates up to 0.3", "more"),
    "pixel_AUsPRO": ("the same, a defect counting as found from its own number of pixels on, up to 0.05", "more"),
    "pixel_F1Max": ("best F1 over all thresholds, pixels", "more"),
    "pixel_IoU": ("overlap at the threshold that is best on validation", "more"),
    "accuracy": ("of the defect type, on real test defects", "more"),
}
PLOTTED = 4  # headline keys that are drawn


@dataclass(frozen=True)
class Row:
    """One key of one arm: the mean over its seeds and what is known of its doubt.

    low, high: Student's 95 % interval over two or more seeds, None otherwise; spread: s.d. over subsets of one seed.
    """

    key: str
    arm: str
    type: str
    value: float | None
    low: float | None
    high: float | None
    spread: float | None
    seeds: int
    count: int
    reason: str

    @property
    def meaning(self) -> str:
        return MEANING.get(_name(self.key), ("", ""))[0]

    @property
    def better(self) -> str:
        return MEANING.get(_name(self.key), ("", ""))[1]

    @property
    def doubt(self) -> str:
        """The interval or spread in words, "" where nothing is known."""
        if self.low is not None and self.high is not None:
            return f"{self.low:.4g} to {self.high:.4g}"
        return f"± {self.spread:.2g}" if self.spread is not None else ""


@dataclass(frozen=True)
class Judged:
    """results.json of `flawsmith evaluate`."""

    name: str
    content: dict[str, Any]
    rows: list[Row]

    @property
    def verdicts(self) -> list[str]:
        return [str(text) for text in self.content.get("verdicts", ())]

    @property
    def compared(self) -> bool:
        return any(row.arm for row in self.rows)

    def overall(self) -> list[Row]:
        """One row per key and arm: the mean over types, else all pooled, else the only one."""
        chosen: dict[tuple[str, str], Row] = {}
        rank = {MEAN: 0, "all": 1, "": 2}
        for row in self.rows:
            best = chosen.get((row.key, row.arm))
            if row.type in rank and (best is None or rank[row.type] < rank[best.type]):
                chosen[row.key, row.arm] = row
        place = {key: number for number, key in enumerate(dict.fromkeys(key for key, _ in chosen))}
        return sorted(chosen.values(), key=lambda row: place[row.key])  # arms of a key together

    def headlines(self) -> dict[str, list[Row]]:
        """The keys that are drawn, each with a row for every arm that has a value."""
        found: dict[str, list[Row]] = {}
        for row in self.overall():
            if row.key.split("/")[0] in HEADLINES and row.value is not None and not row.key.endswith("/whole"):
                found.setdefault(row.key, []).append(row)
        ordered = sorted(found, key=lambda key: HEADLINES.index(key.split("/")[0]))
        return {key: found[key] for key in ordered if len(found[key]) > 1}


def _name(key: str) -> str:
    return key.partition("/")[0].partition("@")[0]


def read(folder: Path) -> Judged:
    """Read `folder/results.json`. Raises FlawsmithError when it is damaged."""
    path = folder / RESULTS
    try:
        content = inputs.parse_json(path.read_text(encoding="utf-8"))
        return Judged(folder.name, content, rows(as_values(content["values"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FlawsmithError(f"{path} is no results of `flawsmith evaluate` ({error}): evaluate again.") from error


def rows(values: Sequence[Value]) -> list[Row]:
    """One row per key, arm and type, in the order in which they first come."""
    groups: dict[tuple[str, str, str], list[Value]] = {}
    for one in values:
        groups.setdefault((one.key, one.method, one.type), []).append(one)
    return [_row(*names, members) for names, members in groups.items()]


def _row(key: str, arm: str, kind: str, members: Sequence[Value]) -> Row:
    numbers = [float(one.value) for one in members if one.value is not None]
    reason = next((one.reason for one in members if one.reason), "")
    count = max(max(one.n_generated, one.n_real) for one in members)
    mean = float(np.mean(numbers)) if numbers else None
    low, high = interval(numbers)
    spread = members[0].spread if len(numbers) == 1 else None
    return Row(key, arm, kind, mean, low, high, spread, len(numbers), count, reason)


def interval(numbers: Sequence[float]) -> tuple[float | None, float | None]:
    """Student's 95 % interval of the mean; (None, None) below two numbers."""
    if len(numbers) < 2:
        return None, None
    from scipy.stats import t

    reach = float(t.ppf(0.975, len(numbers) - 1)) * float(np.std(numbers, ddof=1)) / len(numbers) ** 0.5
    return float(np.mean(numbers)) - reach, float(np.mean(numbers)) + reach
