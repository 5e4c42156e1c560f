"""What every benchmark on real data shares: the leak-safe split of one seed, and the pictures of one method.

A method reads a data set that holds only its support pictures and training normals (`materialise`), so that nothing of
validation or test can leak.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from flawsmith import datasets, generation, training
from flawsmith.config import GenerateConfig, TrainConfig
from flawsmith.datasets.leaks import leak_check, merge_lookalikes
from flawsmith.datasets.splits import Split, few_shot
from flawsmith.records import Record, Sample

BY_TEXT = ("perlin", "cutpaste", "nsa", "procedural")  # methods that read no real defect
PRETRAINED = ("ball_screw", "cookie", "road_potholes")  # sets of which compact has seen three quarters of the groups


def divide(args: argparse.Namespace, seed: int) -> tuple[Split, list[Record]]:
    """The split of one seed and the training normals."""
    records = merge_lookalikes(datasets.read_source(args.source))
    used = [r for r in records if r.is_good or not args.types or r.defect_type in args.types]
    split = few_shot(used, shots=args.shots, seed=seed + 1, validation=0.2)
    leak_check(split.support, split.test)
    return split, [r for r in used if r.is_good and r.split == "train"]


def materialise(folder: Path, support: Sequence[Record], normals: Sequence[Record]) -> Path:
    """A data set that holds nothing but what a method may see, so that nothing else can leak."""
    root = folder / "data" / (normals[0].category or "product")
    if root.is_dir():
        return root
    partial = root.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    for number, record in enumerate(normals):
        _copy(record.image, partial / "train" / "good" / f"{number:04d}{record.image.suffix}")
    for number, record in enumerate(support):
        _copy(record.image, partial / "test" / record.defect_type / f"{number:04d}{record.image.suffix}")
        for part, mask in enumerate(record.masks):
            _copy(mask, partial / "ground_truth" / record.defect_type / f"{number:04d}" / f"{part}{mask.suffix}")
        if record.caption:
            prompt = partial / "prompt" / record.defect_type / f"{number:04d}.txt"
            prompt.parent.mkdir(parents=True, exist_ok=True)
            prompt.write_text(record.caption, encoding="utf-8")
    partial.rename(root)
    return root


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def unseen(source: str, records: Sequence[Record]) -> list[Record]:
    """The records that compact's pretraining has not seen, nor a look-alike of: its rule, recipes/compact/data_card.md.

    `records` come from `divide`, whose groups are merged; a merged group counts as seen when any of its groups was.
    """
    own = {record.image: record.group for record in datasets.read_source(source)}
    seen = {
        record.group
        for record in merge_lookalikes(datasets.read_source(source))
        if record.category in PRETRAINED
        and hashlib.sha256(f"{record.category}/{own[record.image]}".encode()).digest()[0] >= 64
    }
    return [record for record in records if record.group not in seen or record.category not in PRETRAINED]


def generated(
    method: str, data: Path, folder: Path, types: Sequence[str], args: argparse.Namespace, named: bool = False
) -> list[Sample]:
    """The pictures of one method; a diffusion method is fitted on the support first.

    `named`: procedural paints what the data set's type names say, instead of every kind it knows.
    """
    named = named and method == "procedural"
    out = folder / (f"{method}-named" if named else method)
    settings: dict = {
        "method": method,
        "normal": f"mvtec_ad:{data}",
        "out": out,
        "n": args.pictures,
        "per_defect": True,
    }
    settings |= {"defect": tuple(types), "shots": 10_000, "seed": args.generate_seed}
    if method in BY_TEXT and not named:
        settings |= {"defect": (), "per_defect": False, "n": args.pictures * len(types)}
    elif method == "inpaint":
        run = folder / "run"
        options = json.loads(args.fit)
        training.train(
            TrainConfig(
                data=f"mvtec_ad:{data}",
                out=run,
                shots=10_000,
                backbone=args.backbone,
                steps=args.fit_steps,
                options=options,
            )
        )
        settings |= {"method": str(run), "options": json.loads(args.inpaint)}
    generation.run(GenerateConfig(**settings))
    return [r.load() for r in datasets.read("mvtec_ad", out) if not r.is_good]
