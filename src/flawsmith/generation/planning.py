"""What to make, decided before the first pixel: a pure function of the configuration and the data set's records."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from flawsmith import __version__, captions, images, inputs
from flawsmith.config import GenerateConfig
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.generation import misses
from flawsmith.generation.jobs import Jobs, Kind
from flawsmith.generation.sources import Sources
from flawsmith.generation.turns import Turns
from flawsmith.masks import MASKS, REAL
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


def plan(config: GenerateConfig, sources: Sources, synthesizer: Synthesizer) -> Plan:
    """Decide every image: a pure function of its arguments.

    Job i does not depend on n, so that a longer run begins with the shorter one. Normals come from the training
    photographs, references only from the few-shot support set: a method never sees a test image.
    """
    sees_support = _sees_support(config, synthesizer)
    pairs = _pairs(config, sources, synthesizer)
    total = config.n * len(pairs) if config.per_defect else config.n
    kinds = [_kind(config, sources, synthesizer, *pair, number < total) for number, pair in enumerate(pairs)]
    singles = [one for whole in kinds for one, _ in whole.parts or ((whole, 1),)]
    known = list(dict.fromkeys(record.defect_type for record in sources.records if not record.is_good))
    aim = misses.aim(config, pairs, known, next(iter(sources.normals.values())))
    mix = config.mix if aim is None else aim.mix
    turns = Turns([mix.get(defect, 1) for _, defect in pairs])
    shown = max(config.references, synthesizer.reference_count)
    jobs = Jobs(config, kinds, turns, total, shown, synthesizer.learns != "nothing", aim)
    support = list(dict.fromkeys(one for found in sources.support.values() for one in found)) if sees_support else []
    description = _description(config, synthesizer, sources.records, jobs, support)
    from_here = synthesizer.references != "none" and not sources.own and config.references_from is None
    notes = sources.left_out(config.asked) if from_here else []
    notes += [] if aim is None else aim.told
    grown = {f"{one.category}/{one.defect_type}": asdict(one.spread) for one in singles if one.spread is not None}
    if grown:
        description["growth"] = grown
    structure = [
        f"{one.category}/{one.defect_type}"
        for one in singles
        if one.mask == "whole" and synthesizer.default_mask(one.defect_type) != "whole"
    ]
    if structure:
        description["structure"] = structure
        notes.append(
            f"{', '.join(structure)}: these defects change the product's own structure, so they keep their real shapes "
            "and are carried whole (--mask varied gives them new ones)."
        )
    exemplars = {(one.category, one.defect_type): list(one.references) for one in singles}
    return Plan(jobs, description, support, sources.normals, notes, exemplars)


def _sees_support(config: GenerateConfig, synthesizer: Synthesizer) -> bool:
    """Whether the real defects have a part in the images. Raises FlawsmithError where references are asked of a method
    that reads none, or only one.

    A painter that happens to share a type's name with the data set must not be recorded as having seen its defects.
    """
    sees = synthesizer.references != "none" or synthesizer.learns != "nothing" or config.mask in REAL
    if config.references_from is not None and not sees:
        raise FlawsmithError(f"{synthesizer.name} reads no references: leave references_from out.")
    if config.references > 1 and synthesizer.references != "many":
        raise FlawsmithError(f"{synthesizer.name} reads one reference per image, not {config.references}.")
    return sees


def _kind(
    config: GenerateConfig, sources: Sources, synthesizer: Synthesizer, category: str, defect: str, comes: bool = True
) -> Kind:
    """What the images of one type choose from. Raises FlawsmithError where references lack for what will be made."""
    normals = sources.normals[category]
    if config.combine and defect == COMBINED:
        parts = ((_kind(config, sources, synthesizer, category, name), n) for name, n in config.combine.items())
        return Kind(category, defect, normals, [], "", "", tuple(parts))
    references = [sources.own] if sources.own else []
    if not references and _sees_support(config, synthesizer):
        references = [record for record in sources.support[category] if record.defect_type == defect]
    if synthesizer.references != "none" and not references and comes:
        raise FlawsmithError(_no_reference(config, synthesizer, category, defect))
    mask = synthesizer.default_mask(defect)
    if config.mask is None and mask == "varied" and _is_structure(references, normals):
        mask = "whole"
    spread = None if (config.mask or mask) == "whole" else _spread(config, synthesizer, references)
    says = synthesizer.default_caption(category, defect)
    return Kind(category, defect, normals, references, mask, says, spread=spread)


def _is_structure(references: Sequence[Record], normals: Sequence[Record]) -> bool:
    """Whether the defects of a type have the product's shape; of few images that are spread over the data set."""
    if not references or not normals:
        return False
    spread = [normals[len(normals) * number // GOODS] for number in range(min(GOODS, len(normals)))]
    return is_structure([record.load() for record in references[:EXEMPLARS]], [r.load().image for r in spread])


def _spread(config: GenerateConfig, synthesizer: Synthesizer, references: Sequence[Record]) -> Spread | None:
    """How far the defects of a type may go beyond its real ones; None where the user says how large or strong."""
    strong = config.severity is not None or config.from_misses is not None
    large = bool(SIZING & config.mask_options.keys()) or config.mask not in (None, *MASKS)  # or a mask image
    if strong or large or not references:
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


def _description(
    config: GenerateConfig,
    synthesizer: Synthesizer,
    records: Sequence[Record],
    jobs: Jobs,
    support: list[Record],
) -> dict[str, Any]:
    """What `generate.json` records: every decision, and by checksum what the decisions were made from."""
    learned, licences = _mask_support(config), _licences([*records, *support])
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
            **learned,
            **{record.name: images.file_sha(record.image) for record in support},
        },
        "licences": licences,
    }


def _mask_support(config: GenerateConfig) -> dict[str, str]:
    """The real defects a learned mask model was trained on: whoever uses its masks has seen them."""
    run = config.mask_run()
    if run is None:
        return {}
    return {name: sha for entry in read_card(run).get("learned", {}).values() for name, sha in entry["support"].items()}


def _pairs(config: GenerateConfig, sources: Sources, synthesizer: Synthesizer) -> list[tuple[str, str]]:
    """(category, defect type) of every kind of image asked for, in order."""
    if config.combine and config.mix and COMBINED not in config.mix:
        raise FlawsmithError(f"--mix gives no share to the images of --combine: name {COMBINED}=W in it, or drop one.")
    if config.combine and sources.own is not None:
        raise FlawsmithError("--reference shows one defect, --combine makes several types: leave one of them out.")
    own, needs = sources.own, synthesizer.references != "none"
    pairs: list[tuple[str, str]] = []
    for category in sources.normals:
        support = sources.support[category]
        known_here = support if config.references_from else [r for r in sources.records if r.category == category]
        in_data = list(dict.fromkeys(r.defect_type for r in known_here if not r.is_good))
        with_reference = [name for name in in_data if any(r.defect_type == name for r in support)]
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


def _licences(records: Sequence[Record]) -> list[str]:
    """Licence files found at the data set's root: what the generated images inherit."""
    found = set()
    for root in {record.root for record in records}:
        if root.is_dir():
            found |= {p.name for p in root.iterdir() if p.name.lower().startswith("licen") and p.is_file()}
    return sorted(filter(inputs.is_text, found))
