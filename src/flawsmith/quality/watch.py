"""What is told of a gate's work: each refusal with its reason, score and a thumbnail."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from flawsmith import compose, images
from flawsmith.quality.gate import CHECKS, Gate
from flawsmith.records import Request, Sample

CELL = 128  # px, the side of each of a thumbnail's two views


class Watch:
    """Judges every attempt and keeps account of the refused ones, by a place that the caller names.

    `refused[place]`: dicts of attempt, seed, check, score, limit, reason, in order; `thumbnails[place, i]`: the i-th's
    JPEG, where there is something to see.
    """

    def __init__(self, gate: Gate, copies: bool) -> None:
        self.gate = gate
        self.copies = copies
        self.refused: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self.thumbnails: dict[tuple[int, int], bytes] = {}

    def foresee(self, place: int, attempt: int, request: Request) -> Sample | None:
        """A request that cannot come to good, noted and refused before it is painted; None for any other."""
        found = self.gate.too_large(request)
        if found is None:
            return None
        normal, none = request.normal, np.zeros_like(request.mask)
        info = {"rejected": found.reason, "checks": {found.check: round(found.score, 4)}}
        sample = Sample(normal.image, none, normal.category, request.defect_type, request.caption, info)
        self._note(place, attempt, request, found.check, round(found.score, 4), found.limit, found.reason, sample)
        return sample

    def judge(self, place: int, attempt: int, request: Request, sample: Sample, product: np.ndarray | None) -> Sample:
        """The sample with its scores as `info["checks"]`; refused with `info["rejected"]` and the photograph's pixels.

        One that the method itself refused is only noted.
        """
        said = sample.info.get("rejected")
        if said is not None or not sample.mask.any():
            self._note(place, attempt, request, _check_of(str(said)), None, None, str(said), sample)
            return sample
        verdict = self.gate.judge(sample, request, product, self.copies or sample.info.get("carried", False))
        judged = verdict.sample
        scores = dict(judged.info.get("scores", {}))
        if judged is not sample:  # the label was shrunk
            scores["area"] = int(judged.mask.sum())
            scores["change_iou"] = round(scores["area"] / max(1, int(request.mask.sum())), 4)
        info = {**judged.info, "scores": scores, "checks": verdict.scores}
        judged = replace(judged, info=info)
        if verdict.refusal is None:
            return judged
        found = verdict.refusal
        self._note(place, attempt, request, found.check, found.score, found.limit, found.reason, sample)
        return replace(judged, image=request.normal.image, info={**info, "rejected": found.reason})

    def refuse_repeat(self, place: int, attempt: int, request: Request, sample: Sample) -> Sample:
        """A good sample that is like another image of the run, noted and refused."""
        check = CHECKS["duplicate"]
        reason = f"duplicate: {check.says}"
        self._note(place, attempt, request, "duplicate", 1.0, check.normal, reason, sample)
        return replace(sample, image=request.normal.image, info={**sample.info, "rejected": reason})

    def _note(
        self,
        place: int,
        attempt: int,
        request: Request,
        check: str,
        score: float | None,
        limit: float | None,
        reason: str,
        sample: Sample,
    ) -> None:
        if sample.mask.any():
            self.thumbnails[place, len(self.refused[place])] = thumbnail(sample)
        asked = {"attempt": attempt, "seed": request.seed, "defect_type": request.defect_type}
        self.refused[place].append({**asked, "check": check, "score": score, "limit": limit, "reason": reason})


def _check_of(reason: str) -> str:
    """Which check the method's own refusal belongs to (`compose.finish` and the object's outline)."""
    if reason.startswith(("off the object", "on another defect")):
        return "place"
    return "visibility" if "faint" in reason else "label"


def thumbnail(sample: Sample) -> bytes:
    """A JPEG of a defect's window, plain and with its label: (CELL, 2 * CELL + 4, 3)."""
    view = compose.square_window(sample.mask, 64, 2.0).slices
    plain = np.ascontiguousarray(sample.image[view])
    cells = [images.fit(shown, CELL) for shown in (plain, images.overlay(plain, sample.mask[view]))]
    return images.encode_jpeg(np.concatenate([cells[0], np.full((CELL, 4, 3), 255, np.uint8), cells[1]], axis=1))
