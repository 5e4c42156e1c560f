"""Make the pretraining windows of the compact backbone: procedural defects on real and rendered surfaces, and
real defects.

    python recipes/compact/make_windows.py DATA OUT --procedural 18000 --jobs 4

DATA holds the folders ball_screw, cookie and road_potholes in MVTec layout with origin.csv (see data_card.md
for where they come from and for their licences). A quarter of the physical groups of each set is kept out of
training; the split is by a hash of the group's name, so it does not depend on the order of files. Everything
is a function of --seed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from surfaces import render

from flawsmith import captions, compose, images, masks
from flawsmith.methods.mask_choice import family_of
from flawsmith.methods.procedural.painters import PAINTERS
from flawsmith.methods.procedural.synthesizer import Procedural
from flawsmith.records import Request, Sample
from flawsmith.training.shards import Note, TrainingWindow, write_shards

SIZE = 128
PER_SHARD = 1000
log = logging.getLogger("make_windows")

# Sentences for the real sets, which have none of their own. The first field is the kind, the second the colour.
REAL: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "ball_screw": (
        "pitting",
        "dark",
        (
            "pitting on a steel ball screw",
            "corroded pit in shiny metal",
            "dark pitted area on a machined surface",
            "rough broken-out spot in the metal",
            "pitted metal",
            "surface fatigue damage on a metal shaft",
            "dark crater in polished steel",
        ),
    ),
    "cookie": (
        "crack",
        "brown",
        (
            "broken cookie",
            "cracked biscuit",
            "a crack through a chocolate chip cookie",
            "gap where the cookie broke apart",
            "a piece of the biscuit is missing",
            "crumbled edge of a cookie",
        ),
    ),
    "road_potholes": (
        "hole",
        "grey",
        (
            "pothole in the asphalt",
            "hole in the road surface",
            "large irregular cavity in asphalt",
            "damaged road with a deep hole",
            "broken-out area in grey asphalt",
            "crater in the pavement",
        ),
    ),
}
PHOTOS = {"ball_screw": "ball screw", "cookie": "cookie", "road_potholes": "road"}


# More nouns for short captions, as people type them; adjectives come from the package's own vocabulary.
NOUNS = {
    "scratch": ("scratch", "scratches", "scuff", "scrape line", "groove", "abrasion mark"),
    "crack": ("crack", "fracture", "fissure", "cracked surface"),
    "dent": ("dent", "dented area", "indentation", "depression"),
    "hole": ("hole", "cavity", "pit", "void", "opening"),
    "chip": ("chip", "chipped material", "broken area", "flaked off piece"),
    "stain": ("stain", "blotch", "smudge", "spill mark", "dirt patch"),
    "spots": ("spots", "specks", "dots", "small particles", "pitting"),
    "fibre": ("fibre", "hair", "thread", "lint strand"),
    "discolouration": ("discolouration", "colour change", "tinted area", "discolored patch"),
    "missing_part": ("missing part", "missing piece", "part is absent", "gap"),
    "bend": ("bend", "deformation", "warped area", "distorted region"),
}


def terse(rng: np.random.Generator, said: dict[str, object], severity: str) -> str:
    """A short prompt from the true parameters, each adjective said with chance 0.7, every synonym equally
    likely.
    """
    words = []
    tables = (
        (captions.SEVERITIES, severity),
        (captions.SIZES, said["size"]),
        (captions.SHAPES, said["shape"]),
        (captions.COLOURS, said["colour"]),
    )
    for table, name in tables:
        if name and rng.random() < 0.7:
            words.append(str(rng.choice(table[str(name)])))
    return " ".join([*words, str(rng.choice(NOUNS[str(said["kind"])]))])


def held_out(name: str, group: str) -> bool:
    """True for about a quarter of a set's groups."""
    return hashlib.sha256(f"{name}/{group}".encode()).digest()[0] < 64


def groups_of(root: Path) -> dict[str, str]:
    with (root / "origin.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"]: row["group"] for row in csv.DictReader(file)}


