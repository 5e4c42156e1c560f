"""What the worker does, each through the package's own functions: make, batch, check, fit, evaluate, export."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import flawsmith
from flawsmith import images, report
from flawsmith.config import EvaluateConfig, GenerateConfig, TrainConfig
from flawsmith.datasets import check as checking
from flawsmith.datasets.exports import run as exports
from flawsmith.datasets.writer import Writer, read_manifest
from flawsmith.errors import FlawsmithError
from flawsmith.generation import run as generation
from flawsmith.masks.options import severity_of
from flawsmith.methods.base import Synthesizer
from flawsmith.methods.samples import Samples
from flawsmith.records import Progress, Sample
from flawsmith.studio import several
from flawsmith.studio.store import heat_of


class Work:
    """Performs jobs one after the other; the method that was used last stays loaded."""

    def __init__(self) -> None:
        self._loaded: tuple[str, Synthesizer] | None = None

    def perform(self, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Do a job; returns what the page is told. Raises FlawsmithError for what was asked wrongly."""
        kinds: dict[str, Callable[[dict[str, Any], Progress], dict[str, Any]]] = {
            "make": self._make,
            "batch": self._batch,
            "check": self._check,
            "fit": self._fit,
            "export": self._export,
            "report": self._report,
            "evaluate": self._evaluate,
        }
        return kinds[job["kind"]](job, progress)

    def _method(self, name: str) -> Synthesizer:
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = None  # before the next one takes memory
            self._loaded = name, flawsmith.load(name)
        return self._loaded[1]

    def _make(self, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """`count` images of one photograph, a seed each, into a made set."""
        progress("loading the method", 0, job["count"], {})
        method = self._method(job["method"])
        image, out = images.read_image(job["image"]), Path(job["out"])
        mask = images.read_mask(job["mask"]) if job["mask"] else job["family"] or None
        given = {key: job[key] for key in ("defect_type", "prompt", "category", "mask_options", "gate")}
        given |= {"reference": _reference(job["reference"]), **job["options"]}
        given["heat"] = heat_of(Path(job["heat"]) if job["heat"] else None, image)
        roi = images.read_mask(job["roi"]) if job["roi"] else None
        kept: list[Sample] = []
        refused: list[str] = []
        for number in range(job["count"]):
            seed = job["seed"] + number
            own = {**given, "severity": severity_of(job["severity"], seed)}
            masks = several.masks_of(mask, job["parts"], job["defects"], seed)
            made = several.make(method, image, masks, seed, roi, own)
            progress(f"seed {seed}", number + 1, job["count"], {})
            kept += [replace(sample, info={**sample.info, **_origin(job, seed)}) for sample in made]
            refused += [str(sample.info["rejected"]) for sample in made.refused]
        shutil.rmtree(out, ignore_errors=True)  # what a killed worker left half done
        if kept:
            Samples(kept).save(out)
        return {"kept": len(kept), "refused": list(Counter(refused).items())}

    def _batch(self, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Many images of a data set: `flawsmith generate`. Resumes."""
        summary = generation.run(GenerateConfig(**job["config"]).gated(), progress)
        return {"kept": summary.kept, "refused": list(summary.reasons.items()), "notes": list(summary.notes)}

    def _check(self, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
        report = checking.check(job["source"], progress=progress)
        return {"rows": report.rows, "findings": [asdict(one) for one in report.grouped()][:500]}

    def _fit(self, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """A few-shot model of a data set's defects: `flawsmith train`. Resumes."""
        try:
            from flawsmith.training import run as training
        except ImportError as error:
            raise FlawsmithError("A fit needs pip install 'flawsmith[diffusion]'.") from error
        card = training.train(TrainConfig(**job["config"]), progress)
        return {"learned": sorted(card.get("learned", {}))}

    def _evaluate(self, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """A batch against real data: `flawsmith evaluate`. Resumes."""
        try:
            from flawsmith.evaluation import run as evaluation
        except ImportError as error:
            raise FlawsmithError("An evaluation needs pip install 'flawsmith[diffusion]'.") from error
        values, notes = evaluation.evaluate(EvaluateConfig(**job["config"]), "flawsmith studio", progress)
        return {"values": len(values), "notes": list(notes)}

    def _export(self, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """The kept images of several sets as one data set, in the asked format, as a zip file."""
        out, target = Path(job["out"]), Path(job["zip"])
        shutil.rmtree(out, ignore_errors=True)
        count = _gather(job["sets"], out / "mvtec", job["source"], progress)
        folder = out / "mvtec"
        if job["format"] != "flawsmith":
            exports.export(f"mvtec_ad:{folder}", out / "export", [job["format"]], progress=progress)
            folder = out / "export"
        progress("zip", count, count, {})
        partial = shutil.make_archive(str(target.with_suffix(".partial")), "zip", folder)
        Path(partial).replace(target)
        return {"images": count, "file": target.name, "folder": str(folder)}

    def _report(self, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """The page about a made set, or about the results of an evaluation."""
        folders = [(job["name"], Path(job["folder"]))] if job.get("folder") else []
        results = [Path(job["results"])] if job.get("results") else []
        notes = report.write(folders, Path(job["out"]), results, title=job["name"], progress=progress)
        return {"notes": notes}


def _reference(given: dict[str, Any] | None) -> Sample | None:
    if given is None:
        return None
    mask = images.read_mask(given["mask"])
    return Sample(images.read_image(given["image"]), mask, given["category"], given["defect_type"])


def _origin(job: dict[str, Any], seed: int) -> dict[str, Any]:
    """What the manifest names beside the pixels: the photograph, the reference, the seed that makes it again."""
    reference = job["reference"]
    named = {"file": reference["name"], "sha": images.file_sha(reference["image"]), "group": ""} if reference else None
    return {
        "normal": {"file": job["name"], "sha": images.file_sha(job["image"])},
        "reference": named,
        "asked_seed": seed,
    }


def _gather(sets: list[dict[str, Any]], out: Path, source: str, progress: Progress) -> int:
    """Copy the chosen images of made sets, `{"folder", "indices"}`, into one generated folder; returns how many."""
    chosen = [
        (Path(one["folder"]), line)
        for one in sets
        for line in read_manifest(Path(one["folder"]))
        if line["status"] == "kept" and line["index"] in set(one["indices"])
    ]
    if not chosen:
        raise FlawsmithError("No image is kept yet: keep some, then export.")
    abouts = [json.loads((folder / "generate.json").read_text(encoding="utf-8")) for folder in {f for f, _ in chosen}]
    kinds = list(dict.fromkeys((line["category"], line["defect_type"]) for _, line in chosen))
    several = len({category for category, _ in kinds}) > 1
    description = {
        "flawsmith": flawsmith.__version__,
        "source": source,
        "n": len(chosen),
        "types": [list(kind) for kind in kinds],
        "several_categories": several,
        "support": {name: sha for about in abouts for name, sha in about.get("support", {}).items()},
        "licences": sorted({name for about in abouts for name in about.get("licences", [])}),
        "reviewed": "every image was kept by hand in the studio",
    }
    numbers: Counter[tuple[str, str]] = Counter()
    with Writer(out, description) as writer:
        for index, (folder, line) in enumerate(chosen):
            kind = (line["category"], line["defect_type"])
            start = f"{line['category']}/" if several else ""
            number, defect = f"{numbers[kind]:04d}", line["defect_type"]
            numbers[kind] += 1
            files = [(folder / line[key]).read_bytes() for key in ("image", "mask")]
            place = {
                "index": index,
                "image": f"{start}test/{defect}/{number}.png",
                "mask": f"{start}ground_truth/{defect}/{number}_mask.png",
                "prompt": f"{start}prompt/{defect}/{number}.txt",
            }
            writer.write({**line, **place}, files[0], files[1])
            progress("gathering", index + 1, len(chosen), {})
    return len(chosen)
