"""From a configuration to images: plan -> jobs -> requests -> samples -> writer. The only path to a pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flawsmith import __version__, images, masks, methods
from flawsmith.config import GenerateConfig
from flawsmith.datasets.writer import PARTIAL, Writer
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.generation import gating, planning
from flawsmith.generation.attempts import Attempts, Painted
from flawsmith.generation.loading import Loader
from flawsmith.generation.planning import Plan, plan, read_records
from flawsmith.masks import propose
from flawsmith.methods.base import Synthesizer
from flawsmith.quality.watch import Watch
from flawsmith.records import GOOD, Job, Progress, Record, hash_seed


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
    synthesizer = methods.load(
        config.method,
        backbone=config.backbone,
        device=config.device,
        memory=config.memory,
        runtime=config.runtime,
        **config.options,
    )
    if config.mask is not None and config.mask not in masks.MASKS and not Path(config.mask).is_file():
        raise unknown("Mask", config.mask, masks.MASKS, "and is no image file")
    records = read_records(config)
    made = plan(config, records, synthesizer)
    made.notes.extend(notes)
    loader = Loader(config)
    if loader.mask_is_file and config.defects[1] > 1:
        raise FlawsmithError(
            f"--defects {config.defects[1]} needs masks that are drawn, and --mask {config.mask} is an image: "
            "leave out one of them."
        )
    Writer.check(config.out, made.description)
    _check_sources(made.jobs, made.exemplars, loader, synthesizer, progress)
    loader.request(made.jobs[0])
    for defect in config.defect:  # a name of the user's own may mean nothing to the method: one try, nothing written
        job = next((job for job in made.jobs if job.defect_type == defect), None)
        if job and synthesizer.learns == "nothing" and defect not in (synthesizer.types(job.normal.category) or defect):
            synthesizer.generate([loader.request(job)])
    return made, synthesizer, loader


def _check_sources(
    jobs: Sequence[Job],
    exemplars: Mapping[tuple[str, str], Sequence[Record]],
    loader: Loader,
    synthesizer: Synthesizer,
    progress: Progress | None,
) -> None:
    """Refuse damaged files and sizes that disagree now, by name, not after an hour of painting."""
    references = list(dict.fromkeys(r for job in jobs for r in (job.reference, *job.others) if r is not None))
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


def blocks(jobs: Sequence[Job], size: int) -> Iterator[Sequence[Job]]:
    """Fixed blocks by index, so that a resumed run batches exactly as an uninterrupted one."""
    for start in range(0, len(jobs), size):
        yield jobs[start : start + size]


def run(config: GenerateConfig, progress: Progress | None = None) -> Summary:
    """Make every image of a configuration; resumes when the folder already holds part of this run."""
    made, synthesizer, loader = prepare(config, progress)
    watch = gating.watch(made, loader, synthesizer)
    attempts = Attempts(made, loader, synthesizer, watch)
    with Writer(config.out, made.description) as writer:
        resumed = len(writer.lines)
        _copy_normals(made, config)
        if progress:
            progress("resuming" if resumed else "starting", min(resumed, len(made.jobs)), len(made.jobs), {})
        remembered = 0
        for block in blocks(made.jobs, config.batch_size if synthesizer.learns != "nothing" else 1):
            if block[-1].index < len(writer.lines):
                continue
            if watch is not None:
                gating.remember(watch, writer, remembered, block[0].index)
            remembered = block[-1].index + 1
            _block(writer, made, loader, synthesizer, attempts, block, progress)
        lines = [line for index, line in writer.lines.items() if index < len(made.jobs)]
    reasons: dict[str, int] = {}
    for line in lines:
        if line["status"] != "kept":
            reason = line["reason"].split("(")[0].strip()
            reasons[reason] = reasons.get(reason, 0) + 1
    kept = sum(line["status"] == "kept" for line in lines)
    refused, changed = gating.account(lines)
    again = min(resumed, len(made.jobs))
    return Summary(config.out, kept, len(lines) - kept, again, reasons, made.notes, refused, changed)


def _block(
    writer: Writer,
    made: Plan,
    loader: Loader,
    synthesizer: Synthesizer,
    attempts: Attempts,
    block: Sequence[Job],
    progress: Progress | None,
) -> None:
    """One block from words to files; a function of its own so that its pixels are gone before the next one's come."""
    for one in attempts.paint(block):
        if one.job.index >= len(writer.lines):
            _write(writer, made.description, loader, synthesizer, one, attempts.watch)
        if progress:
            progress(one.job.defect_type, one.job.index + 1, len(made.jobs), {})


