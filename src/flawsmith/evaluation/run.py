"""`flawsmith evaluate OUT`: a folder of generated images, ours or another tool's, against real data.

Order: everything that can be refused is refused first (names, extractor, leaks), then labels, images and downstream
runs are judged; finished parts stand in the ledger and are not repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from flawsmith import __version__, datasets, images, inputs
from flawsmith.config import EvaluateConfig, overlay
from flawsmith.datasets.lock import Lock
from flawsmith.datasets.splits import around, few_shot
from flawsmith.datasets.writer import MANIFEST
from flawsmith.diffusion.devices import refuse_device
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.evaluation import features, misses, results
from flawsmith.evaluation import judge as judging
from flawsmith.evaluation.detectors import downstream, exporting, frozen, heads, one_class, paper
from flawsmith.evaluation.detectors.classification import ClassificationConfig
from flawsmith.evaluation.detectors.encoder import fingerprint
from flawsmith.evaluation.detectors.segmentation import SegmentationConfig
from flawsmith.evaluation.metrics import labels, realism
from flawsmith.evaluation.protocol import (
    VALIDATION,
    Division,
    Real,
    Used,
    read_real,
    refuse_leaks,
    support_of,
    use,
    used_by,
)
from flawsmith.evaluation.results import Ledger, Value, as_values
from flawsmith.records import Progress, Record, under

METRICS = (*judging.METRICS, "realism", "segmentation", "classification", one_class.NAME)
LOOKING = frozenset({*judging.METRICS, "realism"})  # metrics that look through --features


def evaluate(
    config: EvaluateConfig, command: str = "", progress: Progress | None = None
) -> tuple[list[Value], list[str]]:
    """Judge the folder and write results.json, results.csv and results.md to `config.out`: (values, notes).

    Raises FlawsmithError for a leak and for everything that can be known to be wrong before the work.
    """
    check_metrics(config.metrics)
    refuse_device(config.device)
    if config.export and "segmentation" not in config.metrics:
        raise FlawsmithError("--export needs a trained segmenter: add segmentation to --metrics.")
    exporting.check(config.export)
    trained = "segmentation" in config.metrics and config.protocol != paper.NAME
    segmenting = heads.settings_of(config.segmentation, config.features if trained else "compact", config.device)
    classifying = frozen.settings_of(config.classification, config.features, config.device)
    detecting = overlay(one_class.OneClassConfig(config.features, device=config.device), config.one_class, "One-class")
    encoders = fingerprints(config.metrics, classifying, detecting)
    papers = overlay(paper.PaperConfig(device=config.device), config.paper, "Paper")
    extractor = None
    if set(config.metrics) & LOOKING:
        extractor = features.load(config.features).to(config.device)
    folder, generated = _read_generated(config)
    real = read_real(config)
    used = used_by(folder, [record.image for record in generated])
    division = _divide(config, real, used)
    refuse_leaks(used, real.records, division)
    generated, notes = _usable(generated)
    identity = _identity(config, folder, generated, division, extractor)
    with Lock(config.out):
        ledger = Ledger(config.out)
        missed: list[dict[str, Any]] = []

        def part(name: str, make: Callable[[], list[Value] | downstream.Segmented]) -> list[Value]:
            if f"{identity}/{name}" not in ledger:
                made, more = make(), dict[str, Any]()
                if isinstance(made, downstream.Segmented):
                    more = {"misses": made.misses}
                    made = made.values
                ledger.add(f"{identity}/{name}", {"values": [asdict(value) for value in made], **more})
            entry = ledger[f"{identity}/{name}"]
            missed.extend(entry.get("misses", ()))
            return as_values(entry["values"])

        root = datasets.parse_source(config.real)[1]
        values = part("labels", lambda: [*labels.judge(folder, root), *labels.repeats(generated)])
        asked = sorted(set(config.metrics) & set(judging.METRICS))
        if extractor is not None and asked:
            known = extractor
            values += part(f"images {','.join(asked)}", lambda: _images(known, division, generated, asked, progress))
        if extractor is not None and "realism" in config.metrics:
            looked = extractor
            values += part("realism", lambda: _realism(folder, root, real, division, generated, looked, progress))
        if one_class.NAME in config.metrics:
            values += _one_class(config, division, generated, detecting, encoders[one_class.NAME], part, progress)
        values += _downstream(
            config, division, generated, segmenting, classifying, papers, part, progress, notes, encoders
        )
        about = _about(config, command, identity, extractor, division, notes)
        if trained:
            misses.write(config.out, missed)
        results.write(config.out, values, about, notes)
    return results.with_means(values), notes


def _realism(
    folder: Path,
    root: Path,
    real: Real,
    division: Division,
    generated: Sequence[Record],
    extractor: features.Extractor,
    progress: Progress | None,
) -> list[Value]:
    """Generated windows against held-out real ones, and the photographs before painting ("untouched") where known."""
    defects = [record for record in division.test if not record.is_good]
    parts = {images.file_sha(record.image): realism.part_of(record) for record in real.records}
    told = under(progress, "realism")
    held = realism.look(extractor, defects, [realism.part_of(record) for record in defects], told)
    owner = realism.photographs(folder, parts)
    made = realism.look(extractor, generated, [owner.get(record.image, "") for record in generated], told)
    bare, shas = realism.untouched(folder, labels.photograph_roots(folder, root))
    values = realism.judge(held, made, extractor.name)
    if bare:
        anchor = realism.look(extractor, bare, [parts.get(sha, sha) for sha in shas], told)
        values += realism.judge(held, anchor, extractor.name, "untouched")
    return values


def _images(
    extractor: features.Extractor,
    division: Division,
    generated: list[Record],
    asked: list[str],
    progress: Progress | None,
) -> list[Value]:
    """What the extractor sees of the images themselves: closeness, variety, copies."""
    seen, judged = ([r for r in side if not r.is_good] for side in (division.support, division.test))
    return judging.Judge(extractor, seen, judged, asked, progress=under(progress, "images")).values(generated)


def _one_class(
    config: EvaluateConfig,
    division: Division,
    generated: list[Record],
    detecting: one_class.OneClassConfig,
    encoder: str,
    part: Callable[[str, Callable[[], list[Value]]], list[Value]],
    progress: Progress | None,
) -> list[Value]:
    """The one-class detector of every seed, tuned on the support's defects and the generated ones."""
    values: list[Value] = []
    sides = division.support, generated, division.normals, division.validation, division.test
    for seed in config.seeds:
        own = overlay(detecting, {"seed": seed}, "One-class")
        told = under(progress, f"one-class, seed {seed}")
        values += part(
            f"{one_class.NAME} {encoder} {seed}",
            lambda own=own, told=told: one_class.run(*sides, own, progress=told).values,  # type: ignore[misc]
        )
    return values


