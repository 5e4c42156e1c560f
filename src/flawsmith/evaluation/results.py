"""Results on disk: one value per line of a table that a report reads, and a ledger from which a killed run resumes."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from flawsmith import __version__, images, inputs
from flawsmith.config import refused
from flawsmith.datasets.lock import PARTIAL
from flawsmith.errors import FlawsmithError

MEAN = "mean"  # over defect types, unweighted
HEADLINES = (
    *("pixel_AUPR", "pixel_AUPRO", "pixel_F1Max", "pixel_AUROC", "image_AUROC", "accuracy", "KID", "pairwise-FD"),
    *("probe_AUC", "spectrum_dB"),
)
PACKAGES = ("numpy", "scipy", "torch", "transformers", "diffusers")


@dataclass(frozen=True)
class Value:
    """One number under its full name. `key` is NAME/EXTRACTOR/REGION or NAME/NETWORK/SELECTION.

    value: None where it is not defined, and then `reason` says why. type: a defect type, "all" (pooled), "mean" (over
    types) or "" (no type applies). method: the arm of a comparison, else "". spread: its s.d. over subsets, if any.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    key: str
    value: float | None
    type: str = ""
    method: str = ""
    seed: int = 0
    n_real: int = 0
    n_generated: int = 0
    spread: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


def with_means(values: Sequence[Value]) -> list[Value]:
    """The values, and for every key, method and seed of defect types their unweighted mean ("mean"), beside them."""
    groups: dict[tuple[str, str, int], list[Value]] = {}
    for one in values:
        groups.setdefault((one.key, one.method, one.seed), []).append(one)
    found: list[Value] = []
    for (key, method, seed), members in groups.items():
        found += members
        kinds = [one for one in members if one.type not in ("", "all", MEAN)]
        if not kinds or any(one.type == MEAN for one in members):
            continue
        numbers = [one.value for one in kinds if one.value is not None]
        shared = {k: v for k, v in kinds[0].settings.items() if all(one.settings.get(k) == v for one in kinds)}
        counts = sum(one.n_real for one in kinds), sum(one.n_generated for one in kinds)
        mean, reason = (float(np.mean(numbers)), "") if numbers else (None, kinds[0].reason)
        found.append(Value(key, mean, MEAN, method, seed, *counts, settings=shared, reason=reason))
    return found


def versions() -> dict[str, str]:
    """Versions of what decides a number: flawsmith, Python, and the numeric packages that are installed."""
    found = {"flawsmith": __version__, "python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write(out: Path, values: Sequence[Value], about: dict[str, Any], head: Sequence[str] = ()) -> None:
    """Write `results.json`, `results.csv` and `results.md` to the folder `out`, each whole or not at all.

    `about`: what made the values (command, data, extractors); versions are added. `head`: sentences above the table.
    """
    values = with_means(values)
    rows = [asdict(one) for one in values]
    content = {"versions": versions(), **about, "values": rows}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    images.write_bytes(out / "results.json", f"{text}\n".encode(), out / PARTIAL)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(Value.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "settings": json.dumps(row["settings"]) if row["settings"] else ""})
    images.write_bytes(out / "results.csv", stream.getvalue().encode(), out / PARTIAL)
    images.write_bytes(out / "results.md", (markdown(values, about, head) + "\n").encode(), out / PARTIAL)


def markdown(values: Sequence[Value], about: dict[str, Any], head: Sequence[str] = ()) -> str:
    """Tables for people: one row per key (and method), one column per defect type; seeds are averaged, with spread."""
    parts = ["# Evaluation", *head, "", "```", str(about.get("command", "")), "```", ""]
    parts.append(", ".join(f"{name} {number}" for name, number in versions().items()) + ".")
    for name, found in about.get("extractors", {}).items():
        note = " Smoke only: it grew up on the generator's own painted defects." if found.get("smoke") else ""
        parts.append(f"Extractor {name}, hash {found['hash']}, {found['size']} px, {found['resize']}.{note}")
    by_method = len({one.method for one in values if one.method}) > 0
    types = list(dict.fromkeys(one.type for one in values if one.type not in ("", "all", MEAN)))
    columns = [*types, *(name for name in ("all", MEAN) if any(one.type == name for one in values))]
    columns += [""] if any(not one.type for one in values) else []
    names = [name or "value" for name in columns]
    parts += summary(values) if by_method else []
    parts += ["", "| " + " | ".join(["key", *(["arm"] if by_method else []), *names, "images"]) + " |"]
    parts.append("|" + " --- |" * (len(names) + 2 + by_method))
    rows: dict[tuple[str, str], dict[str, list[Value]]] = {}
    for one in values:
        rows.setdefault((one.key, one.method), {}).setdefault(one.type, []).append(one)
    place = {key: number for number, key in enumerate(dict.fromkeys(key for key, _ in rows))}
    for (key, method), cells in sorted(rows.items(), key=lambda row: place[row[0][0]]):  # arms of a key together
        count = max(max(one.n_generated, one.n_real) for found in cells.values() for one in found)
        shown = [_cell(cells.get(name, [])) for name in columns]
        parts.append("| " + " | ".join([key, *([method] if by_method else []), *shown, str(count)]) + " |")
    reasons = dict.fromkeys(f"- {one.key}: {one.reason}" for one in values if one.reason)
    return "\n".join([*parts, *(["", "Not computed, or read with care:", *reasons] if reasons else [])])


