"""Does a reference steer what is painted? Grids to look at, and the share of windows that are nearer to their own.

bar    for every request a reference of its type and one of another type of the same data set: is the painted window
       nearer to its own in frozen features? `window` compares the images, `look` the defect against the colour of
       its surroundings, so that a shared background does not help. Variants with the same words, masks and noise:
       with the reference, ASEA off (painted by a second run that was fitted without it, --run-without-asea), and no
       reference at all (what the words and the mask give away); beside them the reference's own pixels laid there by
       `copypaste`, and the photograph left as it was (what the measure itself can tell). `exchange` paints every
       request with the other reference, too: is the image with its own nearer to its own? The mask and the words
       cannot tell, chance is 50 %.
       For references whose defect covers less than 3 % of the reader's window: is it nearer with ASEA than without?
cost   CPU seconds with a reference, once it is cached, over those without.
grid   one sheet per --pair: reference | target | no reference | with reference | ASEA off.

References are the few-shot support of the data set, or with --unseen what training never saw. Each part and seed is
written to OUT and not measured again when the settings are the same.

Example: python benchmarks/transfer.py --run runs/tile --bar mvtec_ad:data/magnetic_tile --features weights/mobilenet \\
    --pair mvtec_ad:data/magnetic_tile blowhole mvtec_ad:data/cookie --out runs/transfer
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from control import interval, look

from flawsmith import captions, compose, datasets, images, masks
from flawsmith.datasets.leaks import merge_lookalikes
from flawsmith.datasets.splits import few_shot
from flawsmith.evaluation import features
from flawsmith.methods.anomalycontrol.features import seen
from flawsmith.methods.anomalycontrol.synthesizer import AnomalyControl
from flawsmith.methods.classic.copypaste import CopyPaste
from flawsmith.methods.diffusion.options import DiffusionOptions
from flawsmith.methods.diffusion.runs import fingerprint
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.records import Record, Request, Sample

VARIANTS = ("with", "asea off", "none", "exchanged", "copypaste", "copypaste exchanged", "untouched")
SMALL = 0.03  # of the reader's window


@dataclass(frozen=True)
class Case:
    """One request, and a reference of another type to compare with."""

    request: Request
    other: Sample


class Painters:
    """The method in its three variants; nothing is refused for being faint: what did not follow counts as wrong."""

    def __init__(self, run: Path | None, without: Path | None, backbone: str, options: dict[str, Any]) -> None:
        given = {"min_visibility": 0.0, "min_share": 0.0, **options}

        def painter(folder: Path | None, config: dict[str, Any] | None = None) -> AnomalyControl:
            made: Any = AnomalyControl.from_pretrained(folder) if folder else AnomalyControl(backbone, config)
            made.options = made.parse_options(given, made.options)
            return made

        self.method = painter(run)
        # an adapter fitted with ASEA and read without would be asked for what it never saw
        self.without = painter(without, {"asea": False}) if without or not run else None
        if self.without is not None and self.without.config.asea:
            raise SystemExit(f"{without} was fitted with ASEA: train it with --set asea=false.")
        self.variants = [name for name in VARIANTS if self.without or name != "asea off"]
        shared = {key: getattr(self.method.options, key) for key in DiffusionOptions.model_fields}
        self.plain = DiffusionSynthesizer(self.method.backbone, **shared)

    def paint(self, variant: str, requests: Sequence[Request]) -> list[Sample]:
        if variant == "none":
            return self.plain.generate([replace(request, reference=None) for request in requests])
        if variant.startswith("copypaste"):
            return CopyPaste().generate(requests)
        if variant == "untouched":
            return [request.normal for request in requests]
        method = self.without if variant == "asea off" else self.method
        assert method is not None
        return method.generate(requests)

    def describe(self) -> dict[str, Any]:
        reader = self.method.reader.fingerprint()
        trained = [
            {key: round(float(p.detach().double().sum()), 6) for key, p in method.parameters().items()}
            for method in (self.method, self.without)
            if method is not None
        ]
        options = self.method.options.model_dump(mode="json")
        return {"backbone": fingerprint(self.method.backbone), "reader": reader, "trained": trained, "options": options}


def materials(source: str, unseen: bool) -> tuple[dict[str, list[Record]], list[Record]]:
    """References by type, and normal photographs."""
    records = merge_lookalikes(datasets.read_source(source))
    split = few_shot([r for r in records if not r.is_good], seed=1) if any(not r.is_good for r in records) else None
    found: dict[str, list[Record]] = {}
    for record in (split.test if unseen else split.support) if split else []:
        if record.masks:
            found.setdefault(record.defect_type, []).append(record)
    good = [r for r in records if r.is_good]
    return found, [r for r in good if r.split == "train"] or good


def request(normal: Sample, reference: Sample, defect: str, seed: int, family: str) -> Request:
    """The reference's kind of defect on the normal, under a mask of a family; "reference" warps the reference's own."""
    allowed = masks.foreground(normal.image)
    mask, warp = masks.draw(family, allowed, np.random.default_rng(seed), reference=reference, image=normal.image)
    return Request(normal, mask, defect, captions.sentence(normal.category, defect), reference, seed, warp)


def cases(source: str, count: int, seed: int, unseen: bool, family: str, painters: Painters) -> list[Case]:
    """Requests that take turns through the types of a data set."""
    by_type, normals = materials(source, unseen)
    if len(by_type) < 2:
        raise SystemExit(
            f"{source} has {len(by_type)} types with masks, two are needed: another type is compared with."
        )
    rng, types, found = np.random.default_rng([seed, 31]), sorted(by_type), []
    reader = painters.method
    while len(found) < count:
        defect = types[len(found) % len(types)]
        others = [name for name in types if name != defect]
        own = by_type[defect][rng.integers(len(by_type[defect]))].load()
        pool = by_type[others[rng.integers(len(others))]]
        other = pool[rng.integers(len(pool))].load()
        normal = normals[rng.integers(len(normals))].load()
        reader.check_reference(own)
        reader.check_reference(other)
        found.append(Case(request(normal, own, defect, int(rng.integers(2**31)), family), other))
    return found


def window(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The surroundings of a defect, (96, 96, 3) uint8."""
    return images.resize(np.ascontiguousarray(image[compose.square_window(mask, 32, 1.3).slices]), 96, 96)