def _about(
    config: EvaluateConfig,
    command: str,
    identity: str,
    extractor: features.Extractor | None,
    division: Division,
    notes: list[str],
) -> dict[str, Any]:
    """What stands above the values in results.json: how they were made, and of what."""
    return {
        "command": command,
        "config": json.loads(config.model_dump_json(exclude={"out"})),
        "generated": identity,
        "protocol": config.protocol,
        "extractors": {e.name: e.describe() for e in ([extractor, extractor.at(judging.CLOSE)] if extractor else [])},
        "split": {
            name: [record.name for record in getattr(division, name)] for name in ("support", "validation", "test")
        },
        "leaks": [],
        "notes": notes,
        "tested": misses.tested([division]),
    }


def check_metrics(names: Sequence[str]) -> None:
    """Refuse a metric that is not known."""
    for name in names:
        if name not in METRICS:
            raise unknown("Metric", name, METRICS)


def fingerprints(
    metrics: Sequence[str], classifying: ClassificationConfig, detecting: one_class.OneClassConfig
) -> dict[str, str]:
    """Metric -> hash of the encoder it stands on. Raises FlawsmithError for one that cannot be loaded."""
    sources = {"classification": classifying.encoder, one_class.NAME: detecting.encoder}
    return {name: frozen.fingerprint(source) for name, source in sources.items() if name in metrics}