def summary(values: Sequence[Value]) -> list[str]:
    """A table of arms against headline keys, each a mean over types (over all images where no type is known).

    Of images only the defect's window is shown. An arm's images are the same for every share, so their values
    stand beside each of its shares.
    """
    keys = [one.key for one in values if one.key.split("/")[0] in HEADLINES and not one.key.endswith("/whole")]
    keys = sorted(dict.fromkeys(keys), key=lambda key: HEADLINES.index(key.split("/")[0]))
    found: dict[tuple[str, str], dict[str, list[Value]]] = {}
    for one in values:
        found.setdefault((one.method, one.key), {}).setdefault(one.type, []).append(one)
    judged = {one.method for one in values if one.key in keys and not one.key.endswith("/window")}
    methods = sorted(dict.fromkeys(one.method for one in values if one.key in keys), key=lambda m: m not in judged)
    shared = {method.split(", share ")[0] for method in methods if ", share " in method}
    rows = []
    for method in (m for m in methods if m not in shared):
        own = [found.get((method, key)) or found.get((method.split(", share ")[0], key), {}) for key in keys]
        cells = [_cell([*kinds.get(MEAN, []), *([] if MEAN in kinds else kinds.get("all", []))]) for kinds in own]
        rows.append("| " + " | ".join([method, *cells]) + " |")
    return ["", "| " + " | ".join(["arm", *keys]) + " |", "|" + " --- |" * (len(keys) + 1), *rows] if keys else []


def _cell(found: Sequence[Value]) -> str:
    numbers = [one.value for one in found if one.value is not None]
    if not numbers:
        return "-"
    text = f"{np.mean(numbers):.4g}"
    if len(numbers) > 1:
        return f"{text} (seeds {np.std(numbers):.2g})"
    return f"{text} (± {found[0].spread:.2g})" if found[0].spread is not None else text


class Ledger:
    """`RESULTS/runs.jsonl`: one line per finished part of an evaluation, so that the same command resumes.

    A part counts when its line is whole; a half-written last line, what a kill leaves, is cut off and redone.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / "runs.jsonl"
        self.lines: dict[str, dict[str, Any]] = {}
        try:
            out.mkdir(parents=True, exist_ok=True)
            content = self.path.read_bytes() if self.path.is_file() else b""
        except OSError as error:
            raise FlawsmithError(
                f"Results folder {out} cannot be used ({error.strerror}): choose another --out."
            ) from error
        good = []
        for raw in content.splitlines(keepends=True):
            try:
                line = inputs.parse_json(raw)
                as_values(line["result"]["values"])
                if not raw.endswith(b"\n") or not isinstance(line["result"].get("count", 0), int):
                    break
                self.lines[line["part"]] = line["result"]
            except (ValueError, KeyError, TypeError):
                break
            good.append(raw)
        if b"".join(good) != content:
            images.write_bytes(self.path, b"".join(good), out / PARTIAL)

    def __contains__(self, part: str) -> bool:
        return part in self.lines

    def __getitem__(self, part: str) -> dict[str, Any]:
        return self.lines[part]

    def add(self, part: str, result: dict[str, Any]) -> None:
        """Enter a finished part; it is on disk when this returns."""
        raw = json.dumps({"part": part, "result": result}, allow_nan=False) + "\n"
        images.append_bytes(self.path, raw.encode())
        self.lines[part] = json.loads(raw)["result"]


def as_values(rows: Iterable[dict[str, Any]]) -> list[Value]:
    """Values from what a ledger or results.json holds. Raises ValueError for rows that are none."""
    try:
        return VALUES.validate_python(list(rows))
    except ValidationError as error:
        raise refused(error, "Value") from None


VALUES = TypeAdapter(list[Value])
