"""From a configuration to images: plan -> jobs -> requests -> samples -> writer. The only path to a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flawsmith import images, masks
from flawsmith.config import GenerateConfig
from flawsmith.datasets.lock import PARTIAL
from flawsmith.datasets.writer import Writer
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.generation import executors, gating, sources
from flawsmith.generation.blocks import Blocks, load
from flawsmith.generation.executors import Executor
from flawsmith.generation.jobs import shuffled
from flawsmith.generation.loading import Loader
from flawsmith.generation.planning import Plan, plan
from flawsmith.generation.tally import Tally
from flawsmith.masks import propose
from flawsmith.methods.base import Synthesizer
from flawsmith.records import GOOD, Job, Progress, Record


@dataclass(frozen=True)
class Summary:
    """What a run did: images kept, refused (with reasons and counts), and found finished from before."""

    out: Path
    kept: int
    rejected: int
    resumed: int
    reasons: dict[str, int]
    notes: Sequence[str] = ()
    refused: Mapping[tuple[str, str], int] = field(default_factory=dict)  # attempts the gate refused: by type and check
    changed: Mapping[str, int] = field(default_factory=dict)  # images kept after a retry: what was changed


def prepare(config: GenerateConfig, progress: Progress | None = None) -> tuple[Plan, Synthesizer, Loader]:
    """Read, plan and check: every refusal that can be known before slow work happens here, nothing is written but a
    proposed reference mask.
    """
    notes = []
    if str(config.reference_mask) == "auto" and config.reference is not None:
        mask, shown = propose.write_proposal(config.reference, config.out)
        config = config.model_copy(update={"reference_mask": mask})
        notes.append(f"The reference's mask was proposed: look at {shown}, and where it is wrong, correct {mask}.")
    _check_mask(config)
    synthesizer = load(config)
    executors.refuse_jobs(config, synthesizer)
    loader = Loader(config)
    found = sources.read(config)
    made = plan(config, found, synthesizer)
    Writer.check(config.out, made.description)
    first = made.jobs.first_round()
    _check_sources(first, made.exemplars, loader, synthesizer, progress)
    for one in made.jobs[0].painted:
        loader.request(one)
    singles = {one.defect_type: one for job in reversed(first) for one in job.painted}
    for defect in (*config.asked, *config.combine):  # a name of the user's own may mean nothing to the method: one try
        job = singles.get(defect)
        if job and synthesizer.learns == "nothing" and defect not in (synthesizer.types(job.normal.category) or defect):
            synthesizer.generate([loader.request(job)])
    return replace(made, notes=[*made.notes, *notes]), synthesizer, loader


def _check_mask(config: GenerateConfig) -> None:
    """Refuse a --mask that is neither a family nor an image, and an image where several masks are needed."""
    if config.mask is None or config.mask in masks.MASKS:
        return
    if not Path(config.mask).is_file():
        raise unknown("Mask", config.mask, masks.MASKS, "and is no image file")
    if config.defects[1] > 1 or config.combine:
        asked = "--combine" if config.combine else f"--defects {config.defects[1]}"
        raise FlawsmithError(
            f"{asked} needs masks that are drawn, and --mask {config.mask} is an image: leave out one of them."
        )


def _check_sources(
    jobs: Sequence[Job],
    exemplars: Mapping[tuple[str, str], Sequence[Record]],
    loader: Loader,
    synthesizer: Synthesizer,
    progress: Progress | None,
) -> None:
    """Refuse damaged files and sizes that disagree now, by name, not after an hour of painting."""
    painted = [one for job in jobs for one in job.painted]
    references = list(dict.fromkeys(r for one in painted for r in (one.reference, *one.others) if r is not None))
    if loader.config.gate != "off":  # a retry may imitate any of them
        references = list(dict.fromkeys([*references, *(r for found in exemplars.values() for r in found)]))
    normals = list(dict.fromkeys(job.normal for job in jobs))
    shapes = []
    if loader.config.roi is not None:
        shapes.append(("Region of interest", loader.config.roi))
    if loader.mask_is_file:
        shapes.append(("Mask", Path(jobs[0].mask)))
    for number, record in enumerate([*references, *normals]):
        if progress and number % 16 == 0:
            progress("checking photographs", number, len(references) + len(normals), {})
        loader.note(record.image)
        if record.is_good:
            images.verify(record.image)
            for what, path in shapes:
                loader.mask_file(path, images.image_size(record.image), what, record.image)
        elif not loader.sample(record).mask.any():
            raise FlawsmithError(
                f"Mask {record.masks[0]} of {record.image.name} is empty: paint the defect white, or remove both files."
            )
        else:
            synthesizer.check_reference(loader.sample(record), f"Reference {record.image}")


def run(config: GenerateConfig, progress: Progress | None = None) -> Summary:
    """Make every image of a configuration; resumes when the folder already holds part of this run."""
    made, synthesizer, loader = prepare(config, progress)
    total, tally = len(made.jobs), Tally(config.out, len(made.jobs))
    photographs = {(one.category, one.name): one.image for found in made.normals.values() for one in found}

    def hear(line: dict[str, Any]) -> None:
        tally.hear(line)
        painted_on = photographs.get((line["category"], line["normal"]["file"]))
        if painted_on is not None:
            loader.expect(painted_on, line["normal"]["sha"])

    notes = made.notes
    with Writer(config.out, made.description, hear) as writer:
        resumed = min(writer.count, total)
        _copy_normals(made, config)
        if progress:
            progress("resuming" if resumed else "starting", resumed, total, {})
        if resumed < total:
            gate = gating.gate(made, loader, synthesizer)
            notes = [*notes, *gating.left_out(made, loader, gate)]
            blocks = Blocks(made, loader, synthesizer, gate)
            with executors.choose(blocks, total - resumed) as painters:
                _paint(writer, made, tally, painters, blocks.starts(resumed), progress)
    refused = dict(sorted(tally.refused.items()))
    counts = tally.kept, tally.rejected, resumed, dict(tally.reasons), notes, refused, dict(tally.changed)
    return Summary(config.out, *counts)


def _paint(
    writer: Writer, made: Plan, tally: Tally, painters: Executor, starts: Sequence[int], progress: Progress | None
) -> None:
    """Write the images of the blocks in order; one that repeats another is painted again first."""
    for block in painters.blocks(starts):
        while block:  # an image's bytes are gone before the next block's come
            one, repeated = block.pop(0), list[int]()
            if one.line["index"] >= writer.count:
                while tally.repeats(one, made):
                    repeated.append(one.line["redraws"])
                    one = painters.again(one.line["index"], repeated)
                writer.write(one.line, one.image, one.mask, one.others)
            if progress:
                progress(one.line["defect_type"], one.line["index"] + 1, tally.n, {})


def _copy_normals(made: Plan, config: GenerateConfig) -> None:
    """Copy good photographs to train/good, byte for byte: those painted on, so that the folder is a complete data set
    (`with_normals`), and as many untouched ones as make up the share that was asked for.

    Their numbers are their places among all good photographs, so that a longer run adds files and renames none.
    """
    used = {job.normal.image for job in made.jobs.first_round()} if config.with_normals else set()
    share = round(len(made.jobs) * config.untouched / (1 - config.untouched))
    for turn in range(min(share, len(made.normals) * max(map(len, made.normals.values())))):  # then all have come
        category = list(made.normals)[turn % len(made.normals)]
        photograph = shuffled(made.normals[category], turn // len(made.normals), config.seed, "untouched", category)
        used.add(photograph.image)
    for category, normals in made.normals.items():
        start = config.out / category if made.description["several_categories"] else config.out
        for number, path in enumerate(record.image for record in normals):
            target = start / "train" / GOOD / f"{number:05d}{path.suffix.lower()}"
            if path in used and not target.is_file():
                images.write_bytes(target, path.read_bytes(), config.out / PARTIAL, durable=False)
