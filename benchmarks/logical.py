"""Does a method paint the logical anomaly that its caption tells? On a rendered tray of pins, or figures on MVTec LOCO.

A tray of six compartments, one yellow pin in each, is RENDERED (logical_scene.py): missing, extra (two or three),
wrong colour (blue, red, green) and misplaced pins, with masks and captions, written in MVTec LOCO's layout: one type,
logical_anomalies, so that the caption alone tells what to paint (--types: a type for each kind). Methods are fitted on
a few of them, then paint one compartment of new trays under one and the same mask, which tells no state either.
A reader that is exact on rendered scenes says what each compartment holds afterwards:

told     the state is the caption's, count and colour included; kind: at least the kind is right
wrong    the same photographs, masks and seeds with another kind's caption: how often is it the caption asked for
         ("told"), and how often still the first one ("first")? If captions matter the former is high, else the latter.

loss     held-out rendered anomalies: is the denoising loss lower with the own caption than with a wrong one?

Controls: the rendered anomaly itself (must be right), the untouched photograph (must be wrong), and copypaste with a
reference of the same caption laid exactly on the compartment, which is the easiest case there is for it.
Learned methods get words alone, and contrast as painted (contrast=0); "matched": with the reference of the same caption
and contrast and colours matched to it, their default; "laid": begun from that reference laid in place
(sampling=reference), where words need say nothing. keep_grain is off: in reduced windows it keeps fine structure of the
photograph, here the outlines of the pin that should be gone. Intervals: Wilson, 95 %.

With --data READER:DIR (mvtec_loco:DIR) there is no reader: methods are fitted and judged by the generation metrics.

Example: python benchmarks/logical.py --steps 300 -n 16 --out runs/logical
         python benchmarks/logical.py --data mvtec_loco:data/loco --category pushpins --shots 8 --out runs/loco
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from logical_scene import COLUMNS, ROWS, STATES, Scene, State, corner, of_kind, read, render

from flawsmith import compose, images
from flawsmith.config import EvaluateConfig, GenerateConfig, TrainConfig
from flawsmith.diffusion.adapters import use_adapter
from flawsmith.diffusion.batch import Batch
from flawsmith.evaluation import run as folder
from flawsmith.generation import run as generation
from flawsmith.masks import Warp
from flawsmith.methods.base import Synthesizer
from flawsmith.methods.classic.copypaste import CopyPaste
from flawsmith.methods.diffusion.tiles import resized
from flawsmith.records import Request, Sample
from flawsmith.training import run as training
from flawsmith.training.losses import batch_loss, stratified_steps
from flawsmith.training.settings import FitConfig

KINDS = tuple(dict.fromkeys(state.kind for state in STATES))
LEARNED = ("anomalyxfusion", "inpaint")
NORMALS, NEW, FREE = 40, 50_000, {"min_visibility": 0.0, "min_share": 0.0}  # what did not follow counts as wrong


def example(number: int, kind: str) -> tuple[Scene, int, State]:
    """The `number`-th rendered anomaly of a kind; counts and colours take turns."""
    states = of_kind(kind)
    state, cell = states[number % len(states)], (number * 5 + KINDS.index(kind)) % (ROWS * COLUMNS)
    return render(1000 + 100 * KINDS.index(kind) + number, cell, state), cell, state


def write(root: Path, each: int, by_type: bool) -> Path:
    """The rendered set in MVTec LOCO's layout: `each` images of a kind, the first half of them are the shots."""
    for number in range(NORMALS):
        images.write_image(root / "train" / "good" / f"{number:03d}.png", render(number).image)
    for number in range(each):
        for place, kind in enumerate(KINDS):
            scene, cell, state = example(number, kind)
            folder_, name = (kind, number) if by_type else ("logical_anomalies", number * len(KINDS) + place)
            images.write_image(root / "test" / folder_ / f"{name:03d}.png", scene.image)
            mask = images.mask_image(scene.mask(cell))
            images.write_image(root / "ground_truth" / folder_ / f"{name:03d}" / "000.png", mask)
            images.write_bytes(root / "prompt" / folder_ / f"{name:03d}.txt", state.caption.encode())
    return root