def _write(
    writer: Writer,
    description: dict[str, Any],
    loader: Loader,
    synthesizer: Synthesizer,
    one: Painted,
    watch: Watch | None,
) -> None:
    job, request, sample = one.job, one.request, one.sample
    number = f"{job.index // len(description['types']):0{description['digits']}d}"
    start = f"{job.normal.category}/" if description["several_categories"] else ""
    kept = "rejected" not in sample.info
    image_png = images.encode_png(sample.image) if kept else None
    mask_png = images.encode_png(sample.mask) if kept else None
    info = {key: value for key, value in sample.info.items() if key not in ("scores", "checks", "window", "rejected")}
    line: dict[str, Any] = {
        "index": job.index,
        "status": "kept" if kept else "rejected",
        "category": job.normal.category,
        "defect_type": job.defect_type,
        "caption": sample.caption,
        "seed": job.seed,
        "redraws": one.redraws,
        "normal": {"file": job.normal.name, "sha": loader.sha(job.normal.image)},
        "reference": {"file": job.reference.name, "sha": loader.sha(job.reference.image), "group": job.reference.group}
        if job.reference
        else None,
        "others": [record.name for record in job.others],
        "mask_source": Path(job.mask).name if loader.mask_is_file else job.mask,
        "warp": request.warp.to_json() if request.warp is not None else None,
        "requested_mask_sha": images.array_sha(request.mask),
        "window": sample.info.get("window"),
        "scores": sample.info.get("scores", {}),
        "info": info,
        "method": synthesizer.name,
        "options": synthesizer.options.model_dump(mode="json"),
        "flawsmith": __version__,
    }
    if image_png is None or mask_png is None:
        line["reason"] = sample.info["rejected"]
    else:
        line["image"] = f"{start}test/{job.defect_type}/{number}.png"
        line["mask"] = f"{start}ground_truth/{job.defect_type}/{number}_mask.png"
        line["prompt"] = f"{start}prompt/{job.defect_type}/{number}.txt"
        line["image_sha"] = images.bytes_sha(image_png)
        line["mask_sha"] = images.bytes_sha(mask_png)
    if request.severity is not None:
        line["severity"] = request.severity
    others: dict[str, bytes] = {}
    if kept and one.ids is not None:
        name = f"{start}instances/{job.defect_type}/{number}.png"
        others[name] = images.encode_png(one.ids)
        line["instances"] = {"file": name, "defects": one.instances}
    if watch is not None:
        others |= gating.enter(watch, line, sample, one.changed)
    writer.write(line, image_png, mask_png, others)


def _copy_normals(made: Plan, config: GenerateConfig) -> None:
    """Copy good photographs to train/good, byte for byte: those painted on, so that the folder is a complete data set
    (`with_normals`), and as many untouched ones as make up the share that was asked for.

    Their numbers are their places among all good photographs, so that a longer run adds files and renames none.
    """
    used = {job.normal.image for job in made.jobs} if config.with_normals else set()
    share = round(len(made.jobs) * config.untouched / (1 - config.untouched))
    for turn in range(share):
        category = list(made.normals)[turn % len(made.normals)]
        seed = hash_seed(config.seed, "untouched", category)
        used.add(planning.shuffled(made.normals[category], seed, turn // len(made.normals)).image)
    for category, normals in made.normals.items():
        start = config.out / category if made.description["several_categories"] else config.out
        for number, path in enumerate(record.image for record in normals):
            target = start / "train" / GOOD / f"{number:05d}{path.suffix.lower()}"
            if path in used and not target.is_file():
                images.write_bytes(target, path.read_bytes(), config.out / PARTIAL, durable=False)
