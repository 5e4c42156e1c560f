"""How real do generated defects look? KID, diversity and memorisation of defect windows, against held-out real defects.

The split of a seed is the usefulness benchmark's: methods see only the support pictures, and the judging ones share no
physical part with them. A window is the square around a mask (context 1.5, at least 64 px), by one rule for real and
generated pictures. Copies are looked for in the defect alone, cut tightly, in every turn. Beside the methods stand
three anchors: `support`, the few real defects themselves; `held-out`, real defects of one half of the parts against the
other half; `untouched`, the first method's photographs and masks before anything was painted.

Results are appended to OUT/quality.jsonl, one line per value; finished pairs of seed and method are skipped: the same
command resumes. Another backbone or fit needs another OUT.

Example: python benchmarks/quality.py mvtec_ad:data/magnetic_tile --types blowhole break crack --shots 8 --seeds 0 1 2
         --methods copypaste nsa perlin cutpaste procedural inpaint --features weights/mobilenet --out runs/quality
A method may be NAME=FOLDER, pictures made elsewhere; {seed} in FOLDER is replaced.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from protocol import PRETRAINED, divide, generated, materialise, unseen

from flawsmith import compose, datasets, images
from flawsmith.evaluation import diversity, features, fidelity
from flawsmith.evaluation.scores import paired_bootstrap
from flawsmith.records import Record, Sample

CLASSICS = ("copypaste", "nsa", "perlin", "cutpaste", "procedural")
ANCHORS = ("support", "untouched", "held-out")
MINIMUM, CONTEXT = 64, 1.5
CLOSE = 96  # side of the tight crops in which copies are looked for
EXTRA = ("precision", "recall", "density", "coverage")


def cut(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The square window around a mask, a copy."""
    return image[compose.square_window(mask, MINIMUM, CONTEXT).slices].copy()


def windows(samples: Sequence[Sample]) -> list[np.ndarray]:
    return [cut(s.image, s.mask) for s in samples]