def laid(reference: Scene, its: int, scene: Scene, cell: int) -> Warp:
    """The warp that lays one tray's compartment exactly on another's."""
    (top, left), (down, right) = corner(its), corner(cell)
    back = cv2.invertAffineTransform(reference.pose)
    back[:, 2] += (right - left, down - top)
    matrix = scene.pose[:, :2] @ back
    matrix[:, 2] += scene.pose[:, 2]
    (a, b, e), (c, d, f) = matrix.tolist()
    return Warp(((a, b, e), (c, d, f)))


class Asked:
    """One request on a new tray: a compartment of it and the state it is to take."""

    def __init__(self, number: int, kind: str, shots: int, by_type: bool) -> None:
        states = of_kind(kind)
        self.state, self.number = states[number % len(states)], number
        self.scene, self.cell = render(NEW + 100 * KINDS.index(kind) + number), (number * 7) % (ROWS * COLUMNS)
        reference, its, state = next(
            found for turn in range(shots) if (found := example((number + turn) % shots, kind))[2] == self.state
        )
        self.request = Request(
            replace(self.scene.sample(self.cell, self.state), mask=np.zeros(self.scene.image.shape[:2], bool)),
            self.scene.mask(self.cell),
            kind if by_type else "logical_anomalies",
            state.caption,
            reference.sample(its, state),
            1000 * KINDS.index(kind) + number,
            laid(reference, its, self.scene, self.cell),
        )

    def other(self) -> State:
        """A state of another kind, for a caption that is wrong; each of them in turn."""
        others = [state for state in STATES if state.kind != self.state.kind]
        return others[self.number % len(others)]


def fitted(method: str, data: str, args: argparse.Namespace) -> Path:
    """A trained run of a method; one that stands in --out is used again."""
    values: dict[str, Any] = {"method": method, "data": data, "out": args.out / f"run-{method}", "steps": args.steps}
    shots = args.shots if args.data or args.types else args.shots * len(KINDS)
    options = {"mask_steps": 0}
    training.train(
        TrainConfig(**values, category=args.category, shots=shots, options=options, seed=args.seed),
        lambda what, done, total, line: (
            print(f"{method} {what}: {done}/{total}", flush=True) if done % 50 == 0 else None
        ),
    )
    return values["out"]


def paint(method: Synthesizer, requests: Sequence[Request], **options: Any) -> list[Sample]:
    made: list[Sample] = []
    for start in range(0, len(requests), 8):
        made += method.generate(requests[start : start + 8], **options)
    return made


def share(right: Sequence[bool]) -> dict[str, float]:
    """A share with its Wilson interval."""
    n, p, z = len(right), float(np.mean(right)), 1.96
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return {"share": p, "low": (middle - half) / (1 + z * z / n), "high": (middle + half) / (1 + z * z / n), "n": n}


def judge(asked: Sequence[Asked], made: Sequence[Sample], states: Sequence[State]) -> dict[str, Any]:
    """What the reader says of painted trays, against the states they were told."""
    seen = [read(sample.image, one.scene, one.cell) for one, sample in zip(asked, made, strict=True)]
    told = [reading.says(state) for reading, state in zip(seen, states, strict=True)]
    kind = [reading.kind() == state.kind for reading, state in zip(seen, states, strict=True)]
    first = [reading.says(one.state) for reading, one in zip(seen, asked, strict=True)]
    table = {name: {found: 0 for found in (*KINDS, "good", "none of these")} for name in KINDS}
    for reading, state in zip(seen, states, strict=True):
        table[state.kind][reading.kind()] += 1
    by_kind = {k: float(np.mean([t for t, s in zip(told, states, strict=True) if s.kind == k] or [0])) for k in KINDS}
    result = {"told": share(told), "kind": share(kind), "first": share(first)}
    return {**result, "told_by_kind": by_kind, "read_as": table}


