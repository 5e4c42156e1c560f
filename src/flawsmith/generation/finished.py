"""From an image that was painted to what is written of it: its manifest line and the bytes of its files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flawsmith import __version__, images
from flawsmith.datasets.leaks import Print
from flawsmith.generation import gating
from flawsmith.generation.attempts import Painted
from flawsmith.generation.loading import Loader
from flawsmith.generation.planning import Plan
from flawsmith.methods.base import Synthesizer
from flawsmith.quality import repeats
from flawsmith.quality.watch import Watch


@dataclass(frozen=True)
class Finished:
    """One image, ready to be written; only bytes and words, so that it can come from another process.

    image and mask: PNG bytes, None of one that was refused. others: further files by their path in the data set.
    print: of a kept image behind a gate, to tell whether it repeats another one.
    """

    line: dict[str, Any]
    image: bytes | None
    mask: bytes | None
    others: dict[str, bytes]
    print: Print | None


def finish(one: Painted, made: Plan, loader: Loader, synthesizer: Synthesizer, watch: Watch | None) -> Finished:
    """Encode an image and put into words how it was made."""
    line = _line(one, loader, synthesizer)
    if "rejected" in one.sample.info:
        line["reason"] = one.sample.info["rejected"]
        others = {} if watch is None else gating.enter(watch, line, one.sample, one.changed)
        return Finished(line, None, None, others, None)
    index = one.job.index
    image, mask = images.encode_png(one.sample.image), images.encode_png(one.sample.mask)
    line["image"] = place(made, index, "test", ".png")
    line["mask"] = place(made, index, "ground_truth", "_mask.png")
    line["prompt"] = place(made, index, "prompt", ".txt")
    line["image_sha"], line["mask_sha"] = images.bytes_sha(image), images.bytes_sha(mask)
    line["image_bytes"], line["mask_bytes"] = len(image), len(mask)
    others = {}
    if one.ids is not None:
        name = place(made, index, "instances", ".png")
        others[name] = images.encode_png(one.ids)
        types = [{key: part[key] for key in ("id", "defect_type")} for part in one.instances]
        others[place(made, index, "instances", ".json")] = f"{json.dumps(types)}\n".encode()
        line["instances"] = {"file": name, "defects": one.instances}
    if watch is None:
        return Finished(line, image, mask, others, None)
    others |= gating.enter(watch, line, one.sample, one.changed)
    own = repeats.print_of(one.sample)
    line["print"] = repeats.brief(own)
    return Finished(line, image, mask, others, own)


def place(made: Plan, index: int, folder: str, ending: str) -> str:
    """The path of a file of image `index` in the data set: its type's folder below `folder`, its number, `ending`."""
    number, turn = made.jobs.turns.at(index)
    kind = made.jobs.kinds[number]
    start = f"{kind.category}/" if made.description["several_categories"] else ""
    return f"{start}{folder}/{kind.defect_type}/{turn:0{made.description['digits']}d}{ending}"


def _line(one: Painted, loader: Loader, synthesizer: Synthesizer) -> dict[str, Any]:
    """What the manifest says of every image, kept or refused."""
    job, request, sample = one.job, one.request, one.sample
    info = {key: value for key, value in sample.info.items() if key not in ("scores", "checks", "window", "rejected")}
    line: dict[str, Any] = {
        "index": job.index,
        "status": "rejected" if "rejected" in sample.info else "kept",
        "category": job.normal.category,
        "defect_type": job.defect_type,
        "caption": sample.caption,
        "seed": job.seed,
        "redraws": one.redraws,
        "normal": {"file": job.normal.name, "sha": loader.sha(job.normal.image)},
        "reference": {"file": job.reference.name, "sha": loader.sha(job.reference.image), "group": job.reference.group}
        if job.reference
        else None,
        "others": [record.name for record in job.others],
        "mask_source": Path(job.mask).name if loader.mask_is_file else "whole" if request.whole else job.mask,
        "warp": request.warp.to_json() if request.warp is not None and not job.parts else None,
        "requested_mask_sha": None if job.parts else images.array_sha(request.mask),
        "window": sample.info.get("window"),
        "scores": sample.info.get("scores", {}),
        "info": info,
        "method": synthesizer.name,
        "options": synthesizer.options.model_dump(mode="json"),
        "flawsmith": __version__,
    }
    if job.target is not None:
        line["target"] = asdict(job.target)
    if request.severity is not None:
        line["severity"] = request.severity
    return line
