"""MVTec LOCO: MVTec AD's layout with several masks per image, whose grey level names the kind of defect.

    breakfast_box/test/logical_anomalies/000.png
    breakfast_box/ground_truth/logical_anomalies/000/000.png, 001.png ...
    breakfast_box/defects_config.json

Every non-zero pixel of any file is defect, also where levels are mixed in one file: the data set's levels lie far below
255. (The public captioning script keeps the first file's levels and drops dark pixels of the others.) The table
`defects_config.json` says from how many pixels on a defect of a level counts as found whole: `Record.saturation`.
Reference: Bergmann et al., "Beyond Dents and Scratches", IJCV 2022.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flawsmith import inputs
from flawsmith.datasets import mvtec_ad
from flawsmith.errors import FlawsmithError
from flawsmith.records import Record, Saturation

CONFIG = "defects_config.json"


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    defect_name: str = ""
    pixel_value: int = Field(ge=1, le=255)
    saturation_threshold: float = Field(gt=0)
    relative_saturation: bool

    @model_validator(mode="after")
    def _share(self) -> _Entry:
        if self.relative_saturation and self.saturation_threshold > 1:
            raise ValueError(f"a relative saturation_threshold is a share up to 1, got {self.saturation_threshold:g}")
        return self


def read(root: Path, category: str | None = None, group_by: str = "group") -> list[Record]:
    """As `mvtec_ad.read`, with the masks' own rule and saturation.

    Raises FlawsmithError naming file and entry where a category's table cannot be read.
    """
    records = mvtec_ad.read(root, category, group_by)
    folders = dict.fromkeys(record.image.parents[2] for record in records)
    known = {folder: saturation(folder / CONFIG) for folder in folders}
    return [replace(record, any_level=True, saturation=known[record.image.parents[2]]) for record in records]


def saturation(path: Path) -> tuple[Saturation, ...]:
    """What a `defects_config.json` says, () where there is none. Raises FlawsmithError naming file and entry."""
    if not path.is_file():
        return ()
    try:
        rows = inputs.parse_json(path.read_text(encoding="utf-8-sig"), list)
    except (OSError, ValueError) as error:
        raise FlawsmithError(f"{path} cannot be read ({error}): it is a JSON list of MVTec LOCO's defects.") from error
    found: dict[int, Saturation] = {}
    for number, row in enumerate(rows, start=1):
        try:
            entry = _Entry.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "it"
            raise FlawsmithError(
                f"{path}, entry {number}: {place}: {first['msg']}. An entry holds pixel_value (1 to 255), "
                "saturation_threshold (above 0), relative_saturation (true or false) and defect_name."
            ) from error
        if entry.pixel_value in found:
            raise FlawsmithError(f"{path}, entry {number}: pixel_value {entry.pixel_value} stands there twice.")
        found[entry.pixel_value] = Saturation(
            entry.pixel_value, entry.saturation_threshold, entry.relative_saturation, entry.defect_name
        )
    return tuple(found.values())


def table(known: Iterable[Saturation]) -> list[dict[str, Any]]:
    """What `saturation` reads, in the data set's own words."""
    return [
        {
            "defect_name": one.name,
            "pixel_value": one.level,
            "saturation_threshold": int(one.threshold) if one.threshold == int(one.threshold) else one.threshold,
            "relative_saturation": one.relative,
        }
        for one in known
    ]
