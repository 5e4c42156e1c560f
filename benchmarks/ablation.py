"""AnomalyXFusion's ablation: no text, MIF, DDF; + text; + MIF; + DDF (the paper's method); + prompt (the default).

Each row switches one thing on top of the row before. `text` are the semantic tokens: up to `full` the frozen text
encoder reads the same templates in every row, as in the paper; the last row gives it the caption.

Strict first third of every type is seen (or --shots), everything else judges; test images that look like a support
image are left out. Per seed and variant one run is trained on all types, IMAGES are made per type, and three
figures are taken on windows around the masks (context 1.5): KID against the held-out real defects; IC-FD, IC-LPIPS's
rule on the extractor's feature maps; and the accuracy of a linear classifier of the type within its category on frozen
features, trained on generated and tested on held-out real windows (balanced over types). A fourth needs no image: the
denoising loss on held-out real defects, given their masks, captions and types; windows, steps and noise are the same
for every variant.

Results go to OUT/ablation.jsonl and OUT/losses.jsonl, one line per seed, variant and type; finished ones are skipped:
the same command resumes. A folder OUT holds one setting: another backbone or fit needs another OUT.

Example: python benchmarks/ablation.py mvtec_ad:data/mvtec --category bottle --features weights/mobilenet
         --seeds 0 1 2 --images 100 --out runs/ablation-bottle
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flawsmith import compose, datasets, images
from flawsmith.config import GenerateConfig, TrainConfig
from flawsmith.datasets.leaks import leak_check
from flawsmith.datasets.splits import few_shot
from flawsmith.evaluation import features
from flawsmith.evaluation.metrics import diversity, fidelity
from flawsmith.evaluation.metrics.scores import paired_bootstrap
from flawsmith.generation import run as generation
from flawsmith.methods.anomalyxfusion.synthesizer import AnomalyXFusion
from flawsmith.records import Record, Sample
from flawsmith.training import run as training
from flawsmith.training.fitting import Material, TypeWindows
from flawsmith.training.settings import FitConfig
from flawsmith.training.steps import Steps

VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"text": False, "in_fusion": False, "dif_fusion": "off", "prompt": "template"},
    "text": {"text": True, "in_fusion": False, "dif_fusion": "off", "prompt": "template"},
    "text+MIF": {"text": True, "in_fusion": True, "dif_fusion": "off", "prompt": "template"},
    "full": {"text": True, "in_fusion": True, "dif_fusion": "film", "prompt": "template"},
    "full+prompt": {"text": True, "in_fusion": True, "dif_fusion": "film", "prompt": "caption"},
}


WINDOWS = 64  # per type, for the loss


def windows(records: Sequence[Record]) -> dict[str, list[np.ndarray]]:
    """The square windows around the masks by "category/type"."""
    found: dict[str, list[np.ndarray]] = {}
    for record in records:
        sample = record.load()
        if sample.mask.any():
            view = compose.square_window(sample.mask, 64, 1.5).slices
            found.setdefault(f"{record.category}/{record.defect_type}", []).append(sample.image[view].copy())
    return found


def accuracy(
    made: dict[str, np.ndarray], real: dict[str, np.ndarray], names: Sequence[str], seed: int
) -> dict[str, float]:
    """Recall of every type by a linear classifier on features (N, D): fitted on `made`, tested on `real`."""
    rows = np.concatenate([made[name] for name in names])
    mean, spread = rows.mean(0), rows.std(0) + 1e-6
    x = torch.from_numpy((rows - mean) / spread).float()
    y = torch.tensor([i for i, name in enumerate(names) for _ in made[name]])
    weight = torch.tensor([1 / max(1, len(made[name])) for name in names])
    torch.manual_seed(seed)
    layer = nn.Linear(x.shape[1], len(names))
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=200)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(layer(x), y, weight=weight) + 1e-3 * layer.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]
    with torch.no_grad():
        return {
            name: float((layer(torch.from_numpy((real[name] - mean) / spread).float()).argmax(1) == i).float().mean())
            for i, name in enumerate(names)
        }


def painted(args: argparse.Namespace, variant: str, seed: int) -> list[Record]:
    """Train a variant, generate, and read back what was kept."""
    run, out = (args.out / kind / f"{variant}-{seed}" for kind in ("runs", "images"))
    started = time.perf_counter()
    options = {**json.loads(args.fit), **VARIANTS[variant], "mask_steps": 0}
    common: dict[str, Any] = {"category": args.category, "shots": args.shots, "group_by": args.group_by}
    training.train(
        TrainConfig(
            method="anomalyxfusion",
            data=args.source,
            out=run,
            defect=tuple(args.types),
            seed=seed,
            steps=args.steps,
            backbone=args.backbone,
            options=options,
            **common,
        )
    )
    trained = time.perf_counter() - started
    generation.run(
        GenerateConfig(
            method=str(run),
            normal=args.source,
            defect=tuple(args.types),
            n=args.images,
            per_defect=True,
            seed=seed,
            out=out,
            options=json.loads(args.sampling),
            **common,
        )
    )
    total = time.perf_counter() - started
    print(f"{variant} seed {seed}: trained in {trained:.0f} s, painted in {total - trained:.0f} s", flush=True)
    return [record for record in datasets.read("mvtec_ad", out) if not record.is_good]


def losses(run: Path, held_out: dict[str, list[Sample]]) -> list[dict[str, Any]]:
    """One line per type: the mean loss of training, on WINDOWS windows of images that training never saw."""
    method = AnomalyXFusion.from_pretrained(run)
    lines, size, config = [], method.backbone.size, FitConfig()
    for name, samples in held_out.items():
        judge = TypeWindows({name: Material(samples)}, size, config).batch(0, WINDOWS, real_only=True)
        steps = Steps(method.backbone, lambda _, judge=judge: judge, judge, config, method.training_condition)
        lines.append({"type": name, "loss": steps.held_out(), "n_real": len(samples)})
    return lines


def judged(
    made: dict[str, list[np.ndarray]],
    real: dict[str, list[np.ndarray]],
    seen: dict[str, list[np.ndarray]],
    extractor: features.Extractor,
    seed: int,
) -> list[dict[str, Any]]:
    """One line per type: KID, IC-FD, recall, and how many images each is of."""
    names = [name for name in real if len(made.get(name, ())) > 1 and len(real[name]) > 1]
    own = {name: extractor(made[name], maps=True) for name in names}
    truth = {name: extractor(real[name]).pooled for name in names}
    recall: dict[str, float] = {}
    for category in {name.split("/")[0] for name in names}:  # between categories it would be too easy
        types = [name for name in names if name.split("/")[0] == category]
        if len(types) > 1:
            recall |= accuracy({n: own[n].pooled for n in types}, truth, types, seed)
    lines = []
    for name in names:
        centres, maps = extractor(seen[name], maps=True).maps, own[name].maps
        assert centres is not None and maps is not None
        lines.append(
            {
                "type": name,
                "KID": fidelity.kid(truth[name], own[name].pooled),
                "IC-FD": diversity.cluster_diversity(maps, centres).value,
                "accuracy": recall.get(name),
                "n": len(made[name]),
                "n_real": len(real[name]),
            }
        )
    return lines


def report(lines: Sequence[dict[str, Any]]) -> str:
    """Means over types and seeds, and every step against the one before and against `none`, paired by seed."""
    rows = []
    for key, scale in (("KID", 1e3), ("IC-FD", 1.0), ("accuracy", 100.0), ("loss", 1e3)):
        rows.append(f"\n{key}{' x 1000' if scale == 1e3 else ' %' if key == 'accuracy' else ''}")
        table: dict[str, dict[int, float]] = {}
        for variant in VARIANTS:
            for seed in sorted({line["seed"] for line in lines if line["variant"] == variant}):
                own = [x for x in lines if (x["variant"], x["seed"]) == (variant, seed)]
                values = [line[key] for line in own if line.get(key) is not None]
                if values:
                    table.setdefault(variant, {})[seed] = scale * float(np.mean(values))
        before = ""
        for variant, runs in table.items():
            values = list(runs.values())
            row = f"  {variant:11} n={len(runs)}  {np.mean(values):.2f} (s.d. {np.std(values):.2f})"
            for other in dict.fromkeys(o for o in (before, "none") if o and o != variant):
                paired = [runs[s] - table[other][s] for s in runs if s in table[other]]
                if paired:
                    mean, low, high = paired_bootstrap(paired)
                    row += f"  vs {other} {mean:+.2f} [{low:+.2f}, {high:+.2f}]"
            rows.append(row)
            before = variant
    return "\n".join(rows)


def keep(file: Path, variant: str, seed: int, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Append what was found to a file; returns it."""
    found = [{"variant": variant, "seed": seed, **line} for line in lines]
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="READER:DIR")
    parser.add_argument("--category")
    parser.add_argument("--types", nargs="*", default=[])
    parser.add_argument("--shots", type=int, default=None, help="default: the strict first third")
    parser.add_argument("--group-by", default="group")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--images", type=int, default=100, help="per defect type")
    parser.add_argument("--features", required=True, help="folder or hub id of a vision model, or compact (smoke)")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--fit", default="{}", help='JSON: further training settings, for example {"lora_rank": 0}')
    parser.add_argument(
        "--sampling", default='{"start": "noise"}', help="JSON: options of generation; from noise all is the method's"
    )
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    extractor = features.load(args.features)
    args.out.mkdir(parents=True, exist_ok=True)
    given = {k: str(v) for k, v in vars(args).items() if k not in ("out", "seeds", "variants", "threads")}
    setting = json.dumps({**given, "extractor": extractor.describe()}, indent=2, default=str)
    kept = args.out / "setting.json"
    if kept.is_file() and kept.read_text(encoding="utf-8") != setting:
        raise SystemExit(f"{args.out} holds another setting ({kept}): choose another --out.")
    images.write_bytes(kept, setting.encode("utf-8"))
    records = datasets.read_source(args.source, args.category, group_by=args.group_by)
    chosen = [r for r in records if not r.is_good and (not args.types or r.defect_type in args.types)]
    # as training and generation split, over all types of a category
    parts = [
        few_shot([r for r in records if r.category == c and not r.is_good], args.shots)
        for c in sorted({r.category for r in chosen})
    ]
    support = [r for part in parts for r in part.support if r in chosen and r.masks]
    test = [r for part in parts for r in part.test if r in chosen and r.masks]
    alike = {other.image for _, other, _ in leak_check(support, test)}
    print(f"{len(support)} seen, {len(test) - len(alike)} judge, {len(alike)} left out as look-alikes")
    judges = [r for r in test if r.image not in alike]
    real, seen = windows(judges), windows(support)
    held_out: dict[str, list[Sample]] = {}
    for record in judges:
        held_out.setdefault(f"{record.category}/{record.defect_type}", []).append(record.load())
    files = [args.out / name for name in ("ablation.jsonl", "losses.jsonl")]
    made_lines, loss_lines = (
        [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else [] for file in files
    )
    for seed in args.seeds:
        for variant in args.variants:
            if not any((line["variant"], line["seed"]) == (variant, seed) for line in made_lines):
                made = windows(painted(args, variant, seed))
                if args.category is not None or len({r.category for r in chosen}) == 1:  # no category folder is written
                    only = next(iter({r.category for r in chosen}))
                    made = {f"{only}/{name.split('/', 1)[1]}": found for name, found in made.items()}
                made_lines += keep(files[0], variant, seed, judged(made, real, seen, extractor, seed))
            if not any((line["variant"], line["seed"]) == (variant, seed) for line in loss_lines):
                run = args.out / "runs" / f"{variant}-{seed}"
                loss_lines += keep(files[1], variant, seed, losses(run, held_out))
    print(report([*made_lines, *loss_lines]))


if __name__ == "__main__":
    main()
