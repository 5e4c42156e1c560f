"""From a configuration to pictures: plan -> jobs -> requests -> samples -> writer. The only path to a pixel."""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from flawsmith import __version__, captions, compose, datasets, images, masks, methods
from flawsmith.config import GenerateConfig
from flawsmith.datasets.splits import few_shot
from flawsmith.datasets.writer import PARTIAL, Writer
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.methods.base import Synthesizer
from flawsmith.records import GOOD, Job, Record, Request, Sample
from flawsmith.registry import resolve

Progress = Callable[[int, int, str], None]
CACHE_BYTES = 192 << 20  # decoded photographs kept between jobs; one larger than this is not kept at all
MIN_ON_OBJECT = 0.5
LARGE = 24 << 20  # pixels of a photograph that is handled in parts
TILE = 2048  # side of the square of a large photograph in which a mask is drawn


def hash_seed(seed: int, *parts: Any) -> int:
    """A 63-bit seed from a seed and any words, the same on every machine and Python."""
    text = json.dumps([seed, *parts], ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Plan:
    """Everything decided before the first pixel: the jobs, and what `generate.json` records."""

    jobs: list[Job]
    description: dict[str, Any]
    support: list[Record]
    normals: dict[str, list[Record]]  # all that may be painted on, by category
    notes: list[str]  # what the user should know but need not change


def read_records(config: GenerateConfig) -> list[Record]:
    """The data set named by `config.normal`. Raises FlawsmithError when there is nothing good to paint on."""
    reader, root = datasets.parse_source(config.normal)
    if root.resolve() in (config.out.resolve(), *config.out.resolve().parents):
        raise FlawsmithError(
            f"Output folder {config.out} lies inside the data set {root}: the next run would read the painted pictures "
            f"as photographs. Choose a folder beside it, for example --out {root.resolve().parent / 'painted'}."
        )
    records = datasets.read(reader, root, category=config.category, group_by=config.group_by)
    if not any(record.is_good for record in records):
        raise FlawsmithError(
            f"{config.normal} has no good photographs: put them under train/good, or name a folder of good photographs."
        )
    return records


def plan(config: GenerateConfig, records: Sequence[Record], synthesizer: Synthesizer) -> Plan:
    """Decide every picture: a pure function of its arguments.

    Job i does not depend on n, so that a longer run begins with the shorter one. Normals come from the training
    photographs, references only from the few-shot support set: a method never sees a test picture.
    """
    by_category: dict[str, list[Record]] = {}
    for record in records:
        by_category.setdefault(record.category, []).append(record)
    normals, supports = {}, {}
    for category, found in by_category.items():
        good = [record for record in found if record.is_good]
        training = [record for record in good if record.split == "train"]
        if good:
            normals[category] = training or good
        defects = [record for record in found if not record.is_good]
        support = few_shot(defects, shots=config.shots, seed=config.split_seed).support if defects else []
        supports[category] = [record for record in support if record.masks]
    own = _own_reference(config, next(iter(by_category)))
    pairs = _pairs(config, synthesizer, normals, by_category, supports, own)
    total = config.n * len(pairs) if config.per_defect else config.n
    jobs = []
    for index in range(total):
        category, defect = pairs[index % len(pairs)]
        turn = index // len(pairs)
        references = [own] if own else [r for r in supports[category] if r.defect_type == defect]
        if synthesizer.needs_reference and not references:
            raise FlawsmithError(_no_reference(config, synthesizer, category, defect))
        caption = config.prompt or ""
        jobs.append(
            Job(
                index=index,
                normal=_shuffled(normals[category], hash_seed(config.seed, "normal", category, defect), turn),
                reference=_shuffled(references, hash_seed(config.seed, "reference", category, defect), turn)
                if references
                else None,
                mask=config.mask or _default_mask(synthesizer, defect, bool(references)),
                defect_type=defect,
                caption=caption or synthesizer.default_caption(category, defect),
                seed=hash_seed(config.seed, index),
            )
        )
    everything = sorted(f"{record.name} {record.image.stat().st_size}" for record in records)
    support = [record for supported in supports.values() for record in supported]
    description = {
        "flawsmith": __version__,
        "source": config.normal,
        "n": total,
        "digits": max(3, len(str(max(0, (total - 1) // len(pairs))))),
        "several_categories": len(by_category) > 1,
        "data_set": hashlib.sha256("\n".join(everything).encode()).hexdigest()[:16],
        "types": [list(pair) for pair in pairs],
        "options": synthesizer.options.model_dump(mode="json"),
        **{key: value for key, value in config.identity().items() if key != "options"},
        "support": {record.name: images.file_sha(record.image) for record in support},
        "licences": _licences(records),
    }
    notes = _notes(synthesizer, records, supports, config.defect) if synthesizer.needs_reference and not own else []
    return Plan(jobs, description, support, normals, notes)


def _notes(
    synthesizer: Synthesizer, records: Sequence[Record], supports: dict[str, list[Record]], asked: Sequence[str]
) -> list[str]:
    """Real defects that were silently left out would surprise: say which and why."""
    notes = []
    defects = [record for record in records if not record.is_good and (not asked or record.defect_type in asked)]
    bare = [record for record in defects if not record.masks]
    if bare:
        notes.append(f"{len(bare)} pictures of defects have no mask and are not used (the first: {bare[0].image}).")
    known = {(record.category, record.defect_type) for supported in supports.values() for record in supported}
    for category, defect in dict.fromkeys((r.category, r.defect_type) for r in defects if r.masks):
        if (category, defect) not in known:
            notes.append(
                f"{category}/{defect} has too few pictures for a third of them to be seen and is left out: "
                "give --shots."
            )
    return notes


def _pairs(
    config: GenerateConfig,
    synthesizer: Synthesizer,
    normals: dict[str, list[Record]],
    by_category: dict[str, list[Record]],
    supports: dict[str, list[Record]],
    own: Record | None,
) -> list[tuple[str, str]]:
    """(category, defect type) of every kind of picture asked for, in order."""
    pairs: list[tuple[str, str]] = []
    for category in normals:
        in_data = list(dict.fromkeys(r.defect_type for r in by_category[category] if not r.is_good))
        with_reference = [name for name in in_data if any(r.defect_type == name for r in supports[category])]
        if config.defect:
            known = set(in_data) if synthesizer.needs_reference and not own else None
            for name in config.defect:
                if known is not None and name not in known:
                    raise unknown("Defect", name, known, f"in {config.normal}")
            names: Sequence[str] = config.defect
        elif config.prompt and (kind := captions.parse(config.prompt).kind) and not synthesizer.needs_reference:
            names = [kind]  # the prompt says what to paint
        elif synthesizer.defect_types:
            names = synthesizer.defect_types
        elif own:
            names = [own.defect_type]
        elif synthesizer.names_from_data and with_reference:
            names = with_reference
        elif synthesizer.needs_reference:
            names = with_reference
            if not names:
                raise FlawsmithError(_no_reference(config, synthesizer, category, ""))
        else:
            names = [synthesizer.name]
        for name in names:
            if not name or name == GOOD or any(c in name for c in '/\\:*?"<>|') or name.startswith("."):
                raise FlawsmithError(f"Defect name {name!r} cannot name a folder: use letters, digits, - and _.")
            pairs.append((category, name))
    return pairs


def _no_reference(config: GenerateConfig, synthesizer: Synthesizer, category: str, defect: str) -> str:
    what = f"defect {defect!r} of " if defect else ""
    return (
        f"{synthesizer.name} needs real defects with masks, but {what}{category or config.normal} offers none to learn "
        "from: name a data set with test/<defect> and ground_truth/<defect> in --normal, raise --shots, or give "
        "--reference and --reference-mask."
    )


def _own_reference(config: GenerateConfig, category: str) -> Record | None:
    if config.reference is None:
        if config.reference_mask is not None:
            raise FlawsmithError("--reference-mask was given without --reference: name the photograph it belongs to.")
        return None
    if config.reference_mask is None:
        raise FlawsmithError(
            f"--reference {config.reference} has no mask, so nobody knows which pixels are the defect: give "
            "--reference-mask, a black picture of the same size that is white on the defect."
        )
    defect = config.defect[0] if config.defect else "defect"
    record = Record(
        image=config.reference,
        category=category,
        defect_type=defect,
        masks=(config.reference_mask,),
        caption=config.reference_text or "",
        root=config.reference.parent,
    )
    if not record.load().mask.any():
        raise FlawsmithError(f"Reference mask {config.reference_mask} is empty: paint the defect white.")
    return record


def _shuffled(items: Sequence[Any], seed: int, turn: int) -> Any:
    """The `turn`-th item of an endless walk through `items`, each pass in a new order."""
    epoch, place = divmod(turn, len(items))
    return items[_order(seed, epoch, len(items))[place]]


@lru_cache(maxsize=4096)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    return np.random.default_rng([seed, epoch]).permutation(count).tolist()


def _licences(records: Sequence[Record]) -> list[str]:
    """Licence files found at the data set's root: what the generated pictures inherit."""
    found = set()
    for root in {record.root for record in records}:
        if root.is_dir():
            found |= {p.name for p in root.iterdir() if p.is_file() and p.name.lower().startswith("licen")}
    return sorted(found)


# -- words to pixels -------------------------------------------------------------------------------------------------


class Loader:
    """Loads requests; keeps recently decoded photographs and their object masks within a byte budget."""

    def __init__(self, config: GenerateConfig) -> None:
        self.config = config
        self._cache: OrderedDict[tuple[str, str], tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._alive: WeakValueDictionary[tuple[str, str], Any] = (
            WeakValueDictionary()
        )  # too large to keep, still in use
        self._shas: dict[Path, str] = {}
        mask = config.mask
        self.mask_is_picture = mask is not None and mask not in masks.MASKS
        self.mask_options = masks.MaskOptions() if self.mask_is_picture else _mask_options(config.mask_options)

    def _keep(self, kind: str, path: Path, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        key = (kind, str(path))
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key][0]
        value = self._alive.get(key)
        if value is not None:
            return value
        value = make()
        self._alive[key] = value
        cost = size(value)
        if cost <= CACHE_BYTES:
            self._cache[key] = (value, cost)
            self._bytes += cost
            while self._bytes > CACHE_BYTES:
                self._bytes -= self._cache.popitem(last=False)[1][1]
        return value

    def sample(self, record: Record) -> Sample:
        """The pixels of a record; of a large photograph with a defect only the defect's surroundings."""
        return self._keep("sample", record.image, lambda: _load(record), lambda s: s.image.nbytes + s.mask.nbytes)

    def sha(self, path: Path) -> str:
        if path not in self._shas:
            self._shas[path] = images.file_sha(path)
        return self._shas[path]

    def allowed(self, record: Record) -> np.ndarray:
        """Where a defect may sit: the object, and inside the region of interest when one is given; (H, W) bool."""

        def make() -> np.ndarray:
            image = self.sample(record).image
            allowed = masks.foreground(image)
            if self.config.roi is not None:
                allowed = allowed & self.picture_mask(
                    self.config.roi, image.shape[:2], "Region of interest", record.image
                )
            if not allowed.any():
                raise FlawsmithError(
                    f"The region of interest {self.config.roi} and the object in {record.image} do not meet: "
                    "paint white where defects may sit."
                )
            return allowed

        return self._keep("allowed", record.image, make, lambda mask: mask.nbytes)

    def picture_mask(self, path: Path, shape: tuple[int, ...], what: str, photo: Path) -> np.ndarray:
        """The mask (H, W) bool in a picture, refused when it is empty or not of the photograph's size."""
        mask = self._keep("mask", path, lambda: images.read_mask(path), lambda mask: mask.nbytes)
        if mask.shape != tuple(shape):
            raise FlawsmithError(
                f"{what} {path} is {mask.shape[1]} x {mask.shape[0]} pixels, {photo} is {shape[1]} x {shape[0]}: "
                "make them the same size, or run photographs of different sizes one by one."
            )
        if not mask.any():
            raise FlawsmithError(f"{what} {path} is empty: paint white where the defect may sit.")
        return mask

    def _tile(self, family: str, allowed: np.ndarray, rng: np.random.Generator) -> tuple[slice, slice]:
        """Where a mask is drawn: everywhere, on a large photograph in a random square that meets the object.

        A crack as long as a 100-megapixel plate is no defect, and its window would not fit in memory. A real mask has
        its own size; whoever asks for a size or a place means the whole object.
        """
        options = self.mask_options
        if allowed.size <= LARGE or family == "reference" or options.size is not None or options.place != "anywhere":
            return slice(None), slice(None)
        step = 32
        rows, columns = np.nonzero(allowed[::step, ::step])
        if not len(rows):
            return slice(None), slice(None)
        pick = int(rng.integers(len(rows)))
        top = min(max(0, int(rows[pick]) * step - TILE // 2), max(0, allowed.shape[0] - TILE))
        left = min(max(0, int(columns[pick]) * step - TILE // 2), max(0, allowed.shape[1] - TILE))
        return slice(top, top + TILE), slice(left, left + TILE)

    def _options(self, reference: Sample | None, pixels: int) -> masks.MaskOptions:
        """The dials; for a cropped reference its enlargement is that of the whole photograph."""
        if reference is None or "whole" not in reference.info:
            return self.mask_options
        factor = _enlargement(pixels / reference.info["whole"]) / _enlargement(pixels / reference.mask.size)
        low, high = self.mask_options.scale
        return self.mask_options.model_copy(update={"scale": (low * factor, high * factor)})

    def request(self, job: Job, redraw: int = 0) -> Request:
        """The pixels of a job. `redraw` > 0 draws the mask and the method's noise anew."""
        reference = self.sample(job.reference) if job.reference else None  # first: it is cropped, the normal is not
        normal = self.sample(job.normal)
        seed = job.seed if redraw == 0 else hash_seed(job.seed, redraw)
        warp = None
        if self.mask_is_picture:
            mask = self.picture_mask(Path(job.mask), normal.image.shape[:2], "Mask", job.normal.image)
        else:
            rng = np.random.default_rng(hash_seed(seed, "mask"))
            allowed, image = self.allowed(job.normal), normal.image
            tile = self._tile(job.mask, allowed, rng)
            options = self._options(reference, allowed.size)
            drawn, warp = masks.draw(job.mask, allowed[tile], rng, options, reference, image[tile])
            mask = drawn
            if drawn.shape != allowed.shape:
                mask = np.zeros(allowed.shape, dtype=bool)
                mask[tile] = drawn
        return Request(normal, mask, job.defect_type, job.caption, reference, seed, warp)


def _load(record: Record) -> Sample:
    sample = record.load()
    if record.is_good or sample.mask.size <= LARGE or not sample.mask.any():
        return sample
    view = compose.window(sample.mask, minimum=1024, context=2.0).slices
    info = {**sample.info, "whole": sample.mask.size}
    return replace(sample, image=sample.image[view].copy(), mask=sample.mask[view].copy(), info=info)


def _enlargement(share: float) -> float:
    """How much `masks.move` enlarges a defect when the photograph has `share` times its photograph's pixels."""
    ratio = math.sqrt(share)
    return 1.0 if 0.5 <= ratio <= 2 else ratio


def _mask_options(given: dict[str, Any]) -> masks.MaskOptions:
    from pydantic import ValidationError

    for key in given:
        if key not in masks.MaskOptions.model_fields:
            raise unknown("Mask dial", key, masks.MaskOptions.model_fields)
    try:
        return masks.MaskOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        what = f"mask.{name}={first['input']!r}" if name else f"Mask dials {given}: this"
        reason = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise FlawsmithError(f"{what} is not allowed: {reason[0].lower()}{reason[1:]}.") from None


# -- running ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """What a run did: pictures kept, refused (with reasons and counts), and found finished from before."""

    out: Path
    kept: int
    rejected: int
    resumed: int
    reasons: dict[str, int]
    notes: Sequence[str] = ()


def prepare(config: GenerateConfig, progress: Progress | None = None) -> tuple[Plan, Synthesizer, Loader]:
    """Read, plan and check: every refusal that can be known before slow work happens here, nothing is written."""
    synthesizer = load_method(config.method, config.options, config.backbone)
    if config.mask is not None and config.mask not in masks.MASKS and not Path(config.mask).is_file():
        raise unknown("Mask", config.mask, masks.MASKS, "and is no picture file")
    records = read_records(config)
    made = plan(config, records, synthesizer)
    loader = Loader(config)
    Writer.check(config.out, made.description)
    _check_sources(made.jobs, loader, progress)
    loader.request(made.jobs[0])
    for defect in config.defect:  # a name of the user's own may mean nothing to the method: one try, nothing written
        job = next((job for job in made.jobs if job.defect_type == defect), None)
        if job and synthesizer.defect_types and defect not in synthesizer.defect_types and not synthesizer.batched:
            synthesizer.generate([loader.request(job)])
    return made, synthesizer, loader


def _check_sources(jobs: Sequence[Job], loader: Loader, progress: Progress | None) -> None:
    """Refuse damaged files and sizes that disagree now, by name, not after an hour of painting."""
    references = list(dict.fromkeys(job.reference for job in jobs if job.reference is not None))
    normals = list(dict.fromkeys(job.normal for job in jobs))
    shapes = []
    if loader.config.roi is not None:
        shapes.append(("Region of interest", loader.config.roi))
    if loader.mask_is_picture:
        shapes.append(("Mask", Path(jobs[0].mask)))
    for number, record in enumerate([*references, *normals]):
        if progress and number % 16 == 0:
            progress(number, len(references) + len(normals), "checking photographs")
        if record.is_good:
            images.verify(record.image)
            for what, path in shapes:
                loader.picture_mask(path, images.image_size(record.image), what, record.image)
        elif not loader.sample(record).mask.any():
            raise FlawsmithError(
                f"Mask {record.masks[0]} of {record.image.name} is empty: paint the defect white, or remove both files."
            )


def load_method(method: str, options: dict[str, Any], backbone: str | None = None) -> Synthesizer:
    """A synthesizer by name, by "package.module:Class", or from a checkpoint folder."""
    if method not in methods.METHODS and (Path(method) / "card.json").is_file():
        if backbone is not None:
            raise FlawsmithError(f"{method} was trained on its own backbone: leave --backbone out.")
        synthesizer = Synthesizer.from_pretrained(method)
        synthesizer.options = synthesizer.parse_options(options, synthesizer.options)
        return synthesizer
    if method not in methods.METHODS and ":" not in method:
        raise unknown("Method", method, methods.METHODS, "and is no checkpoint folder (card.json)")
    kind = resolve(method, methods.METHODS, "Method")
    if backbone is None:
        return kind(**options)
    if not kind.batched:
        raise FlawsmithError(f"Method {method!r} uses no diffusion model: leave --backbone out.")
    return kind(backbone=backbone, **options)


def _default_mask(synthesizer: Synthesizer, defect: str, has_reference: bool) -> str:
    """The method's own mask family; a real mask can only be imitated where there is one."""
    family = synthesizer.default_mask(defect)
    return family if family != "reference" or has_reference else "blob"


def generate(
    requests: Sequence[Request], jobs: Sequence[Job], loader: Loader, synthesizer: Synthesizer, max_redraws: int
) -> list[tuple[Request, Sample, int]]:
    """One block: make the samples, redraw refused ones with the next seeds. Returns (request, sample, redraws)."""
    results: list[tuple[Request, Sample, int]] = [
        (request, _gate(sample, request, loader, job), 0)
        for request, sample, job in zip(requests, synthesizer.generate(requests), jobs, strict=True)
    ]
    for redraw in range(1, max_redraws + 1):
        again = [i for i, (_, sample, _) in enumerate(results) if "rejected" in sample.info]
        if not again:
            break
        redrawn = [loader.request(jobs[i], redraw) for i in again]
        for i, request, sample in zip(again, redrawn, synthesizer.generate(redrawn), strict=True):
            results[i] = (request, _gate(sample, request, loader, jobs[i]), redraw)
            del request, sample
    return results


def _gate(sample: Sample, request: Request, loader: Loader, job: Job) -> Sample:
    """Refuse a label that lies off the object; a mask the user painted is the user's word.

    A refused picture is never written: its pixels are let go for the photograph's own.
    """
    if "rejected" not in sample.info and not loader.mask_is_picture:
        area = int(sample.mask.sum())
        on_object = float((sample.mask & loader.allowed(job.normal)).sum()) / max(1, area)
        info = {**sample.info, "scores": {**sample.info.get("scores", {}), "on_object": round(on_object, 4)}}
        if on_object < MIN_ON_OBJECT:
            info["rejected"] = f"off the object ({on_object:.0%} of the label on it)"
        sample = replace(sample, info=info)
    return replace(sample, image=request.normal.image) if "rejected" in sample.info else sample


def blocks(jobs: Sequence[Job], size: int) -> Iterator[Sequence[Job]]:
    """Fixed blocks by index, so that a resumed run batches exactly as an uninterrupted one."""
    for start in range(0, len(jobs), size):
        yield jobs[start : start + size]


def run(config: GenerateConfig, progress: Progress | None = None) -> Summary:
    """Make every picture of a configuration; resumes when the folder already holds part of this run."""
    made, synthesizer, loader = prepare(config, progress)
    with Writer(config.out, made.description) as writer:
        resumed = len(writer.lines)
        if config.with_normals:
            _copy_normals(made, config)
        if progress:
            progress(min(resumed, len(made.jobs)), len(made.jobs), "resuming" if resumed else "starting")
        for block in blocks(made.jobs, config.batch_size if synthesizer.batched else 1):
            if block[-1].index < len(writer.lines):
                continue
            _block(writer, made, loader, synthesizer, block, progress)
        lines = [line for index, line in writer.lines.items() if index < len(made.jobs)]
    reasons: dict[str, int] = {}
    for line in lines:
        if line["status"] != "kept":
            reason = line["reason"].split("(")[0].strip()
            reasons[reason] = reasons.get(reason, 0) + 1
    kept = sum(line["status"] == "kept" for line in lines)
    return Summary(config.out, kept, len(lines) - kept, min(resumed, len(made.jobs)), reasons, made.notes)


def _block(
    writer: Writer,
    made: Plan,
    loader: Loader,
    synthesizer: Synthesizer,
    block: Sequence[Job],
    progress: Progress | None,
) -> None:
    """One block from words to files; a function of its own so that its pixels are gone before the next one's come."""
    requests = [loader.request(job) for job in block]
    results = generate(requests, block, loader, synthesizer, loader.config.max_redraws)
    for job, (request, sample, redraws) in zip(block, results, strict=True):
        if job.index >= len(writer.lines):
            _write(writer, made.description, loader, synthesizer, job, request, sample, redraws)
        if progress:
            progress(job.index + 1, len(made.jobs), job.defect_type)


def _write(
    writer: Writer,
    description: dict[str, Any],
    loader: Loader,
    synthesizer: Synthesizer,
    job: Job,
    request: Request,
    sample: Sample,
    redraws: int,
) -> None:
    number = f"{job.index // len(description['types']):0{description['digits']}d}"
    start = f"{job.normal.category}/" if description["several_categories"] else ""
    kept = "rejected" not in sample.info
    image_png = images.encode_png(sample.image) if kept else None
    mask_png = images.encode_png(sample.mask) if kept else None
    info = {key: value for key, value in sample.info.items() if key not in ("scores", "window", "rejected")}
    line: dict[str, Any] = {
        "index": job.index,
        "status": "kept" if kept else "rejected",
        "category": job.normal.category,
        "defect_type": job.defect_type,
        "caption": sample.caption,
        "seed": job.seed,
        "redraws": redraws,
        "normal": {"file": job.normal.name, "sha": loader.sha(job.normal.image)},
        "reference": {"file": job.reference.name, "sha": loader.sha(job.reference.image), "group": job.reference.group}
        if job.reference
        else None,
        "mask_source": Path(job.mask).name if loader.mask_is_picture else job.mask,
        "warp": request.warp.to_json() if request.warp is not None else None,
        "requested_mask_sha": images.array_sha(request.mask),
        "window": sample.info.get("window"),
        "scores": sample.info.get("scores", {}),
        "info": info,
        "method": synthesizer.name,
        "options": synthesizer.options.model_dump(mode="json"),
        "flawsmith": __version__,
    }
    if image_png is None or mask_png is None:
        line["reason"] = sample.info["rejected"]
    else:
        line["image"] = f"{start}test/{job.defect_type}/{number}.png"
        line["mask"] = f"{start}ground_truth/{job.defect_type}/{number}_mask.png"
        line["prompt"] = f"{start}prompt/{job.defect_type}/{number}.txt"
        line["image_sha"] = hashlib.sha256(image_png).hexdigest()[:16]
        line["mask_sha"] = hashlib.sha256(mask_png).hexdigest()[:16]
    writer.write(line, image_png, mask_png)


def _copy_normals(made: Plan, config: GenerateConfig) -> None:
    """Copy the photographs used to train/good, byte for byte, so that the folder is a complete data set.

    Their numbers are their places among all good photographs, so that a longer run adds files and renames none.
    """
    used = {job.normal.image for job in made.jobs}
    for category, normals in made.normals.items():
        start = config.out / category if made.description["several_categories"] else config.out
        for number, path in enumerate(record.image for record in normals):
            target = start / "train" / GOOD / f"{number:05d}{path.suffix.lower()}"
            if path in used and not target.is_file():
                images.write_bytes(target, path.read_bytes(), config.out / PARTIAL, durable=False)
