"""What a run goes by: the photographs it paints on and the real defects it may see, read before anything is planned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flawsmith import datasets
from flawsmith.config import GenerateConfig
from flawsmith.datasets.splits import few_shot
from flawsmith.errors import FlawsmithError
from flawsmith.records import Record


@dataclass(frozen=True)
class Sources:
    """The data set's records, and by category what may be painted on and which real defects a method may see.

    support: the few-shot support set, those with a mask; of the other data set where references come from one. own:
    the one reference that the user gave.
    """

    records: list[Record]
    normals: dict[str, list[Record]]
    support: dict[str, list[Record]]
    own: Record | None

    def left_out(self, asked: Sequence[str]) -> list[str]:
        """Real defects that were silently left out would surprise: say which and why. asked: types, () for all."""
        notes = []
        defects = [record for record in self.records if not record.is_good]
        defects = [record for record in defects if not asked or record.defect_type in asked]
        bare = [record for record in defects if not record.masks]
        if bare:
            notes.append(f"{len(bare)} images of defects have no mask and are not used (the first: {bare[0].image}).")
        known = [record for found in self.support.values() for record in found]
        proposed = sum(record.is_proposed for record in known)
        if proposed:
            notes.append(
                f"{proposed} real defects are marked by boxes or lines, and which pixels are defect was proposed: see "
                "what flawsmith check says of them."
            )
        types = {(record.category, record.defect_type) for record in known}
        for category, defect in dict.fromkeys((r.category, r.defect_type) for r in defects if r.masks):
            if (category, defect) not in types:
                notes.append(
                    f"{category}/{defect} has too few images for a third of them to be seen and is left out: give "
                    "--shots."
                )
        return notes


def read(config: GenerateConfig) -> Sources:
    """Raises FlawsmithError where there is nothing good to paint on, or no defect where references should be."""
    reader, root = datasets.parse_source(config.normal)
    out = Path(os.path.realpath(config.out))  # `resolve` raises for a link to itself; the writer refuses it
    if Path(os.path.realpath(root)) in (out, *out.parents):
        raise FlawsmithError(
            f"Output folder {config.out} lies inside the data set {root}: the next run would read the painted images "
            f"as photographs. Choose a folder beside it, for example --out {root.resolve().parent / 'painted'}."
        )
    records = datasets.read(reader, root, category=config.category, group_by=config.group_by)
    if not any(record.is_good for record in records):
        raise FlawsmithError(
            f"{config.normal} has no good photographs: put them under train/good, or name a folder of good photographs."
        )
    by_category: dict[str, list[Record]] = {}
    for record in records:
        by_category.setdefault(record.category, []).append(record)
    normals = {category: good for category, found in by_category.items() if (good := _paintable(found))}
    if config.references_from is None:
        support = {category: _support(config, found) for category, found in by_category.items()}
    else:
        reader, root = datasets.parse_source(config.references_from)
        foreign = datasets.read(reader, root, group_by=config.group_by)  # all categories: of one material for another
        shown = _support(config, foreign)
        if not shown:
            raise FlawsmithError(
                f"{config.references_from} offers no defect with a mask as a reference: name a data set with "
                "test/<defect> and ground_truth/<defect>, or raise --shots."
            )
        support = dict.fromkeys(by_category, shown)
    return Sources(records, normals, support, _own_reference(config, next(iter(by_category))))


def _paintable(records: Sequence[Record]) -> list[Record]:
    """The good photographs of one category: those for training, or all where none is."""
    good = [record for record in records if record.is_good]
    return [record for record in good if record.split == "train"] or good


def _support(config: GenerateConfig, records: Sequence[Record]) -> list[Record]:
    """The real defects with a mask that a method may see: the few-shot support set of these records."""
    defects = [record for record in records if not record.is_good]
    support = few_shot(defects, shots=config.shots, seed=config.split_seed).support if defects else []
    return [record for record in support if record.masks]


def _own_reference(config: GenerateConfig, category: str) -> Record | None:
    if config.reference is None:
        if config.reference_mask is not None:
            raise FlawsmithError("--reference-mask was given without --reference: name the photograph it belongs to.")
        return None
    if config.reference_mask is None:
        raise FlawsmithError(
            f"--reference {config.reference} has no mask, so nobody knows which pixels are the defect: give "
            "--reference-mask, a black image of the same size that is white on the defect, or let one be proposed "
            "with --reference-mask auto."
        )
    if config.references_from is not None:
        raise FlawsmithError("--reference and references_from were both given: name one photograph or a data set.")
    record = Record(
        image=config.reference,
        category=category,
        defect_type=config.asked[0] if config.asked else "defect",
        masks=(config.reference_mask,),
        caption=config.reference_text or "",
        root=config.reference.parent,
    )
    if not record.load().mask.any():
        raise FlawsmithError(f"Reference mask {config.reference_mask} is empty: paint the defect white.")
    return record
