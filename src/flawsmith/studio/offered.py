"""The methods a studio offers, with the schema of their options. The server never imports torch to know them.

python -m flawsmith.studio.offered NAME_OR_RUN ...     prints their descriptions as JSON
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from flawsmith.config import validated
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.methods import METHODS
from flawsmith.methods.base import read_card
from flawsmith.registry import resolve

LEARNED = ("inpaint", "anomalyxfusion", "anomalycontrol")
ASKED_APART = ("steps", "seed", "save_every", "preview_every")  # of a fit: by the form itself, or by the queue
PLAIN = tuple(name for name in METHODS if name not in LEARNED)


def describe(name: str) -> dict[str, Any]:
    """A method's or a run's options (JSON schema of each), references, and the defect types it knows by itself."""
    run = Path(name) if name not in METHODS else None
    card = read_card(run) if run else {}
    kind = resolve(card["method"] if run else name, METHODS, "Method")
    types = sorted({key.rpartition("/")[2] for key in card.get("learned", {})})
    if not types and kind.learns == "nothing" and kind.references == "none":
        types = list(kind().types("product"))
    return {
        "told": name,
        "learns": kind.learns,
        "references": kind.references,
        "words": ((kind.__doc__ or "").strip().splitlines() or [""])[0],
        "types": types,
        "options": schema(kind.Options.model_json_schema()["properties"]),
        "fit": fit_schema(kind) if name in LEARNED else {},
    }


def fit_schema(kind: Any) -> dict[str, Any]:
    """The settings of a fit as `flawsmith train --set` takes them, with the method's own defaults. Imports torch."""
    from flawsmith.training.settings import FitConfig

    found = TypeAdapter(FitConfig).json_schema()["properties"]
    if kind.learns == "model":
        found |= kind.Config.model_json_schema()["properties"]
    for part in ("fit", "config"):
        for key, value in kind.presets["default"].get(part, {}).items():
            found[key] = {**found[key], "default": value}
    presets = [name for name in kind.presets if name != "default"]
    if presets:
        found["preset"] = {
            "enum": presets,
            "type": "string",
            "default": None,
            "description": "settings that belong together",
        }
    return schema({name: field for name, field in found.items() if name not in ASKED_APART})


def schema(fields: dict[str, Any]) -> dict[str, Any]:
    """Without the options that take any text: such a text could name a file of this machine."""
    return {name: field for name, field in fields.items() if not _is_free_text(field)}


def _is_free_text(field: dict[str, Any]) -> bool:
    kinds = field.get("anyOf", [field])
    return any(kind.get("type") == "string" and "enum" not in kind for kind in kinds)


class Offered:
    """Descriptions by the name the page knows. Those that need torch are asked of a process of their own."""

    def __init__(self, runs: Callable[[], dict[str, Path]]) -> None:
        self._runs = runs
        self._known: dict[str, dict[str, Any]] = {name: describe(name) for name in PLAIN}
        self._failed: set[str] = set()
        self._lock = threading.Lock()
        self.learned = bool(find_spec("diffusers") and find_spec("torch"))

    def table(self) -> dict[str, dict[str, Any]]:
        """What is known now, in the order of the page."""
        names = [*METHODS, *self._runs()]
        return {name: self._known[name] for name in names if name in self._known}

    def missing(self) -> dict[str, str]:
        """What is not known yet, and what `flawsmith.load` would be told."""
        wanted = {**{name: name for name in LEARNED}, **{name: str(path) for name, path in self._runs().items()}}
        if not self.learned:
            return {}
        return {k: v for k, v in wanted.items() if k not in self._known and k not in self._failed}

    def begin(self) -> None:
        """Ask for what is missing, in the background."""
        if self.missing() and not self._lock.locked():
            threading.Thread(target=self.complete, daemon=True).start()

    def complete(self) -> dict[str, dict[str, Any]]:
        """Everything; takes as long as importing torch where a learned method is not known yet."""
        with self._lock:
            missing = self.missing()
            if missing:
                self._ask(missing)
        return self.table()

    def _ask(self, missing: dict[str, str]) -> None:
        command = [sys.executable, "-m", "flawsmith.studio.offered", *missing.values()]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        try:
            rows = json.loads(done.stdout)
        except ValueError:
            rows = [None] * len(missing)
        for name, row in zip(missing, rows, strict=True):
            if row is None:
                self._failed.add(name)
            else:
                self._known[name] = row

    def get(self, name: str) -> dict[str, Any]:
        """Raises FlawsmithError for a method that is not offered."""
        found = self.table().get(name)
        if found is None and (name in LEARNED or name in self._runs()):
            found = self.complete().get(name)
        if found is None:
            raise unknown("Method", name, self.table())
        return found

    def options(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """Options as the page may set them. Raises FlawsmithError for one that is not offered, or a wrong value.

        The worker checks the values of a learned method.
        """
        allowed = self.get(name)["options"]
        for key in given:
            if key not in allowed:
                raise unknown("Option", key, allowed, f"for {name}")
        if name in PLAIN:
            validated(resolve(name, METHODS, "Method").Options, given, "Option", f"for {name}")
        return given

    def settings(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """Settings of a fit as the page may set them; the worker checks their values. Raises FlawsmithError."""
        allowed = self.get(name)["fit"] if given else {}
        for key in given:
            if key not in allowed:
                raise unknown("Fit setting", key, allowed, f"of {name}")
        return given


def main(names: list[str]) -> None:
    rows: list[dict[str, Any] | None] = []
    for name in names:
        try:
            rows.append(describe(name))
        except (FlawsmithError, ImportError):
            rows.append(None)
    sys.stdout.write(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