def rendered(args: argparse.Namespace) -> None:
    """Fit, paint and read; writes logical.json and sheet.png."""
    root = args.out / "set" / "tray"
    data = f"mvtec_loco:{root if root.is_dir() else write(root, 2 * args.shots, args.types)}"
    asked = [Asked(number, kind, args.shots, args.types) for number in range(args.n) for kind in KINDS]
    states, wrong = [one.state for one in asked], [one.other() for one in asked]
    truth = [render(NEW + 9000 + i, one.cell, one.state) for i, one in enumerate(asked)]
    exact = [read(scene.image, scene, one.cell).says(one.state) for scene, one in zip(truth, asked, strict=True)]
    if not all(exact):
        raise SystemExit(f"The reader is wrong on {exact.count(False)} of {len(exact)} rendered anomalies.")
    requests = [one.request for one in asked]
    misled = [replace(r, caption=s.caption) for r, s in zip(requests, wrong, strict=True)]
    made_by = {"untouched": [r.normal for r in requests]}
    for match in (1.0, 0.0):  # how far light follows the new surroundings: those of another compartment mislead it
        made_by[f"copypaste, match={match:g}"] = paint(CopyPaste(**FREE, match=match), requests)
    results = {name: judge(asked, made, states) for name, made in made_by.items()}
    keep(args, results, {})
    listens: dict[str, Any] = {}
    for name in args.methods:
        method = Synthesizer.from_pretrained(fitted(name, data, args))
        method.options = method.parse_options({**FREE, **json.loads(args.options)}, method.options)
        listens[name] = heard(method, truth, asked)
        words = [[replace(r, reference=None) for r in group] for group in (requests, misled)]
        for arm, told, given, options in (
            (name, states, words[0], {"contrast": 0.0}),
            (f"{name}, wrong caption", wrong, words[1], {"contrast": 0.0}),
            (f"{name}, matched", states, requests, {}),
            (f"{name}, laid", states, requests, {"sampling": "reference"}),
        ):
            made_by[arm] = paint(method, given, **options)
            results[arm] = judge(asked, made_by[arm], told)
            keep(args, results, listens)
    print(report(results))
    for name, found in listens.items():
        print(
            f"{name}: own caption has the lower loss in {found['share']:.0%} [{found['low']:.0%}, {found['high']:.0%}] "
            f"(chance 50 %), a wrong one costs {found['wrong_costs']:+.2%}; {found['by_kind']}"
        )
    rows, notes = [], []
    for number in range(min(len(asked), 12)):
        view = compose.square_window(asked[number].request.mask, 96, 1.15).slices
        rows.append([made_by[arm][number].image[view] for arm in made_by])
        notes.append(f"{states[number].caption} / {wrong[number].caption}")
    images.write_image(args.out / "sheet.png", images.contact_sheet(rows, tuple(made_by), notes, cell=150))