def cut(window: compose.Window, *arrays: np.ndarray) -> list[np.ndarray]:
    """The window of each array, reflected to a square where the photograph is smaller, at SIZE pixels."""
    found = []
    for array in arrays:
        part = array[window.slices]
        side = max(part.shape[:2])
        pad = [(0, side - part.shape[0]), (0, side - part.shape[1])] + [(0, 0)] * (part.ndim - 2)
        part = np.pad(part, pad, mode="reflect" if min(part.shape[:2]) > side // 2 + 1 else "edge")
        if part.dtype == bool:
            part = cv2.resize(part.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA) > 0.25
        elif side != SIZE:
            how = cv2.INTER_AREA if side > SIZE else cv2.INTER_CUBIC
            part = cv2.resize(np.ascontiguousarray(part), (SIZE, SIZE), interpolation=how)
        found.append(np.ascontiguousarray(part))
    return found


def around(rng: np.random.Generator, mask: np.ndarray) -> compose.Window:
    """The window a method would take around this mask, a little shifted and sometimes wider."""
    chosen = compose.square_window(mask, SIZE, float(rng.uniform(1.35, 2.0)))
    height, width = mask.shape
    box = compose.mask_box(mask)
    down = int(rng.integers(-12, 13))
    across = int(rng.integers(-12, 13))
    top = min(max(0, chosen.top + down), height - chosen.shape[0])
    left = min(max(0, chosen.left + across), width - chosen.shape[1])
    moved = compose.Window(top, left, top + chosen.shape[0], left + chosen.shape[1])
    holds = moved.top <= box.top and moved.left <= box.left and moved.bottom >= box.bottom and moved.right >= box.right
    return moved if holds else chosen


def real_windows(data: Path, seed: int, crops: int) -> Iterator[TrainingWindow]:
    """Real defects, several crops each, and windows of good parts."""
    for index, (name, (kind, colour, sentences)) in enumerate(REAL.items()):
        root = data / name
        rng = np.random.default_rng([seed, 1, index])
        groups = groups_of(root)
        for file, group in sorted(groups.items()):
            split = "val" if held_out(name, group) else "train"
            image = images.read_image(root / file)
            if "/good/" in file:
                for _ in range(14 if name != "cookie" else 60):
                    side = int(min(*image.shape[:2], rng.integers(SIZE // 2, 2 * SIZE + 1)))
                    top, left = (int(rng.integers(0, n - side + 1)) for n in image.shape[:2])
                    (clean,) = cut(compose.Window(top, left, top + side, left + side), image)
                    yield TrainingWindow(
                        clean, clean, np.zeros((SIZE, SIZE), bool), Note("no defect", "", "", name, group, split)
                    )
                continue
            stem, folder = Path(file).stem, Path(file).parts[1]
            mask = images.read_mask(root / "ground_truth" / folder / f"{stem}_mask.png")
            count, parts = cv2.connectedComponents(mask.astype(np.uint8))
            for _ in range(crops * (3 if name == "cookie" else 1)):
                # one region at a time where they lie far apart, as the methods' windows do
                chosen = parts == rng.integers(1, count) if count > 2 and rng.random() < 0.5 else mask
                if chosen.sum() < 20:
                    continue
                view = around(rng, chosen)
                if max(view.shape) > 3 * SIZE:
                    continue
                photo, covered = cut(view, image, mask)
                if covered.sum() < 12 or covered.mean() > 0.75:
                    continue
                yield TrainingWindow(
                    photo, photo, covered, Note(str(rng.choice(sentences)), kind, colour, name, group, split)
                )


def procedural_windows(data: Path, seed: int, shard: int, count: int) -> Iterator[TrainingWindow]:
    """A shard of painted defects on good photographs (40 %, training groups only) and on rendered surfaces (60 %)."""
    painter = Procedural()
    photos = [
        (name, images.read_image(data / name / file))
        for name in REAL
        for file, group in sorted(groups_of(data / name).items())
        if file.startswith("train/good/") and not held_out(name, group)
    ]
    by_name = {name: [photo for n, photo in photos if n == name] for name in REAL}
    kinds = sorted(PAINTERS)
    made = tried = 0
    while made < count:
        rng = np.random.default_rng([seed, 2, shard, tried])
        tried += 1
        kind = kinds[tried % len(kinds)]
        if rng.random() < 0.4:
            name = str(rng.choice(list(REAL), p=[0.45, 0.15, 0.4]))
            photo = by_name[name][int(rng.integers(len(by_name[name])))]
            thing = PHOTOS[name] if rng.random() < 0.5 else ""
        else:
            photo, name = render(rng, int(rng.choice([128, 192, 256])))
            thing = captions.words(name) if rng.random() < 0.3 and name not in ("edge", "gradient", "speckle") else ""
        side = min(photo.shape[:2])
        family = family_of(kind)
        if family in ("scratch", "crack"):
            options = masks.MaskOptions()
        else:
            # from specks of 6 px to areas of 90 px side, every factor equally likely
            low, high = 36 / side**2, min(0.5, 90.0**2 / side**2)
            options = masks.MaskOptions(size=(low, high * (0.3 if kind == "spots" else 1.0)))
        allowed = np.ones(photo.shape[:2], bool)
        mask, _ = masks.draw(family, allowed, rng, options)
        request = Request(Sample(photo, np.zeros_like(mask), thing), mask, kind, "", None, int(rng.integers(2**31)))
        sample = painter.generate([request])[0]
        if "rejected" in sample.info or sample.mask.sum() < 12:
            continue
        if max(compose.mask_box(sample.mask).shape) * 1.35 > 2 * SIZE:
            continue  # a large defect seen from far away: methods cut it into several windows
        image, clean, covered = cut(around(rng, sample.mask), sample.image, photo, sample.mask)
        if covered.sum() < 12 or covered.mean() > 0.75:
            continue
        colour = str(sample.info["colour"])
        split = "val" if rng.random() < 0.02 else "train"
        caption = sample.caption
        if rng.random() < 0.45:
            caption = terse(rng, sample.info, captions.level(float(sample.info["severity"])))
        made += 1
        yield TrainingWindow(
            image, clean, covered, Note(caption, kind, colour, "procedural", f"{name}/{shard}/{tried}", split)
        )


def write_shard(data: Path, out: Path, seed: int, shard: int, count: int) -> int:
    """Make one procedural shard, unless it is there; returns its number."""
    cv2.setNumThreads(1)
    if not (out / f"windows-{shard:04d}.npz").exists():
        write_shards(out, procedural_windows(data, seed, shard, count), count, shard)
    return shard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--procedural", type=int, default=18_000)
    parser.add_argument("--crops", type=int, default=4, help="windows per real defect image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes that paint; the windows are the same")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cv2.setNumThreads(1)
    real = args.out / "real"
    if not (real / "summary.json").exists():
        counts: Counter[str] = Counter()

        def counted() -> Iterator[TrainingWindow]:
            for window in real_windows(args.data, args.seed, args.crops):
                counts[f"{window.note.source}/{window.note.kind or 'good'}/{window.note.split}"] += 1
                yield window

        log.info("%d real windows", write_shards(real, counted()))
        kept = {n: sorted({g for g in groups_of(args.data / n).values() if held_out(n, g)}) for n in REAL}
        (real / "summary.json").write_text(json.dumps({"counts": counts, "held_out_groups": kept}, indent=1) + "\n")
    sizes = [min(PER_SHARD, args.procedural - at) for at in range(0, args.procedural, PER_SHARD)]
    with ProcessPoolExecutor(args.jobs) as pool:
        work = partial(write_shard, args.data, args.out / "procedural", args.seed)
        for done, _ in enumerate(pool.map(work, range(len(sizes)), sizes), 1):
            log.info("procedural shard %d of %d", done, len(sizes))


if __name__ == "__main__":
    main()
