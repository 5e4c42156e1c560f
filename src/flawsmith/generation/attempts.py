"""Trying until an image is good: the method paints, the gate judges, what is refused is painted anew.

The attempts of an image depend on its own seed and their number only, never on batches or on other images. Which of
them repeat another image of the run is told from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flawsmith import captions
from flawsmith.generation import gating
from flawsmith.generation.loading import Loader
from flawsmith.generation.planning import Plan, variant
from flawsmith.methods.calls import make
from flawsmith.quality.watch import Watch
from flawsmith.records import Job, Record, Request, Sample, hash_seed

MIN_ON_OBJECT = 0.5
SAME_EXEMPLAR = 2  # attempts of an image that keep its exemplar: behind a gate the next ones imitate another


@dataclass(frozen=True)
class Painted:
    """An image as it is written: what was asked for last, the sample, its redraws, and its single defects.

    `ids` (H, W) uint8: 1 for the first defect, 2 for the second; None where there is one only.
    """

    job: Job
    request: Request
    sample: Sample
    redraws: int
    changed: tuple[str, ...] = ()  # what the last attempt differs in from the first
    ids: np.ndarray | None = None
    instances: list[dict[str, Any]] = field(default_factory=list)


class Attempts:
    """Paints one block of jobs; `watch` is None where no gate refuses anything.

    repeated: attempts, by their number, whose image is known to be like another one of the run.
    """

    def __init__(
        self,
        made: Plan,
        loader: Loader,
        paint: Callable[[Sequence[Request]], Sequence[Sample]],
        watch: Watch | None,
        repeated: Collection[int] = (),
    ) -> None:
        self.made, self.loader, self.painter, self.watch = made, loader, paint, watch
        self.repeated = repeated
        self.tries = loader.config.redraws()

    def paint(self, block: Sequence[Job]) -> list[Painted]:
        """The images of a block, kept or refused after all attempts."""
        done = self._one_each([job.painted[0] for job in block])
        if not self.loader.config.combine and self.loader.config.defects[1] == 1:
            return done
        done = self._more(block, done)
        return [self._whole(job, one) if job.parts else one for job, one in zip(block, done, strict=True)]

    def _one_each(self, jobs: Sequence[Job], onto: Sequence[Sample] | None = None) -> list[Painted]:
        """One defect each, on the photographs or on the images `onto`."""

        def asked(place: int, redraw: int) -> Request:
            job = self._job(jobs[place], redraw)
            return self.loader.request(job, redraw, None if onto is None else onto[place])

        def judge(place: int, redraw: int, request: Request, sample: Sample) -> Sample:
            taken = None if onto is None else onto[place].mask
            judged = self._judged(jobs[place], redraw, request, sample, taken)
            if self.watch is None or onto is not None or redraw not in self.repeated or "rejected" in judged.info:
                return judged
            return self.watch.refuse_repeat(jobs[place].index, redraw, request, judged)

        def foresee(place: int, redraw: int, request: Request) -> Sample | None:
            return None if self.watch is None else self.watch.foresee(jobs[place].index, redraw, request)

        results = make(self.painter, asked, len(jobs), self.tries, judge, foresee=foresee)
        painted = []
        for job, (request, sample, redraws) in zip(jobs, results, strict=True):
            last = self._job(job, redraws)
            changed = ("seed",) * (redraws > 0) + ("exemplar",) * (last.reference != job.reference)
            painted.append(Painted(last, request, sample, redraws, changed))
        return painted

    def _job(self, job: Job, redraw: int) -> Job:
        """What is asked for at an attempt: behind a gate from the third on like another exemplar.

        One that is larger than the gate lets pass is not imitated at all where its type has smaller ones.
        """
        if self.watch is None or job.reference is None:
            return job
        known, gate = self.made.exemplars[job.normal.category, job.defect_type], self.watch.gate

        def fits(exemplar: Record) -> bool:
            return gating.fits(exemplar, gate, self.loader, job.normal, job.mask)

        if redraw < SAME_EXEMPLAR and (fits(job.reference) or not any(map(fits, known))):
            return job
        return variant(self.made, job, redraw, fits=fits)

    def _judged(
        self, job: Job, redraw: int, request: Request, sample: Sample, taken: np.ndarray | None = None
    ) -> Sample:
        """A refused image is never written: its pixels are let go for the photograph's own.

        taken: (H, W) bool, the labels of the defects that are there.
        """
        if taken is not None:
            sample = _off_others(sample, taken)
        product = None if self.loader.mask_is_file else self.loader.allowed(job.normal)
        if product is not None:  # a mask that the user painted is the user's word
            sample = _on_object(sample, product)
        if self.watch is not None:
            sample = self.watch.judge(job.index, redraw, request, sample, product)
        return replace(sample, image=request.normal.image) if "rejected" in sample.info else sample

    def _more(self, block: Sequence[Job], done: list[Painted]) -> list[Painted]:
        """The images with all further defects that each is to have.

        Of several of one type, one that finds no good place is left out; an image of several types that lacks one is
        refused.
        """
        further = [self._further(job, one.job) for job, one in zip(block, done, strict=True)]
        done = [
            one if self.loader.config.combine and not job.parts else _counted(one)
            for job, one in zip(block, done, strict=True)
        ]
        for turn in range(max(map(len, further))):
            left = (place for place, jobs in enumerate(further) if len(jobs) > turn)
            places = [place for place in left if "rejected" not in done[place].sample.info]
            if not places:
                break
            found = self._one_each([further[place][turn] for place in places], [done[place].sample for place in places])
            for place, more in zip(places, found, strict=True):
                if "rejected" not in more.sample.info:
                    done[place] = _joined(done[place], more)
                elif block[place].parts:
                    done[place] = _lacking(done[place], more)
        return done

    def _whole(self, job: Job, one: Painted) -> Painted:
        """An image of several types in its own words; scores stand with its parts only."""
        if "rejected" in one.sample.info:
            caption, info = job.caption, {"rejected": one.sample.info["rejected"]}
        else:
            kinds, said = ([part[key] for part in one.instances] for key in ("defect_type", "caption"))
            caption, info = captions.together(job.normal.category, kinds, said), {}
        sample = replace(one.sample, defect_type=job.defect_type, caption=caption, info=info)
        return replace(one, job=job, sample=sample)

    def _further(self, job: Job, first: Job) -> Sequence[Job]:
        """What is painted after the `first` defect of a job."""
        if job.parts or self.loader.config.combine:
            return job.parts[1:]
        low, high = self.loader.config.defects
        wanted = low + hash_seed(first.seed, "defects") % (high - low + 1)
        return [self._another(first, turn) for turn in range(1, wanted)]

    def _another(self, job: Job, turn: int) -> Job:
        target = None if job.target is None else replace(job.target, place=None)  # beside the first, not on it
        return variant(self.made, replace(job, seed=hash_seed(job.seed, "defect", turn), target=target), turn)


def _off_others(sample: Sample, taken: np.ndarray) -> Sample:
    """Refuse a label that meets those of the image's other defects: each pixel is of one defect."""
    shared = int((sample.mask & taken).sum())
    if "rejected" in sample.info or not shared:
        return sample
    share = shared / int(sample.mask.sum())
    return replace(sample, info={**sample.info, "rejected": f"on another defect ({share:.0%} of the label on it)"})