@torch.no_grad()
def heard(method: Any, truth: Sequence[Scene], asked: Sequence[Asked], rounds: int = 6) -> dict[str, Any]:
    """Whether rendered anomalies have the lower denoising loss with their own caption than with a wrong one: the same
    windows, steps and noise, mean of `rounds`. What painting shows only where the model can paint the state at all.
    """
    backbone, states, others = method.backbone, [one.state for one in asked], [one.other() for one in asked]
    name = f"tray/{asked[0].request.defect_type}"
    views = []
    for scene, one in zip(truth, asked, strict=True):
        hole = scene.mask(one.cell)
        views.append(resized(scene.image, hole, compose.square_window(hole, backbone.size, 1.5), backbone.size))
    image, mask = (np.stack(parts) for parts in zip(*views, strict=True))
    if method.adapters:
        use_adapter(backbone, method.adapters[name])
    side, sums = backbone.size // backbone.factor, []
    for told in (states, others):
        captions, generator, found = [s.caption for s in told], torch.Generator().manual_seed(3), []
        names, kept = [f"tray/{one.request.defect_type}" for one in asked], [False] * len(asked)
        batch = Batch(image, image, mask, captions, [None] * len(asked), words=captions, names=names, dropped=kept)
        for _ in range(rounds):
            t = stratified_steps(len(asked), generator, backbone.training_steps())
            noise = torch.randn(len(asked), backbone.latent_channels, side, side, generator=generator)
            for rows in (slice(start, start + 8) for start in range(0, len(asked), 8)):
                own = method.training_condition if method.learns == "model" else None
                found.append(batch_loss(backbone, batch.part(rows), t[rows], noise[rows], FitConfig(), own))
        sums.append(torch.cat(found).reshape(rounds, -1).mean(0).double().numpy())
    more = float(sums[1].mean() / sums[0].mean() - 1)
    by_kind = {k: float(np.mean([a < b for a, b, s in zip(*sums, states, strict=True) if s.kind == k])) for k in KINDS}
    return {**share(list(sums[0] < sums[1])), "wrong_costs": more, "by_kind": by_kind}


def keep(args: argparse.Namespace, results: dict[str, Any], listens: dict[str, Any]) -> None:
    settings = {key: str(value) for key, value in vars(args).items()}
    content = json.dumps({"settings": settings, "rendered": True, "results": results, "loss": listens}, indent=1)
    images.write_bytes(args.out / "logical.json", content.encode())


def report(results: dict[str, Any]) -> str:
    lines = [f"{'arm':34} {'told':>22} {'kind':>6} {'first':>6}  " + " ".join(f"{kind:>12}" for kind in KINDS)]
    for arm, found in results.items():
        told = found["told"]
        lines.append(
            f"{arm:34} {told['share']:7.0%} [{told['low']:4.0%}, {told['high']:4.0%}] {found['kind']['share']:6.0%} "
            f"{found['first']['share']:6.0%}  " + " ".join(f"{found['told_by_kind'][kind]:12.0%}" for kind in KINDS)
        )
    return "\n".join(lines)


def photographed(args: argparse.Namespace) -> None:
    """A real data set: fit, paint under moved real masks, and the generation metrics of each method's folder."""
    for name in ("copypaste", *args.methods):
        run = str(fitted(name, args.data, args)) if name in LEARNED else name
        common = {"category": args.category, "shots": args.shots}
        generation.run(
            GenerateConfig(
                **common, method=run, normal=args.data, out=args.out / name, n=args.n, per_defect=True, seed=args.seed
            )
        )
        values, _ = folder.evaluate(
            EvaluateConfig(
                **common,
                generated=str(args.out / name),
                real=args.data,
                out=args.out / f"results-{name}",
                features=args.features,
            )
        )
        for value in values:
            if value.type in ("mean", "all"):
                print(f"{name:16} {value.key:40} {value.type:6} {value.value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="READER:DIR of photographs instead of the rendered tray")
    parser.add_argument("--category")
    parser.add_argument("--features", default="compact", help="with --data: folder or hub id of a vision model")
    parser.add_argument("--shots", type=int, default=8, help="anomalies of each kind (with --data: type) to learn from")
    parser.add_argument("--types", action="store_true", help="rendered: a defect type for each kind of anomaly")
    parser.add_argument("--steps", type=int, default=300, help="of each fit")
    parser.add_argument("-n", type=int, default=16, help="images per kind (with --data: type)")
    parser.add_argument("--methods", nargs="*", choices=LEARNED, default=LEARNED, help="beside copypaste")
    parser.add_argument(
        "--options", default='{"keep_grain": false}', help="JSON: options of the learned methods, rendered set only"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    photographed(args) if args.data else rendered(args)


if __name__ == "__main__":
    main()
