"""What a line of a manifest must hold for its readers; it may come from a stranger, and may hold more."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic_core import from_json
from typing_extensions import NotRequired, TypedDict

STRICT = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


@with_config(STRICT)
class _File(TypedDict):
    file: str
    sha: str


@with_config(STRICT)
class _Refused(TypedDict):
    check: str
    defect_type: NotRequired[str | None]
    reason: NotRequired[str]
    thumbnail: NotRequired[str | None]


@with_config(STRICT)
class _Instances(TypedDict):
    file: str
    defects: NotRequired[list[dict[str, Any]]]


@with_config(STRICT)
class _Line(TypedDict):
    index: int
    status: Literal["kept", "rejected", "dropped"]
    category: str
    defect_type: str
    caption: str
    normal: _File
    reference: NotRequired[_File | None]
    scores: dict[str, Any]
    redraws: NotRequired[int]
    image: NotRequired[str | None]
    mask: NotRequired[str | None]
    prompt: NotRequired[str | None]
    image_sha: NotRequired[str | None]
    mask_sha: NotRequired[str | None]
    reason: NotRequired[str | None]
    instances: NotRequired[_Instances | None]
    refused: NotRequired[list[_Refused]]
    changed: NotRequired[list[str]]
    checks: NotRequired[dict[str, Any] | None]
    gate: NotRequired[str | None]
    info: NotRequired[dict[str, Any]]
    method: NotRequired[str]
    options: NotRequired[dict[str, Any]]
    severity: NotRequired[float | None]


# of dictionaries, not of models: a resumed run reads all of its lines, and this takes half the time
LINE = TypeAdapter(_Line)


def parse(row: bytes) -> dict[str, Any]:
    """A line of a manifest. Raises ValueError for one that does not hold what its readers use."""
    line: dict[str, Any] = from_json(row)  # its keys in their order, as a reader that writes them again needs them
    try:
        LINE.validate_python(line)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from error
    named = [line.get(key) for key in (("image", "mask", "prompt") if line["status"] == "kept" else ("reason",))]
    if None in named:
        raise ValueError("it: it does not name its files, or its reason")
    return line
