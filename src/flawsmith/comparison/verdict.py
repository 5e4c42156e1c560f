"""Whether one arm of a comparison beats another: intervals over test images and seeds, and the words for them.

Reference: docs/evaluation.md, "Does it help?". Both arms of a pair were scored on the same images, so that a drawn
image counts for both; an image that several seeds tested is drawn for all of them at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flawsmith import images, inputs
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.detectors.segmentation import Judged, pooled

COARSE = 1024  # levels in the bootstrap: AP moves by about 0.1 points for it, and 2,000 draws take seconds
FIRST_LOOK = 5  # fewer seeds than this are a first look, and are called so


@dataclass(frozen=True)
class Scored:
    """One run's test set, image by image, in levels of the run's own, the highest score first.

    positives, negatives: (N, COARSE) pixel counts. types: the N defect types ("good" among them). units: for each
    image the physical part it shows, which is what a bootstrap draws; equal across the seeds of a comparison.
    """

    positives: np.ndarray
    negatives: np.ndarray
    types: tuple[str, ...]
    units: tuple[str, ...]

    def save(self, file: Path, partial: Path | None = None) -> None:
        """Write it as safetensors, whole counts of pixels as uint32; `partial` as of `images.write_bytes`."""
        arrays = {"positives": self.positives.astype(np.uint32), "negatives": self.negatives.astype(np.uint32)}
        # one entry: safetensors writes several in any order
        about = {"rows": json.dumps({"types": self.types, "units": self.units})}
        images.write_bytes(file, save(arrays, about), partial)

    @classmethod
    def load(cls, file: Path) -> Scored:
        """Read what `save` wrote. Raises OSError, ValueError or KeyError for a file that is missing or damaged."""
        try:
            with safe_open(file, framework="numpy") as stored:
                rows = inputs.parse_json((stored.metadata() or {})["rows"])
                sides = [stored.get_tensor(name).astype(np.float64) for name in ("positives", "negatives")]
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        return cls(sides[0], sides[1], tuple(rows["types"]), tuple(rows["units"]))


def coarsen(judged: Judged, units: Sequence[str]) -> Scored:
    """What the bootstrap needs of a judged test set, in few levels; units: the part that each image shows."""
    whole = pooled(judged)
    # Levels of equal mass, defects and normals counting half each: scores may crowd in a small part of the range.
    mass = sum(side / max(1.0, side.sum()) for side in (whole.positives, whole.negatives)) / 2
    bins = np.minimum((np.cumsum(mass) - mass) * COARSE, COARSE - 1).astype(int)
    judgements = list(zip(judged.levels, judged.masks, strict=True))
    sides = [
        np.array([np.bincount(bins[levels[mask == side]], minlength=COARSE) for levels, mask in judgements], float)
        for side in (True, False)
    ]
    return Scored(sides[0], sides[1], tuple(judged.types), tuple(units))


def mean_ap(scored: Scored, weights: np.ndarray) -> np.ndarray:
    """Pixel AP, mean over the defect types: weights (D, N) of the N images -> (D,); nan where none is defined."""
    names = np.array(scored.types)
    per_type = []
    for name in sorted(set(scored.types) - {"good"}):
        used = (names == name) | (names == "good")
        positives, negatives = (weights[:, used] @ side[used] for side in (scored.positives, scored.negatives))
        hits, found = np.cumsum(positives, axis=1), np.cumsum(positives + negatives, axis=1)
        precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
        total = hits[:, -1:]
        share = np.divide(positives, total, out=np.full_like(hits, np.nan), where=total > 0)
        per_type.append((share * precision).sum(axis=1))
    if not per_type:
        return np.full(len(weights), np.nan)
    stacked = np.array(per_type)
    known = np.isfinite(stacked).sum(axis=0)
    return np.asarray(np.divide(np.nansum(stacked, axis=0), known, out=np.full(len(weights), np.nan), where=known > 0))


@dataclass(frozen=True)
class Difference:
    """Mean difference of two arms over the seeds, and its 95 % interval. Everything in AP points (0 to 100)."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies on one side of zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def words(self, against: str) -> str:
        """A sentence for people: "adds 4.1 AP over real, 95 % interval 2.2 to 6.0"."""
        interval = f"95 % interval {self.low:.1f} to {self.high:.1f}" if self.seeds > 1 else "one seed, so no interval"
        if self.sign > 0:
            return f"adds {self.mean:.1f} AP over {against}, {interval}"
        if self.sign < 0:
            return f"costs {-self.mean:.1f} AP against {against}, {interval}"
        return f"no measurable help over {against} ({self.mean:+.1f} AP, {interval})"