def _downstream(
    config: EvaluateConfig,
    division: Division,
    generated: list[Record],
    segmenting: SegmentationConfig,
    classifying: ClassificationConfig,
    papers: paper.PaperConfig,
    part: Callable[[str, Callable[[], list[Value] | downstream.Segmented]], list[Value]],
    progress: Progress | None,
    notes: list[str],
    encoders: dict[str, str],
) -> list[Value]:
    values: list[Value] = []
    sides = division.support, generated
    if "segmentation" in config.metrics and config.protocol == paper.NAME:
        notes.append(paper.CAVEAT)
    for seed in config.seeds:
        if "segmentation" in config.metrics and config.protocol == paper.NAME:
            own = overlay(papers, {"seed": seed}, "Paper")
            values += part(
                f"{paper.NAME} {seed}",
                lambda own=own: _paper(division, generated, own, under(progress, paper.NAME)),  # type: ignore[misc]
            )
        elif "segmentation" in config.metrics:
            chosen = overlay(segmenting, {"seed": seed}, "Segmentation")

            def run(chosen: SegmentationConfig = chosen, keep: bool = seed == config.seeds[0]) -> downstream.Segmented:
                found = downstream.segment(
                    *(*sides, division.normals, division.validation, division.test),
                    config=chosen,
                    progress=under(progress, f"segmenter, seed {chosen.seed}"),
                )
                if keep:  # the first seed's network is the one a line may use
                    exporting.save_segmenter(found.trained, config.out, found.threshold)
                return found

            values += part(f"segmentation {seed}{fingerprint(segmenting.encoder)}", run)
        if "classification" in config.metrics:
            choice = overlay(classifying, {"seed": seed}, "Classification")
            values += part(
                f"classification{encoders.get('classification', '')} {seed}",
                lambda choice=choice: downstream.classify(  # type: ignore[misc]
                    *sides,
                    division.validation,
                    division.test,
                    choice,
                    progress=under(progress, f"classifier, seed {choice.seed}"),
                ),
            )
    if config.export and config.protocol != paper.NAME:
        for name, row in exporting.export(exporting.load_segmenter(config.out), config.out, config.export).items():
            notes.append(f"{row['file']}: {name}, differs from torch by at most {row['largest_difference']:.1e}.")
    return values


def _paper(
    division: Division,
    generated: Sequence[Record],
    config: paper.PaperConfig,
    progress: Progress | None,
) -> list[Value]:
    sides = [downstream.loaded(side) for side in (generated, division.normals, [*division.test, *division.validation])]
    found = paper.run(sides[0], sides[1], sides[2], config, progress)
    settings = {name: value for name, value in asdict(config).items() if name not in ("seed", "device")}
    counts = len(sides[2]), len(generated)
    return [
        Value(
            f"{metric}/unet/{paper.NAME}/{selected}", value, kind, "", config.seed, *counts, settings=settings,
            reason=paper.CAVEAT if selected == "test-selected" else "",
        )
        for selected, rows in found.items()
        for metric, row in rows.items()
        for kind, value in row.items()
    ]  # fmt: skip


def _read_generated(config: EvaluateConfig) -> tuple[Path, list[Record]]:
    """The folder and its defect images with masks, of the asked category where there are several."""
    plain = inputs.home(Path(config.generated))
    if (plain / MANIFEST).is_file():
        reader, folder = "mvtec_ad", plain
    else:
        reader, folder = datasets.parse_source(config.generated)
    found = [record for record in datasets.read(reader, folder) if not record.is_good]
    categories = {record.category for record in found}
    if config.category in categories and len(categories) > 1:
        found = [record for record in found if record.category == config.category]
    bare = [record for record in found if not record.masks]
    if not found or bare:
        what = f"{len(bare)} images without a mask, the first {bare[0].image}" if bare else "no defect images"
        raise FlawsmithError(f"{folder} holds {what}: give a folder with test/<defect> and ground_truth/<defect>.")
    return folder, found


def _usable(generated: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Images whose masks hold a pixel, and a note on the others."""
    kept = [r for r in generated if r.marks_something()]
    if not kept:
        raise FlawsmithError("Every mask of the generated images is empty: there is no defect to judge.")
    lost = len(generated) - len(kept)
    return kept, [f"{lost} generated images have an empty mask and are left out."] if lost else []


def _divide(config: EvaluateConfig, real: Real, used: Used) -> Division:
    """Around what the generator saw, where that is known and no --shots is given; else by `few_shot`."""
    support = support_of(used, real.records)
    if config.shots is None and support:
        split = around(real.records, support, VALIDATION)
    else:
        split = few_shot(real.records, config.shots, validation=VALIDATION)
    return use(split, real)


def _identity(
    config: EvaluateConfig, folder: Path, generated: Sequence[Record], division: Division, extractor: Any
) -> str:
    """A hash of everything that decides a value: both sets of images, their use, and the settings."""
    fields = json.loads(
        config.model_dump_json(exclude={"out", "seeds", "metrics", "export", "generated", "real", "device"})
    )
    sides = [generated, division.support, division.validation, division.test, division.normals]
    sha = cache(images.file_sha)  # one annotation file may hold the masks of all
    hashes = [[sha(path) for record in side for path in record.files] for side in sides]
    manifest = images.file_sha(folder / MANIFEST) if (folder / MANIFEST).is_file() else ""
    text = json.dumps([__version__, fields, hashes, manifest, extractor.hash if extractor else ""], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