def _on_object(sample: Sample, product: np.ndarray) -> Sample:
    """Refuse a label that lies off the object."""
    if "rejected" in sample.info:
        return sample
    share = float((sample.mask & product).sum()) / max(1, int(sample.mask.sum()))
    info = {**sample.info, "scores": {**sample.info.get("scores", {}), "on_object": round(share, 4)}}
    if share < MIN_ON_OBJECT:
        info["rejected"] = f"off the object ({share:.0%} of the label on it)"
    return replace(sample, info=info)


def _instance(one: Painted, number: int) -> dict[str, Any]:
    """What the manifest says of one of several defects."""
    facts: dict[str, Any] = {"id": number, "defect_type": one.job.defect_type, "caption": one.sample.caption}
    facts["seed"] = one.job.seed
    facts |= {"redraws": one.redraws, "area": int(one.sample.mask.sum()), "window": one.sample.info.get("window")}
    facts["reference"] = one.job.reference.name if one.job.reference else None
    facts["warp"] = one.request.warp.to_json() if one.request.warp is not None else None
    return facts | {"scores": one.sample.info.get("scores", {}), "checks": one.sample.info.get("checks", {})}


def _counted(one: Painted) -> Painted:
    return replace(one, ids=one.sample.mask.astype(np.uint8), instances=[_instance(one, 1)])


def _joined(one: Painted, more: Painted) -> Painted:
    """An image and the one with a further defect painted onto it."""
    assert one.ids is not None
    number = len(one.instances) + 1
    ids = np.where(more.sample.mask, np.uint8(number), one.ids)
    sample = replace(one.sample, image=more.sample.image, mask=ids > 0)
    changed = tuple(dict.fromkeys((*one.changed, *more.changed)))
    return replace(one, sample=sample, ids=ids, instances=[*one.instances, _instance(more, number)], changed=changed)


def _lacking(one: Painted, more: Painted) -> Painted:
    """An image that did not get one of its defects."""
    reason = f"no good {more.job.defect_type} beside the rest ({more.sample.info['rejected']})"
    return replace(one, sample=replace(one.sample, info={**one.sample.info, "rejected": reason}))
