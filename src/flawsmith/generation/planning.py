"""What to make, decided before the first pixel: a pure function of the configuration and the data set's records."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flawsmith import __version__, captions, datasets, images, inputs
from flawsmith.config import GenerateConfig
from flawsmith.datasets.splits import few_shot
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.generation import misses
from flawsmith.generation.jobs import Jobs, Kind
from flawsmith.generation.turns import Turns
from flawsmith.masks import REAL
from flawsmith.masks.growth import SHOWN, SIZING, Spread
from flawsmith.masks.structure import EXEMPLARS, GOODS, is_structure
from flawsmith.methods.base import Synthesizer, read_card
from flawsmith.records import COMBINED, GOOD, Job, Record, Region, hash_seed


@dataclass(frozen=True)
class Plan:
    """Everything decided before the first pixel: the jobs, and what `generate.json` records."""

    jobs: Jobs
    description: dict[str, Any]
    support: list[Record]
    normals: dict[str, list[Record]]  # all that may be painted on, by category
    notes: list[str]  # what the user should know but need not change
    exemplars: dict[tuple[str, str], list[Record]]  # what a retry may imitate instead, by category and defect type


def read_records(config: GenerateConfig) -> list[Record]:
    """The data set named by `config.normal`. Raises FlawsmithError when there is nothing good to paint on."""
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
    return records


def plan(config: GenerateConfig, records: Sequence[Record], synthesizer: Synthesizer) -> Plan:
    """Decide every image: a pure function of its arguments.

    Job i does not depend on n, so that a longer run begins with the shorter one. Normals come from the training
    photographs, references only from the few-shot support set: a method never sees a test image.
    """
    by_category: dict[str, list[Record]] = {}
    for record in records:
        by_category.setdefault(record.category, []).append(record)
    normals = {category: good for category, found in by_category.items() if (good := _paintable(found))}
    supports = {category: _support(config, found) for category, found in by_category.items()}
    if config.references_from is not None:
        supports = dict.fromkeys(supports, _foreign(config))
    own = _own_reference(config, next(iter(by_category)))
    pairs = _pairs(config, synthesizer, normals, by_category, supports, own)
    total = config.n * len(pairs) if config.per_defect else config.n
    needs = synthesizer.references != "none"
    # A painter that happens to share a type's name with the data set must not be recorded as having seen its defects.
    sees_support = needs or synthesizer.learns != "nothing" or config.mask in REAL
    if config.references_from is not None and not sees_support:
        raise FlawsmithError(f"{synthesizer.name} reads no references: leave references_from out.")
    if config.references > 1 and synthesizer.references != "many":
        raise FlawsmithError(f"{synthesizer.name} reads one reference per image, not {config.references}.")
    structure: list[str] = []

    def kind(category: str, defect: str, comes: bool = True) -> Kind:
        if config.combine and defect == COMBINED:
            parts = tuple((kind(category, name), count) for name, count in config.combine.items())
            return Kind(category, defect, normals[category], [], "", "", parts)
        references = [own] if own else [r for r in supports[category] if sees_support and r.defect_type == defect]
        if needs and not references and comes:
            raise FlawsmithError(_no_reference(config, synthesizer, category, defect))
        mask = synthesizer.default_mask(defect)
        if config.mask is None and mask == "varied" and _is_structure(references, normals[category]):
            mask = "whole"
            structure.append(f"{category}/{defect}")
        says = synthesizer.default_caption(category, defect)
        spread = None if (config.mask or mask) == "whole" else _spread(config, synthesizer, references)
        return Kind(category, defect, normals[category], references, mask, says, spread=spread)

    kinds = [kind(*pair, number < total) for number, pair in enumerate(pairs)]
    exemplars = {
        (one.category, one.defect_type): list(one.references)
        for whole in kinds
        for one, _ in whole.parts or ((whole, 1),)
    }
    shown = max(config.references, synthesizer.reference_count)
    known = list(dict.fromkeys(record.defect_type for record in records if not record.is_good))
    aim = misses.aim(config, pairs, known, next(iter(normals.values())))
    mix = config.mix if aim is None else aim.mix
    turns = Turns([mix.get(defect, 1) for _, defect in pairs])
    jobs = Jobs(config, kinds, turns, total, shown, synthesizer.learns != "nothing", aim)
    support = list(dict.fromkeys(record for supported in supports.values() for record in supported if sees_support))
    description = _description(config, synthesizer, records, jobs, support)
    if structure:
        description["structure"] = structure
    from_here = needs and not own and config.references_from is None
    notes = _notes(synthesizer, records, supports, config.asked) if from_here else []
    notes += [] if aim is None else aim.told
    if structure:
        notes.append(
            f"{', '.join(structure)}: these defects change the product's own structure, so they keep their real shapes "
            "and are carried whole (--mask varied gives them new ones)."
        )
    return Plan(jobs, description, support, normals, notes, exemplars)


def _is_structure(references: Sequence[Record], normals: Sequence[Record]) -> bool:
    """Whether the defects of a type have the product's shape; of few images that are spread over the data set."""
    if not references or not normals:
        return False
    spread = [normals[len(normals) * number // GOODS] for number in range(min(GOODS, len(normals)))]
    return is_structure([record.load() for record in references[:EXEMPLARS]], [r.load().image for r in spread])


def _spread(config: GenerateConfig, synthesizer: Synthesizer, references: Sequence[Record]) -> Spread | None:
    """How far the defects of a type may go beyond its real ones; None where the user says how large or strong."""
    told = config.severity is not None or config.from_misses is not None or SIZING & config.mask_options.keys()
    if told or synthesizer.references == "none" or not references:
        return None
    shown = references[:SHOWN]
    return synthesizer.spread((one.load() for one in shown), [one.group or one.name for one in shown])


def variant(made: Plan, job: Job, *parts: Any, fits: Callable[[Record], bool] = lambda exemplar: True) -> Job:
    """A job with another exemplar of its type, drawn by its seed and `parts`; the same where there is no other.

    One that fits, where any does: then the job's own is no choice unless it does.
    """
    if job.reference is None:
        return job
    others = [one for one in made.exemplars[job.normal.category, job.defect_type] if one != job.reference]
    others = [one for one in others if fits(one)] or ([] if fits(job.reference) else others)
    if not others:
        return job
    chosen = others[hash_seed(job.seed, "exemplar", *parts) % len(others)]
    own_words = bool(job.caption) and job.caption == job.reference.caption
    rest = tuple(chosen if one == job.reference else job.reference if one == chosen else one for one in job.others)
    return replace(job, reference=chosen, caption=chosen.caption if own_words else job.caption, others=rest)


def _paintable(records: Sequence[Record]) -> list[Record]:
    """The good photographs of one category: those for training, or all where none is."""
    good = [record for record in records if record.is_good]
    return [record for record in good if record.split == "train"] or good


def _support(config: GenerateConfig, records: Sequence[Record]) -> list[Record]:
    """The real defects with a mask that a method may see: the few-shot support set of these records."""
    defects = [record for record in records if not record.is_good]
    support = few_shot(defects, shots=config.shots, seed=config.split_seed).support if defects else []
    return [record for record in support if record.masks]


def _description(
    config: GenerateConfig,
    synthesizer: Synthesizer,
    records: Sequence[Record],
    jobs: Jobs,
    support: list[Record],
) -> dict[str, Any]:
    """What `generate.json` records: every decision, and by checksum what the decisions were made from."""
    everything = sorted(f"{record.name} {record.image.stat().st_size}" for record in records)
    regions = {mask.source for record in records for mask in record.masks if isinstance(mask, Region)}
    everything += sorted(images.file_sha(source) for source in regions)
    most = max(jobs.turns.count(place, len(jobs)) for place in range(len(jobs.kinds)))
    return {
        "flawsmith": __version__,
        "source": config.normal,
        "n": len(jobs),
        "digits": max(3, len(str(most - 1))),
        "several_categories": len({record.category for record in records}) > 1,
        "data_set": hashlib.sha256("\n".join(everything).encode()).hexdigest()[:16],
        "types": [[kind.category, kind.defect_type] for kind in jobs.kinds],
        "options": synthesizer.options.model_dump(mode="json"),
        **({} if jobs.aim is None else {"aim": jobs.aim.describe()}),
        **{key: value for key, value in config.identity().items() if key != "options"},
        "support": {
            **synthesizer.seen(),
            **_mask_support(config),
            **{record.name: images.file_sha(record.image) for record in support},
        },
        "licences": _licences([*records, *support]),
    }


def _mask_support(config: GenerateConfig) -> dict[str, str]:
    """The real defects a learned mask model was trained on: whoever uses its masks has seen them."""
    run = config.mask_run()
    if run is None:
        return {}
    return {name: sha for entry in read_card(run).get("learned", {}).values() for name, sha in entry["support"].items()}


def _notes(
    synthesizer: Synthesizer, records: Sequence[Record], supports: dict[str, list[Record]], asked: Sequence[str]
) -> list[str]:
    """Real defects that were silently left out would surprise: say which and why."""
    notes = []
    defects = [record for record in records if not record.is_good and (not asked or record.defect_type in asked)]
    bare = [record for record in defects if not record.masks]
    if bare:
        notes.append(f"{len(bare)} images of defects have no mask and are not used (the first: {bare[0].image}).")
    proposed = sum(record.is_proposed for supported in supports.values() for record in supported)
    if proposed:
        notes.append(
            f"{proposed} real defects are marked by boxes or lines, and which pixels are defect was proposed: see what "
            "flawsmith check says of them."
        )
    known = {(record.category, record.defect_type) for supported in supports.values() for record in supported}
    for category, defect in dict.fromkeys((r.category, r.defect_type) for r in defects if r.masks):
        if (category, defect) not in known:
            notes.append(
                f"{category}/{defect} has too few images for a third of them to be seen and is left out: give --shots."
            )
    return notes


def _pairs(
    config: GenerateConfig,
    synthesizer: Synthesizer,
    normals: dict[str, list[Record]],
    by_category: dict[str, list[Record]],
    supports: dict[str, list[Record]],
    own: Record | None,
) -> list[tuple[str, str]]:
    """(category, defect type) of every kind of image asked for, in order."""
    if config.combine and config.mix and COMBINED not in config.mix:
        raise FlawsmithError(f"--mix gives no share to the images of --combine: name {COMBINED}=W in it, or drop one.")
    if config.combine and own is not None:
        raise FlawsmithError("--reference shows one defect, --combine makes several types: leave one of them out.")
    pairs: list[tuple[str, str]] = []
    for category in normals:
        known_here = supports[category] if config.references_from else by_category[category]
        in_data = list(dict.fromkeys(r.defect_type for r in known_here if not r.is_good))
        with_reference = [name for name in in_data if any(r.defect_type == name for r in supports[category])]
        needs = synthesizer.references != "none"
        kind = captions.parse(config.prompt).kind if config.prompt else ""
        names: Sequence[str]
        if config.asked or config.combine:
            names = config.asked or (COMBINED,)
            for name in (*(name for name in names if not config.combine or name != COMBINED), *config.combine):
                if needs and not own and name not in in_data:
                    raise unknown("Defect", name, in_data, f"in {config.normal}")
                synthesizer.check_type(category, name)
        elif kind and not needs and synthesizer.learns != "model":
            names = [kind]  # the prompt says what to paint
        else:
            names = synthesizer.types(category, [own.defect_type] if own else with_reference)
            if needs and not names:
                raise FlawsmithError(_no_reference(config, synthesizer, category, ""))
            names = names or [own.defect_type if own else synthesizer.name]
        for name in (*names, *config.combine):
            if not name or name == GOOD or any(c in name for c in '/\\:*?"<>|') or name.startswith("."):
                raise FlawsmithError(f"Defect name {name!r} cannot name a folder: use letters, digits, - and _.")
        pairs += [(category, name) for name in names]
    return pairs


def _no_reference(config: GenerateConfig, synthesizer: Synthesizer, category: str, defect: str) -> str:
    what = f"defect {defect!r} of " if defect else ""
    return (
        f"{synthesizer.name} needs real defects with masks, but {what}{category or config.normal} offers none to learn "
        "from: name a data set with test/<defect> and ground_truth/<defect> in --normal, raise --shots, or give "
        "--reference and --reference-mask."
    )


def _foreign(config: GenerateConfig) -> list[Record]:
    """The few-shot support of another data set, of all its categories: references of one material for another."""
    if config.reference is not None:
        raise FlawsmithError("--reference and references_from were both given: name one photograph or a data set.")
    reader, root = datasets.parse_source(str(config.references_from))
    support = _support(config, datasets.read(reader, root, group_by=config.group_by))
    if not support:
        raise FlawsmithError(
            f"{config.references_from} offers no defect with a mask as a reference: name a data set with test/<defect> "
            "and ground_truth/<defect>, or raise --shots."
        )
    return support


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
    defect = config.asked[0] if config.asked else "defect"
    record = Record(
        image=config.reference,
        category=category,
        defect_type=defect,
        masks=(config.reference_mask,),
        caption=config.reference_text or "",
        root=config.reference.parent,
    )
    if not record.load().mask.any():
        raise FlawsmithError(f"Reference mask {config.reference_mask} is empty: paint the defect white.")
    return record


def _licences(records: Sequence[Record]) -> list[str]:
    """Licence files found at the data set's root: what the generated images inherit."""
    found = set()
    for root in {record.root for record in records}:
        if root.is_dir():
            found |= {p.name for p in root.iterdir() if p.name.lower().startswith("licen") and p.is_file()}
    return sorted(filter(inputs.is_text, found))
