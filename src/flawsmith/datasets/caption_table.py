"""Captions in a table that people and programs edit: captions.csv or captions.jsonl, a line for an image.

Standing in a data set's folder it is read with the data set, by every reader, and wins over captions found elsewhere.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flawsmith import images, inputs
from flawsmith.errors import FlawsmithError, short
from flawsmith.records import Record

NAMES = ("captions.csv", "captions.jsonl")
FILES = ("file", "file_name", "filename", "image", "image_path", "path")  # what a column may be called
TEXTS = ("caption", "text", "description", "prompt", "sentence")
COLUMNS = ("file", "category", "defect_type", "caption")


@dataclass(frozen=True)
class Line:
    """A line of a table: `where` names it in messages, `file` is relative to the table's or the data set's folder."""

    where: str
    file: str
    caption: str


def read(path: Path) -> list[Line]:
    """The lines of a table, .csv or .jsonl, whatever its columns' usual names; those with an empty caption left out.

    Raises FlawsmithError naming file and line for what is no table of captions, or names an image twice.
    """
    if path.suffix.lower() == ".py":
        raise FlawsmithError(
            f"{path} is no table: captions in a script of MVTec Caption are taken from Python, with "
            f"flawsmith.datasets.mvtec_caption.build_prompts({path.name!r}, ROOT)."
        )
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise FlawsmithError(f"{path} is no .csv or .jsonl file: give a table of captions.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FlawsmithError(f"{path} cannot be read ({error}): save it as UTF-8 text.") from error
    rows = _csv(path, text) if path.suffix.lower() == ".csv" else _jsonl(path, text)
    found: dict[str, Line] = {}
    for where, row in rows:
        file, caption = (next((row[key] for key in names if row.get(key)), "") for names in (FILES, TEXTS))
        if not isinstance(file, str) or not isinstance(caption, str) or not inputs.is_text(file + caption):
            raise FlawsmithError(f"{where}: {short(file)}, {short(caption)}: give an image's name and its caption.")
        if not file.strip():
            raise FlawsmithError(f"{where} names no image: give its path in one of the columns {', '.join(FILES)}.")
        file = file.strip().replace("\\", "/").removeprefix("./")
        caption = " ".join(caption.split())
        if not caption:
            continue
        if file in found:
            raise FlawsmithError(f"{where} describes {file}, and so does {found[file].where}: keep one.")
        found[file] = Line(where, file, caption)
    return list(found.values())


def _csv(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    header = text.partition("\n")[0]
    mark = max(",;\t", key=header.count)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=mark)
    try:
        names = [name.strip().casefold() for name in table.fieldnames or ()]
        if not set(names) & set(FILES) or not set(names) & set(TEXTS):
            raise FlawsmithError(
                f"{path} has the columns {short(', '.join(names) or 'none')}: it needs one of {', '.join(FILES)} and "
                f"one of {', '.join(TEXTS)}."
            )
        table.fieldnames = names
        for row in table:
            if None in row or None in row.values():  # else half a caption would be taken for the whole
                raise FlawsmithError(
                    f"{path}, line {table.line_num}, has not the {len(names)} columns of the first line: put a caption "
                    f"that holds {mark!r} into quotation marks."
                )
            yield f"{path}, line {table.line_num}", row
    except csv.Error as error:
        raise FlawsmithError(f"{path}, line {table.line_num}, is no CSV ({error}): save the table again.") from error


def _jsonl(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"{path}, line {number}", inputs.parse_json(line)
            except ValueError as error:
                raise FlawsmithError(f"{path}, line {number}, is no JSON object ({error}): mend it.") from error


def match(lines: Sequence[Line], records: Sequence[Record], base: Path) -> tuple[dict[Path, str], list[Line]]:
    """(image -> caption, lines that name no image of `records`).

    A line's file is looked for from `base`, from the data set's folder, and then by the end of its path, if one image
    only ends so.
    """
    places: dict[str, Path] = {}
    ends: dict[str, list[Path]] = {}
    for record in records:
        for name in {_key(record.name), _key(_below(record.image, base))}:
            places[name] = record.image
        ends.setdefault(_key(record.image.name), []).append(record.image)
    found: dict[Path, str] = {}
    lost = []
    for line in lines:
        key = _key(line.file)
        alike = [path for path in ends.get(key.rpartition("/")[2], []) if _key(path.as_posix()).endswith("/" + key)]
        image = places.get(key) or (alike[0] if len(alike) == 1 else None)
        if image is None:
            lost.append(line)
        else:
            found[image] = line.caption
    return found, lost


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _below(image: Path, base: Path) -> str:
    return image.relative_to(base).as_posix() if image.is_relative_to(base) else image.as_posix()


def beside(root: Path, records: Sequence[Record]) -> list[Path]:
    """The tables in a data set's folder and in those of its categories."""
    folders = dict.fromkeys([root, *(root / name for name in {record.category: None for record in records})])
    return [folder / name for folder in folders for name in NAMES if (folder / name).is_file()]


def applied(root: Path, records: list[Record]) -> list[Record]:
    """The records with the captions of the tables that stand in their folder. Raises FlawsmithError as `read`."""
    told: dict[Path, str] = {}
    for table in beside(root, records):
        told |= match(read(table), records, table.parent)[0]
    return [replace(record, caption=told.get(record.image, record.caption)) for record in records] if told else records


def write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write rows of COLUMNS as .csv or .jsonl, whole or not at all."""
    if path.suffix.lower() == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        out = io.StringIO()
        table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        text = out.getvalue()
    images.write_bytes(path, text.encode())