def compare(arm: Sequence[Scored], other: Sequence[Scored], draws: int = 2000, seed: int = 0) -> Difference:
    """The paired difference of two arms, one `Scored` per seed, in the same order and of the same test images.

    Two sources of chance add up: another seed (support, images, training), by the spread of the seeds' differences,
    and other test parts, by a bootstrap that draws the parts, within their defect type and for all seeds and both arms
    at once, of the seeds' mean. Student's t with the degrees of freedom of Welch and Satterthwaite, because five values
    underestimate what a new seed would do. What one training says of one part is counted in both, so the interval is a
    little wide rather than narrow. One seed says nothing about another: its interval is endless.
    """
    if len(arm) != len(other) or not arm or any(a.units != b.units for a, b in zip(arm, other, strict=True)):
        raise FlawsmithError("Paired arms need the same seeds, and the same test images in each of them.")
    from scipy.stats import t

    rng = np.random.default_rng(seed)
    kinds: dict[str, str] = {}
    for scored in arm:
        for unit, kind in zip(scored.units, scored.types, strict=True):
            kinds.setdefault(unit, kind)
    place = {unit: number for number, unit in enumerate(kinds)}
    strata: dict[str, list[int]] = {}
    for unit, kind in kinds.items():
        strata.setdefault(kind, []).append(place[unit])
    drawn = np.zeros((draws, len(place)))
    for members in strata.values():
        drawn[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), draws)
    own, resampled = [], []
    for a, b in zip(arm, other, strict=True):
        columns = [place[unit] for unit in a.units]
        once = np.ones((1, len(columns)))
        own.append(float((mean_ap(a, once) - mean_ap(b, once))[0]))
        resampled.append(mean_ap(a, drawn[:, columns]) - mean_ap(b, drawn[:, columns]))
    count, mean = len(own), 100 * float(np.mean(own))
    if count == 1:
        return Difference(mean, float("-inf"), float("inf"), 1)
    of_seeds = float(np.var(own, ddof=1)) / count
    # A bootstrap of n parts has (n - 1) / n of their variance: made good for the type that has fewest.
    sizes = [len(members) for kind, members in strata.items() if kind != "good"] or [len(place)]
    fewest = max(2, min(sizes))
    of_parts = float(np.nanvar(np.mean(resampled, axis=0), ddof=1)) * fewest / (fewest - 1)
    both = of_seeds + of_parts
    spare = max(1, sum(sizes) - len(sizes))
    freedom = both**2 / (of_seeds**2 / (count - 1) + of_parts**2 / spare) if both > 0 else 1.0
    # Never narrower than what the seeds alone say: more degrees of freedom must not pay for more doubt.
    reach = 100 * max(float(t.ppf(0.975, freedom)) * both**0.5, float(t.ppf(0.975, count - 1)) * of_seeds**0.5)
    return Difference(mean, mean - reach, mean + reach, count)


def claim(differences: dict[str, Difference]) -> str:
    """The verdict of one arm against all it must beat (arm -> difference): to "help", every interval lies above zero.

    Where only some do, the verdict names them.
    """
    parts = [difference.words(against) for against, difference in differences.items()]
    helps = all(difference.sign > 0 for difference in differences.values()) and bool(differences)
    worse = any(difference.sign < 0 for difference in differences.values())
    beaten = [against for against, difference in differences.items() if difference.sign > 0]
    level = f"helps over {' and '.join(beaten)} only" if beaten else "no difference shown"
    head = "helps" if helps else "does not help" if worse else level
    few = min((difference.seeds for difference in differences.values()), default=0)
    note = f" A first look: {few} seed{'s' if few != 1 else ''}, {FIRST_LOOK} are wanted." if few < FIRST_LOOK else ""
    return f"{head}: {'; '.join(parts)}.{note}"
