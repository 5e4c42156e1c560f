"""From names and values to settings: a file, the command line and `--set`, checked in one way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from flawsmith import inputs
from flawsmith.config.values import OF_METHODS, Told
from flawsmith.errors import FlawsmithError, short, unknown
from flawsmith.registry import OUTSIDE

Model = TypeVar("Model", bound=BaseModel)
Command = TypeVar("Command", bound=Told)


def by_type(text: str | None, option: str, what: str) -> dict[str, float] | None:
    """ "crack=3,hole=1" as numbers by defect type; None stays None. Raises FlawsmithError naming the option."""
    if text is None:
        return None
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (word.strip() for word in part.rpartition("="))
        try:
            weight = float(number)
        except ValueError:
            name = ""
        if not name or name in found:
            raise FlawsmithError(f"{option} {short(text)} is no {what}: write each type once, crack=3,hole=1.")
        found[name] = weight
    return found


def overlay(defaults: Any, changes: dict[str, Any], what: str) -> Any:
    """A dataclass of settings (`SETTINGS`) with some fields changed.

    Raises FlawsmithError for an unknown field, or a value of another kind or out of its bounds.
    """
    known = [field.name for field in fields(defaults)]
    for key in changes:
        if key not in known:
            raise unknown(f"{what} setting", key, known)
    try:
        return replace(defaults, **changes)
    except ValidationError as error:
        raise refused(error, f"{what} setting") from None


def load(model: type[Command], values: dict[str, Any], file: Path | None = None, sets: Sequence[str] = ()) -> Command:
    """A command's settings: a JSON or YAML file, then the command line's `values` (None = not given), then the texts of
    `--set key=value`; what comes later wins.

    `--set mask.size=[0.01,0.05]` sets a value of a part (see `Told.parts`), `--set n=5` a field, and any other name one
    of the part that is named "". In a comparison `--set fit.METHOD.KEY=VALUE` is for one of its methods alone.
    Raises FlawsmithError naming the setting.
    """
    merged: dict[str, Any] = _read_file(file) if file else {}
    merged.update({key: value for key, value in values.items() if value is not None and value != ()})
    for text in sets:
        key, value = _parse_set(text)
        start, _, name = key.partition(".")
        if start in model.parts and name:
            part = model.parts[start]
        elif key in model.model_fields and key not in model.parts.values():
            merged[key] = value
            continue
        elif "" in model.parts:
            part, name = model.parts[""], key
        else:
            known = ", ".join(f"{part}.KEY=VALUE" for part in model.parts)
            raise FlawsmithError(f"--set {text!r} names no part and no setting: write {known}.")
        settings = merged[part] = _group(merged, part)
        method, dot, own = name.rpartition(".")
        if dot and part in OF_METHODS:
            settings[method] = {**_group(settings, method), own: value}
        else:
            settings[name] = value
    return validated(model, merged, "Setting", f"in {file}" if file else "")


def validated(model: type[Model], given: dict[str, Any], what: str = "Setting", where: str = "") -> Model:
    """`given` as a `model`: the one way from names and values to settings, options and dials.

    Raises FlawsmithError for an unknown name, a missing one, or a value that is not allowed. `what` is the kind of name
    ("Option"), `where` an optional place ("for nsa").
    """
    for key in given:
        if key not in model.model_fields:
            raise unknown(what, str(key), model.model_fields, where)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise refused(error, what, where, model) from None


def refused(error: ValidationError, what: str, where: str = "", model: type[BaseModel] | None = None) -> FlawsmithError:
    """The first problem that pydantic found, in one sentence: what was given, what is allowed."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"])) or "all together"
    if first["type"] == "missing" and model is not None and field in model.model_fields:
        return FlawsmithError(f"{field} is missing: {model.model_fields[field].description or 'it must be given'}.")
    reason = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    place = f" {where}" if where else ""
    return FlawsmithError(
        f"{what} {field}={short(first['input'])}{place} is not allowed: {reason[:1].lower()}{reason[1:]}."
    )


def _group(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """The settings under a name, none where there are none yet. Raises FlawsmithError where it holds something else."""
    group = settings.get(name)
    if group is not None and not isinstance(group, dict):
        raise FlawsmithError(f"{name}={short(group)} must hold key: value pairs for --set to add to.")
    return dict(group or {})


def _parse_set(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise FlawsmithError(f"--set {short(text)} is not key=value: write for example --set mask.size=[0.01,0.05].")
    try:
        parsed = inputs.parse_yaml(value)
    except ValueError:
        parsed = value
    inputs.refuse_odd_value(parsed, f"--set {key}")
    return key, parsed


def _read_file(file: Path) -> dict[str, Any]:
    """A configuration file's settings. It may come from a stranger: no name in it makes flawsmith import a module."""
    file = inputs.home(file)
    try:
        content = inputs.parse_yaml(file.read_text(encoding="utf-8"))  # JSON is YAML
    except FileNotFoundError:
        raise FlawsmithError(f"Configuration file {file} does not exist.") from None
    except (OSError, ValueError) as error:
        raise FlawsmithError(f"Configuration file {file} cannot be read as JSON or YAML: {error}.") from error
    if not isinstance(content, dict):
        raise FlawsmithError(f"Configuration file {file} must hold key: value pairs, not a {type(content).__name__}.")
    inputs.refuse_odd_value(content, f"Configuration file {file}")
    if content.get("ray") not in (None, "local"):
        raise FlawsmithError(
            f"Configuration file {file}: ray {short(content['ray'])} would connect to a cluster, which may run code "
            "here: give its address on the command line, or local here."
        )
    for key in ("method", "arms", "normal", "references_from", "data", "real", "generated"):
        for name in content[key] if isinstance(content.get(key), list) else [content.get(key)]:
            named = str(name).split("+") if key in ("method", "arms") else [str(name).rpartition(":")[0]]
            if any(map(OUTSIDE.match, named)):
                raise FlawsmithError(
                    f"Configuration file {file}: {key} {short(name)} would import Python code, which only a name typed "
                    "on the command line may do: give it there, or a known name here."
                )
    return content