class Judge:
    """One seed: real windows and their features by type, computed once for all methods."""

    def __init__(
        self, args: argparse.Namespace, seed: int, extractor: features.Extractor, close: features.Extractor
    ) -> None:
        self.args, self.seed, self.extractor, self.close = args, seed, extractor, close
        split, normals = divide(args, seed)
        rng = np.random.default_rng(seed)
        normals = [normals[i] for i in sorted(rng.permutation(len(normals))[: args.normals])]
        self.types = sorted({r.defect_type for r in split.support})
        self.folder = args.out / f"seed{seed}"
        self.data = materialise(self.folder, split.support, normals)
        test = unseen(args.source, split.test) if normals[0].category in PRETRAINED else split.test
        self.parts = {
            name: [r.group or r.name for r in test if r.defect_type == name and r.masks] for name in self.types
        }
        self.support = {name: _loaded(split.support, name) for name in self.types}
        self.real = {name: _loaded(test, name) for name in self.types}
        self.seen = {name: extractor(windows(found), maps=True) for name, found in self.support.items()}
        self.truth = {name: extractor(windows(found), maps=True) for name, found in self.real.items()}
        # A copy may be turned or mirrored: every support defect stands for 48.
        self.turned = {
            name: self._maps([turn for s in found for turn in diversity.all_turns(s.image, s.mask, size=CLOSE)])
            for name, found in self.support.items()
        }
        self.real_nearest = {name: self._nearest(name, found) for name, found in self.real.items()}

    def _maps(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        found = self.close(crops, maps=True).maps
        assert found is not None
        return found

    def _nearest(self, name: str, samples: Sequence[Sample]) -> np.ndarray:
        """Distances (N, 48 K) of the defects alone to every support defect in every turn."""
        crops = [diversity.aligned_crop(s.image, s.mask, size=CLOSE) for s in samples]
        return diversity.distances(self._maps(crops), self.turned[name])

    def by_type(self, method: str) -> dict[str, list[Sample]]:
        """Pictures of one method by type; a method that knows no types deals its pictures out in turn."""
        if method == "support":
            return self.support
        if method == "untouched":
            return self._untouched()
        samples = self._samples(method)
        found = {name: [s for s in samples if s.defect_type == name] for name in self.types}
        if not any(found.values()):
            order = np.random.default_rng(0).permutation(len(samples))
            shuffled = [samples[i] for i in order]
            found = {name: shuffled[i :: len(self.types)] for i, name in enumerate(self.types)}
        return {name: members[: self.args.pictures] for name, members in found.items()}

    def _samples(self, method: str) -> list[Sample]:
        if "=" in method:
            folder = Path(method.split("=", 1)[1].replace("{seed}", str(self.seed)))
            return [r.load() for r in datasets.read("mvtec_ad", folder) if not r.is_good]
        return generated(method, self.data, self.folder, self.types, self.args, named=True)

    def _untouched(self) -> dict[str, list[Sample]]:
        """The photographs that the first method painted on, with its masks, and nothing painted."""
        method = self.args.methods[0]
        self._samples(method)
        out = self.folder / method
        found: dict[str, list[Sample]] = {name: [] for name in self.types}
        for line in map(json.loads, (out / "manifest.jsonl").read_text(encoding="utf-8").splitlines()):
            if line["status"] == "kept" and line["defect_type"] in found:
                base = next(b for b in (self.data, self.data.parent) if (b / line["normal"]["file"]).is_file())
                photo = images.read_image(base / line["normal"]["file"])
                found[line["defect_type"]].append(Sample(photo, images.read_mask(out / line["mask"])))
        return found

    def values(self, method: str) -> list[dict[str, Any]]:
        """Every figure of one method, one line per type."""
        lines = []
        for name, found in self.by_type(method).items():
            if len(found) < 2 or len(self.real[name]) < 2:
                lines += [self._line(method, name, "KID", None, len(found), reason="fewer than two windows")]
                continue
            made = self.seen[name] if method == "support" else self.extractor(windows(found), maps=True)
            truth, n = self.truth[name], len(found)
            assert made.maps is not None and truth.maps is not None
            _, spread = fidelity.kid_spread(truth.pooled, made.pooled)
            lines += [self._line(method, name, "KID", fidelity.kid(truth.pooled, made.pooled), n, spread=spread)]
            if min(n, len(truth)) > 5:
                lines += [
                    self._line(method, name, key, value, n)
                    for key, value in fidelity.manifold(truth.pooled, made.pooled).items()
                ]
            centres = self.seen[name].maps
            assert centres is not None
            pairwise = diversity.mean_pairwise(diversity.distances(made.maps))
            lines += [self._line(method, name, "pairwise-FD", pairwise, n)]
            if method == "support":
                lines += self._reality(name, truth, centres)
                continue
            clustered = diversity.cluster_diversity(made.maps, centres)
            lines += [self._line(method, name, "IC-FD", clustered.value, n, left_out=clustered.left_out)]
            few = found[: self.args.near]
            near = diversity.memorisation(self._nearest(name, few), self.real_nearest[name])
            lines += [
                self._line(method, name, "nearest-ratio", near.ratio, len(few)),
                self._line(method, name, "near-copies", near.near_copies, len(few), limit=near.limit),
            ]
        return lines

    def _reality(self, name: str, truth: features.Features, centres: np.ndarray) -> list[dict[str, Any]]:
        """The same figures of the held-out real defects; KID of one half of the physical parts against the other."""
        assert truth.maps is not None
        clustered = diversity.cluster_diversity(truth.maps, centres)
        pairwise = diversity.mean_pairwise(diversity.distances(truth.maps))
        lines = [
            self._line("held-out", name, "pairwise-FD", pairwise, len(truth)),
            self._line("held-out", name, "IC-FD", clustered.value, len(truth), left_out=clustered.left_out),
        ]
        parts, owner = sorted(set(self.parts[name])), np.array(self.parts[name])
        rng, halves = np.random.default_rng(0), []
        for _ in range(20 if len(parts) > 1 and len(owner) == len(truth) else 0):
            first = np.isin(owner, rng.permutation(parts)[: len(parts) // 2])
            if 2 <= first.sum() <= len(first) - 2:
                halves.append(fidelity.kid(truth.pooled[first], truth.pooled[~first]))
        if halves:
            spread = float(np.std(halves))
            lines.append(self._line("held-out", name, "KID", float(np.mean(halves)), len(truth), spread=spread))
        return lines

    def _line(self, method: str, name: str, key: str, value: float | None, n: int, **more: Any) -> dict[str, Any]:
        return {
            "run": identity(self.args, method),
            "seed": self.seed,
            "method": method.split("=", 1)[0],
            "type": name,
            "key": f"{key}/{self.close.name}/defect"
            if key.startswith("near")
            else f"{key}/{self.extractor.name}/window",
            "value": value,
            "n_real": len(self.real[name]),
            "n_generated": n,
            **more,
        }


def identity(args: argparse.Namespace, method: str) -> str:
    """What a value depends on besides seed and type; a fitted method also on its backbone and settings."""
    if method.split("=", 1)[0] != "inpaint":
        return str(args.run)
    own = [args.run, args.backbone, args.fit_steps, args.fit, args.inpaint]
    return hashlib.sha256(json.dumps(own).encode()).hexdigest()[:12]


def _loaded(records: Sequence[Record], name: str) -> list[Sample]:
    found = [r.load() for r in records if r.defect_type == name and r.masks]
    return [s for s in found if s.mask.any()]


# -- the report ------------------------------------------------------------------------------------------------------


def collect(lines: Sequence[dict[str, Any]], key: str) -> dict[str, dict[int, dict[str, float]]]:
    """method -> seed -> type (and "mean") -> value of one key."""
    table: dict[str, dict[int, dict[str, float]]] = {}
    for line in lines:
        if line["key"].split("/")[0] == key and line["value"] is not None:
            table.setdefault(line["method"], {}).setdefault(line["seed"], {})[line["type"]] = line["value"]
    for runs in table.values():
        for seed, values in runs.items():
            runs[seed] = {**values, "mean": float(np.mean(list(values.values())))}
    return table


def report(lines: Sequence[dict[str, Any]]) -> str:
    """Tables of means over seeds, and every method against the best classic, paired by seed."""
    rows = []
    kid = collect(lines, "KID")
    classics = {m: np.mean([run["mean"] for run in runs.values()]) for m, runs in kid.items() if m in CLASSICS}
    best = min(classics, key=lambda m: classics[m]) if classics else ""
    for key, scale in (
        *(("KID", 1e3), ("pairwise-FD", 1.0), ("IC-FD", 1.0), ("nearest-ratio", 1.0), ("near-copies", 1.0)),
        *((name, 1.0) for name in EXTRA),
    ):
        found = collect(lines, key)
        title = f"{key} x 1000 (spread over seeds)" if key == "KID" else key
        rows.append(f"\n{title}")
        for method, runs in found.items():
            names = sorted({name for run in runs.values() for name in run} - {"mean"})
            shown = []
            for name in [*names, "mean"]:
                values = [run[name] * scale for run in runs.values() if name in run]
                shown.append(f"{name} {np.mean(values):.3f}" + (f" ({np.std(values):.2f})" if key == "KID" else ""))
            row = f"  {method:16} n={len(runs)}  " + "  ".join(shown)
            paired = [s for s in runs if s in found.get(best, {})]
            if key == "KID" and method not in ANCHORS and method != best and paired:
                differences = [scale * (runs[s]["mean"] - found[best][s]["mean"]) for s in paired]
                mean, low, high = paired_bootstrap(differences)
                share = np.mean([runs[s]["mean"] for s in paired]) / np.mean([found[best][s]["mean"] for s in paired])
                row += f"  vs {best} {mean:+.2f} [{low:+.2f}, {high:+.2f}], ratio {share:.2f}"
            rows.append(row)
    rows += ["", *bars(lines, best)]
    return "\n".join(rows)


def bars(lines: Sequence[dict[str, Any]], best: str) -> list[str]:
    """The bars of every method that is no classic."""
    kid, spread, near = (collect(lines, key) for key in ("KID", "pairwise-FD", "near-copies"))
    rows = []
    for method in kid:
        if method in (*CLASSICS, *ANCHORS) or not best:
            continue
        seeds = [s for s in kid[method] if s in kid[best]]
        ratio = np.mean([kid[method][s]["mean"] for s in seeds]) / np.mean([kid[best][s]["mean"] for s in seeds])
        rows.append(f"{method}: KID {ratio:.2f} of {best}'s (bar: 0.50) {_met(ratio <= 0.5)}")
        seeds = [s for s in spread[method] if s in spread.get("support", {})]
        if seeds:
            own, real = (np.mean([spread[m][s]["mean"] for s in seeds]) for m in (method, "support"))
            rows.append(
                f"{method}: diversity {own:.3f}, real support {real:.3f} (bar: at least that) {_met(own >= real)}"
            )
        copies = np.mean([run["mean"] for run in near[method].values()])
        rows.append(f"{method}: near-copies {copies:.1%} of its pictures (real pictures: 1 %)")
    return rows


def _met(good: bool) -> str:
    return "met" if good else "missed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="READER:DIR")
    parser.add_argument("--types", nargs="*", default=[])
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=[*CLASSICS, "inpaint"])
    parser.add_argument("--features", required=True, help="folder or hub id of a vision model, or compact (smoke)")
    parser.add_argument("--pictures", type=int, default=100, help="generated per defect type and method")
    parser.add_argument("--near", type=int, default=60, help="pictures per type in which copies are looked for")
    parser.add_argument("--normals", type=int, default=120)
    parser.add_argument("--fit-steps", type=int, default=None)
    parser.add_argument("--fit", default="{}", help="JSON: settings of the few-shot fit")
    parser.add_argument("--inpaint", default="{}", help="JSON: options of the inpaint method")
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--generate-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    extractor = features.load(args.features)
    close = extractor if extractor.smoke else features.load(args.features, CLOSE)
    fixed = [args.source, sorted(args.types), args.shots, args.pictures, args.normals, args.generate_seed]
    args.run = hashlib.sha256(json.dumps([*fixed, extractor.hash, MINIMUM, CONTEXT]).encode()).hexdigest()[:12]
    args.out.mkdir(parents=True, exist_ok=True)
    images.write_bytes(
        args.out / "extractor.json", (json.dumps([e.describe() for e in (extractor, close)], indent=2) + "\n").encode()
    )
    file = args.out / "quality.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for seed in args.seeds:
        wanted = (*(("untouched",) if "=" not in args.methods[0] else ()), "support", *args.methods)
        done = {(line["method"], line["run"]) for line in lines if line["seed"] == seed}
        missing = [m for m in wanted if (m.split("=", 1)[0], identity(args, m)) not in done]
        judge = Judge(args, seed, extractor, close) if missing else None
        for method in missing:
            assert judge is not None
            started = time.perf_counter()
            found = judge.values(method)
            with file.open("a") as stream:
                stream.writelines(json.dumps(line) + "\n" for line in found)
            lines += found
            print(f"seed {seed} {method}: {time.perf_counter() - started:.0f} s", flush=True)
    print(report([line for line in lines if line["run"] == identity(args, line["method"])]))


if __name__ == "__main__":
    main()
