"""What a line of a manifest must hold for its readers; it may come from a stranger, and may hold more."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from flawsmith import inputs


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _File(_Part):
    file: str
    sha: str


class _Refused(_Part):
    check: str
    defect_type: str | None = None
    reason: str = ""
    thumbnail: str | None = None


class _Instances(_Part):
    file: str
    defects: list[dict[str, Any]] = []


class _Line(_Part):
    index: int
    status: Literal["kept", "rejected", "dropped"]
    category: str
    defect_type: str
    caption: str
    normal: _File
    reference: _File | None = None
    scores: dict[str, Any]
    redraws: int = 0
    image: str | None = None
    mask: str | None = None
    prompt: str | None = None
    image_sha: str | None = None
    mask_sha: str | None = None
    reason: str | None = None
    instances: _Instances | None = None
    refused: list[_Refused] = []
    changed: list[str] = []
    checks: dict[str, Any] | None = None
    gate: str | None = None
    info: dict[str, Any] = {}
    method: str = ""
    options: dict[str, Any] = {}
    severity: float | None = None

    @model_validator(mode="after")
    def _whole(self) -> _Line:
        named = [self.image, self.mask, self.prompt] if self.status == "kept" else [self.reason]
        if None in named:
            raise ValueError("it does not name its files, or its reason")
        return self


def parse(row: bytes) -> dict[str, Any]:
    """A line of a manifest. Raises ValueError for one that does not hold what its readers use."""
    line: dict[str, Any] = inputs.parse_json(row)
    try:
        _Line.model_validate(line)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from error
    return line
