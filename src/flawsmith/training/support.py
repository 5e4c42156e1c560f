"""What training may see of a data set: support images, training normals, painted defects; and how to watch it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith import captions, compose, images, masks, methods
from flawsmith.config import GenerateConfig, TrainConfig
from flawsmith.datasets.splits import few_shot, hold_out
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.generation import planning, sources
from flawsmith.generation.loading import Loader
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.records import Record, Request, Sample
from flawsmith.training import parallel
from flawsmith.training.trainer import STATE

NORMALS, DRAWN = 40, 33  # good photographs and painted defects a fit draws its windows from


def wanted(config: TrainConfig, records: Sequence[Record]) -> list[tuple[str, str]]:
    """(category, defect type) of everything to learn. Raises FlawsmithError where there is nothing to learn from."""
    found = dict.fromkeys((r.category, r.defect_type) for r in records if not r.is_good)
    names = {defect for _, defect in found}
    for defect in config.defect:
        if defect not in names:
            raise unknown("Defect", defect, names, f"in {config.data}")
    pairs = []
    for category, defect in found:
        if config.defect and defect not in config.defect:
            continue
        if not seen_of(config, records, category, defect):
            if config.defect:
                raise FlawsmithError(
                    f"{category}/{defect} offers no image with a mask to learn from: raise --shots, or add masks."
                )
            continue
        pairs.append((category, defect))
    if not pairs:
        raise FlawsmithError(f"{config.data} holds no defect with masks to learn from (test/, ground_truth/).")
    for category in dict(pairs):
        if not any(r.is_good for r in records if r.category == category):
            raise FlawsmithError(f"{category} in {config.data} has no good photographs: put them under train/good.")
    return pairs


def seen_of(config: TrainConfig, records: Sequence[Record], category: str, defect: str) -> list[Record]:
    """The real defects of a type that a method may see: those of the few-shot split that have masks."""
    defects = [r for r in records if r.category == category and not r.is_good]
    split = few_shot(defects, shots=config.shots, seed=config.split_seed)
    return [record for record in split.support if record.masks and record.defect_type == defect]


def missing(
    config: TrainConfig, records: Sequence[Record], card: dict[str, Any], category: str, defect: str
) -> tuple[list[Record], dict[str, str]] | None:
    """The support of a type and its hashes, or None when the run has learned it already, from the same images."""
    key = f"{category}/{defect}"
    support = seen_of(config, records, category, defect)
    seen = {record.name: images.file_sha(record.image) for record in support}
    if key not in card["learned"] or not (config.out / card["learned"][key]["file"]).is_file():
        return support, seen
    if card["learned"][key]["support"] != seen:
        raise FlawsmithError(f"{config.out} has learned {key} from other images: choose another --out.")
    return None


def same_fit(folder: Path, plan: Mapping[str, Any]) -> None:
    """A stopped fit is resumed only by the same one. Raises FlawsmithError when another one was begun here."""
    file = folder / "fit.json"
    content = json.dumps(plan, indent=2, ensure_ascii=False).encode()
    if (folder / STATE).is_file() and file.is_file() and file.read_bytes() != content:
        raise FlawsmithError(
            f"{folder} holds a stopped fit of other types, images or settings: give the same ones to resume it, or "
            f"remove {folder}."
        )
    if parallel.main():
        images.write_bytes(file, content)


def divided(
    support: Mapping[str, Sequence[Record]], seed: int, judge: bool
) -> tuple[dict[str, list[Sample]], dict[str, list[Sample]]]:
    """The pixels of a support by type: what a fit learns from, and with `judge` what is held out to judge it.

    Images with an empty mask are in neither. Raises FlawsmithError for a type that has no others.
    """
    found = {
        name: [(record, sample) for record in records if (sample := record.load()).mask.any()]
        for name, records in support.items()
    }
    for name, pairs in found.items():
        if not pairs:
            files = ", ".join(str(path) for record in support[name][:3] for path in record.masks[:1])
            raise FlawsmithError(
                f"{name} has only empty masks ({files}): paint its defects white, or leave the type out."
            )
    held = hold_out({name: [record for record, _ in pairs] for name, pairs in found.items()}, seed) if judge else {}
    real = {name: [s for r, s in pairs if r not in held.get(name, ())] for name, pairs in found.items()}
    return real, {name: [s for r, s in pairs if r in held.get(name, ())] for name, pairs in found.items()}


def normals(config: TrainConfig, records: Sequence[Record], category: str) -> list[Sample]:
    """At most NORMALS good photographs of a category, from its training photographs where it has some."""
    good = [r for r in records if r.category == category and r.is_good]
    found = [r for r in good if r.split == "train"] or good
    order = np.random.default_rng(config.seed).permutation(len(found))[:NORMALS]
    return [found[i].load() for i in sorted(order)]


def content(samples: Sequence[Sample]) -> str:
    """A checksum of images, in their order."""
    return images.bytes_sha("".join(images.array_sha(sample.image) for sample in samples).encode())


def drawn(config: TrainConfig, category: str) -> list[Sample]:
    """Painted defects of every kind on the same product: what keeps a handful of real ones from being copied."""
    settings = GenerateConfig(
        method="procedural", normal=config.data, category=category, n=DRAWN, seed=config.seed, out=config.out / "unused"
    )
    synthesizer = methods.load("procedural")
    made = planning.plan(settings, sources.read(settings), synthesizer)
    loader = Loader(settings)
    samples = [synthesizer.generate([loader.request(job)])[0] for job in made.jobs]
    return [sample for sample in samples if "rejected" not in sample.info]


def preview(
    synthesizer: DiffusionSynthesizer, real: Sequence[Sample], good: Sequence[Sample], config: TrainConfig
) -> np.ndarray:
    """Four rows: a real defect (the reference), a normal, what the present weights paint there, and its zoom."""
    rows = []
    for number in range(4):
        rng = np.random.default_rng([config.seed % (2**31), number])
        reference = real[number % len(real)]
        own = [photo for photo in good if photo.category == reference.category]
        normal = own[number % len(own)]
        mask, warp = masks.draw(
            "reference", masks.foreground(normal.image), rng, reference=reference, image=normal.image
        )
        caption = reference.caption or captions.sentence(reference.category, reference.defect_type)
        request = Request(normal, mask, reference.defect_type, caption, reference, number, warp)
        sample = synthesizer.generate([request])[0]
        shown, view = (compose.square_window(m, 64, 1.6).slices for m in (reference.mask, mask))
        rows.append(
            [reference.image[shown], normal.image[view], sample.image[view], images.mask_image(sample.mask[view])]
        )
    return images.contact_sheet(rows, ("real", "normal", "generated", "label"))
