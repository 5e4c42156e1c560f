"""Trying until an image is good: the method paints, the gate judges, what is refused is painted anew.

The attempts of an image depend on its own seed and their number only, never on batches or on other images. Which of
them repeat another image of the run is told from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flawsmith.generation.loading import Loader
from flawsmith.generation.planning import Plan, variant
from flawsmith.methods.calls import make
from flawsmith.quality.watch import Watch
from flawsmith.records import Job, Request, Sample, hash_seed

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
        done = self._first(block)
        if self.loader.config.defects[1] > 1:
            done = self._more(done)
        return done

    def _first(self, jobs: Sequence[Job], onto: Sequence[Sample] | None = None) -> list[Painted]:
        """One defect each, on the photographs or on the images `onto`."""

        def asked(place: int, redraw: int) -> Request:
            job = self._job(jobs[place], redraw)
            return self.loader.request(job, redraw, None if onto is None else onto[place])

        def judge(place: int, redraw: int, request: Request, sample: Sample) -> Sample:
            judged = self._judged(jobs[place], redraw, request, sample)
            if self.watch is None or onto is not None or redraw not in self.repeated or "rejected" in judged.info:
                return judged
            return self.watch.refuse_repeat(jobs[place].index, redraw, request, judged)

        results = make(self.painter, asked, len(jobs), self.tries, judge)
        painted = []
        for job, (request, sample, redraws) in zip(jobs, results, strict=True):
            last = self._job(job, redraws)
            changed = ("seed",) * (redraws > 0) + ("exemplar",) * (last.reference != job.reference)
            painted.append(Painted(last, request, sample, redraws, changed))
        return painted

    def _job(self, job: Job, redraw: int) -> Job:
        """What is asked for at an attempt: behind a gate from the third on like another exemplar."""
        if self.watch is None or redraw < SAME_EXEMPLAR:
            return job
        return variant(self.made, job, redraw)

    def _judged(self, job: Job, redraw: int, request: Request, sample: Sample) -> Sample:
        """A refused image is never written: its pixels are let go for the photograph's own."""
        product = None if self.loader.mask_is_file else self.loader.allowed(job.normal)
        if product is not None:  # a mask that the user painted is the user's word
            sample = _on_object(sample, product)
        if self.watch is not None:
            sample = self.watch.judge(job.index, redraw, request, sample, product)
        return replace(sample, image=request.normal.image) if "rejected" in sample.info else sample

    def _more(self, done: list[Painted]) -> list[Painted]:
        """The images with as many further defects as each is to have; one that finds no good place is left out."""
        low, high = self.loader.config.defects
        wanted = [low + hash_seed(one.job.seed, "defects") % (high - low + 1) for one in done]
        done = [_counted(one) for one in done]
        for turn in range(1, max(wanted)):
            places = [
                place for place, one in enumerate(done) if wanted[place] > turn and "rejected" not in one.sample.info
            ]
            if not places:
                break
            jobs = [self._further(done[place].job, turn) for place in places]
            found = self._first(jobs, [done[place].sample for place in places])
            for place, more in zip(places, found, strict=True):
                if "rejected" not in more.sample.info:
                    done[place] = _joined(done[place], more)
        return done

    def _further(self, job: Job, turn: int) -> Job:
        target = None if job.target is None else replace(job.target, place=None)  # beside the first, not on it
        return variant(self.made, replace(job, seed=hash_seed(job.seed, "defect", turn), target=target), turn)


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
    facts: dict[str, Any] = {"id": number, "defect_type": one.job.defect_type, "seed": one.job.seed}
    facts |= {"redraws": one.redraws, "area": int(one.sample.mask.sum()), "window": one.sample.info.get("window")}
    facts["reference"] = one.job.reference.name if one.job.reference else None
    return facts | {"scores": one.sample.info.get("scores", {}), "checks": one.sample.info.get("checks", {})}


def _counted(one: Painted) -> Painted:
    return replace(one, ids=one.sample.mask.astype(np.uint8), instances=[_instance(one, 1)])


def _joined(one: Painted, more: Painted) -> Painted:
    """An image and the one with a further defect painted onto it."""
    assert one.ids is not None
    number = len(one.instances) + 1
    ids = np.where(more.sample.mask, np.uint8(number), one.ids)
    sample = replace(one.sample, image=more.sample.image, mask=ids > 0)
    return replace(one, sample=sample, ids=ids, instances=[*one.instances, _instance(more, number)])
