"""Captions for the defects of a data set: those it has, those of a table, and described ones for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flawsmith.captions.measured import caption
from flawsmith.datasets import caption_table
from flawsmith.errors import FlawsmithError, short
from flawsmith.records import Progress, Record, Sample

OWN, TABLE, DESCRIBED = "own", "table", "described"  # where a caption comes from
EVERY = 20  # described images after which the table is written, so that a stopped run keeps them


@dataclass(frozen=True)
class Captioned:
    """A record with its caption, and where that comes from: OWN, TABLE or DESCRIBED."""

    record: Record
    source: str

    def row(self) -> dict[str, str]:
        record = self.record
        texts = (record.name, record.category, record.defect_type, record.caption)
        return dict(zip(caption_table.COLUMNS, texts, strict=True))


def write_captions(
    records: Sequence[Record],
    out: Path | None = None,
    *,
    given: Path | None = None,
    describe: Callable[[Sample], str] = caption,
    anew: bool = False,
    progress: Progress | None = None,
) -> list[Captioned]:
    """A caption for every defect of `records`, and for every good image that has one; written to `out` where given.

    A caption of the table `given` wins, then one that stands in `out` already, then the image's own, then what
    `describe` says of its pixels. `anew` describes every defect that is not in `given`. `out` is .csv or .jsonl and
    must be free or a table of captions. Raises FlawsmithError naming file and line before anything is written.
    """
    told = {} if given is None else _told(given, records)
    kept = {} if out is None or anew else _kept(out, records)
    found: list[Captioned] = []
    left: list[int] = []  # places in `found` of what has to be described
    for record in records:
        text = told.get(record.image) or kept.get(record.image)
        if text is None and not record.is_good and (anew or not record.caption):
            left.append(len(found))
        if text or record.caption or not record.is_good:
            found.append(Captioned(replace(record, caption=text or record.caption), TABLE if text else OWN))
    if not found:
        raise FlawsmithError("There is no defect to describe: name a data set with defects.")
    for done, place in enumerate(left, start=1):
        record = found[place].record
        found[place] = Captioned(replace(record, caption=describe(record.load())), DESCRIBED)
        if progress:
            progress("", done, len(left), {})
        if out is not None and done % EVERY == 0:
            _write(out, found)
    if out is not None:
        _write(out, found)
    return found


def _write(out: Path, found: Sequence[Captioned]) -> None:
    caption_table.write(out, [one.row() for one in found if one.record.caption])


def _told(given: Path, records: Sequence[Record]) -> dict[Path, str]:
    found, lost = caption_table.match(caption_table.read(given), records, given.parent)
    if lost:
        raise FlawsmithError(
            f"{lost[0].where} names {short(lost[0].file)}, which is no image here ({len(lost)} such lines): correct "
            "the name, or remove the line."
        )
    return found


def _kept(out: Path, records: Sequence[Record]) -> dict[Path, str]:
    """The captions that stand in the table to be written: nobody's edits are lost."""
    if out.suffix.lower() not in (".csv", ".jsonl") or out.is_dir():
        raise FlawsmithError(f"--out {out} is no .csv or .jsonl file: name a table of captions.")
    if not out.exists():
        return {}
    found, lost = caption_table.match(caption_table.read(out), records, out.parent)
    if lost:
        raise FlawsmithError(
            f"{lost[0].where} names {short(lost[0].file)}, which is no image here ({len(lost)} such lines), and would "
            "be lost: choose another --out, or remove the line."
        )
    return found
