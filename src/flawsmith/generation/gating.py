"""The gate of a run: what it learns from, what the manifest says of it, and which images repeat an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from flawsmith.datasets.writer import REFUSED
from flawsmith.errors import FlawsmithError
from flawsmith.generation.loading import Loader
from flawsmith.generation.planning import Plan
from flawsmith.masks.structure import GOODS, following
from flawsmith.methods.base import Synthesizer
from flawsmith.quality import Gate, profile
from flawsmith.quality.gate import LEVELS, Encoder, Level, Reader, settled
from flawsmith.quality.known import MANY
from flawsmith.quality.watch import Watch
from flawsmith.records import Growth, Record, Sample
from flawsmith.registry import resolve

EXTRACTORS = {"frozen": "flawsmith.evaluation.features:load"}  # resolved when named: it loads torch


def gate(made: Plan, loader: Loader, synthesizer: Synthesizer) -> Gate | None:
    """The gate of a run with what real defects tell it; None where it is off.

    It learns from the real defects that the run may see anyway, at most MANY of a type, and from no test image.
    """
    config = loader.config
    if config.gate == "off":
        return None
    references = _references(made, loader)
    encoder = None if config.features is None else frozen(config.features)
    reads = None if config.words is None else reader(config.words)
    dials = loader.mask_options
    aim = made.jobs.aim
    placed = config.roi is not None or config.heat is not None or dials.place != "anywhere"
    placed = placed or (aim is not None and aim.aims("place"))
    sized = dials.size is not None or aim is not None
    graded = config.severity is not None or (aim is not None and aim.aims("severity"))
    unasked = settled(placed, sized, graded, synthesizer.imitates)
    if config.gate in LEVELS:
        return Gate.of(cast(Level, config.gate), references, encoder, unasked, reader=reads)
    limits = profile.load(Path(config.gate))
    return Gate.of("normal", references, encoder, unasked, limits, Path(config.gate).name, reads)


def fits(exemplar: Record, gate: Gate, loader: Loader, normal: Record, family: str) -> bool:
    """Whether a real defect is no larger than the gate lets one be that follows it, with a mask of a family, there."""
    limit = gate.bounds("extent")
    if limit is None or loader.side(exemplar) <= limit:
        return True
    sample = loader.sample(exemplar)
    carried = following(family, Growth(), sample, loader.config.mask is not None)[0] == "whole"
    return carried and gate.lies_alike(loader.sample(normal))


def left_out(made: Plan, loader: Loader, gate: Gate | None) -> list[str]:
    """What the user should know of real defects that are larger than the gate lets pass: they are not imitated."""
    if gate is None:
        return []
    singles = [one for whole in made.jobs.kinds for one, _ in whole.parts or ((whole, 1),)]
    notes: list[str] = []
    for one in singles:
        family = loader.config.mask or one.mask
        looked = one.normals[:GOODS]
        large = sum(not any(fits(real, gate, loader, normal, family) for normal in looked) for real in one.references)
        if large:
            notes.append(
                f"{large} of {len(one.references)} real defects of {one.defect_type} are larger than the gate lets "
                "pass (extent): "
                + ("give --size, or --gate off." if large == len(one.references) else "the others are imitated.")
            )
    return list(dict.fromkeys(notes))


def frozen(source: str | Path) -> Encoder:
    """A frozen vision model: windows -> features (N, D). Raises FlawsmithError for a folder that holds none."""
    extractor = resolve("frozen", EXTRACTORS, "Vision model")(source)

    def features(windows: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(extractor(windows).pooled, np.float64)

    return features


def reader(source: str | Path) -> Reader:
    """A model of images and texts: windows, texts -> cosines (N, K). Raises FlawsmithError for one that reads none."""
    extractor = resolve("frozen", EXTRACTORS, "Vision model")(source)
    if extractor.joint is None:
        raise FlawsmithError(f"--words {source} reads no words: name a CLIP model, a folder or a hub id.")

    def cosines(windows: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        return np.asarray(extractor.agreement(windows, texts), np.float64)

    return cosines


def _references(made: Plan, loader: Loader) -> list[Sample]:
    """The real defects of every category and type of the run; foreign ones count for each category they are for."""
    found: list[Sample] = []
    for (category, kind), exemplars in made.exemplars.items():
        own: list[Record] = exemplars or [r for r in made.support if (r.category, r.defect_type) == (category, kind)]
        for record in own[:MANY]:
            found.append(replace(loader.sample(record), category=category, defect_type=kind))
    return found


def enter(watch: Watch, line: dict[str, Any], sample: Sample, changed: Sequence[str]) -> dict[str, bytes]:
    """Write the gate's words into a manifest line; the thumbnails of what it refused, by their path."""
    refused = watch.refused.pop(line["index"], [])
    thumbnails: dict[str, bytes] = {}
    for number, entry in enumerate(refused):
        content = watch.thumbnails.pop((line["index"], number), None)
        if content is not None:
            entry["thumbnail"] = f"{REFUSED}/{line['index']:05d}-{number}.jpg"
            thumbnails[entry["thumbnail"]] = content
    line["gate"] = watch.gate.profile or watch.gate.level
    line["checks"] = sample.info.get("checks", {})
    line["refused"] = refused
    line["changed"] = list(changed)
    return thumbnails
