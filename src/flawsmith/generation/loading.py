"""From words to pixels: the Loader turns a Job into a Request, within a budget of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

import cv2
import numpy as np

from flawsmith import captions, compose, images, masks
from flawsmith.config import GenerateConfig
from flawsmith.errors import FlawsmithError
from flawsmith.masks import large
from flawsmith.masks.growth import side_of
from flawsmith.masks.options import severity_of
from flawsmith.masks.placement import bell, clear_of
from flawsmith.masks.structure import following
from flawsmith.records import Growth, Job, Record, Request, Sample, Target, hash_seed
from flawsmith.registry import resolve

CACHE_BYTES = 192 << 20  # decoded photographs kept between jobs; one larger than this is not kept at all

State = tuple[int, int, int]  # of a file: when it was written, its size, its number
Known = dict[Path, tuple[str, State | None]]  # of a file: its checksum, or "", and what it looked like then


class Loader:
    """Loads requests; keeps recently decoded photographs and their object masks within a byte budget.

    Several threads may ask it at once. `known`: files of which this run knows already what they are.
    """

    def __init__(self, config: GenerateConfig, known: Known | None = None) -> None:
        self.config = config
        self._lock = RLock()
        self._cache: OrderedDict[tuple[str, str], tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._alive: WeakValueDictionary[tuple[str, str], Any] = (
            WeakValueDictionary()
        )  # too large to keep, still in use
        self.known: Known = dict(known or {})
        self._heats: dict[tuple[int, ...], np.ndarray] = {}
        mask = config.mask
        self.mask_is_file = mask is not None and mask not in masks.MASKS
        self.mask_run = config.mask_run()
        self._learned: Any = None
        self.mask_options = masks.MaskOptions() if self.mask_is_file else masks.mask_options(config.mask_options)

    def _keep(self, kind: str, path: Path, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        key = (kind, str(path))
        with self._lock:
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
        return self._keep("sample", record.image, lambda: self._load(record), lambda s: s.image.nbytes + s.mask.nbytes)

    def _load(self, record: Record) -> Sample:
        self.sha(record.image)  # before the pixels: so a file that changes meanwhile is noticed when it is named
        sample = record.load()
        if record.is_good or sample.mask.size <= large.LARGE or not sample.mask.any():
            return sample
        view = compose.window(sample.mask, minimum=1024, context=2.0).slices
        info = {**sample.info, "whole": sample.mask.size}
        return replace(sample, image=sample.image[view].copy(), mask=sample.mask[view].copy(), info=info)

    def side(self, record: Record) -> float:
        """The square root of the share of its photograph that a record's mask covers, 0 to 1."""
        return side_of(self.sample(record))

    def note(self, path: Path) -> None:
        """Remember what a file looks like before the first image is painted; its content is not read."""
        self.known.setdefault(path, ("", _state(path)))

    def expect(self, path: Path, sha: str) -> None:
        """Remember the content of a file that was painted on, by an earlier run or by another process."""
        if self.known.get(path, ("", None))[0] != sha:
            self.known[path] = sha, None

    def contents(self) -> Known:
        """Every file that this run knows, by its content alone: another machine sees other times and numbers."""
        return {path: (self.sha(path), None) for path in self.known}

    def sha(self, path: Path) -> str:
        """A file's checksum. Raises FlawsmithError where the file is gone, or another one than this run knows."""
        now, (sha, seen) = _state(path), self.known.get(path, ("", None))
        if not sha or seen != now:
            found = images.file_sha(path)
            if found != sha if sha else seen not in (None, now):
                raise FlawsmithError(
                    f"Image {path} has changed since this run began: put the old one back and run the same command "
                    "again, or choose another --out."
                )
            self.known[path] = found, now
            return found
        return sha

    def allowed(self, record: Record) -> np.ndarray:
        """Where a defect may sit: the object, and inside the region of interest when one is given; (H, W) bool."""

        def make() -> np.ndarray:
            image = self.sample(record).image
            allowed = masks.foreground(image)
            if self.config.roi is not None:
                allowed = allowed & self.mask_file(self.config.roi, image.shape[:2], "Region of interest", record.image)
            if not allowed.any():
                raise FlawsmithError(
                    f"The region of interest {self.config.roi} and the object in {record.image} do not meet: "
                    "paint white where defects may sit."
                )
            return allowed

        return self._keep("allowed", record.image, make, lambda mask: mask.nbytes)

    def mask_file(self, path: Path, shape: tuple[int, ...], what: str, photo: Path) -> np.ndarray:
        """The mask (H, W) bool in an image, refused when it is empty or not of the photograph's size."""
        mask = self._keep("mask", path, lambda: images.read_mask(path), lambda mask: mask.nbytes)
        if mask.shape != tuple(shape):
            raise FlawsmithError(
                f"{what} {path} is {mask.shape[1]} x {mask.shape[0]} pixels, {photo} is {shape[1]} x {shape[0]}: "
                "make them the same size, or run photographs of different sizes one by one."
            )
        if not mask.any():
            raise FlawsmithError(f"{what} {path} is empty: paint white where the defect may sit.")
        return mask

    def heat(self, shape: tuple[int, ...], target: Target | None = None) -> np.ndarray | None:
        """The heat map at a photograph's size, (H, W) float32; None where none was given.

        Without one it is a bell around the place of a `target`: of all jobs together the density of those places.
        """
        if self.config.heat is None:
            return None if target is None or target.place is None else bell(shape, target.place)
        if shape not in self._heats:
            grey = images.read_image(self.config.heat).mean(axis=2).astype(np.float32)
            self._heats[shape] = cv2.resize(grey, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
        return self._heats[shape]

    def _options(self, job: Job, severity: float | None, growth: Growth) -> masks.MaskOptions:
        """The dials of a job's mask: the user's, a real one that has grown, what the job aims at, its words."""
        options = self.mask_options.grown(growth)
        told: dict[str, Any] = {}
        if job.target is not None and options.size is None:
            told["size"] = job.target.size
        if severity is not None and options.severity is None:
            told["severity"] = severity
        if job.mask == "component" and options.colour is None:  # "the red part is missing" means a red one
            told["colour"] = captions.parse(job.caption, job.normal.category).colour or None
        return options.model_copy(update=told)

    def _learned_mask(self, job: Job, allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A mask of the run's model for the job's type and caption, (H, W) bool."""
        with self._lock:
            if self._learned is None:
                self._learned = resolve("learned", masks.MASKS, "Mask").load(self.mask_run)
            mask: np.ndarray = self._learned.draw(f"{job.normal.category}/{job.defect_type}", job.caption, allowed, rng)
        return mask

    def request(self, job: Job, redraw: int = 0, onto: Sample | None = None) -> Request:
        """The pixels of a job. `redraw` > 0 draws the mask and the method's noise anew.

        onto: an image of the job's photograph with defects, to which another one is added, clear of its mask.
        """
        reference = self.sample(job.reference) if job.reference else None  # first: it is cropped, the normal is not
        normal = self.sample(job.normal) if onto is None else replace(onto, mask=np.zeros_like(onto.mask))
        aimed = None if job.target is None else job.target.severity
        severity = severity_of(self.config.severity or aimed, job.seed)
        seed, growth = job.seed if redraw == 0 else hash_seed(job.seed, redraw), job.growth.nearer(redraw)
        family, growth = following(job.mask, growth, reference, self.config.mask is not None)
        others = tuple(self.sample(record) for record in job.others)
        warp = None
        if self.mask_is_file:
            mask = self.mask_file(Path(job.mask), normal.image.shape[:2], "Mask", job.normal.image)
        else:
            rng = np.random.default_rng(hash_seed(seed, "mask"))
            allowed = self.allowed(job.normal)
            if onto is not None:
                allowed = clear_of(allowed, onto.mask)
            if self.mask_run is not None:
                mask = self._learned_mask(job, allowed, rng)
                return Request(normal, mask, job.defect_type, job.caption, reference, seed, None, others, severity)
            options, heat = self._options(job, severity, growth), self.heat(allowed.shape, job.target)
            mask, warp = large.draw(family, allowed, rng, options, reference, normal.image, others, heat)
        whole = family == "whole"
        return Request(
            normal, mask, job.defect_type, job.caption, reference, seed, warp, others, severity, whole, growth.contrast
        )


def _state(path: Path) -> State:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise FlawsmithError(
            f"Image {path} does not exist any more: put it back and run the same command again; it resumes."
        ) from None
    return found.st_mtime_ns, found.st_size, found.st_ino
