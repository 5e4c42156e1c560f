"""Limits of one's own: fitted to what a person kept and dropped, saved as a profile that `--gate` reads."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flawsmith import __version__, images, inputs
from flawsmith.errors import FlawsmithError, short, unknown
from flawsmith.quality.gate import CHECKS

FEWEST = 10  # kept and dropped images, each: from fewer a limit is chance
WRONGLY = 0.1  # share of the kept images that the limits may refuse
NEAREST = 2  # dropped images that another limit must refuse on top, less kept ones, to be worth it

MOST = 400  # places tried for a limit


@dataclass(frozen=True)
class Fit:
    """Fitted limits (None: never refuses), and the shares of kept and of dropped images that they refuse."""

    limits: dict[str, float | None]
    kept: float
    dropped: float


def fit(kept: Sequence[Mapping[str, float]], dropped: Sequence[Mapping[str, float]]) -> Fit:
    """Limits by which most dropped and few kept images are refused, from the scores (`checks`) of each.

    From the limits of `normal` on, one limit at a time is moved to where the share of dropped ones refused, less that
    of kept ones, is largest, halfway between two scores, until nothing is gained by NEAREST images or more; at most a
    share of WRONGLY of the kept ones is refused. Raises FlawsmithError with fewer than FEWEST of either.
    """
    if min(len(kept), len(dropped)) < FEWEST:
        raise FlawsmithError(
            f"{len(kept)} kept and {len(dropped)} dropped images have scores, and limits need {FEWEST} of each: review "
            "more of them, of a run with a gate."
        )
    bad = np.array([False] * len(kept) + [True] * len(dropped))
    worse = {name: _worse(name, [*kept, *dropped]) for name in CHECKS}  # the higher, the worse; -inf: no score
    limits = {name: -check.normal if check.below else check.normal for name, check in CHECKS.items()}
    value = float(_value(_refused(worse, limits), bad))
    while True:
        found = max((_best(name, worse, limits, bad) for name in CHECKS), key=lambda one: one[0])
        if found[0] < value + NEAREST / len(dropped) - 1e-9:
            break
        value, name, limit = found
        limits[name] = limit
    refused = _refused(worse, limits)
    told = {
        name: None if np.isinf(limit) else round(-limit if CHECKS[name].below else limit, 4)
        for name, limit in limits.items()
    }
    return Fit(told, float(refused[~bad].mean()), float(refused[bad].mean()))


def _worse(name: str, rows: Sequence[Mapping[str, float]]) -> np.ndarray:
    sign = -1 if CHECKS[name].below else 1
    return np.array([sign * float(row[name]) if name in row else -np.inf for row in rows])


def _refused(worse: Mapping[str, np.ndarray], limits: Mapping[str, float]) -> np.ndarray:
    return np.any([worse[name] > limit for name, limit in limits.items()], axis=0)


def _value(refused: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Shares refused of the dropped less of the kept, along the last axis; too many of the kept cost more."""
    wrong = (refused & ~bad).sum(axis=-1) / (~bad).sum()
    return (refused & bad).sum(axis=-1) / bad.sum() - wrong - 10 * np.maximum(0, wrong - WRONGLY)


def _best(
    name: str, worse: Mapping[str, np.ndarray], limits: Mapping[str, float], bad: np.ndarray
) -> tuple[float, str, float]:
    """The best limit of one check where the others stay: (value, check, limit); of equals that which refuses least."""
    others = np.any([worse[key] > limit for key, limit in limits.items() if key != name], axis=0)
    scores = np.unique(worse[name][np.isfinite(worse[name])])
    middles = ((scores[1:] + scores[:-1]) / 2)[::-1]
    tried = np.concatenate([[np.inf], middles[:: max(1, len(middles) // MOST)], [limits[name]]])
    values = _value(others | (worse[name] > tried[:, None]), bad)
    best = int(values.argmax())
    return float(values[best]), name, float(tried[best])


def save(fitted: Fit, path: Path, run: str, counts: tuple[int, int]) -> None:
    """Write a profile. Raises FlawsmithError where the file exists and is none."""
    if path.exists():
        load(path)
    refused = {"kept": round(fitted.kept, 4), "dropped": round(fitted.dropped, 4)}
    told = {"flawsmith": __version__, "run": run, "kept": counts[0], "dropped": counts[1], "refused": refused}
    images.write_bytes(path, f"{json.dumps({**told, 'limits': fitted.limits}, indent=2)}\n".encode())


def load(path: Path) -> dict[str, float | None]:
    """The limits of a profile. Raises FlawsmithError naming the file and what is wrong in it."""
    try:
        limits = inputs.parse_json(path.read_text(encoding="utf-8"))["limits"]
        if not isinstance(limits, dict) or not limits:
            raise ValueError("limits is no table")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FlawsmithError(
            f"{path} is no profile of a gate ({error}): `flawsmith review OUT --refit FILE` writes one."
        ) from error
    for name, limit in limits.items():
        if name not in CHECKS:
            raise unknown("Check", str(name), CHECKS, f"in {path}")
        number = isinstance(limit, (int, float)) and not isinstance(limit, bool) and math.isfinite(limit)
        if limit is not None and not number:
            raise FlawsmithError(f"{path}: the limit of {name} is {short(limit)}; give a number, or null for none.")
    return {name: None if limit is None else float(limit) for name, limit in limits.items()}