def nearness(
    extractor: features.Extractor, view: Callable[[np.ndarray, np.ndarray], np.ndarray], found: list[Case], made: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine distances (N,) of the painted windows to their own reference and to the other."""
    sides = [
        [view(sample.image, case.request.mask) for sample, case in zip(made, found, strict=True)],
        [view(case.request.reference.image, case.request.reference.mask) for case in found if case.request.reference],
        [view(case.other.image, case.other.mask) for case in found],
    ]
    painted, own, other = (extractor(side).pooled for side in sides)
    centre = np.concatenate([own, other]).mean(axis=0)  # what all references share says nothing about one
    painted, own, other = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (painted - centre, own - centre, other - centre)
    )
    return 1 - (painted * own).sum(axis=1), 1 - (painted * other).sum(axis=1)


def measure(
    painters: Painters, extractor: features.Extractor, source: str, count: int, seed: int, unseen: bool, family: str
) -> Any:
    """One data set and seed: per case and variant, distances to the own and to the other reference; and the cost."""
    found = cases(source, count, seed, unseen, family, painters)
    requests = [case.request for case in found]
    painters.method.read(requests, painters.method.options)  # cached before the clock starts
    result: dict[str, Any] = {"cases": [], "cpu_seconds": {}}
    distances: dict[str, dict[str, Any]] = {}
    exchanged = [replace(case.request, reference=case.other) for case in found]
    for variant in painters.variants:
        started = time.process_time()
        made = painters.paint(variant, exchanged if variant.endswith("exchanged") else requests)
        result["cpu_seconds"][variant] = round(time.process_time() - started, 2)
        distances[variant] = {
            "window": nearness(extractor, window, found, made),
            "look": nearness(extractor, look, found, made),
        }
    for number, case in enumerate(found):
        assert case.request.reference is not None
        share = float(seen(case.request.reference, painters.method.reader.size)[1].mean())
        result["cases"].append(
            {
                "type": case.request.defect_type,
                "share": round(share, 4),
                **{
                    variant: {view: [round(float(d[number]), 5) for d in pair] for view, pair in views.items()}
                    for variant, views in distances.items()
                },
            }
        )
    return result


def report(results: Sequence[dict[str, Any]]) -> str:
    """The bars, pooled over data sets and seeds."""
    rows = []
    every = [case for result in results for case in result["cases"]]
    variants = [name for name in VARIANTS if all(name in case for case in every)]
    for view in ("window", "look"):
        for variant in variants:
            if variant.endswith("exchanged"):
                continue
            right = [float(case[variant][view][0] < case[variant][view][1]) for case in every]
            value = interval(right, range(len(right)))
            bar = f" (bar 85 %: {'met' if value['value'] >= 0.85 else 'missed'})" if variant == "with" else ""
            rows.append(
                f"{view:6} {variant:9}: nearer to its own reference {value['value']:.1%} "
                f"[{value['low']:.1%}, {value['high']:.1%}] of {len(right)}{bar}"
            )
        for own, other in (("with", "exchanged"), ("copypaste", "copypaste exchanged")):
            right = [float(case[own][view][0] < case[other][view][0]) for case in every]
            value = interval(right, range(len(right)))
            rows.append(
                f"{view:6} exchange, {own:9}: the image with its own reference is nearer {value['value']:.1%} "
                f"[{value['low']:.1%}, {value['high']:.1%}] (chance 50 %)"
            )
        for name, chosen in (("small", [c for c in every if c["share"] < SMALL]), ("all", every)):
            if chosen and "asea off" in variants:
                nearer = [float(case["with"][view][0] < case["asea off"][view][0]) for case in chosen]
                rows.append(
                    f"{view:6} with ASEA nearer than without, {name} references: {np.mean(nearer):.1%} of {len(nearer)}"
                )
    spent = {variant: sum(result["cpu_seconds"][variant] for result in results) for variant in variants}
    rows.append(f"cost of a cached reference: {spent['with'] / spent['none'] - 1:+.1%} CPU time (bar +10 %)")
    return "\n".join(rows)


def grid(painters: Painters, pair: Sequence[str], rows: int, unseen: bool, family: str) -> np.ndarray:
    """reference | target | no reference | with reference | ASEA off, zoomed to the defect."""
    source, defect, target = pair
    by_type, _ = materials(source, unseen)
    if defect not in by_type:
        raise SystemExit(f"{source} has no references of type {defect!r}; it has {sorted(by_type)}.")
    _, normals = materials(target, unseen)
    rng, sheet, notes = np.random.default_rng(5), [], []
    for number in range(rows):
        reference = by_type[defect][number % len(by_type[defect])].load()
        asked = request(normals[rng.integers(len(normals))].load(), reference, defect, number, family)
        view = compose.square_window(asked.mask, 96, 1.8).slices
        shown = compose.square_window(reference.mask, 96, 1.8).slices
        columns = [variant for variant in ("none", "with", "asea off") if variant in painters.variants]
        made = {variant: painters.paint(variant, [asked])[0] for variant in columns}
        sheet.append(
            [
                reference.image[shown],
                asked.normal.image[view],
                *(sample.image[view] for sample in made.values()),
            ]
        )
        facts = made["with"].info["asea"]
        notes.append(f"energy {facts['energy_before'][0]:.3f} -> {facts['energy_after'][0]:.3f}")
    titles = ("reference", "target", "no reference", "with reference", "ASEA off")
    return images.contact_sheet(sheet, titles[: len(sheet[0])], notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a trained run; without one, the untrained method")
    parser.add_argument(
        "--run-without-asea", type=Path, help="the same, trained with --set asea=false: else no row of ASEA off"
    )
    parser.add_argument("--backbone", default="compact", help="of the untrained method")
    parser.add_argument("--bar", nargs="*", default=[], metavar="READER:DIR", help="data sets with two types or more")
    parser.add_argument("--pair", nargs=3, action="append", default=[], metavar=("READER:DIR", "DEFECT", "READER:DIR"))
    parser.add_argument("--features", default="compact", help="folder or hub id of a vision model, or compact (smoke)")
    parser.add_argument("--requests", type=int, default=70, help="per data set and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=6, help="of a grid")
    parser.add_argument("--unseen", action="store_true", help="references that training never saw")
    parser.add_argument(
        "--mask", default="reference", help="mask family; the reference's own shape gives its type away"
    )
    parser.add_argument("--options", default="{}", help="JSON: options of the method, for example adapter_scale")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    painters = Painters(args.run, args.run_without_asea, args.backbone, json.loads(args.options))
    args.out.mkdir(parents=True, exist_ok=True)
    for number, pair in enumerate(args.pair):
        file = args.out / f"grid-{number}-{pair[1]}.png"
        if not file.is_file():
            images.write_image(file, grid(painters, pair, args.rows, args.unseen, args.mask))
            print(file, flush=True)
    if not args.bar:
        return
    extractor = features.load(args.features, None if args.features == "compact" else 96)
    common = {
        "extractor": extractor.describe(),
        "requests": args.requests,
        "unseen": args.unseen,
        "mask": args.mask,
        "variants": painters.variants,
        **painters.describe(),
    }
    results = []
    for place, source in enumerate(args.bar):
        for seed in args.seeds:
            settings = {**common, "source": Path(source.partition(":")[2]).name, "seed": seed}
            file = args.out / f"bar-{place}-{seed}.json"
            stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            if stored.get("settings") != json.loads(json.dumps(settings)):
                measured = measure(painters, extractor, source, args.requests, seed, args.unseen, args.mask)
                stored = {"settings": settings, **measured}
                images.write_bytes(file, (json.dumps(stored, indent=1) + "\n").encode())
                print(f"{source} seed {seed}: {stored['cpu_seconds']} CPU s", flush=True)
            results.append(stored)
    print(report(results))


if __name__ == "__main__":
    main()
